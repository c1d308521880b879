"""Accuracy for people: JSON, a table, a plot."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

from afd_mobile.common.artifacts import read_versioned, versions_of
from afd_mobile.common.errors import InputError
from afd_mobile.common.intervals import MIN_CHANGED, RESAMPLES, SEED
from afd_mobile.common.terminal import aligned, in_markdown, printable
from afd_mobile.evaluation.accuracy import Accuracy
from afd_mobile.evaluation.conditions import CLEAN, Compress

SCHEMA_VERSION = 1
_PACKAGES = ("afd-mobile", "torch", "ai-edge-litert", "onnxruntime", "numpy", "pillow")

_TOO_FEW = f"too few: compression changes fewer than {MIN_CHANGED} pictures"

Report = dict[str, Any]
Row = dict[str, Any]  # a ConditionAccuracy as JSON

# What counts as harm: more is lost than this, and the interval excludes 0.
HARM = 0.005

_EARLIER = {"suite": "", "group_shares": {}, "compress": Compress.AFTER_SCALING.value}
_SHARES = ("top1", "top5", "reference_top1", "reference_top5", "agreement")

# The printed tables: headers, and keys of a Row.
_PRINTED = (
    {
        "reference top-1": "reference_top1",
        "model top-1": "top1",
        "difference": "difference",
        "recovered share": "recovered_share",
    },
    {"reference top-5": "reference_top5", "model top-5": "top5", "same top-1": "agreement"},
)


def report_of(
    accuracy: Accuracy,
    *,
    model: str,
    sha256: str | None,
    reference: str,
    suite: str = "",
    compress: Compress = Compress.AFTER_SCALING,
) -> Report:
    """What `--json` writes: the figures with what they rest on.

    Args:
        suite: its name; none of conditions that were asked for one by one.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "model_sha256": sha256,
        "reference": reference,
        "suite": suite,
        "compress": compress.value,
        **dataclasses.asdict(accuracy),
        "intervals": "95 %: of shares Wilson's, of differences Bonett and Price's, of recovered "
        f"shares a bootstrap over pictures, {RESAMPLES} resamples, seed {SEED}",
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
    content = read_versioned(path, SCHEMA_VERSION, "make it with afd-eval --json")
    # Earlier ones had none of these.
    report: Report = _EARLIER | content
    try:
        _check(report)
    except ValueError as error:
        raise InputError(f"{path} is no result of afd-eval --json: {error}") from error
    return report


def _check(report: Report) -> None:
    """Raises: ValueError, it names a key that is missing, or what cannot be."""
    _typed(report, "model", str)
    _typed(report, "reference", str)
    _typed(report, "suite", str)
    if report["compress"] not in [compress.value for compress in Compress]:
        raise ValueError(f"compress is {printable(repr(report['compress'])[:80])}")
    pictures: int = _typed(report, "pictures", int)
    if pictures < 1:
        raise ValueError(f"pictures is {pictures}")
    rows: list[Row] = _typed(report, "conditions", list)
    for number, row in enumerate(rows):
        where = f"conditions[{number}]."
        _typed(row, "condition", str, where)
        if report["suite"]:
            _typed(row, "group", str, where)
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
    groups: dict[str, Any] = _typed(report, "group_shares", dict)
    for group in groups:
        _check_estimate(groups, group, "group_shares.", -pictures, pictures, is_ratio=True)
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
    """What the command prints.

    Two tables with a line for every condition, of a suite one by groups; then the mean, and of a
    suite what it harms.
    """
    if report["suite"]:
        lines = _aligned(by_group(report), _PRINTED[0])
    else:
        lines = [line for columns in _PRINTED for line in _aligned(report["conditions"], columns)]
    lines.append(f"in %, brackets: 95 % intervals; {_pictures(report)}")
    if report["recovered_share"]:
        lines[-1] += f"; recovered share on average {_with_interval(report['recovered_share'])}"
    lines += _too_few(report)
    if report["suite"]:
        lines.append(_harm_line(report))
    return lines


def _too_few(report: Report) -> list[str]:
    """What `too few` means, where it is said."""
    shares = [row["recovered_share"] for row in report["conditions"]]
    return [_TOO_FEW] if any(share and share["low"] is None for share in shares) else []


def is_harm(row: Row) -> bool:
    """Whether the model is worse than the reference, by more than HARM and by more than chance."""
    return bool(row["difference"]["value"] < -HARM and row["difference"]["high"] < 0)


def _harm_line(report: Report) -> str:
    harmed = ", ".join(row["condition"] for row in report["conditions"] if is_harm(row))
    return f"harm, by more than {100 * HARM:.1f} points and beyond chance: {harmed or 'none'}"


def by_group(report: Report) -> list[Row]:
    """The conditions, indented below lines of their groups, which hold the mean shares."""
    lines: list[Row] = []
    for row in report["conditions"]:
        group = row["group"]
        if group and all(line["group"] != group for line in lines):
            mean = report["group_shares"].get(group)
            lines.append({"condition": group, "group": group, "recovered_share": mean})
        indented = f"  {row['condition']}" if group else row["condition"]
        lines.append({**row, "condition": indented})
    return lines


def _aligned(rows: Sequence[Row], columns: dict[str, str]) -> list[str]:
    """The conditions and these columns, each as wide as its longest cell."""
    names = [row["condition"] for row in rows]
    table = [["", *names]]
    for header, key in columns.items():
        table.append([f"{'':2}{header}", *(_cell(row, key, width=6) for row in rows)])
    return aligned(list(zip(*table, strict=True)), left=len(table))


def markdown_table(reports: Sequence[Report]) -> str:
    """All reports, one table each: a suite's by lines, others by columns."""
    return "\n\n".join(map(_markdown, reports)) + "\n"


def _markdown(report: Report) -> str:
    mean = report["recovered_share"]
    table = _markdown_by_lines(report) if report["suite"] else _markdown_by_columns(report)
    below = "In %; brackets: 95 % intervals."
    if mean:
        below += f" Recovered share on average: {_with_interval(mean)}."
    below += "".join(f" {line.capitalize()}." for line in _too_few(report))
    if report["suite"]:
        harm = in_markdown(_harm_line(report))
        below += f" {harm[0].upper()}{harm[1:]}."
    return "\n".join(table) + f"\n\n{below}"


def _heading(report: Report) -> str:
    model, reference = report["model"], report["reference"]
    return in_markdown(f"{model} against {reference}, {_pictures(report)}")


def _pictures(report: Report) -> str:
    """How many, and how they were compressed."""
    return f"{report['pictures']} pictures, compressed {report['compress'].replace('-', ' ')}"


def _markdown_by_lines(report: Report) -> list[str]:
    """A line for every condition and group."""
    lines = [_markdown_row(_heading(report), list(_PRINTED[0])), "|---" * 5 + "|"]
    for row in by_group(report):
        name = in_markdown(row["condition"].strip())
        cells = [_cell(row, key) for key in _PRINTED[0].values()]
        lines.append(_markdown_row(name if "top1" in row else f"**{name}**", cells))
    return lines


def _markdown_by_columns(report: Report) -> list[str]:
    """The reference's line, the model's, and what was recovered."""
    rows: list[Row] = report["conditions"]
    return [
        _markdown_row(_heading(report), [in_markdown(r["condition"]) for r in rows]),
        "|---" * (len(rows) + 1) + "|",
        _markdown_row("top-1, reference", [_percent(r["reference_top1"]) for r in rows]),
        _markdown_row("top-1, model", [_percent(r["top1"]) for r in rows]),
        _markdown_row("difference", [_cell(r, "difference") for r in rows]),
        *_shares_row(rows),
        _markdown_row(
            "top-5, reference to model",
            [f"{_percent(r['reference_top5'])} to {_percent(r['top5'])}" for r in rows],
        ),
        _markdown_row("same top-1", [_percent(r["agreement"]) for r in rows]),
    ]


def _shares_row(rows: list[Row]) -> list[str]:
    """None where nothing is to be recovered."""
    shares = [_cell(row, "recovered_share") for row in rows]
    return [_markdown_row("recovered share", shares)] if any(shares) else []


def _markdown_row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _percent(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['value']:.1f}"


def _cell(row: Row, key: str, width: int = 0) -> str:
    return _with_interval(row.get(key), "+" if key == "difference" else "", width)


def _with_interval(estimate: dict[str, Any] | None, sign: str = "", width: int = 0) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate['value']:{sign}{width}.1f}"
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return f"{value} [too few]"
    return f"{value} [{100 * low:.1f}, {100 * high:.1f}]"
