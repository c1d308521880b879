"""How long the app is left alone, by a phone that remembers when it was asked anything."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from afd_benchmark.harness.app import HarnessApp
from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import SHORT_S, LocalFile, ShellOutput
from afd_benchmark.phone.session import PhoneSession
from afd_benchmark.plan import PlannedCase
from afd_benchmark.targets import Target
from afd_mobile.common.errors import MeasurementError
from afd_mobile.tflite.litert import TensorContract
from tests.afd_benchmark.harness.test_protocol import RESULT
from tests.afd_benchmark.sample_results import PHONE
from tests.afd_benchmark.test_measure import target

LOGITS = TensorContract("logits", (1, 10), "float32", None, None)
FILE = replace(target("a"), sha256="a" * 64, output=LOGITS)
CASE = PlannedCase(FILE, "phone", "cpu", 1, None, None)
SETTINGS = Settings(runs=50, min_secs=0.5, warmup_runs=1, warmup_min_secs=0.3)


@dataclass
class TimedPhone:
    """Runs the app; exchanges take no time.

    Attributes:
        inference_s: of the app's every inference.
        start_s: until its process measures.
        crashes_s: after its start; None where it does not.
        looks_s: when the phone was asked anything after a start, since that start.
    """

    inference_s: float
    start_s: float = 0.9
    crashes_s: float | None = None
    serial: str = "TIMED"
    now_s: float = 0.0
    looks_s: list[float] = field(default_factory=list)
    _files: dict[str, str] = field(default_factory=dict)
    _extras: dict[str, str] = field(default_factory=dict)
    _started_s: float = 0.0

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if words[:2] == ["am", "start"]:
            self._extras = dict(zip(words[6::3], words[7::3], strict=True))
            self._started_s = self.now_s
            self.looks_s.clear()
        elif words[0] in ("ls", "pidof"):
            self.looks_s.append(self.now_s - self._started_s)
            found = (words[0] == "ls" and "/results/" in words[1] and self._done) or (
                words[0] == "pidof" and not self._gone
            )
            return ShellOutput(0 if found else 1, "", "")
        elif words[0] == "sha256sum":
            return ShellOutput(0, f"{self._files.get(words[1], '')}  {words[1]}\n", "")
        return ShellOutput(0, "", "")

    @property
    def _took_s(self) -> float:
        runs = 4 if self._extras["mode"] == "check" else 1
        if self._extras["mode"] == "time":
            for name in ("runs", "warmup_runs"):
                least_s = float(self._extras[f"{name.removesuffix('runs')}min_ms"]) / 1e3
                count = max(int(self._extras[name]), round(least_s / self.inference_s))
                runs += min(count, round(float(self._extras["max_ms"]) / 1e3 / self.inference_s))
        return runs * self.inference_s

    @property
    def _gone(self) -> bool:
        return self._done or (
            self.crashes_s is not None and self.now_s - self._started_s >= self.crashes_s
        )

    @property
    def _done(self) -> bool:
        ended_s = self._started_s + self.start_s + self._took_s
        return self.crashes_s is None and self.now_s >= ended_s

    def pull(self, remote: str) -> bytes:
        if not remote.endswith(".json"):
            return FILE.golden[0].expected.astype("<f4").tobytes()
        ms = 1e3 * self.inference_s
        timed = self._extras["mode"] == "time"
        result = RESULT | {
            "run_id": self._extras["run_id"],
            "first_ms": ms,
            "samples_ms": [ms] * 3 if timed else [],
            "elapsed_ms": 1e3 * self._took_s,
            "delegation": RESULT["delegation"] | {"asked": "cpu", "actual": "cpu"},
        }
        return json.dumps(result).encode()

    def push(self, file: LocalFile, remote: str) -> None:
        self._files[remote] = file.sha256

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def opened(phone: TimedPhone, out: Path, settings: Settings = SETTINGS) -> HarnessApp:
    app = HarnessApp(LocalFile("sha of the app"), settings, out)
    app._session = PhoneSession(phone, PHONE)
    return app


def timed(app: HarnessApp, number: int, file: Target = FILE) -> None:
    app.time(CASE, file, f"logs/a-{number}.log")


@pytest.mark.parametrize("inference_s", [0.004, 0.03, 0.4, 3.0])
def test_nothing_is_asked_of_the_phone_while_the_app_measures(
    inference_s: float, tmp_path: Path
) -> None:
    phone = TimedPhone(inference_s)
    app = opened(phone, tmp_path)
    app.outputs(CASE, FILE, "logs/a-golden.log")
    for number in range(3):
        timed(app, number)
        measured_until_s = phone.start_s + phone._took_s
        assert phone.looks_s and min(phone.looks_s) >= measured_until_s
        # Nor does it wait for long afterwards.
        assert phone.now_s - phone._started_s <= 1.2 * measured_until_s + 1


def test_what_was_never_run_is_looked_at_once_a_second(tmp_path: Path) -> None:
    phone = TimedPhone(0.1)  # 50 runs: 5 s and more, of which nothing is known yet
    timed(opened(phone, tmp_path), 1)
    assert min(phone.looks_s) >= 0.8
    times = sorted(set(phone.looks_s))
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in pairwise(times))


@pytest.mark.parametrize("crashes_s", [0.0, 0.3, 2.0])
def test_a_crash_is_noticed_within_a_second_of_the_expected_end(
    crashes_s: float, tmp_path: Path
) -> None:
    phone = TimedPhone(0.05)
    app = opened(phone, tmp_path)
    timed(app, 1)
    expected_s = phone.start_s + phone._took_s
    phone.crashes_s = crashes_s
    with pytest.raises(MeasurementError, match="the app ended without an answer"):
        timed(app, 2)
    assert phone.now_s - phone._started_s <= max(expected_s + 1.2, 6)


def test_the_wait_counts_towards_the_time_limit(tmp_path: Path) -> None:
    phone = TimedPhone(60.0)
    app = opened(phone, tmp_path, Settings(time_limit_secs=5.0))
    with pytest.raises(MeasurementError, match="did not answer within 5 s"):
        timed(app, 1)
    assert phone.now_s - phone._started_s <= 6.5
