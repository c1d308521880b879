"""The times that `benchmark_model` prints, each held against what it prints of them elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afd_benchmark.benchmark_model.lines import Line, LogError

Found = tuple[re.Match[str], Line]

TFLITE, TFLITE_2020, LITERT = "tflite", "tflite-2020", "litert"

_N = r"\d{1,18}"
FLOAT = r"\d{1,18}(?:\.\d+)?(?:e[+-]\d{1,3})?"
SHAPES: dict[str, tuple[str, str]] = {
    "session": (r"Initialized session in", rf"Initialized session in (?P<ms>{FLOAT})ms\.?"),
    "count": (
        r"count=",
        rf"count=(?P<count>{_N}) (?:first=(?P<first>{_N}) curr=(?P<curr>{_N}) min=(?P<min>{_N}) "
        rf"max=(?P<max>{_N}) avg=(?P<avg>{FLOAT}) std=(?P<std>{_N})"
        rf"|curr=(?P<only>{_N})(?P<same>\(all same\))?)"
        rf"(?: p5=(?P<p5>{_N}) median=(?P<median>{_N}) p95=(?P<p95>{_N}))?",
    ),
    "timings": (
        r"Inference timings in us",
        rf"Inference timings in us: Init: (?P<init>{_N}), First inference: (?P<first>{_N}), "
        rf"Warmup \(avg\): (?P<warmup>{FLOAT}), Inference \(avg\): (?P<avg>{FLOAT})",
    ),
    "average": (
        r"Average inference timings in us",
        rf"Average inference timings in us: Warmup: (?P<warmup>{FLOAT}), Init: (?P<init>{_N}), "
        rf"(?:Inference|no stats): (?P<avg>{FLOAT})"
        rf"(?:,? Overall max resident set size = (?P<mb>{FLOAT}) MB, "
        rf"total malloc-ed size = {FLOAT} MB)?",
    ),
    "litert_init": (r"Model initialization:", rf"Model initialization: +(?P<ms>{FLOAT}) ms"),
    "litert_first": (r"Warmup \(first\):", rf"Warmup \(first\): +(?P<ms>{FLOAT}) ms"),
    "litert_warmup": (
        r"Warmup \(avg\):",
        rf"Warmup \(avg\): +(?P<ms>{FLOAT}) ms \((?P<runs>{_N}) runs\)",
    ),
    "litert_avg": (
        r"Inference \(avg\):",
        rf"Inference \(avg\): +(?P<ms>{FLOAT}) ms \((?P<runs>{_N}) runs\)",
    ),
    "litert_min": (r"Inference \(min\):", rf"Inference \(min\): +(?P<ms>{FLOAT}) ms"),
    "litert_max": (r"Inference \(max\):", rf"Inference \(max\): +(?P<ms>{FLOAT}) ms"),
    "litert_std": (r"Inference \(std\):", rf"Inference \(std\): +(?P<ms>{FLOAT})"),
}


@dataclass(frozen=True)
class Times:
    """In milliseconds; None where the tool does not print a figure.

    Attributes:
        form: tflite, tflite-2020 or litert.
        init_ms: loading, delegates and allocation.
        first_ms, warmup_avg_ms: of the warm-up.
        runs: inferences behind the average and the figures after it.
    """

    form: str
    init_ms: float
    first_ms: float
    warmup_avg_ms: float
    inference_avg_ms: float
    runs: int
    min_ms: float
    max_ms: float
    std_ms: float
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None


def read_times(found: Mapping[str, Sequence[Found]], last: Line) -> Times:
    """From the lines of one run.

    Args:
        found: by the names of `SHAPES`; those without a line are left out.
        last: of the run, for the error where it is cut off.

    Raises:
        LogError: figures are missing, are no times, or contradict each other.
    """
    there = [name for name in ("timings", "average", "litert_avg") if name in found]
    if not there:
        raise LogError("cut off: no inference times; give the whole log", last)
    if len(there) > 1:
        raise LogError("two forms of results: two runs are mixed", found[there[1]][0][1])
    counted = [_statistics(match, line) for match, line in found.get("count", [])]
    if there == ["litert_avg"]:
        return _litert(found, counted, last)
    return _tflite(found, counted, there[0])


@dataclass(frozen=True)
class _Statistics:
    """A `count=` line, in microseconds."""

    line: Line
    count: int
    first: float
    min: float
    max: float
    avg: float
    std: float
    percentiles: tuple[float | None, float | None, float | None]  # 5, 50, 95


def _statistics(match: re.Match[str], line: Line) -> _Statistics:
    count = int(match["count"])
    if match["only"]:
        low = high = first = last = _time(match["only"], line)
        avg, std = _six_digits(low), 0.0
        fits = count == 1 if match["same"] is None else count > 1
    else:
        low, high, first, last, avg = (
            _time(match[name], line) for name in ("min", "max", "first", "curr", "avg")
        )
        std = float(match["std"])
        fits = count > 1 and std <= (high - low) / 2
    p5 = median = p95 = None
    if match["median"]:
        p5, median, p95 = (_time(match[name], line) for name in ("p5", "median", "p95"))
        fits = fits and low <= p5 <= median <= p95 <= high
    fits = fits and low <= first <= high and low <= last <= high
    if not fits or not _six_digits(low) <= avg <= _six_digits(high):
        raise LogError("figures that contradict each other", line)
    return _Statistics(line, count, first, low, high, avg, std, (p5, median, p95))


def _tflite(
    found: Mapping[str, Sequence[Found]], counted: Sequence[_Statistics], name: str
) -> Times:
    match, line = found[name][0]
    # Without them nothing tells a time that is cut off from a whole one.
    if len(counted) != 2:
        raise LogError(
            f"{len(counted)} lines with count= instead of two, warm-up and measurement; "
            "give the whole log",
            line,
        )
    warmup, measured = counted
    init = _time(match["init"], line)
    expected = {"warmup": warmup.avg, "avg": measured.avg, "first": warmup.first}
    for key, value in expected.items():
        if key in match.groupdict() and _time(match[key], line) != value:
            raise LogError(f"{match[key]} where the count= lines have {value:g}: cut off", line)
    for session, where in found.get("session", []):
        if float(session["ms"]) != _six_digits(init / 1e3):
            raise LogError(f"not the {init:g} us of the results", where)
    p5, median, p95 = _percentiles_ms(measured)
    return Times(
        form=TFLITE if name == "timings" else TFLITE_2020,
        init_ms=_ms(init),
        first_ms=_ms(warmup.first),
        warmup_avg_ms=_ms(warmup.avg),
        inference_avg_ms=_ms(measured.avg),
        runs=measured.count,
        min_ms=_ms(measured.min),
        max_ms=_ms(measured.max),
        std_ms=_ms(measured.std),
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
    )


def _litert(
    found: Mapping[str, Sequence[Found]], counted: Sequence[_Statistics], last: Line
) -> Times:
    names = [name for name in SHAPES if name.startswith("litert_")]
    if any(name not in found for name in names):
        raise LogError("cut off: the results are not complete; give the whole log", last)
    first_of = {name: found[name][0] for name in names}
    std, std_line = first_of.pop("litert_std")
    if not std_line.ended:
        raise LogError("perhaps cut off: no line break follows; give the whole log", std_line)
    init, first, warmup, avg, low, high = (_time(m["ms"], line) for m, line in first_of.values())
    runs, line = int(first_of["litert_avg"][0]["runs"]), first_of["litert_avg"][1]
    fits = runs > 0 and low <= avg <= high and float(std["ms"]) <= (high - low) / 2 + _ROUNDED
    fits = fits and all(_rounded(float(m["ms"]), init) for m, _ in found.get("session", []))
    if counted:
        if len(counted) != 2:
            raise LogError("one line with count= instead of two; give the whole log", line)
        pre, main = counted
        counts = (int(first_of["litert_warmup"][0]["runs"]), runs)
        pairs = ((pre.first, first), (pre.avg, warmup), (main.avg, avg), (main.min, low))
        fits = fits and counts == (pre.count, main.count) and _rounded(main.max / 1e3, high)
        fits = fits and all(_rounded(us / 1e3, ms) for us, ms in pairs)
    if not fits:
        raise LogError("figures that contradict each other", line)
    p5, median, p95 = _percentiles_ms(counted[1]) if counted else (None, None, None)
    return Times(
        form=LITERT,
        init_ms=init,
        first_ms=first,
        warmup_avg_ms=warmup,
        inference_avg_ms=avg,
        runs=runs,
        min_ms=low,
        max_ms=high,
        std_ms=float(std["ms"]),
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
    )


_ROUNDED = 0.01  # LiteRT prints two decimals of a millisecond


def _rounded(exact: float, printed: float) -> bool:
    """`exact` may itself have been printed with six digits."""
    return abs(exact - printed) <= _ROUNDED / 2 + 1e-5 * printed


def _percentiles_ms(statistics: _Statistics) -> tuple[float | None, float | None, float | None]:
    p5, median, p95 = (p and _ms(p) for p in statistics.percentiles)
    return p5, median, p95


def _time(digits: str, line: Line) -> float:
    value = float(digits)
    if not 0 < value < math.inf:
        raise LogError(f"{digits} is no time", line)
    return value


def _ms(us: float) -> float:
    return round(us / 1e3, 9)


def _six_digits(value: float) -> float:
    """As C++ streams print it by default."""
    return float(f"{value:.6g}")
