"""What the figures rest on: a case's evidence, a device's facts, its heat and clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from afd_benchmark.number_format import (
    NOTHING,
    counted,
    duration,
    number,
    percent,
    size,
    time_scale,
)
from afd_benchmark.report.cases import Shown, against, backend_name
from afd_benchmark.report.charts import Panel
from afd_benchmark.results import (
    Case,
    Condition,
    Delegation,
    Device,
    GoldenCheck,
    ProfiledOperation,
    Repeat,
)

PROFILED = 15
_MOST_SENSORS = 4

Facts = list[tuple[str, str]]
Series = dict[str, list[tuple[float, float]]]


def case_facts(case: Case) -> Facts:
    facts = [
        ("target", case.target),
        ("file", f"{case.file}, {size(case.bytes)}"),
        ("SHA-256", case.sha256),
        ("tool", case.tool or NOTHING),
        ("runtime", next((r.runtime for r in case.repeats if r.runtime), NOTHING)),
        ("delegation", _delegation(case.delegation)),
        ("golden pictures", _golden(case.golden)),
    ]
    if case.multiply_adds is not None:
        facts.append(("multiply-adds", f"{number(case.multiply_adds / 1e6)} M"))
    if case.median_ms is None:
        return facts
    facts += [
        ("warm-up", f"{duration(case.warmup_ms)} on average"),
        ("spread of the repeats' medians", percent(case.spread)),
    ]
    if case.share_of_peak is not None:
        facts.append(("share of this core's float32 peak", percent(case.share_of_peak)))
    if case.ratio:
        r = case.ratio
        facts += [
            ("measured in turn with", f"{against(r)}, {duration(r.against_median_ms)}"),
            ("its SHA-256", r.against_sha256),
            ("rounds", str(r.rounds)),
        ]
    return facts


REPEAT_COLUMNS = (
    "repeat", "median", "runs", "outliers", "first", "init", "warm-up", "peak memory",
    "thermal status", "hottest", "battery", "log", "log's SHA-256", "delegation",
)  # fmt: skip


def repeat_rows(case: Case) -> list[list[str]]:
    """A row for every repeat; times only where the case has one."""
    return [_repeat_row(n, repeat, case) for n, repeat in enumerate(case.repeats, 1)]


def _repeat_row(n: int, repeat: Repeat, case: Case) -> list[str]:
    def time(value: float | None) -> str:
        return duration(value) if case.median_ms is not None else NOTHING

    median = NOTHING
    if case.median_ms is not None:
        median = time_scale(case.median_ms, case.ci95_ms).time(repeat.median_ms)
        median += "" if repeat.statistic == "median" else f" ({repeat.statistic})"

    def change(of: Callable[[Condition], object | None]) -> str:
        ends = [NOTHING if v is None else str(v) for v in (of(repeat.before), of(repeat.after))]
        return " → ".join(ends) if set(ends) != {NOTHING} else NOTHING

    return [
        str(n),
        median,
        str(repeat.runs),
        str(len(repeat.outliers)) if repeat.samples_ms else NOTHING,
        time(repeat.first_ms),
        time(repeat.init_ms),
        time(repeat.warmup_ms),
        size(repeat.peak_memory_bytes),
        change(lambda c: c.thermal_status),
        change(lambda c: f"{max(c.temperatures_c.values()):.1f} °C" if c.temperatures_c else None),
        change(lambda c: None if c.battery_percent is None else f"{c.battery_percent} %"),
        repeat.log,
        repeat.log_sha256,
        _delegation(repeat.delegation),
    ]


def _delegation(d: Delegation | None) -> str:
    if d is None:
        return NOTHING
    asked, actual = backend_name(d.asked), backend_name(d.actual)
    text = f"{actual} as asked" if asked == actual else f"{actual}, asked for {asked}"
    text += f", {d.delegate or 'no delegate'}"
    if d.delegated is not None and d.nodes is not None:
        text += f", {d.delegated} of {counted(d.nodes, 'operation')}"
    if d.partitions is not None:
        text += f" in {counted(d.partitions, 'partition')}"
    return text


def _golden(check: GoldenCheck | None) -> str:
    if check is None:
        return "none to check against"
    text = (
        f"{check.pictures}, largest error {check.max_abs_error:.3g} at a range of {check.range:.3g}"
    )
    if check.snr_db is not None:
        text += f", SNR {check.snr_db:.1f} dB"
    if check.top1_agreement is not None:
        text += f", same top-1 on {percent(check.top1_agreement)}"
    return f"{text}; {'; '.join(check.violations) or 'within the limits'}"


def profile_rows(profile: Sequence[ProfiledOperation]) -> list[tuple[str, str, float, float, int]]:
    """The costliest operations, and the rest as one: operator, name, ms, share (0 to 1), calls."""
    ordered = sorted(profile, key=lambda p: -p.mean_ms)
    rows = [(p.operator, p.name, p.mean_ms, p.share, p.calls) for p in ordered[:PROFILED]]
    rest = ordered[PROFILED:]
    if rest:
        rows.append(
            (
                f"{len(rest)} others",
                "",
                sum(p.mean_ms for p in rest),
                sum(p.share for p in rest),
                sum(p.calls for p in rest),
            )
        )
    return rows


# --- devices --------------------------------------------------------------------------------------


def device_facts(device: Device, conditions: Sequence[Condition]) -> Facts:
    facts = [
        ("name", device.name),
        ("model", device.model),
        ("processor features", ", ".join(device.features or []) or NOTHING),
        ("processor", device.soc or NOTHING),
        ("system", device.system),
        ("build", device.build or NOTHING),
        ("ABI", device.abi),
        ("cores", _cores(device) or NOTHING),
        ("GPU", device.gpu or NOTHING),
        ("memory", size(device.memory_bytes)),
    ]
    for name, of, unit in (
        ("thermal status in this run", lambda c: c.thermal_status, ""),
        ("battery in this run", lambda c: c.battery_percent, " %"),
    ):
        values = [v for v in map(of, conditions) if v is not None]
        if values:
            facts.append((name, f"{values[0]} → {values[-1]}{unit}, at most {max(values)}{unit}"))
    for name, flags in (
        ("charging", [c.charging for c in conditions]),
        ("screen on", [c.screen_on for c in conditions]),
    ):
        known = {flag for flag in flags if flag is not None}
        if known:
            facts.append(
                (name, "at times" if len(known) > 1 else "yes" if known == {True} else "no")
            )
    facts.append(("does not report", "; ".join(device.lacks) or "nothing: all evidence is there"))
    return facts


def _cores(device: Device) -> str:
    groups = Counter(core.max_mhz for core in device.cores)
    return ", ".join(
        f"{count} × {f'{mhz / 1000:.2f} GHz' if mhz else 'unknown clock'}"
        for mhz, count in sorted(groups.items(), key=lambda g: g[0] or 0)
    )


def conditions_of(cases: Sequence[Shown]) -> list[Condition]:
    """A device's states in one run, in order of time."""
    every = [c for s in cases for r in s.case.repeats for c in (r.before, r.after)]
    return sorted(every, key=lambda c: c.at_s)


def timeline_panels(device: Device, conditions: Sequence[Condition]) -> list[Panel]:
    """Temperatures of the hottest sensors, clocks and their limits by kind of core, thermal status,
    reference load.

    What a device does not report has no panel, nor has a thermal status that never changed.
    """
    sensors: Series = {}
    clocks: Series = {}
    limits: Series = {}
    status: Series = {}
    load: Series = {}
    for c in conditions:
        minute = c.at_s / 60
        now: list[tuple[Series, Mapping[str, float | None]]] = [
            (sensors, c.temperatures_c),
            (clocks, _by_kind(device, c.clocks_mhz)),
            (limits, _by_kind(device, c.clock_limits_mhz)),
            (status, {"thermal status, 0 to 6": c.thermal_status}),
            (load, {"a large matrix product": c.reference_gflops}),
        ]
        for series, values in now:
            for name, value in values.items():
                if value is not None:
                    series.setdefault(name, []).append((minute, value))
    hottest = sorted(sensors, key=lambda s: -max(v for _, v in sensors[s]))[:_MOST_SENSORS]
    panels = [
        Panel("°C", {name: sensors[name] for name in hottest}),
        Panel("clock, MHz", clocks),
        Panel("limit, MHz", limits),
        Panel("status", {name: v for name, v in status.items() if len({y for _, y in v}) > 1}),
        Panel("GFLOP/s", load),
    ]
    return [panel for panel in panels if panel.series]


def _by_kind(device: Device, clocks_mhz: Sequence[float | None]) -> dict[str, float]:
    """The mean over the cores of each kind, which share their top clock."""
    tops = {core.index: core.max_mhz or 0 for core in device.cores}
    kinds: dict[float, list[float]] = {}
    for index, mhz in enumerate(clocks_mhz):
        if mhz is not None:
            kinds.setdefault(tops.get(index, 0), []).append(mhz)
    return {
        f"cores up to {top:.0f} MHz" if top else "cores": mean(kinds[top]) for top in sorted(kinds)
    }
