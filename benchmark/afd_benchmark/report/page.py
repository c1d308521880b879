"""The report of one or several runs as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from afd_benchmark import number_format
from afd_benchmark.number_format import time_scale
from afd_benchmark.report import charts
from afd_benchmark.report.accuracy import AccuracyReport, AccuracyThere, match
from afd_benchmark.report.cases import (
    Shown,
    by_device,
    device_names,
    headline,
    names_on_device,
    shown_cases,
    table_row,
)
from afd_benchmark.report.chart_output import inline_svg
from afd_benchmark.report.distribution_chart import distribution_svg
from afd_benchmark.report.evidence import (
    REPEAT_COLUMNS,
    case_facts,
    conditions_of,
    device_facts,
    profile_rows,
    repeat_rows,
    timeline_panels,
)
from afd_benchmark.results import Device, Results, Verdict
from afd_mobile.common.terminal import printable

_HERE = Path(__file__).resolve().parent
_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class _DeviceInRun:
    run: int
    where: str
    device: Device
    cases: list[Shown]


def render_html(results: Sequence[Results], accuracy: Sequence[AccuracyReport] = ()) -> bytes:
    """One file without scripts or references to anything outside it; UTF-8.

    Args:
        results: of one or several runs, on any devices.
        accuracy: drawn against latency where it is of a file that was timed.
    """
    cases = shown_cases(results)
    rows = [table_row(shown) for shown in cases if shown.case.verdict is not Verdict.SKIPPED]
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(number_format, name) for name in ("duration", "percent", "counted", "moment")
    }
    page = environment.get_template(_TEMPLATE).render(
        headline=headline(cases),
        results=results,
        cases=cases,
        rows=rows,
        skipped=[shown for shown in cases if shown.case.verdict is Verdict.SKIPPED],
        distributions=[(s, _distribution(s)) for s in cases if s.timed and s.case.repeats],
        ratios=[
            (where, _ratios(where, group, n))
            for n, (where, group) in enumerate(
                by_device([s for s in cases if s.case.ratio]).items(), 1
            )
        ],
        accuracy=[
            (entry, names, _scatter(entry, names, n))
            for n, entry in enumerate(match(cases, accuracy), 1)
            for names in [names_on_device([m.shown for m in entry.matched])]
        ],
        profiles=[(s, profile_rows(s.case.profile)) for s in cases if s.case.profile],
        devices=[
            (entry, *_device(entry, n)) for n, entry in enumerate(_devices(results, cases), 1)
        ],
        case_facts=case_facts,
        repeat_columns=REPEAT_COLUMNS,
        repeat_rows=repeat_rows,
    )
    return page.encode()


def _shown_text(value: object) -> object:
    """Text from outside with its control characters visible; what is markup stays."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _devices(results: Sequence[Results], cases: Sequence[Shown]) -> Iterator[_DeviceInRun]:
    names = device_names(results)
    for run, result in enumerate(results, 1):
        for device in result.devices:
            here = [s for s in cases if s.run == run and s.case.device == device.name]
            yield _DeviceInRun(run, names[run, device.name], device, here)


# --- charts ---------------------------------------------------------------------------------------


def _distribution(shown: Shown) -> Markup:
    case = shown.case
    assert case.median_ms is not None
    row = table_row(shown)
    title = f"Latency of {shown.label} by repeat: median {row.median} {row.interval}"
    scale = time_scale(case.median_ms, case.ci95_ms)
    return Markup(distribution_svg(case.repeats, case.median_ms, case.ci95_ms, scale, title))


def _ratios(where: str, cases: Sequence[Shown], number: int) -> Markup:
    """Of one device's cases, each of which has a ratio."""
    found = [(name, s, s.case.ratio) for name, s in zip(names_on_device(cases), cases, strict=True)]
    against = {ratio.against for _, _, ratio in found if ratio}
    bars = []
    for name, shown, ratio in found:
        assert ratio is not None
        row = table_row(shown)
        bars.append(
            charts.RatioRow(
                name if len(against) == 1 else f"{name} / {ratio.against}",
                f"{row.ratio} {row.ratio_interval}",
                ratio.ratio,
                ratio.ci95,
                {shown.case.verdict, ratio.against_verdict} == {Verdict.VALID},
            )
        )
    other = against.pop() if len(against) == 1 else "the other file"
    title = f"Ratios on {where}: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
    return Markup(
        inline_svg(charts.ratios(bars, f"times the time of {other}"), f"ratios-{number}", title)
    )


def _scatter(entry: AccuracyThere, names: Sequence[str], number: int) -> Markup:
    points = []
    for name, m in zip(names, entry.matched, strict=True):
        case = m.shown.case
        assert case.median_ms is not None
        suffix = "" if case.verdict is Verdict.VALID else f" ({case.verdict.value})"
        label = f"{name.replace(', ', chr(10), 1)}{suffix}"
        points.append(
            charts.Point(
                label, case.median_ms, 100 * m.mean, m.by_hash, sure=case.verdict is Verdict.VALID
            )
        )
    figure = charts.scatter(points, "median latency, ms", "top-1, %")
    title = f"Accuracy against latency on {entry.where}"
    return Markup(inline_svg(figure, f"accuracy-{number}", title))


def _device(entry: _DeviceInRun, number: int) -> tuple[list[tuple[str, str]], Markup | None]:
    """A device's facts, and its state over the run where it reports any."""
    conditions = conditions_of(entry.cases)
    panels = timeline_panels(entry.device, conditions)
    chart = None
    if panels:
        title = f"Heat and clocks of {entry.where} over the run"
        chart = Markup(inline_svg(charts.timeline(panels), f"device-{number}", title))
    return device_facts(entry.device, conditions), chart
