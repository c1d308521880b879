"""Measures on this machine: every repeat in a process of its own, pinned to its cores."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from afd_benchmark.host.worker import HostAnswer, HostRequest
from afd_benchmark.latency_stats import outliers
from afd_benchmark.measure import Settings
from afd_benchmark.plan import CPU, EXTERNAL, PlannedCase
from afd_benchmark.processor import processor_features, processor_model
from afd_benchmark.raw_logs import keep_log
from afd_benchmark.results import Condition, Core, Delegation, Device, ProfiledOperation, Repeat
from afd_benchmark.targets import Pixels, Target
from afd_mobile.common.artifacts import versions_of
from afd_mobile.common.errors import MeasurementError

HOST = "host"


class HostRunner:
    """This machine, through LiteRT with XNNPACK, or an external delegate."""

    tool = "LiteRT"

    def __init__(self, settings: Settings, out: Path) -> None:
        self._settings = settings
        self._out = out
        self._started = time.monotonic()
        self._cores = sorted(os.sched_getaffinity(0))
        self._runtime = f"LiteRT {versions_of('ai-edge-litert')['ai-edge-litert']}"
        self.device = _describe(self._cores)

    @property
    def name(self) -> str:
        return HOST

    def refuses(self, backend: str, threads: int) -> str | None:
        if backend != CPU and not backend.startswith(EXTERNAL):
            return f"LiteRT has no {backend} backend on a host; plug in a phone and give --device"
        if backend.startswith(EXTERNAL) and not Path(backend.removeprefix(EXTERNAL)).is_file():
            return f"there is no library {backend.removeprefix(EXTERNAL)}"
        if threads > len(self._cores):
            return f"{threads} threads on {len(self._cores)} cores"
        return None

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npy"
            images = np.stack([picture.image for picture in target.golden])
            self._run(case, target, log, images, path, Path(folder))
            return list(np.load(path))

    def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
        images = target.timed_image[None]
        before_s = time.monotonic() - self._started
        with tempfile.TemporaryDirectory() as folder:
            answer, raw = self._run(case, target, log, images, None, Path(folder))
        assert answer.reference_gflops is not None
        before, after = answer.reference_gflops
        return Repeat(
            init_ms=answer.init_ms,
            first_ms=answer.first_ms,
            warmup_ms=answer.warmup_ms,
            samples_ms=answer.samples_ms,
            median_ms=float(np.median(answer.samples_ms)),
            statistic="median",
            runs=len(answer.samples_ms),
            outliers=outliers(answer.samples_ms),
            delegation=_delegation(case.backend, answer),
            runtime=self._runtime,
            peak_memory_bytes=answer.peak_memory_bytes or None,
            before=Condition(at_s=before_s, reference_gflops=before),
            after=Condition(at_s=time.monotonic() - self._started, reference_gflops=after),
            log=log,
            log_sha256=hashlib.sha256(raw).hexdigest(),
        )

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        """None: LiteRT's Python interface has no profiler; `afd-bench cost` has every operation."""
        return []

    def _run(
        self,
        case: PlannedCase,
        target: Target,
        log: str,
        images: NDArray[np.float32],
        outputs: Path | None,
        folder: Path,
    ) -> tuple[HostAnswer, bytes]:
        """The worker's answer, and everything it said, which is kept in `log` whatever it was."""
        settings = self._settings
        library = case.backend.removeprefix(EXTERNAL)
        np.save(folder / "images.npy", images)
        request = HostRequest(
            model=str(target.local_path.resolve()),
            input_shape=target.input_shape,
            images=str(folder / "images.npy"),
            outputs=str(outputs) if outputs else None,
            threads=case.threads,
            cores=self._cores[-case.threads :],
            delegate=str(Path(library).resolve()) if case.backend != CPU else None,
            delegate_options=settings.delegate_options,
            warmup_runs=settings.warmup_runs,
            warmup_min_secs=settings.warmup_min_secs,
            runs=settings.runs,
            min_secs=settings.min_secs,
            max_secs=settings.max_secs,
        )
        try:
            done = subprocess.run(
                [sys.executable, "-m", "afd_benchmark.host.worker"],
                input=msgspec.json.encode(request),
                capture_output=True,
                env=_environment(),
                timeout=settings.time_limit_secs,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self._keep(log, error.stdout, error.stderr)
            raise MeasurementError(
                f"did not end within {settings.time_limit_secs:g} s ({log})"
            ) from error
        raw = self._keep(log, done.stdout, done.stderr)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise MeasurementError(
                f"the process ended with {_exit(done.returncode)}: {said[-1] if said else 'silent'}"
            )
        return msgspec.json.decode(done.stdout, type=HostAnswer), raw

    def _keep(self, log: str, stdout: bytes | None, stderr: bytes | None) -> bytes:
        raw = b"%s\n%s" % (stderr or b"", stdout or b"")
        keep_log(self._out / log, raw)
        return raw


def _environment() -> dict[str, str]:
    """One thread for numpy's product, and nothing that makes LiteRT's own choice for it."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _delegation(backend: str, answer: HostAnswer) -> Delegation:
    """On the CPU XNNPACK takes what it can; an external delegate's share is all the kernels'."""
    return Delegation(
        asked=backend,
        actual=backend if backend == CPU or answer.partitions else CPU,
        delegate="TfLiteXNNPackDelegate" if backend == CPU and answer.partitions else None,
        delegated=answer.delegated,
        nodes=answer.nodes,
        partitions=answer.partitions,
        whole=answer.delegated == answer.nodes,
    )


def _describe(cores: list[int]) -> Device:
    clocks = [_read(f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq") for i in cores]
    cpuinfo = _read("/proc/cpuinfo") or ""
    features = processor_features(cpuinfo)
    missing = {
        "temperatures": True,
        "clocks": not any(clocks),
        "processor features": features is None,
    }
    return Device(
        name=HOST,
        kind="host",
        model=processor_model(cpuinfo) or platform.processor() or platform.machine(),
        soc=None,
        system=f"{platform.system()} {platform.release()}",
        abi=platform.machine(),
        features=features,
        cores=[
            Core(index, int(clock) / 1000 if clock else None)
            for index, clock in zip(cores, clocks, strict=True)
        ],
        gpu=None,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        lacks=[what for what, absent in missing.items() if absent],
    )


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
