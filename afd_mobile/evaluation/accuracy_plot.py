"""Accuracy, drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from afd_mobile.common.terminal import printable
from afd_mobile.evaluation.conditions import CLEAN, LEFT_ALONE, Compress
from afd_mobile.evaluation.report import Report, Row, by_group, is_harm


def draw(reports: Sequence[Report]) -> bytes:
    """A PNG with a panel for each report, three in a row.

    Of suites the gain under every condition; else top-1 over the conditions.
    """
    # Only this function needs it, and it takes half a second to import.
    from matplotlib.figure import Figure

    from afd_mobile.common.plotting import png

    gains = any(report["suite"] for report in reports)
    most = max(len(report["conditions"]) for report in reports)
    width, height = (5.4, 1.6 + 0.22 * most) if gains else (4.6, 3.4)
    columns = min(3, len(reports))
    lines = -(-len(reports) // columns)
    figure = Figure(figsize=(width * columns, height * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, sharey=not gains, squeeze=False).flat
    for report, panel in zip(reports, panels, strict=False):
        (_draw_gains if gains else _draw_top1)(panel, report)
        model, reference = printable(report["model"]), printable(report["reference"])
        before = report["compress"] == Compress.BEFORE_SCALING.value
        when = "\ncompressed before scaling" * before
        title = f"{model}\nagainst {reference}{when}"
        panel.set_title(title, fontsize="medium", parse_math=False)
        panel.grid(alpha=0.3, axis="x" if gains else "both")
    for unused in list(panels):
        unused.set_axis_off()
    if not gains:
        figure.axes[0].set_ylabel("top-1 in %")
    # Outside: no place inside is free of points in every panel.
    shown = {label: handle for panel in figure.axes for handle, label in _legend(panel)}
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=4, fontsize="small"
    )
    return png(figure)


def _draw_top1(panel: Any, report: Report) -> None:
    """Top-1 of model and reference over the degraded conditions, a line for each group of them."""
    rows: list[Row] = report["conditions"]
    degraded = [r for r in rows if r["condition"] != CLEAN.name]
    clean = next(r for r in rows if r["condition"] == CLEAN.name)
    groups = [list(group) for _, group in groupby(enumerate(degraded), lambda x: x[1].get("group"))]
    panel.axhline(
        100 * clean["reference_top1"]["value"], color="0.5", ls="--", label="reference, clean"
    )
    for key, label, colour, marker, shift in (
        ("top1", "model", "tab:blue", "o", -0.05),
        ("reference_top1", "reference", "tab:red", "s", 0.05),
    ):
        for group in groups:
            values, interval = _points([r[key] for _, r in group])
            panel.errorbar(
                [place + shift for place, _ in group],
                values,
                interval,
                color=colour,
                marker=marker,
                label=label if group is groups[0] else None,
                capsize=3,
            )
    panel.set_xlim(-0.5, max(len(degraded), 1) - 0.5)
    slanted = {"rotation": 45, "ha": "right"} if len(degraded) > 5 else {}
    conditions = [printable(r["condition"]) for r in degraded]
    panel.set_xticks(range(len(degraded)), conditions, parse_math=False, **slanted)


def _draw_gains(panel: Any, report: Report) -> None:
    """From top to bottom, what every condition costs the reference, and how much comes back."""
    rows = by_group(report)
    clean = next(r for r in rows if r["condition"] == CLEAN.name)["reference_top1"]["value"]
    places = [(-y, row) for y, row in enumerate(rows) if "top1" in row]
    lost = [(y, row) for y, row in places if row["group"] not in ("", LEFT_ALONE)]
    panel.barh(
        [y for y, _ in lost],
        [100 * max(0.0, clean - row["reference_top1"]["value"]) for _, row in lost],
        color="0.88",
        label="lost by the reference",
    )
    for kind, colour in (("gain", "tab:blue"), ("loss by chance", "#f2a7a7"), ("harm", "tab:red")):
        drawn = [(y, row) for y, row in places if _kind(row) == kind]
        if not drawn:
            continue
        values, interval = _points([row["difference"] for _, row in drawn])
        panel.barh(
            [y for y, _ in drawn],
            values,
            xerr=interval,
            height=0.5,
            color=colour,
            label=kind,
            error_kw={"capsize": 2, "lw": 0.8, "ecolor": "0.25"},
        )
    names = [printable(row["condition"]).strip() for row in rows]
    panel.set_yticks([-y for y in range(len(rows))], names, parse_math=False, fontsize="small")
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if "top1" in row else "bold")
    panel.set_ylim(0.8 - len(rows), 0.8)
    panel.axvline(0, color="0.25", lw=0.8)
    panel.set_xlabel("top-1, points")


def _legend(panel: Any) -> Iterator[tuple[Any, str]]:
    return zip(*panel.get_legend_handles_labels(), strict=True)


def _kind(row: Row) -> str:
    """Which colour its bar has."""
    if is_harm(row):
        return "harm"
    return "gain" if row["difference"]["value"] >= 0 else "loss by chance"


def _points(estimates: list[dict[str, float]]) -> tuple[list[float], tuple[list[float], ...]]:
    """Values in %, and how far the intervals reach below and above them."""
    values, low, high = ([100 * e[part] for e in estimates] for part in ("value", "low", "high"))
    below = [value - end for value, end in zip(values, low, strict=True)]
    return values, (below, [end - value for value, end in zip(values, high, strict=True)])
