"""How the report writes numbers: as many decimals as the interval's width supports, with units."""

from __future__ import annotations

import math
from datetime import datetime

Interval = tuple[float, float]

NOTHING = "–"
_MOST_DECIMALS = 3  # of milliseconds: a microsecond


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


def milliseconds(value: float | None, places: int | None = None) -> str:
    return NOTHING if value is None else f"{number(value, places)} ms"


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
