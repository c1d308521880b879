"""The project's harness app on a phone: install it, ask it, fetch its answer."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

import numpy as np

from afd_benchmark.harness.protocol import (
    CHECK,
    HARNESS_SCHEMA_VERSION,
    LOG_TAG,
    PACKAGE,
    TIME,
    HarnessResult,
    Memory,
    read_result,
    start_command,
)
from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import LocalFile, Phone, ShellOutput
from afd_benchmark.phone.session import PhoneSession
from afd_benchmark.phone.tool import Timing, push_input, real_output
from afd_benchmark.plan import EXTERNAL, GPU, PlannedCase
from afd_benchmark.raw_logs import keep_log
from afd_benchmark.results import Delegation, ProfiledOperation
from afd_benchmark.targets import Pixels, Target
from afd_mobile.common.errors import DeviceError, MeasurementError

FILES = PurePosixPath(f"/sdcard/Android/data/{PACKAGE}/files")
_INSTALL_S = 180.0
# How long the app's process may take to come up, and usually does not exceed.
_START_S = 5.0
_USUAL_START_S = 1.0
# Each look starts one or two short processes on the phone.
_LOOK_AGAIN_S = 1.0
_LOGCAT = ["logcat", "-d", "-t", "500", "-s", f"{LOG_TAG}:*", "AndroidRuntime:E"]
_CRASH = f"Process: {PACKAGE}"
# What `pm install` and `am start` say, and what to do about it; the first that is found.
_REMEDIES = {
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": (
        f"another build with another signature is installed; remove it: adb uninstall {PACKAGE}"
    ),
    "INSTALL_FAILED_VERSION_DOWNGRADE": (
        f"a newer build is installed; remove it: adb uninstall {PACKAGE}"
    ),
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "make room on the phone",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the app is for arm64-v8a and x86_64; use --tool",
    "INSTALL_FAILED_OLDER_SDK": "the app needs Android 8; use --tool",
    "INSTALL_FAILED_USER_RESTRICTED": "allow installing over USB in the developer options",
    "INSTALL_FAILED_VERIFICATION": "switch off verifying apps over USB in the developer options",
    "INSTALL_PARSE_FAILED": "build the app again: make apk",
    "INTERACT_ACROSS_USERS": (
        "another user is in front; switch to the first one: adb shell am switch-user 0"
    ),
    "SecurityException": (
        'allow "USB debugging (Security settings)" in the developer options, or give --tool '
        "benchmark_model"
    ),
}


class HarnessApp:
    """What users feel: the interpreter inside an app, with every single inference."""

    name = "harness"

    def __init__(self, apk: LocalFile, settings: Settings, out: Path) -> None:
        self._apk = apk
        self._settings = settings
        self._out = out
        self._files = FILES
        self._crashes = 0
        self._last: dict[tuple[str, str, int], HarnessResult] = {}

    def refuses(self, backend: str) -> str | None:
        if backend.startswith(EXTERNAL):
            return "the harness app loads no external delegate; give --tool benchmark_model"
        return None

    def begin(self, session: PhoneSession) -> None:
        """Installs the app unless this very file is installed."""
        self._session = session
        phone = session.phone
        self._files = _files(phone)
        self._crashes = phone.shell(_LOGCAT).stdout.count(_CRASH)
        installed = phone.shell(["pm", "path", PACKAGE]).stdout.strip().removeprefix("package:")
        if installed:
            digest = phone.shell(["sha256sum", installed]).stdout.split()
            if digest[:1] == [self._apk.sha256]:
                return
        remote = session.push(self._apk, "harness.apk")
        done = phone.shell(["pm", "install", "-r", "-d", remote], timeout_s=_INSTALL_S)
        if done.exit_code or "Success" not in done.stdout + done.stderr:
            raise DeviceError(
                f"{phone.serial}: the harness app cannot be installed: {_with_remedy(done)}"
            )

    def end(self) -> None:
        """The app stays installed; what it wrote does not."""
        self._session.phone.shell(["am", "force-stop", PACKAGE])
        self._session.phone.shell(
            ["rm", "-rf", *(str(self._files / f) for f in ("results", "pending", "outputs"))]
        )

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        inputs = [
            push_input(self._session, target, picture.image, number)
            for number, picture in enumerate(target.golden, 1)
        ]
        result, _ = self._ask(case, target, log, CHECK, {"golden_inputs": ",".join(inputs)})
        if len(result.golden) != len(target.golden):
            raise MeasurementError(
                f"wrong outputs: {len(result.golden)} for {len(target.golden)} golden pictures"
            )
        return [
            real_output(self._session.phone.pull(golden.output_file), target, picture.name)
            for golden, picture in zip(result.golden, target.golden, strict=True)
        ]

    def time(self, case: PlannedCase, target: Target, log: str) -> Timing:
        result, raw = self._ask(case, target, log, TIME, self._timed_input(target))
        if result.init_ms is None or result.first_ms is None or not result.samples_ms:
            raise MeasurementError(f"the app's answer holds no times ({log})")
        if not result.stayed_in_front:
            raise MeasurementError("the app did not stay in front: leave the phone alone meanwhile")
        return Timing(
            init_ms=result.init_ms,
            first_ms=result.first_ms,
            warmup_ms=float(np.mean(result.warmup_ms)) if result.warmup_ms else None,
            samples_ms=result.samples_ms,
            median_ms=float(np.median(result.samples_ms)),
            statistic="median",
            runs=len(result.samples_ms),
            delegation=_delegation(case.backend, result),
            runtime=result.runtime_version and f"TensorFlow Lite {result.runtime_version}",
            peak_memory_bytes=_peak_memory(result.memory),
            raw=raw,
        )

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        raise MeasurementError("the harness app has no profiler; give --tool benchmark_model")

    def _timed_input(self, target: Target) -> dict[str, str]:
        """The first golden picture, checked once more before the timing; else a random one."""
        extras = {"golden_inputs": push_input(self._session, target, target.timed_image, 1)}
        if target.golden and target.limits is not None:
            expected = target.golden[0].expected.astype("<f4")
            name = f"{target.sha256[:16]}-1-expected.bin"
            extras["golden_expected"] = self._session.push(LocalFile.of(expected.tobytes()), name)
            allowed = target.limits.max_error * float(np.ptp(expected))
            extras["max_abs_error"] = f"{allowed:.9g}"
        return extras

    def _ask(
        self, case: PlannedCase, target: Target, log: str, mode: str, more: dict[str, str]
    ) -> tuple[HarnessResult, bytes]:
        """One start of the app, its answer, and the raw log.

        Raises:
            MeasurementError: it refused, crashed, or gave no answer in time.
        """
        settings, phone = self._settings, self._session.phone
        if target.input_shape is not None:
            raise MeasurementError(
                "the harness app does not resize inputs; give --tool benchmark_model"
            )
        run_id = _run_id(log)
        model = LocalFile(target.sha256, target.path)
        extras = more | {
            "schema_version": str(HARNESS_SCHEMA_VERSION),
            "run_id": run_id,
            "mode": mode,
            "model": self._session.push(model, f"{target.sha256[:16]}.tflite"),
            "model_sha256": target.sha256,
            "backend": case.backend,
            "threads": str(case.threads),
            "warmup_runs": str(settings.warmup_runs),
            "warmup_min_ms": str(round(1000 * settings.warmup_min_secs)),
            "runs": str(settings.runs),
            "min_ms": str(round(1000 * settings.min_secs)),
            "max_ms": str(round(1000 * max(settings.max_secs, settings.min_secs))),
            "precision_loss_allowed": str(case.backend == GPU).lower(),
        }
        key = (target.sha256, case.backend, case.threads)
        command = start_command(extras)
        asked_at = phone.now_s
        started = phone.shell(command)
        answer = b""
        try:
            if started.exit_code or "Error" in started.stdout + started.stderr:
                raise MeasurementError(f"the app does not start: {_with_remedy(started)}")
            if mode == TIME:  # looking for the answer would disturb what is measured
                phone.sleep(_expected_s(self._last.get(key), settings))
            answer = self._answer(run_id, asked_at)
            result = read_result(answer, run_id)
            self._last[key] = result
            return result, answer
        finally:
            keep_log(self._out / log, answer or phone.shell(_LOGCAT).stdout.encode())

    def _answer(self, run_id: str, asked_at: float) -> bytes:
        """Waits for the JSON, which appears whole. A crash is noticed at the next look."""
        phone = self._session.phone
        result, pending = (
            self._files / folder / f"{run_id}.json" for folder in ("results", "pending")
        )
        seen = False  # its process takes a moment to come up
        while True:
            if phone.shell(["ls", str(result)]).exit_code == 0:
                return phone.pull(str(result))
            alive = phone.shell(["pidof", PACKAGE]).exit_code == 0
            seen |= alive
            gone = not alive and (seen or phone.now_s - asked_at > _START_S)
            if gone and phone.shell(["ls", str(result)]).exit_code:
                # It left what it would say if it was killed; nothing, if it came to nothing at all.
                if phone.shell(["ls", str(pending)]).exit_code == 0:
                    return phone.pull(str(pending))
                raise MeasurementError(f"the app ended without an answer: {self._end()}")
            if phone.now_s - asked_at > self._settings.time_limit_secs:
                phone.shell(["am", "force-stop", PACKAGE])
                raise MeasurementError(
                    f"the app did not answer within {self._settings.time_limit_secs:g} s"
                )
            phone.sleep(_LOOK_AGAIN_S)

    def _end(self) -> str:
        """By Android's log, whose older crashes do not count."""
        _, *crashes = self._session.phone.shell(_LOGCAT).stdout.split(_CRASH)
        before, self._crashes = self._crashes, len(crashes)
        if len(crashes) <= before:
            return "it was killed, or did not come up; Android's log names no crash"
        named = re.search(r"(?:[a-z]\w*\.)+\w*(?:Exception|Error)\b.*", crashes[-1])
        return f"it crashed: {named[0].strip() if named else 'see its log'}"


def _files(phone: Phone) -> PurePosixPath:
    """The app's external files folder, of the user in front.

    Raises:
        DeviceError: adb's shell does not see that user's files.
    """
    user = phone.shell(["am", "get-current-user"]).stdout.strip()
    if user in ("", "0") or not user.isdecimal():
        return FILES
    storage = PurePosixPath("/storage/emulated") / user
    if phone.shell(["ls", "-d", str(storage / "Android")]).exit_code:
        raise DeviceError(
            f"{phone.serial}: user {user} is in front, and adb's shell does not see that user's "
            "files; switch to the first user (adb shell am switch-user 0), or give --tool "
            "benchmark_model"
        )
    return storage / FILES.relative_to("/sdcard")


def _run_id(log: str) -> str:
    """As the protocol takes it, whatever a file is called; the digest tells them apart."""
    digest = hashlib.sha256(log.encode()).hexdigest()[:12]
    return f"{digest}-{re.sub(r'[^A-Za-z0-9_.-]', '_', Path(log).stem)[-48:]}"


def _with_remedy(refusal: ShellOutput) -> str:
    text = refusal.stdout + refusal.stderr
    remedy = next((r for word, r in _REMEDIES.items() if word in text), None)
    return f"{refusal.reason}; {remedy}" if remedy else refusal.reason


def _expected_s(last: HarnessResult | None, settings: Settings) -> float:
    """How long the timing takes: as long as the last, or as the check's first inference says.

    Args:
        last: the app's last answer about the same file, backend and threads.
    """
    if last is not None and last.samples_ms:
        return _USUAL_START_S + (last.elapsed_ms or 0.0) / 1e3
    inference_s = ((last and last.first_ms) or 0.0) / 1e3
    series_s = [
        max(least, min(runs * inference_s, settings.max_secs))
        for runs, least in (
            (settings.warmup_runs, settings.warmup_min_secs),
            (settings.runs, settings.min_secs),
        )
    ]
    before_s = ((last and last.elapsed_ms) or 0.0) / 1e3  # loading, preparing, golden pictures
    expected = _USUAL_START_S + before_s + sum(series_s)
    return min(expected, settings.time_limit_secs)


def _peak_memory(memory: Memory) -> int | None:
    """How far the run raised the app's memory, in bytes; None where that is not known."""
    if memory.pss_peak_kb is None or memory.pss_before_kb is None:
        return None
    return max(0, 1024 * (memory.pss_peak_kb - memory.pss_before_kb)) or None


def _delegation(asked: str, result: HarnessResult) -> Delegation:
    d = result.delegation
    if d is None or d.asked != asked:
        raise MeasurementError(f"the app does not say which backend ran, asked for {asked}")
    return Delegation(
        asked=asked,
        actual=d.actual,
        delegate=d.delegate,
        delegated=d.delegated_nodes,
        nodes=d.graph_nodes,
        partitions=None,
        whole=None if d.delegated_nodes is None else d.delegated_nodes == d.graph_nodes,
    )
