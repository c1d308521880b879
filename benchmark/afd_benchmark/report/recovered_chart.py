"""The paper's Fig. 9, measured: recovered share against latency, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence

from afd_benchmark.report.accuracy import AccuracyReport, Matched, match
from afd_benchmark.report.cases import names_on_device, shown_cases
from afd_benchmark.report.chart_output import png_file
from afd_benchmark.report.charts import Point, scatter
from afd_benchmark.results import Results, Verdict
from afd_mobile.common.errors import InputError


def recovered_chart(results: Sequence[Results], accuracy: Sequence[AccuracyReport]) -> bytes:
    """Timed files by their recovered share with its interval; the reference's is 0.

    Raises:
        InputError: there is none, or they are of several devices or conditions.
    """
    there = match(shown_cases(results), accuracy)
    if len(there) != 1:
        raise InputError(
            f"a .png shows the timed files of --accuracy on one device, under the same conditions; "
            f"here are {len(there)} such groups"
        )
    matched = [m for m in there[0].matched if m.recovered is not None]
    if not matched:
        raise InputError("--accuracy holds no recovered share of a file that was timed")
    names = [m.shown.case.target for m in matched]
    if len(set(names)) < len(names):
        names = names_on_device([m.shown for m in matched])
    points = [_point(name, m) for name, m in zip(names, matched, strict=True)]
    figure = scatter(points, "median latency, ms", "recovered share, %", log_x=True, width=520)
    return png_file(figure)


def _point(name: str, matched: Matched) -> Point:
    case, share = matched.shown.case, matched.recovered
    assert case.median_ms is not None and share is not None
    interval = None
    if share.low is not None and share.high is not None:
        interval = (100 * share.low, 100 * share.high)
    return Point(
        name.replace(", ", "\n", 1),
        case.median_ms,
        100 * share.value,
        highlighted=matched.by_hash,
        sure=case.verdict is Verdict.VALID,
        ci95=interval,
    )
