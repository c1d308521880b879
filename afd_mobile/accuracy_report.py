"""Accuracy for people: JSON, a table, a plot."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

from afd_mobile.accuracy import MIN_CHANGED, RESAMPLES, SEED, Accuracy
from afd_mobile.artifacts import read_versioned, versions_of
from afd_mobile.degrade import CLEAN
from afd_mobile.errors import InputError
from afd_mobile.terminal import in_markdown, printable

SCHEMA_VERSION = 1
_PACKAGES = ("afd-mobile", "torch", "ai-edge-litert", "onnxruntime", "numpy", "pillow")

_TOO_FEW = f"too few: compression changes fewer than {MIN_CHANGED} pictures"

Report = dict[str, Any]
Row = dict[str, Any]  # a ConditionAccuracy as JSON

_SHARES = ("top1", "top5", "reference_top1", "reference_top5", "agreement")

# The printed tables: headers, and keys of a Row.
_PRINTED = (
    {
        "reference top-1": "reference_top1",
        "top-1": "top1",
        "difference": "difference",
        "recovered share": "recovered_share",
    },
    {"reference top-5": "reference_top5", "top-5": "top5", "same top-1": "agreement"},
)


def report_of(accuracy: Accuracy, *, model: str, sha256: str | None, reference: str) -> Report:
    """What `--json` writes: the figures with what they rest on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "model_sha256": sha256,
        "reference": reference,
        **dataclasses.asdict(accuracy),
        "intervals": f"95 %, bootstrap over pictures, {RESAMPLES} resamples, seed {SEED}",
        "host": f"{platform.machine()}, {platform.system()}",
        "versions": versions_of(*_PACKAGES),
    }


def read_report(path: Path) -> Report:
    """A file that `--json` wrote.

    Raises:
        InputError: it is missing, broken, something else, or of another schema version.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}; make it with afd-eval --json")
    report: Report = read_versioned(path, SCHEMA_VERSION, "make it with afd-eval --json")
    try:
        _check(report)
    except ValueError as error:
        raise InputError(f"{path} is no result of afd-eval --json: {error}") from error
    return report


def _check(report: Report) -> None:
    """Raises: ValueError, it names a key that is missing, or what cannot be."""
    _typed(report, "model", str)
    _typed(report, "reference", str)
    pictures: int = _typed(report, "pictures", int)
    if pictures < 1:
        raise ValueError(f"pictures is {pictures}")
    rows: list[Row] = _typed(report, "conditions", list)
    for number, row in enumerate(rows):
        where = f"conditions[{number}]."
        _typed(row, "condition", str, where)
        for key in _SHARES:
            _check_estimate(row, key, where, 0, 1)
        _check_estimate(row, "difference", where, -1, 1)
        top1, reference, difference = (
            row[key]["value"] for key in ("top1", "reference_top1", "difference")
        )
        if not isclose(difference, top1 - reference, abs_tol=1e-6):
            raise ValueError(f"{where}difference is {difference}, not {top1} - {reference}")
    if CLEAN.name not in [row["condition"] for row in rows]:
        raise ValueError("conditions: no clean condition")
    for where, holder in [("", report), *((f"conditions[{n}].", r) for n, r in enumerate(rows))]:
        if holder.get("recovered_share", ...) is not None:
            # At most all pictures are gained where one was lost.
            _check_estimate(holder, "recovered_share", where, -pictures, pictures, is_ratio=True)


def _check_estimate(
    holder: Row, key: str, where: str, least: int, most: int, *, is_ratio: bool = False
) -> None:
    """Args: `is_ratio`: resamples may lack its denominator, and few pictures give no interval."""
    estimate = _typed(holder, key, dict, where)
    if is_ratio and (estimate.get("low", 0), estimate.get("high", 0)) == (None, None):
        value = _typed(estimate, "value", (int, float), f"{where}{key}.")
        estimate = {"value": value, "low": value, "high": value}
    value, low, high = (
        _typed(estimate, part, (int, float), f"{where}{key}.") for part in ("value", "low", "high")
    )
    ordered = low <= high if is_ratio else low <= value <= high
    if not (ordered and all(least <= figure <= most for figure in (value, low, high))):
        raise ValueError(
            f"{where}{key} is {value} [{low}, {high}], expected {least} to {most} and "
            "an interval around it"
        )


def _typed(holder: Any, key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    """The value of a key; True is no number."""
    if not isinstance(holder, dict) or key not in holder:
        raise ValueError(f"no {where}{key}")
    value = holder[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}{key} is {printable(repr(value)[:80])}")
    return value


def text_table(report: Report) -> list[str]:
    """What the command prints: two tables with a line for every condition, then the mean."""
    lines = [line for columns in _PRINTED for line in _aligned(report["conditions"], columns)]
    lines.append(f"in %, brackets: 95 % intervals; {report['pictures']} pictures")
    if report["recovered_share"]:
        lines[-1] += f"; recovered share on average {_with_interval(report['recovered_share'])}"
    return [*lines, *_too_few(report)]


def _too_few(report: Report) -> list[str]:
    """What `too few` means, where it is said."""
    shares = [row["recovered_share"] for row in report["conditions"]]
    return [_TOO_FEW] if any(share and share["low"] is None for share in shares) else []


def _aligned(rows: Sequence[Row], columns: dict[str, str]) -> list[str]:
    """The conditions and these columns, each as wide as its longest cell."""
    names = [row["condition"] for row in rows]
    table = [["", *names]]
    for header, key in columns.items():
        sign = "+" if key == "difference" else ""
        cells = [_with_interval(row[key], sign, width=6) for row in rows]
        table.append([f"{'':2}{header}", *cells])
    widths = [max(map(len, column)) for column in table]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*table, strict=True)
    ]


def markdown_table(reports: Sequence[Report]) -> str:
    """All reports: for each, the reference's row, the model's, and what was recovered."""
    blocks: list[str] = []
    for report in reports:
        rows: list[Row] = report["conditions"]
        model, reference, mean = (report[k] for k in ("model", "reference", "recovered_share"))
        heading = in_markdown(f"{model} against {reference}, {report['pictures']} pictures")
        blocks.append(
            "\n".join(
                [
                    f"| {heading} | "
                    + " | ".join(in_markdown(r["condition"]) for r in rows)
                    + " |",
                    "|---" * (len(rows) + 1) + "|",
                    _markdown_row(
                        "top-1, reference", [_percent(r["reference_top1"]) for r in rows]
                    ),
                    _markdown_row("top-1", [_percent(r["top1"]) for r in rows]),
                    _markdown_row(
                        "difference", [_with_interval(r["difference"], "+") for r in rows]
                    ),
                    *_shares_row(rows),
                    _markdown_row(
                        "top-5, reference > own",
                        [f"{_percent(r['reference_top5'])} > {_percent(r['top5'])}" for r in rows],
                    ),
                    _markdown_row("same top-1", [_percent(r["agreement"]) for r in rows]),
                ]
            )
            + "\n\nIn %; brackets: 95 % intervals."
            + (f" Recovered share on average: {_with_interval(mean)}." if mean else "")
            + "".join(f" {line.capitalize()}." for line in _too_few(report))
        )
    return "\n\n".join(blocks) + "\n"


def _shares_row(rows: list[Row]) -> list[str]:
    """None where the reference corrects as well."""
    shares = [_with_interval(row["recovered_share"]) for row in rows]
    return [_markdown_row("recovered share", shares)] if any(shares) else []


def draw(reports: Sequence[Report]) -> bytes:
    """A PNG: top-1 over the conditions, one panel for each report, three in a row."""
    # Only this function needs it, and it takes half a second to import.
    from matplotlib.figure import Figure

    from afd_mobile.plotting import png

    columns = min(3, len(reports))
    lines = -(-len(reports) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    for report, panel in zip(reports, panels, strict=False):
        rows: list[Row] = report["conditions"]
        degraded = [r for r in rows if r["condition"] != CLEAN.name]
        clean = next(r for r in rows if r["condition"] == CLEAN.name)
        x = list(range(len(degraded)))
        panel.axhline(
            100 * clean["reference_top1"]["value"], color="0.5", ls="--", label="reference, clean"
        )
        for key, label, colour, marker, shift in (
            ("top1", "model", "tab:blue", "o", -0.05),
            ("reference_top1", "reference", "tab:red", "s", 0.05),
        ):
            values = [100 * r[key]["value"] for r in degraded]
            low = [v - 100 * r[key]["low"] for v, r in zip(values, degraded, strict=True)]
            high = [100 * r[key]["high"] - v for v, r in zip(values, degraded, strict=True)]
            panel.errorbar(
                [place + shift for place in x],
                values,
                (low, high),
                color=colour,
                marker=marker,
                label=label,
                capsize=3,
            )
        slanted = {"rotation": 45, "ha": "right"} if len(x) > 5 else {}
        conditions = [printable(r["condition"]) for r in degraded]
        panel.set_xticks(x, conditions, parse_math=False, **slanted)
        model, reference = printable(report["model"]), printable(report["reference"])
        panel.set_title(f"{model}\nagainst {reference}", fontsize="medium", parse_math=False)
        panel.grid(alpha=0.3)
    for unused in list(panels):
        unused.set_axis_off()
    figure.axes[0].set_ylabel("top-1 in %")
    # Outside: no place inside is free of points in every panel.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return png(figure)


def _markdown_row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _percent(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['value']:.1f}"


def _with_interval(estimate: dict[str, Any] | None, sign: str = "", width: int = 0) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate['value']:{sign}{width}.1f}"
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return f"{value} [too few]"
    return f"{value} [{100 * low:.1f}, {100 * high:.1f}]"
