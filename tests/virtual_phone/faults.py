"""What can go wrong on a phone: a closed list, each with what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAULTS = {
    "unauthorized": "asks for a key's signature and never accepts one",
    "offline": "takes the connection and never answers",
    "unplugged": "once: the cable is pulled when benchmark_model has started, and stays out",
    "unplugged-in-push": "once: the cable is pulled in the middle of a push, and stays out",
    "storage-full": "what is pushed ends with No space left on device; df shows it",
    "out-of-memory": "once: benchmark_model is killed, exit code 137",
    "hang": "once: benchmark_model never ends",
    "garbled-log": "bytes are overwritten in the middle of the lines with timings",
    "truncated-log": "the log ends after the line Initialized session, exit code 0",
    "error-after-timings": "timings, then ERROR: Benchmarking failed., exit code 1",
    "clock-jump": "the phone's clock is five hours ahead",
    "partial-delegation": "the delegate leaves the last third of the operations to the CPU",
    "cpu-fallback": "the delegate is applied and takes no operation",
    "wrong-output": "the values of the output file are in the wrong order",
    "hot": "every start of benchmark_model heats the phone, which cools slowly",
    "throttled": "all clocks are at 60 % of the highest",
    "spread": "inferences of every second start take three times as long",
    "low-battery": "the battery is at 9 % and discharges",
    "screen-off": "the screen is off and does not wake",
    "settings-denied": "settings put ends with a SecurityException; svc goes on",
    "fixed-performance-stays": "the fixed-performance mode is not left any more",
    "no-battery": "a board on mains power: no battery is present",
    "offline-core": "core 1 is unplugged, and shows no clocks",
    "taskset-denied": "taskset may not set an affinity",
    "second-user": "another user is in front, whose files adb's shell does not see",
    "no-room-for-apps": "pm install ends with INSTALL_FAILED_INSUFFICIENT_STORAGE",
    "app-killed": "the app is killed in the middle of its timing, as for memory",
    "app-crash": "the app crashes before it could write anything",
    "app-hang": "the app never answers",
    "half-json": "the app's answer is cut off in the middle",
    "old-tool": "benchmark_model knows no flag that came after 2020 and warns of it",
}
# Of what a session finds and changes.
OF_THE_SESSION = ("settings-denied", "fixed-performance-stays", "no-battery", "offline-core",
                  "taskset-denied")  # fmt: skip
# Of the harness app; the others are the phone's and benchmark_model's.
OF_THE_APP = ("second-user", "no-room-for-apps", "app-killed", "app-crash", "app-hang", "half-json")
ONCE = ("unplugged", "unplugged-in-push", "out-of-memory", "hang")
_FROM_THE_BEGINNING = ("unauthorized", "offline", "storage-full", "low-battery", "screen-off",
                       "settings-denied", "fixed-performance-stays", "no-battery", "offline-core",
                       "taskset-denied", "second-user", "no-room-for-apps")  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault of `FAULTS`.

    Attributes:
        start: the 1-based start of benchmark_model at which it begins, 0 for before the first;
            those of `ONCE` end there.
    """

    name: str
    start: int

    def hits(self, started: int) -> bool:
        """Whether it is there once benchmark_model has been started that often."""
        return started == self.start if self.name in ONCE else started >= self.start


def parse_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """Of NAME or NAME@N; without N from the first start on, or before it where that makes sense.

    Raises:
        ValueError: there is no such fault, or N is no number from 1.
    """
    faults = []
    for text in texts:
        name, _, start = text.partition("@")
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
        if start and int(start) < 1:
            raise ValueError(f"{text}: starts are counted from 1")
        faults.append(Fault(name, int(start or name not in _FROM_THE_BEGINNING)))
    return tuple(faults)
