"""Latency by repeat as an inline SVG of its own: a report holds one for every case.

Written as text, since drawing each with matplotlib takes a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from matplotlib.ticker import MaxNLocator

from afd_benchmark.number_format import TimeScale
from afd_benchmark.report.chart_output import xml_text
from afd_benchmark.results import Repeat

WIDTH = 380  # as the other charts
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 12, 22, 36  # around the plot
_ROW = 13
_SHARPNESS = 800  # samples closer than this part of the axis fall on one line
_STYLE = "font: 11px system-ui, 'DejaVu Sans', sans-serif"


def distribution_svg(
    repeats: Sequence[Repeat],
    median_ms: float,
    ci95_ms: tuple[float, float] | None,
    scale: TimeScale,
    title: str,
) -> str:
    """Every inference of every repeat; the repeats' medians alone where the tool gives no more.

    Outliers are crosses; one so far off that it would squash the rest stands at the right edge.

    Args:
        scale: of the axis.
        title: what a reader who cannot see the picture is told.
    """
    core = [v for r in repeats for v in [*_without_outliers(r), r.median_ms]]
    low, high = min(core), max(core)
    span = (high - low) or 0.02 * high
    outliers = [[r.samples_ms[i] for i in r.outliers] for r in repeats]
    every = [v for values in outliers for v in values]
    near = [v for v in every if low - span / 2 <= v <= high + span / 2]
    left, right = min([low, *near]) - 0.06 * span, max([high, *near]) + 0.06 * span
    height = _TOP + _ROW * len(repeats) + _BOTTOM
    bottom = height - _BOTTOM

    def x(ms: float) -> float:
        ms = min(max(ms, left), right)
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (ms - left) / (right - left), 1)

    def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
        return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="var(--{colour})"/>'

    def text(x: float, y: float, words: str, more: str = "", colour: str = "ink") -> str:
        return f'<text x="{x:g}" y="{y:g}" fill="var(--{colour})"{more}>{words}</text>'

    parts = []
    ticks = MaxNLocator(6).tick_values(left * scale.per_ms, right * scale.per_ms)
    for tick in ticks:
        if left <= (at := tick / scale.per_ms) <= right:
            parts.append(line(x(at), _TOP, x(at), bottom, "grid"))
            parts.append(text(x(at), bottom + 14, f"{tick:.10g}", ' text-anchor="middle"'))
    if ci95_ms:
        start, end = map(x, ci95_ms)
        parts.append(
            f'<path d="M{start:g} {_TOP}H{end:g}V{bottom}H{start:g}z" fill="var(--muted)" '
            'fill-opacity=".25"/>'
        )
    parts.append(line(x(median_ms), _TOP, x(median_ms), bottom, "ink"))
    for row, repeat in enumerate(repeats):
        y = _TOP + _ROW * (row + 0.5)
        places = sorted({round(v / span * _SHARPNESS) for v in _without_outliers(repeat)})
        samples = "".join(f"M{x(p * span / _SHARPNESS):g} {y - 4:g}v8" for p in places)
        crosses = "".join(f"M{x(v) - 3:g} {y - 3:g}l6 6m-6 0l6-6" for v in outliers[row])
        middle = x(repeat.median_ms)
        parts += [
            f'<path class="samples" d="{samples}" stroke="var(--blue)"/>' if samples else "",
            f'<path class="outliers" d="{crosses}" stroke="var(--orange)" stroke-width="1.6"/>'
            if crosses
            else "",
            f'<path class="median" d="M{middle:g} {y - 3.5:g}l3.5 3.5l-3.5 3.5l-3.5-3.5z" '
            'fill="var(--ink)"/>',
        ]
    for row in range(1, len(repeats) + 1):
        parts.append(text(_LEFT - 4, _TOP + _ROW * (row - 0.5) + 4, f"{row}", ' text-anchor="end"'))
    middle = (_TOP + bottom) / 2
    turned = f' text-anchor="middle" transform="rotate(-90 10 {middle:g})"'
    parts.append(text(10, middle, "repeat", turned))
    parts.append(text((WIDTH + _LEFT - _RIGHT) / 2, height - 4, scale.unit))
    beyond = [v for v in every if not left <= v <= right]
    if beyond:
        ends = [f"{v * scale.per_ms:.3g}" for v in (min(beyond), max(beyond))]
        words = f"{len(beyond)} beyond the axis, {' to '.join(dict.fromkeys(ends))} {scale.unit}"
        parts.append(text(WIDTH - _RIGHT, 14, words, ' text-anchor="end"', "orange"))
    told = escape(xml_text(title))
    return (
        f'<svg role="img" aria-label="{told}" viewBox="0 0 {WIDTH} {height}" fill="none" '
        f'style="max-width: {WIDTH}px; {_STYLE}"><title>{told}</title>{"".join(parts)}</svg>'
    )


def _without_outliers(repeat: Repeat) -> list[float]:
    marked = set(repeat.outliers)
    return [v for i, v in enumerate(repeat.samples_ms) if i not in marked]
