"""Measures on a phone with TFLite's `benchmark_model`: push, run, read its log strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from afd_benchmark.adb import LocalFile, Phone, ShellOutput
from afd_benchmark.measure import Settings
from afd_benchmark.native_log import ToolRun, parse_log
from afd_benchmark.native_profile import parse_profile
from afd_benchmark.native_tool import GoldenRun, benchmark_flags
from afd_benchmark.phone_facts import api_level, big_cores, read_device
from afd_benchmark.phone_session import FOLDER, PhoneSession, open_session
from afd_benchmark.plan import CPU, EXTERNAL, GPU, NNAPI, PlannedCase
from afd_benchmark.raw_logs import keep_log
from afd_benchmark.results import Delegation, ProfiledOperation, Repeat
from afd_benchmark.targets import Pixels, Target
from afd_mobile.errors import InputError, MeasurementError
from afd_mobile.litert import dequantize, quantize

_KILLED = 137  # 128 + SIGKILL: what Android's low-memory killer does


class PhoneRunner:
    """One phone. Cases run inside `session`."""

    tool = "benchmark_model"

    def __init__(
        self,
        phone: Phone,
        tool: LocalFile,
        libraries: Mapping[str, LocalFile],
        settings: Settings,
        out: Path,
        notice: Callable[[str], None],
        progress: Callable[[str], None],
    ) -> None:
        """Reads what the phone is; takes and changes nothing yet.

        Args:
            libraries: external delegates by their path here.
        """
        self._phone = phone
        self._tool = tool
        self._libraries = libraries
        self._settings = settings
        self._out = out
        self._notice = notice
        self._progress = progress
        self._session_: PhoneSession | None = None
        self.device = read_device(phone)

    @property
    def name(self) -> str:
        return self.device.name

    def refuses(self, backend: str, threads: int) -> str | None:
        if threads > len(self.device.cores):
            return f"{threads} threads on {len(self.device.cores)} cores"
        if backend == GPU and self.device.gpu is None:
            return "the phone names no GPU"
        if backend == NNAPI and 0 < api_level(self.device) < 27:
            return f"NNAPI came with API 27; this is {self.device.system}"
        if backend.startswith(EXTERNAL) and backend.removeprefix(EXTERNAL) not in self._libraries:
            return f"there is no library {backend.removeprefix(EXTERNAL)} to push"
        return None

    @contextmanager
    def session(self, owner: str) -> Iterator[None]:
        """Takes the phone, and leaves it as it was.

        Raises:
            DeviceError: another run has it.
        """
        with open_session(self._phone, self.device, owner, self._notice) as session:
            self._session_ = session
            yield
        self._session_ = None

    @property
    def _session(self) -> PhoneSession:
        assert self._session_ is not None, "cases run inside session()"
        return self._session_

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        results = []
        for number, picture in enumerate(target.golden, 1):
            pixels = quantize(picture.image, target.input)
            remote = self._session.push(LocalFile.of(pixels.tobytes()), "input.bin")
            output = str(FOLDER / "output.bin")
            golden = GoldenRun(target.input.name, target.input.shape, remote, output)
            self._run(case, target, log.replace(".log", f"-{number}.log"), golden=golden)
            content = self._phone.pull(output)
            self._phone.shell(["rm", "-f", output])
            expected = int(np.prod(target.output.shape)) * np.dtype(target.output.dtype).itemsize
            if len(content) != expected:
                raise MeasurementError(
                    f"wrong outputs: {len(content)} bytes for {picture.name}, expected {expected}"
                )
            values = np.frombuffer(content, target.output.dtype).reshape(target.output.shape)
            results.append(dequantize(values, target.output))
        return results

    def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
        before = self._session.cool_down(self._settings.cool_down_secs, self._progress)
        run, raw = self._run(case, target, log)
        after = self._session.after_repeat()
        return Repeat(
            init_ms=run.init_ms,
            first_ms=run.first_ms,
            warmup_ms=run.warmup_avg_ms,
            samples_ms=[],
            median_ms=run.inference_avg_ms if run.median_ms is None else run.median_ms,
            statistic="mean" if run.median_ms is None else "median",
            runs=run.runs,
            outliers=[],
            delegation=_delegation(case.backend, run),
            peak_memory_bytes=run.peak_memory_bytes,
            before=before,
            after=after,
            log=log,
            log_sha256=hashlib.sha256(raw).hexdigest(),
        )

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        remote = str(FOLDER / "profile.csv")
        self._run(case, target, log, profile=remote)
        content = self._phone.pull(remote)
        keep_log((self._out / log).with_suffix(".csv"), content)
        try:
            return parse_profile(content.decode(errors="replace"))
        except InputError as error:
            raise MeasurementError(f"operation profile: {error}") from error

    def _run(
        self,
        case: PlannedCase,
        target: Target,
        log: str,
        *,
        golden: GoldenRun | None = None,
        profile: str | None = None,
    ) -> tuple[ToolRun, bytes]:
        """One start of the tool, and everything it said, which is kept in `log` whatever it was.

        Raises:
            MeasurementError: it failed, or its log is no good.
        """
        settings = self._settings
        push = self._session.push
        tool = push(self._tool, "benchmark_model", executable=True)
        model = push(LocalFile(target.sha256, target.path), f"{target.sha256[:16]}.tflite")
        flags = benchmark_flags(
            graph=model,
            backend=self._backend(case.backend),
            threads=case.threads,
            runs=1 if golden else settings.runs,
            min_secs=0 if golden else settings.min_secs,
            max_secs=settings.max_secs,
            warmup_runs=1 if golden else settings.warmup_runs,
            warmup_min_secs=0 if golden else settings.warmup_min_secs,
            delegate_options=settings.delegate_options if case.backend.startswith(EXTERNAL) else {},
            full_delegation=settings.full_delegation and case.backend != CPU,
            profile_file=profile,
            golden=golden,
        )
        command = [*self._pinning(case.threads), tool, *flags]
        output = self._phone.shell(command, timeout_s=settings.time_limit_secs)
        raw = _raw_log(command, output)
        keep_log(self._out / log, raw)
        if output.exit_code == _KILLED:
            raise MeasurementError("the tool was killed (SIGKILL): most likely out of memory")
        try:
            return parse_log(output.stdout, output.stderr, output.exit_code), raw
        except InputError as error:
            raise MeasurementError(f"{error} ({log})") from error

    def _backend(self, backend: str) -> str:
        """An external delegate's library, where it is on the phone."""
        if not backend.startswith(EXTERNAL):
            return backend
        path = backend.removeprefix(EXTERNAL)
        return EXTERNAL + self._session.push(self._libraries[path], Path(path).name)

    def _pinning(self, threads: int) -> list[str]:
        cores = big_cores(self.device, threads)
        if not cores or "core pinning" in self.device.lacks:
            return []
        return ["taskset", f"{sum(1 << core for core in cores):x}"]


def _delegation(asked: str, run: ToolRun) -> Delegation:
    """By the tool's own words; where it shows no delegate, the CPU's kernels ran."""
    actual = run.backend or CPU
    if asked.startswith(EXTERNAL) and actual == EXTERNAL + Path(asked).name:
        actual = asked  # the tool names the library's file only
    return Delegation(
        asked=asked,
        actual=actual,
        delegate=run.delegate,
        delegated=run.delegated,
        nodes=run.nodes,
        partitions=run.partitions,
        whole=run.fully_delegated,
    )


def _raw_log(command: list[str], output: ShellOutput) -> bytes:
    parts = [f"$ {' '.join(command)}", output.stdout, "--- stderr ---", output.stderr]
    return "\n".join([*parts, f"--- exit code {output.exit_code} ---", ""]).encode()
