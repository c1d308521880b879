"""How numbers are written: as many decimals as the interval's width supports, with units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

Interval = tuple[float, float]

NOTHING = "–"
_MOST_DECIMALS = 3
_MICROSECONDS_BELOW_MS = 0.1


def decimals(value: float, interval: Interval | None = None) -> int:
    """So that the last digit is no coarser than half the interval, with two digits at least.

    Three digits in all without an interval.
    """
    width = interval[1] - interval[0] if interval else 0.0
    step = min(width / 2, abs(value) / 10) if width > 0 else abs(value) / 100
    if step <= 0:
        return _MOST_DECIMALS
    return min(max(math.ceil(-math.log10(step) - 1e-9), 0), _MOST_DECIMALS)


def number(value: float | None, places: int | None = None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.{decimals(value) if places is None else places}f}"


@dataclass(frozen=True)
class TimeScale:
    """How a time and those beside it are written: the unit's name, how many make a millisecond."""

    unit: str
    per_ms: float
    places: int

    def time(self, ms: float | None) -> str:
        return NOTHING if ms is None else f"{ms * self.per_ms:.{self.places}f} {self.unit}"

    def interval(self, ms: Interval | None) -> str:
        return bracketed(ms and (ms[0] * self.per_ms, ms[1] * self.per_ms), self.places)


def time_scale(ms: float, interval_ms: Interval | None = None) -> TimeScale:
    """Microseconds for what is short, and as many decimals as the interval supports."""
    unit, per_ms = ("µs", 1e3) if 0 < ms < _MICROSECONDS_BELOW_MS else ("ms", 1.0)
    interval = interval_ms and (interval_ms[0] * per_ms, interval_ms[1] * per_ms)
    return TimeScale(unit, per_ms, decimals(ms * per_ms, interval))


def duration(ms: float | None) -> str:
    """`8.61 ms`, `4.72 µs`."""
    return NOTHING if ms is None else time_scale(ms).time(ms)


def bracketed(interval: Interval | None, places: int) -> str:
    """`[8.55, 8.65]`; nothing without an interval."""
    return f"[{interval[0]:.{places}f}, {interval[1]:.{places}f}]" if interval else ""


def percent(share: float | None, places: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{places}f} %"


def size(count: int | None) -> str:
    """Of a file or memory, in decimal units."""
    if count is None:
        return NOTHING
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{number(count / factor)} {unit}"
    return f"{count} B"


def counted(count: int, what: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def moment(iso: str | None) -> str:
    """A time stamp to the minute; as it stands where it is none."""
    try:
        return f"{datetime.fromisoformat(iso or ''):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return iso or "not finished"
