"""`benchmark_model`'s operation profile, as CSV."""

from __future__ import annotations

import re

from msgspec.structs import replace

from afd_benchmark.benchmark_model.lines import Line, LogError
from afd_benchmark.benchmark_model.times import FLOAT
from afd_benchmark.results import ProfiledOperation

# What a line begins with -> the part of the profile that it opens.
_GRAPH, _DELEGATE, _OTHER = "graph", "delegate", "other"
_PARTS = {
    "Profiling Info for Benchmark Initialization": _OTHER,
    "Operator-wise Profiling Info for Regular Benchmark Runs": _GRAPH,
    "Primary graph profile": _GRAPH,
    "Delegate internal": _DELEGATE,
}
_SUBGRAPH = re.compile(r"Subgraph \(index: \d+\) profile:")
_TITLE = re.compile(r"=+ (?P<title>.+?) =+")
_COLUMNS = "node type, first, avg_ms, %, cdf%, mem KB, times called, name"
_OLD_COLUMNS = _COLUMNS.replace(" first", " start, first")
# An operator may have commas in it ("Convolution (NHWC, F32)"); out of names the tool takes them.
_ROW = re.compile(
    rf"(?P<operator>.+?)(?P<start>, {FLOAT})?, {FLOAT}, (?P<mean>{FLOAT}), "
    rf"(?P<share>{FLOAT})%, (?P<cdf>{FLOAT})%, {FLOAT}, (?P<calls>\d{{1,9}}), ?(?P<name>[^,]*)",
    re.ASCII,
)
_EXECUTED = re.compile(r"Number of nodes executed: (?P<count>\d{1,9})", re.ASCII)
_KERNEL = re.compile("delegate|litert_", re.IGNORECASE)
_PERCENT_OFF = 0.1  # between a row's cdf% and the sum of its and the rows' above


def parse_profile(text: str) -> list[ProfiledOperation]:
    """The operations of the regular runs in their order; initialisation is left out.

    Where a delegate tells its own operations apart, they stand for its kernels.

    Raises:
        LogError: a row or a column is none that is known, or the profile is cut off.
    """
    tables: dict[str, list[ProfiledOperation]] = {}
    whole: set[str] = set()
    part, inside, old, cdf = _GRAPH, False, False, 0.0
    line = _line(0, "")
    for number, raw in enumerate(text.replace("\r", "").split("\n"), start=1):
        line = _line(number, raw)
        title, executed = _TITLE.fullmatch(line.text), _EXECUTED.fullmatch(line.text)
        opened = next((p for start, p in _PARTS.items() if line.text.startswith(start)), None)
        if opened or _SUBGRAPH.fullmatch(line.text):
            part, inside = opened or _OTHER, False
        elif title:
            inside, cdf = title["title"] == "Run Order", 0.0
            if inside and part in tables and part != _OTHER:
                raise LogError("a second profile in one file", line)
            tables[part] = [] if inside else tables.get(part, [])
        elif executed:
            if int(executed["count"]) != len(tables.get(part, [])):
                raise LogError(f"not the {len(tables.get(part, []))} operations above", line)
            whole.add(part)
        elif inside and line.text.startswith("node type,"):
            old = line.text == _OLD_COLUMNS
            if line.text not in (_COLUMNS, _OLD_COLUMNS):
                raise LogError("columns of an unknown form", line)
        elif inside and line.text:
            operation, cdf = _operation(line, old, cdf)
            tables[part].append(operation)
        else:
            inside = False
    if _GRAPH not in whole or not set(tables) <= whole:
        raise LogError("no whole profile of the regular runs: cut off, or no profile", line)
    return _operations(tables[_GRAPH], tables.get(_DELEGATE, []))


def _line(number: int, raw: str) -> Line:
    return Line("profile", number, raw, raw.strip(), None, "", logcat=False, ended=True)


def _operation(line: Line, old: bool, cdf: float) -> tuple[ProfiledOperation, float]:
    """The row's operation and its cumulated percentage, which goes on from the row above."""
    match = _ROW.fullmatch(line.text)
    if not match or bool(match["start"]) != old:
        raise LogError("a row of an unknown form", line)
    percent, cumulated = float(match["share"]), float(match["cdf"])
    if abs(cdf + percent - cumulated) > _PERCENT_OFF or cumulated > 100 + _PERCENT_OFF:
        raise LogError(f"percentages that do not go on from {cdf:g} %", line)
    operation = ProfiledOperation(
        operator=match["operator"],
        name=match["name"],
        mean_ms=float(match["mean"]),
        share=percent / 100,
        calls=int(match["calls"]),
    )
    return operation, cumulated


def _operations(
    graph: list[ProfiledOperation], delegate: list[ProfiledOperation]
) -> list[ProfiledOperation]:
    if not delegate:
        return graph
    total_ms = sum(o.mean_ms for o in graph)
    inner = [replace(o, share=o.mean_ms / total_ms if total_ms else 0.0) for o in delegate]
    return [o for o in graph if not _KERNEL.search(o.operator)] + inner
