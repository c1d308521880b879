"""The cases as the report shows them: one list over all runs, names, the sentence, table rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from afd_benchmark.number_format import (
    NOTHING,
    bracketed,
    counted,
    decimals,
    duration,
    number,
    size,
    time_scale,
)
from afd_benchmark.results import TIMED, Case, Device, Ratio, Results, Verdict

NO_INTERVAL = "no interval"
_BACKENDS = {"cpu": "CPU", "gpu": "GPU", "nnapi": "NNAPI"}


@dataclass(frozen=True)
class Shown:
    """One case of one run.

    Attributes:
        number: over all runs, from 1.
        run: of the results given, from 1.
        case: without any time where the verdict allows none.
        device: None where the run does not describe it.
        where: the device for people.
        label: the file, and what else tells this case from the others.
        beside: the file that this one was only measured in turn with; None for a case of its own.
    """

    number: int
    run: int
    case: Case
    device: Device | None
    where: str
    label: str
    beside: str | None

    @property
    def timed(self) -> bool:
        return self.case.median_ms is not None

    @property
    def setup(self) -> str:
        """`CPU, 1 thread`."""
        return f"{backend_name(self.case.backend)}, {counted(self.case.threads, 'thread')}"


@dataclass(frozen=True)
class Row:
    """One line of the main table, every figure with its unit; times are empty without a verdict.

    Attributes:
        features: of the processor; empty where they are unknown.
        runtime: with its version; empty where it does not say.
        size: of the file.
        peak_memory: the most of any repeat.
    """

    shown: Shown
    features: str
    runtime: str
    size: str
    peak_memory: str
    median: str
    interval: str
    p90: str
    p99: str
    ratio: str
    ratio_interval: str
    against: str
    first: str
    init: str


def shown_cases(results: Sequence[Results]) -> list[Shown]:
    """Every case of every run, in order."""
    names = device_names(results)
    found: list[tuple[int, Case, Device | None, str, str | None]] = []
    for run, result in enumerate(results, 1):
        devices = {device.name: device for device in result.devices}
        files = {case.sha256: case.file for case in result.cases}
        for case in result.cases:
            where = names.get((run, case.device), case.device)
            main = case.in_turn_with
            beside = None if main is None else files.get(main, main)
            found.append((run, _published(case), devices.get(case.device), where, beside))
    labels = _labels(
        [
            (
                c.file,
                backend_name(c.backend),
                counted(c.threads, "thread"),
                where,
                f"run {run}",
                _beside(beside),
                f"case {n}",
            )
            for n, (run, c, _, where, beside) in enumerate(found, 1)
        ]
    )
    return [
        Shown(n, run, case, device, where, label, beside)
        for n, ((run, case, device, where, beside), label) in enumerate(
            zip(found, labels, strict=True), 1
        )
    ]


def names_on_device(cases: Sequence[Shown]) -> list[str]:
    """For a chart of one device's cases: target, precision, and setup and run where they differ."""
    return _labels(
        [
            (
                f"{s.case.target}, {s.case.precision}" if s.case.precision else s.case.target,
                s.setup,
                f"run {s.run}",
                _beside(s.beside),
                f"case {s.number}",
            )
            for s in cases
        ]
    )


def by_device(cases: Sequence[Shown]) -> dict[str, list[Shown]]:
    groups: dict[str, list[Shown]] = {}
    for shown in cases:
        groups.setdefault(shown.where, []).append(shown)
    return groups


def device_names(results: Sequence[Results]) -> dict[tuple[int, str], str]:
    """(run, name in that run) -> name for people; with the serial where two would be alike."""
    devices = [(run, d) for run, result in enumerate(results, 1) for d in result.devices]
    plain = {
        (run, d.name): f"{d.soc} ({d.model})" if d.soc and d.soc != d.model else d.model
        for run, d in devices
    }
    alike = Counter(label for label, _ in {(plain[run, d.name], d.name) for run, d in devices})
    return {
        (run, name): label if alike[label] == 1 else f"{label}, {name}"
        for (run, name), label in plain.items()
    }


def backend_name(backend: str) -> str:
    kind, _, library = backend.partition(":")
    return f"external delegate {library}" if library else _BACKENDS.get(kind, kind)


def headline(cases: Sequence[Shown]) -> str:
    """What was found, in one sentence: the first figure that can be relied on, and the verdicts."""
    if not cases:
        return "Nothing was measured: the results hold no case."
    counts = Counter(shown.case.verdict for shown in cases)
    verdicts = f"{counts[Verdict.VALID]} of {counted(len(cases), 'case')} VALID"
    for verdict in (Verdict.SUSPECT, Verdict.INVALID, Verdict.SKIPPED):
        verdicts += f", {counts[verdict]} {verdict.value}" if counts[verdict] else ""
    timed = [shown for shown in cases if shown.timed]
    if not timed:
        return f"No case gave a time: {verdicts}."
    best = min(timed, key=lambda s: (s.case.verdict is not Verdict.VALID, s.case.ratio is None))
    case, row = best.case, table_row(best)
    precision = f" ({case.precision})" if case.precision else ""
    took = f"{case.target}{precision} takes {row.median}"
    if case.ratio:
        took += f", {row.ratio} times {row.against} {row.ratio_interval}"
    if case.verdict is Verdict.SUSPECT:
        took += " (SUSPECT)"
    return f"On {best.where}, {best.setup}: {took}; {verdicts}."


def table_row(shown: Shown) -> Row:
    case = shown.case
    features = ", ".join((shown.device and shown.device.features) or [])
    runtime = next((r.runtime for r in case.repeats if r.runtime), "")
    fixed = (features, runtime, size(case.bytes), size(peak_memory(case)))
    if case.median_ms is None:
        return Row(shown, *fixed, *[""] * 9)
    scale = time_scale(case.median_ms, case.ci95_ms)
    means = any(repeat.statistic == "mean" for repeat in case.repeats)
    ratio = case.ratio
    ratio_places = decimals(ratio.ratio, ratio.ci95) if ratio else 0
    return Row(
        shown,
        *fixed,
        median=f"{scale.time(case.median_ms)}{' (of means)' if means else ''}",
        interval=scale.interval(case.ci95_ms) or NO_INTERVAL,
        p90=scale.time(case.p90_ms),
        p99=scale.time(case.p99_ms),
        ratio=number(ratio.ratio, ratio_places) if ratio else NOTHING,
        ratio_interval=(bracketed(ratio.ci95, ratio_places) or NO_INTERVAL) if ratio else "",
        against=against(ratio) if ratio else "",
        first=duration(case.first_ms),
        init=duration(case.init_ms),
    )


def against(ratio: Ratio) -> str:
    """The other file, and its verdict where that is not VALID."""
    other = ratio.against_verdict
    return ratio.against if other is Verdict.VALID else f"{ratio.against} ({other.value})"


def peak_memory(case: Case) -> int | None:
    """The most of any repeat, in bytes; None where it is unknown."""
    return max((r.peak_memory_bytes for r in case.repeats if r.peak_memory_bytes), default=None)


def _published(case: Case) -> Case:
    """Without figures that the verdict forbids, should the file hold them."""
    if case.verdict in TIMED:
        return case
    return replace(
        case, median_ms=None, ci95_ms=None, p90_ms=None, p99_ms=None, spread=None, init_ms=None,
        first_ms=None, warmup_ms=None, samples_ms=[], share_of_peak=None, ratio=None, profile=[],
    )  # fmt: skip


def _beside(file: str | None) -> str:
    return f"in turn with {file}" if file else ""


def _labels(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The first part, and of the others, in order, those that tell more of them apart."""
    labels = [part[0] for part in parts]
    for column in list(zip(*parts, strict=True))[1:]:
        longer = [
            f"{label}, {part}" if part else label
            for label, part in zip(labels, column, strict=True)
        ]
        if len(set(longer)) > len(set(labels)):
            labels = longer
    return labels
