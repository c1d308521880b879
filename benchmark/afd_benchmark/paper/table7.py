"""The paper's Table VII and figures 9 and 10, of this machine beside the paper's phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from afd_benchmark.file_cost import FileCost
from afd_benchmark.paper.networks import AFD, CLASSIFIER
from afd_benchmark.report.chart_output import png_file
from afd_benchmark.report.charts import Point, scatter
from afd_benchmark.results import Case, Verdict

MAX_DIFFERENCE = 0.05


@dataclass(frozen=True)
class _Paper:
    """Table VII (Snapdragon 865), and top-1 at QF 15 with ResNet-50 (Table I; direct: 59.28)."""

    label: str
    parameters_m: float
    multiply_adds_g: float
    cpu_ms: float
    top1_at_15: float | None


_PAPER = {
    CLASSIFIER: _Paper("ResNet-50", 25.5, 4.12, 132, None),
    "arcnn": _Paper("ARCNN", 0.12, 5.91, 185, 58.76),
    "dncnn": _Paper("DnCNN", 0.56, 28.07, 625, 60.25),
    "rdn": _Paper("RDN", 0.53, 26.63, 526, 59.68),
    "fbcnn": _Paper("FBCNN", 71.92, 134.74, 3021, 55.90),
    "ddp": _Paper("DDP", 0.14, 1.48, 102, 61.62),
    AFD: _Paper("AFD", 0.11, 0.36, 54, 62.91),
}
_DIRECT_AT_15 = 59.28
_NOTES = {
    "rdn": "RDN: the paper does not say which size it ran; chosen here to match the stated one.",
    "ddp": "DDP: the published layers are not public; a stand-in of the stated size.",
    AFD: (
        "AFD: ResNet-50 with the paper's module at D2, less ResNet-50. Its widths are those of the "
        "authors' public code; the paper states 7 % more multiply-adds and not what it counts."
    ),
}


@dataclass(frozen=True)
class Row:
    """One network here.

    Attributes:
        median_ms: None where it was not measured, or not validly.
        ratio: of the time to ResNet-50's.
        suspect: its time or ResNet-50's is.
    """

    name: str
    parameters: int
    multiply_adds: int
    median_ms: float | None
    ratio: float | None
    suspect: bool


def rows(costs: Mapping[str, FileCost], cases: Mapping[str, Case]) -> list[Row]:
    """By name of the peer, in the paper's order.

    The AFD-Module by itself is its network less the classifier, where both are there.
    """
    base, base_ms = costs.get(CLASSIFIER), _median(cases.get(CLASSIFIER))
    found = []
    for name in _PAPER:
        if name not in costs:
            continue
        cost, ms = costs[name], _median(cases.get(name))
        parameters, multiply_adds = cost.parameters, cost.multiply_adds
        if name == AFD:
            if base is None:
                continue
            parameters -= base.parameters
            multiply_adds -= base.multiply_adds
            # Of two times that are all but alike, noise is the difference: no time.
            ms = ms - base_ms if ms is not None and base_ms is not None and ms > base_ms else None
        ratio = ms / base_ms if ms is not None and base_ms is not None else None
        used = [cases[n] for n in (name, CLASSIFIER) if n in cases]
        suspect = any(case.verdict is Verdict.SUSPECT for case in used)
        found.append(Row(name, parameters, multiply_adds, ms, ratio, suspect))
    return found


def table7(found: list[Row]) -> str:
    """Markdown, this machine's figures beside the paper's."""
    lines = [
        "| Table VII | params M | paper | multiply-adds G | paper | ms | / ResNet-50 "
        "| paper's CPU ms | / ResNet-50 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in found:
        paper = _PAPER[row.name]
        ms = "" if row.median_ms is None else f"{row.median_ms:.1f}{'?' if row.suspect else ''}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"| {paper.label} | {row.parameters / 1e6:.3f} | {paper.parameters_m:g} "
            f"| {row.multiply_adds / 1e9:.2f} | {paper.multiply_adds_g:g} | {ms} | {ratio} "
            f"| {paper.cpu_ms:g} | {paper.cpu_ms / _PAPER[CLASSIFIER].cpu_ms:.2f} |"
        )
        off = max(
            abs(row.parameters / 1e6 / paper.parameters_m - 1),
            abs(row.multiply_adds / 1e9 / paper.multiply_adds_g - 1),
        )
        if row.name in _NOTES:
            notes.append(_NOTES[row.name])
        elif off > MAX_DIFFERENCE:
            notes.append(f"{paper.label}: {off:.0%} off the paper's figures.")
    if any(row.suspect for row in found):
        notes.append("?: SUSPECT, or in proportion to a time that is; see the report.")
    return "\n".join([*lines, *(f"\n{note}" for note in notes), ""])


def figure9(found: list[Row]) -> bytes:
    """PNG: gain in top-1 (the paper's) over the time here; hollow: SUSPECT; sizes: parameters."""
    timed = [(row, row.median_ms, not row.suspect) for row in found if row.median_ms is not None]
    return _figure(timed, "inference time here, ms")


def figure10(found: list[Row]) -> bytes:
    """PNG: gain in top-1 (the paper's) over multiply-adds; sizes are parameters."""
    placed = [(row, row.multiply_adds / 1e9, True) for row in found]
    return _figure(placed, "multiply-adds, G")


def _figure(placed: list[tuple[Row, float, bool]], x_label: str) -> bytes:
    """Row, x and whether it is sure, of those that have a gain: all but the classifier itself."""
    points = [
        Point(
            paper.label if sure else f"{paper.label}?",
            x,
            paper.top1_at_15 - _DIRECT_AT_15,
            highlighted=row.name == AFD,
            size=float(row.parameters),
            sure=sure,
        )
        for row, x, sure in placed
        if (paper := _PAPER[row.name]).top1_at_15 is not None
    ]
    y_label = "the paper's gain in top-1 at QF 15, points"
    return png_file(scatter(points, x_label, y_label, log_x=True))


def _median(case: Case | None) -> float | None:
    return case.median_ms if case is not None else None
