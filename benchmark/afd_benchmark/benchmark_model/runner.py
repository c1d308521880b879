"""`benchmark_model` on a phone: push, run, read its log strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from afd_benchmark.benchmark_model.command import GoldenRun, benchmark_flags
from afd_benchmark.benchmark_model.log import ToolRun, parse_log
from afd_benchmark.benchmark_model.profile import parse_profile
from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import LocalFile, ShellOutput
from afd_benchmark.phone.facts import big_cores
from afd_benchmark.phone.session import FOLDER, PhoneSession
from afd_benchmark.phone.tool import Timing, push_input, real_output
from afd_benchmark.plan import CPU, EXTERNAL, PlannedCase
from afd_benchmark.raw_logs import keep_log
from afd_benchmark.results import Delegation, ProfiledOperation
from afd_benchmark.targets import Pixels, Target
from afd_mobile.common.errors import InputError, MeasurementError

_KILLED = 137  # 128 + SIGKILL: what Android's low-memory killer does


class NativeTool:
    """TFLite's own binary. It prints averages and percentiles, no single inferences."""

    name = "benchmark_model"

    def __init__(
        self, binary: LocalFile, libraries: Mapping[str, LocalFile], settings: Settings, out: Path
    ) -> None:
        """`libraries`: external delegates by their path here."""
        self._binary = binary
        self._libraries = libraries
        self._settings = settings
        self._out = out

    def refuses(self, backend: str) -> str | None:
        if backend.startswith(EXTERNAL) and backend.removeprefix(EXTERNAL) not in self._libraries:
            return f"there is no library {backend.removeprefix(EXTERNAL)} to push"
        return None

    def begin(self, session: PhoneSession) -> None:
        self._session = session
        self._path = session.push(self._binary, "benchmark_model", executable=True)

    def end(self) -> None:
        """All of it lies in the session's folder."""

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        results = []
        for number, picture in enumerate(target.golden, 1):
            remote = push_input(self._session, target, picture.image, number)
            output = str(FOLDER / "output.bin")
            golden = GoldenRun(target.input.name, target.input.shape, remote, output)
            self._run(case, target, log.replace(".log", f"-{number}.log"), golden=golden)
            content = self._session.phone.pull(output)
            self._session.phone.shell(["rm", "-f", output])
            results.append(real_output(content, target, picture.name))
        return results

    def time(self, case: PlannedCase, target: Target, log: str) -> Timing:
        run, raw = self._run(case, target, log)
        return Timing(
            init_ms=run.init_ms,
            first_ms=run.first_ms,
            warmup_ms=run.warmup_avg_ms,
            samples_ms=[],
            median_ms=run.inference_avg_ms if run.median_ms is None else run.median_ms,
            statistic="mean" if run.median_ms is None else "median",
            runs=run.runs,
            delegation=_delegation(case.backend, run),
            runtime=None,  # its log does not say
            peak_memory_bytes=run.peak_memory_bytes,
            raw=raw,
        )

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        remote = str(FOLDER / "profile.csv")
        self._run(case, target, log, profile=remote)
        content = self._session.phone.pull(remote)
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
        """One start, and everything it said.

        Raises:
            MeasurementError: it failed, or its log is no good.
        """
        settings = self._settings
        model = LocalFile(target.sha256, target.path)
        flags = benchmark_flags(
            graph=self._session.push(model, f"{target.sha256[:16]}.tflite"),
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
            input_shape=(target.input.name, target.input_shape) if target.input_shape else None,
        )
        command = [*self._pinning(case.threads), self._path, *flags]
        output = self._session.phone.shell(command, timeout_s=settings.time_limit_secs)
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
        device = self._session.device
        cores = big_cores(device, threads)
        if not cores or "core pinning" in device.lacks:
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
