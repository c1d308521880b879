"""What a case's evidence allows to say of its time."""

from __future__ import annotations

from statistics import median

from afd_benchmark.latency_stats import MIN_REPEATS, interval_of_median, spread
from afd_benchmark.plan import CPU, GPU
from afd_benchmark.results import Condition, Delegation, GoldenCheck, Repeat, Verdict
from afd_mobile.common.artifacts import Precision

MAX_SPREAD = 0.10
MAX_INTERVAL = 0.03  # width of the median's 95 % interval: wider, another run may say otherwise
MAX_WARMING_C = 5.0
# As Jetpack Benchmark's throttle check: a clock or a reference that fell to less than 1 / 1.10.
MAX_SLOWDOWN = 1.10
MIN_BATTERY_PERCENT = 20
SEVERE = 3  # of Android's thermal statuses: it slows the phone down


def judge(
    repeats: list[Repeat],
    *,
    golden: GoldenCheck | None,
    precision: str | None,
    full_delegation: bool,
) -> tuple[Verdict, list[str]]:
    """The verdict and its reasons, worst first.

    Args:
        repeats: all of one case, in order; at least one.
        golden: None where nothing says what the outputs should be.
    """
    invalid = _wrong_backend(repeats, full_delegation)
    if invalid:
        return Verdict.INVALID, invalid
    conditions = [c for r in repeats for c in (r.before, r.after)]
    suspect = [
        *([] if golden else ["outputs not checked: no golden pictures come with the file"]),
        *_partial(repeats),
        *_dequantized(repeats, precision),
        *_heat(conditions),
        *_power(conditions),
        *_reference(conditions),
    ]
    medians = [r.median_ms for r in repeats]
    wide = spread(medians)
    if wide is not None and wide > MAX_SPREAD:
        suspect.append(f"the repeats' medians spread over {wide:.0%}, limit {MAX_SPREAD:.0%}")
    suspect += _uncertain(medians)
    return (Verdict.SUSPECT, suspect) if suspect else (Verdict.VALID, [])


def _uncertain(medians: list[float]) -> list[str]:
    interval = interval_of_median(medians)
    if interval is None:
        return [
            f"too few repeats for a 95 % interval, {len(medians)}: "
            f"give --repeats {MIN_REPEATS} or more"
        ]
    width = (interval[1] - interval[0]) / median(medians)
    if width <= MAX_INTERVAL:
        return []
    return [f"the median is known to {width:.1%} only, limit {MAX_INTERVAL:.0%}"]


def _wrong_backend(repeats: list[Repeat], full_delegation: bool) -> list[str]:
    for repeat in repeats:
        d = repeat.delegation
        if d.actual != d.asked:
            return [f"ran on {d.actual} although {d.asked} was asked for ({repeat.log})"]
        if full_delegation and d.asked != CPU and not _whole(d):
            return [f"{_share(d)} ({repeat.log})"]
    return []


def _partial(repeats: list[Repeat]) -> list[str]:
    """An accelerator's time with part of the graph on the CPU is a time of both."""
    for repeat in repeats:
        if repeat.delegation.asked != CPU and not _whole(repeat.delegation):
            return [_share(repeat.delegation)]
    return []


def _whole(d: Delegation) -> bool:
    if d.whole is not None:
        return d.whole
    return d.nodes is not None and d.delegated == d.nodes


def _share(d: Delegation) -> str:
    if d.delegated is None or d.nodes is None:
        return f"how much of the graph {d.asked} took is unknown"
    return f"{d.delegated} of {d.nodes} operations on {d.asked}, the rest on the CPU"


def _dequantized(repeats: list[Repeat], precision: str | None) -> list[str]:
    if precision != Precision.INT8 or repeats[0].delegation.actual != GPU:
        return []
    return ["GPU delegates compute int8 files in floating point: this is no int8 time"]


def _heat(conditions: list[Condition]) -> list[str]:
    start = conditions[0]
    reasons = []
    known = [c.thermal_status for c in conditions if c.thermal_status is not None]
    worst = max(known, default=0)
    if known and worst > known[0]:
        reasons.append(f"thermal status rose from {known[0]} to {worst}")
    elif start.thermal_status is None and worst > 0:
        reasons.append(f"thermal status rose to {worst}")
    elif worst >= SEVERE:
        reasons.append(f"thermal status {worst} throughout: Android slows the phone down")
    rises = {
        name: max(c.temperatures_c.get(name, at) for c in conditions) - at
        for name, at in start.temperatures_c.items()
    }
    if rises and max(rises.values()) > MAX_WARMING_C:
        name = max(rises, key=lambda n: rises[n])
        reasons.append(f"{name} warmed by {rises[name]:.1f} degrees, limit {MAX_WARMING_C:g}")
    return [*reasons, *_slowed_core(conditions)]


def _slowed_core(conditions: list[Condition]) -> list[str]:
    """Of readings with as many cores as the first; one that is off is not slowed."""
    readings = [c.clock_limits_mhz for c in conditions]
    readings = [limits for limits in readings if len(limits) == len(readings[0])]
    for core, limits in enumerate(zip(*readings, strict=True)):
        known = [limit for limit in limits if limit is not None]
        if known and min(known) * MAX_SLOWDOWN < known[0]:
            return [f"core {core} was slowed from {known[0]:.0f} to {min(known):.0f} MHz"]
    return []


def _power(conditions: list[Condition]) -> list[str]:
    reasons = []
    battery = min(
        (c.battery_percent for c in conditions if c.battery_percent is not None), default=100
    )
    if battery < MIN_BATTERY_PERCENT:
        reasons.append(f"battery at {battery} %, limit {MIN_BATTERY_PERCENT} %")
    if any(c.screen_on is False for c in conditions):
        reasons.append("the screen was off")
    return reasons


def _reference(conditions: list[Condition]) -> list[str]:
    """A core that does the same matrix product slower is slowed, or shared."""
    known = sorted(c.reference_gflops for c in conditions if c.reference_gflops)
    if not known:
        return []
    low, high = known[len(known) // 10], known[-1]
    if high <= MAX_SLOWDOWN * low:
        return []
    return [
        f"the core's own speed fell from {high:.0f} to {low:.0f} GFLOP/s during the run: "
        "slowed or shared"
    ]
