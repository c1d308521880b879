"""The report's charts: ratios, a labelled scatter, a device's timeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from afd_benchmark.report.chart_labels import label_points
from afd_benchmark.report.chart_output import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    drawing,
    new_figure,
    shorten,
)

WIDTH = 380  # a phone shows this almost at full size, so that letters stay readable
_SERIES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"))


@dataclass(frozen=True)
class Point:
    """One name in a scatter.

    Attributes:
        size: such as parameters; its area relative to the others'.
        sure: hollow where it is not, as in `RatioRow`.
        ci95: the interval of y.
    """

    name: str
    x: float
    y: float
    highlighted: bool = False
    size: float | None = None
    sure: bool = True
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class RatioRow:
    """One ratio of times with its interval, if any; hollow where one of the times is SUSPECT."""

    name: str
    text: str
    ratio: float
    ci95: tuple[float, float] | None
    sure: bool


@dataclass(frozen=True)
class Panel:
    """One quantity over a run: series by name, each (minutes, value) in order."""

    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]


def ratios(rows: Sequence[RatioRow], x_label: str) -> Any:
    """Ratios with their intervals, one below the other, and the line at 1."""
    with drawing():
        figure = new_figure(WIDTH, 58 + 36 * len(rows))
        axes = figure.subplots()
        ends = [1.0, *(v for row in rows for v in (row.ratio, *(row.ci95 or ())))]
        margin = 0.06 * ((max(ends) - min(ends)) or 1)
        for place, row in enumerate(rows):
            low, high = row.ci95 or (row.ratio, row.ratio)
            error = [[row.ratio - low], [high - row.ratio]]
            axes.errorbar(
                row.ratio, place, xerr=error, color=BLUE, marker="o", ms=6, capsize=4, lw=1.8,
                mfc=BLUE if row.sure else PAPER,
            )  # fmt: skip
            # Beside the interval only, so that it crosses no name.
            axes.plot([1, 1], [place - 0.18, place + 0.36], color=INK, lw=1.2, ls="--", zorder=1)
            across = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(
                0, place - 0.4, shorten(row.name, 54), in_layout=False,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1}, **across,
            )  # fmt: skip
            axes.text(1.03, place, row.text, fontweight="bold", **across)
        axes.set(
            xlim=(min(ends) - margin, max(ends) + margin), ylim=(len(rows) - 0.5, -0.85),
            yticks=[],
        )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # 1 is among them
        axes.set_xlabel(shorten(x_label, 54), loc="left")
        axes.spines["left"].set_visible(False)
        return figure


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    height: float = 320,
    width: float = WIDTH,
) -> Any:
    """Named points, such as accuracy against latency (the paper's Fig. 9 and 10).

    Args:
        points: highlighted ones are blue and bold, the others orange; with `size`, areas are in
            proportion (never smaller than a visible dot).
        log_x, log_y: logarithmic axes, for positive values only.
    """
    with drawing():
        figure = new_figure(width, height)
        axes = figure.subplots()
        largest = max((p.size or 0 for p in points), default=0)
        radii = [4 if not p.size else max(3.0, 20 * math.sqrt(p.size / largest)) for p in points]
        intervals = []
        for point, radius in zip(points, radii, strict=True):
            colour = BLUE if point.highlighted else ORANGE
            face = colour if point.sure else "none"
            axes.plot(
                point.x, point.y, "o", ms=2 * radius, mec=colour, mfc=face, mew=1.6,
                alpha=0.8 if point.size else None, zorder=3,
            )  # fmt: skip
            if point.ci95:
                intervals += axes.plot([point.x] * 2, point.ci95, color=colour, lw=1.4, zorder=2)
        _spread(axes, "x", [p.x for p in points], log_x, 0.12)
        _spread(axes, "y", [y for p in points for y in (p.y, *(p.ci95 or ()))], log_y, 0.14)
        axes.set(xlabel=x_label, ylabel=y_label)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        named = [
            (
                "\n".join(shorten(line, 34) for line in p.name.split("\n")),
                p.x,
                p.y,
                r,
                p.highlighted,
            )
            for p, r in zip(points, radii, strict=True)
        ]
        label_points(axes, named, intervals)
        return figure


def _spread(axes: Any, which: str, values: Sequence[float], log: bool, margin: float) -> None:
    """Limits with room for names, and plain numbers at the ticks."""
    low, high = min(values), max(values)
    if log:
        pad = (high / low) ** margin if high > low else 2
        limits = (low / pad, high * pad)
        axes.set(**{f"{which}scale": "log"})
        axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        pad = margin * ((high - low) or abs(high) or 1)
        limits = (low - pad, high + pad)
    axes.set(**{f"{which}lim": limits})


def timeline(panels: Sequence[Panel]) -> Any:
    """A device's state over a run: one panel for each quantity, one line for each series."""
    with drawing():
        lines = [math.ceil(len(panel.series) / 2) for panel in panels]
        figure = new_figure(WIDTH, 30 + sum(118 + 15 * n for n in lines))
        column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, axes in zip(panels, column, strict=True):
            for (name, values), (colour, marker, dash) in zip(
                panel.series.items(), _SERIES, strict=False
            ):
                x, y = zip(*values, strict=True)
                axes.plot(
                    x, y, color=colour, marker=marker, ls=dash, ms=3.5, lw=1.4,
                    label=shorten(name, 24),
                )  # fmt: skip
            axes.set_ylabel(panel.y_label)
            whole = all(value % 1 == 0 for values in panel.series.values() for _, value in values)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=whole))
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        column[-1].set_xlabel("minutes since the run started")
        return figure
