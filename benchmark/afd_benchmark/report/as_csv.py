"""The report as CSV: a row for every case, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from afd_benchmark.report.cases import Shown, peak_memory, shown_cases
from afd_benchmark.results import Results
from afd_mobile.common.terminal import printable

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")
_CASE = (
    "target", "file", "sha256", "bytes", "precision", "backend", "threads", "tool", "verdict",
    "reasons", "in_turn_with", "median_ms", "ci95_low_ms", "ci95_high_ms", "p90_ms", "p99_ms",
    "spread", "init_ms", "first_ms", "warmup_ms", "multiply_adds", "share_of_peak",
)  # fmt: skip
_DEVICE = ("kind", "model", "soc", "features", "system", "abi")
_RATIO = (
    "ratio", "ci95_low", "ci95_high", "against", "against_sha256", "against_median_ms",
    "against_verdict", "rounds",
)  # fmt: skip
_DELEGATION = ("asked", "actual", "delegate", "delegated", "nodes", "partitions")
_GOLDEN = ("pictures", "max_abs_error", "range", "snr_db", "top1_agreement", "violations")


def render_csv(results: Sequence[Results]) -> str:
    """A header and a row for every case with every scalar figure; no text without cases.

    Reasons and violations are joined by "; ", shares are 0 to 1, numbers are not rounded, and
    a cell is empty where there is no figure. Text that a spreadsheet would take for a formula
    follows an apostrophe.
    """
    buffer = io.StringIO()
    writer = None
    for shown in shown_cases(results):
        row = _row(results[shown.run - 1], shown)
        if writer is None:
            writer = csv.DictWriter(buffer, row, lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return buffer.getvalue()


def _row(result: Results, shown: Shown) -> dict[str, str]:
    case = shown.case
    return {
        "run": str(shown.run),
        "started_at": _text(result.started_at),
        "device": _text(case.device),
        **_columns("device_", _DEVICE, shown.device),
        **_columns("", _CASE, case),
        "repeats": str(len(case.repeats)),
        "runtime": _text(next((r.runtime for r in case.repeats if r.runtime), None)),
        "runs": str(sum(r.runs for r in case.repeats)),
        "outliers": str(sum(len(r.outliers) for r in case.repeats)),
        "peak_memory_bytes": _text(peak_memory(case)),
        **_columns("ratio_", _RATIO, case.ratio),
        **_columns("delegation_", _DELEGATION, case.delegation),
        **_columns("golden_", _GOLDEN, case.golden),
    }


def _columns(prefix: str, names: Sequence[str], source: object) -> dict[str, str]:
    return {f"{prefix}{name}": _text(_value(source, name)) for name in names}


def _value(source: object, name: str) -> object:
    """An attribute; an interval's end by `low` or `high` in the name; None of nothing."""
    if source is None:
        return None
    for index, end in enumerate(("_low", "_high")):
        if end in name:
            interval = getattr(source, name.replace(end, ""))
            return None if interval is None else interval[index]
    return getattr(source, name)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    text = "; ".join(value) if isinstance(value, list) else str(getattr(value, "value", value))
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
