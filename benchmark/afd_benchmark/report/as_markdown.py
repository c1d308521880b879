"""The report as Markdown, for a README or an issue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from afd_benchmark.report.accuracy import AccuracyReport, match
from afd_benchmark.report.cases import Row, headline, shown_cases, table_row
from afd_benchmark.results import Results, Verdict
from afd_mobile.common.terminal import in_markdown

_COLUMNS = (
    "file", "size", "precision", "device", "features", "runtime", "setup", "verdict", "median",
    "95 % interval", "p90", "p99", "ratio", "against", "first", "init", "peak memory",
)  # fmt: skip


def render_markdown(results: Sequence[Results], accuracy: Sequence[AccuracyReport] = ()) -> str:
    """The sentence, the main table, reasons of all that is not VALID, accuracy against latency."""
    cases = shown_cases(results)
    rows = [table_row(shown) for shown in cases if shown.case.verdict is not Verdict.SKIPPED]
    reasons = [
        f"- {in_markdown(s.label)}: {s.case.verdict.value}: "
        + in_markdown("; ".join(s.case.reasons))
        for s in cases
        if s.case.verdict is not Verdict.VALID
    ]
    blocks = [in_markdown(headline(cases)), _table(_COLUMNS, map(_cells, rows)), "\n".join(reasons)]
    blocks += [
        _table(
            ("file", f"median, {entry.where}", f"top-1, mean of {entry.suite.averaged}"),
            ([m.shown.label, table_row(m.shown).median, f"{100 * m.mean:.1f} %"] for m in group),
        )
        for entry in match(cases, accuracy)
        for group in [entry.matched]
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _cells(row: Row) -> list[str]:
    shown, case = row.shown, row.shown.case
    return [
        case.file, row.size, case.precision or "", shown.where, row.features, row.runtime,
        shown.setup, case.verdict.value, row.median, row.interval, row.p90, row.p99,
        f"{row.ratio} {row.ratio_interval}".strip(), row.against, row.first, row.init,
        row.peak_memory,
    ]  # fmt: skip


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Nothing without rows."""
    lines = [_line(cells) for cells in rows]
    return "\n".join([_line(header), "|---" * len(header) + "|", *lines]) if lines else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(in_markdown, cells)) + " |"
