"""What TFLite's `benchmark_model` printed -> figures that can be trusted, or an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from afd_benchmark.benchmark_model.lines import Line, LogError, read_lines, split_runs
from afd_benchmark.benchmark_model.placement import SHAPES as PLACEMENT_SHAPES
from afd_benchmark.benchmark_model.placement import AppliedDelegate, read_placement
from afd_benchmark.benchmark_model.times import FLOAT, Found, Times, read_times
from afd_benchmark.benchmark_model.times import SHAPES as TIMES_SHAPES


@dataclass(frozen=True)
class ToolRun(Times):
    """One run of the tool; None where the log does not show a figure.

    Attributes:
        graph: the file as the tool was given it.
        asked: the backend that was asked for.
        backend: the one that ran: cpu, gpu, nnapi, external:LIBRARY.
        delegate, delegated, nodes, partitions: the running backend's delegate, the operations it
            took of how many, and the parts that the graph fell into, those left to others included.
        init_growth_bytes, growth_bytes: how far the memory in use had grown since the tool's start,
            once the graph was ready, and at the end.
        kernels: in how many pieces the asked backend's delegate runs its share.
        fully_delegated: the asked backend runs the whole graph.
        delegates: all that took something, the asked backend's first.
        warnings: the tool's own, and what is left out of the figures.
    """

    graph: str | None
    asked: str | None
    backend: str | None
    delegate: str | None
    delegated: int | None
    nodes: int | None
    partitions: int | None
    kernels: int | None
    fully_delegated: bool | None
    delegates: tuple[AppliedDelegate, ...]
    peak_memory_bytes: int | None
    init_growth_bytes: int | None
    growth_bytes: int | None
    warnings: tuple[str, ...]


def parse_log(stdout: str, stderr: str, exit_code: int | None) -> ToolRun:
    """One run with its streams apart.

    Args:
        exit_code: None where it is unknown.

    Raises:
        LogError: the run failed or was cut off, or its figures are unreadable or inconsistent.
    """
    return _read(read_lines(stdout, "stdout") + read_lines(stderr, "stderr"), exit_code)


def parse_logs(text: str) -> list[ToolRun | LogError]:
    """A log as somebody else kept it: streams mixed, through logcat or not, one run or several.

    Returns:
        In the order of the runs, an error for each that failed; nothing where there is no run.
    """
    runs: list[ToolRun | LogError] = []
    for run in split_runs(read_lines(text)):
        try:
            runs.append(_read(run, None))
        except LogError as error:
            runs.append(error)
    return runs


# What a line begins with -> its whole shape. A line that begins so and goes on otherwise is
# refused: another version of the tool may mean something else by it.
_SHAPES = {
    **TIMES_SHAPES,
    **PLACEMENT_SHAPES,
    "graph": (r"Graph: ", r"Graph: \[(?P<path>.*)\]"),
    "loaded": (
        r"Loaded model |Loading model from: ",
        r"Load(?:ed model|ing model from:) (?P<path>.+)",
    ),
    # No peaks: both are differences from the start of the tool.
    "growth": (
        r"Memory footprint delta|Peak memory footprint \(MB\): init",
        r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\):"
        rf" init=(?P<init>{FLOAT}) overall=(?P<overall>{FLOAT})",
    ),
    "init_litert": (r"Init footprint:", rf"Init footprint: +(?P<init>{FLOAT}) MB"),
    "overall_litert": (r"Overall footprint:", rf"Overall footprint: +(?P<overall>{FLOAT}) MB"),
    "peak": (
        r"Overall peak memory footprint",
        rf"Overall peak memory footprint \(MB\) via periodic monitoring: (?P<mb>{FLOAT})",
    ),
    "peak_litert": (r"Peak memory:", rf"Peak memory: +(?P<mb>{FLOAT}) MB"),
    "peak_2020": (
        r"Overall max resident set size",
        rf"Overall max resident set size = (?P<mb>{FLOAT}) MB, total malloc-ed size = {FLOAT} MB",
    ),
}
_COMPILED = [
    (name, re.compile(start), re.compile(whole, re.ASCII))
    for name, (start, whole) in _SHAPES.items()
]
_REPEATED = {"count", *PLACEMENT_SHAPES}

# A line's level tells whether it is an error; these words do where it has none, or a wrong one.
_FATAL = re.compile(
    r"Benchmarking failed|Failed to (?!get the input model file size)|Disallowed CPU fallback"
    r"|Node number \d+ \(.*\) failed"
    # What shells, Android's linker, adb and CI systems say of a process that ended so.
    r"|(?:\S*sh: |\[\d+\] \+ )?"
    r"(?:Segmentation fault|Aborted|Killed|Bus error|Illegal instruction|Trace/breakpoint trap)"
    r"(?: *\(core dumped\))?(?:\s.*benchmark.*)?$"
    r"|terminating with uncaught|libc: Fatal signal|CANNOT LINK EXECUTABLE"
    r"|(?:adb: )?[Ee]rror: |##\[error\]"
)
# The GPU delegate prints what it leaves to the CPU as an error, which it is not.
_REFUSALS = re.compile(r"(?:Following|Next) operations are not supported by GPU delegate:")
_REFUSALS_END = re.compile(r"(?:First )?\d+ operations will run on the GPU, and the remaining \d+ ")

_Facts = dict[str, list[Found]]


def _read(lines: Sequence[Line], exit_code: int | None) -> ToolRun:
    facts, warnings = _facts(lines)
    if exit_code not in (None, 0):
        raise LogError(f"the tool ended with exit code {exit_code}", _last(lines))
    times = read_times(facts, _last(lines))
    peak_bytes, doubt = _peak_memory(facts)
    growth, growth_doubt = _growth(facts)
    # Without the line that delegates follow, their own may be missing as well.
    placement = read_placement(facts if "loaded" in facts else {})
    main = placement.main
    return ToolRun(
        **vars(times),
        graph=_graph(facts),
        asked=placement.asked,
        backend=placement.actual,
        delegate=main.delegate if main else None,
        delegated=main.delegated if main else None,
        nodes=main.nodes if main else None,
        partitions=main.partitions if main else None,
        kernels=placement.kernels,
        fully_delegated=placement.fully,
        delegates=placement.delegates,
        peak_memory_bytes=peak_bytes,
        init_growth_bytes=growth.get("init"),
        growth_bytes=growth.get("overall"),
        warnings=(*warnings, *doubt, *growth_doubt),
    )


def _facts(lines: Sequence[Line]) -> tuple[_Facts, list[str]]:
    facts: _Facts = {}
    warnings = []
    refusing = False
    for line in lines:
        if _REFUSALS.match(line.text):
            refusing = True
        elif line.level and not (line.level == "E" and line.logcat):
            refusing = False
        if _failed(line, refusing):
            raise LogError("the run failed, so that no time of it counts", line)
        refused_to = refusing and _REFUSALS_END.match(line.text)
        refusing = refusing and not refused_to
        if line.level == "W" or refused_to:
            warnings.append(line.text)
        for name, start, whole in _COMPILED:
            if start.match(line.text):
                match = whole.fullmatch(line.text)
                if not match:
                    raise LogError("a line of an unknown shape: cut off, or of a new tool", line)
                if name in facts and name not in _REPEATED:
                    raise LogError("said twice: two runs are mixed, or one was cut off", line)
                facts.setdefault(name, []).append((match, line))
    return facts, warnings


def _failed(line: Line, refusing: bool) -> bool:
    if line.text.startswith("Unconsumed cmdline flags"):
        return True  # only a warning, but what was asked for was not measured
    if line.level is None or (line.level in ("E", "F") and refusing):
        return bool(_FATAL.match(line.text))
    return line.level in ("E", "F")


def _graph(facts: _Facts) -> str | None:
    paths = [found for name in ("graph", "loaded") for found in facts.get(name, [])]
    for match, line in paths[1:]:
        if match["path"] != paths[0][0]["path"]:
            raise LogError(f"not the graph {paths[0][0]['path']}: two runs are mixed", line)
    return paths[0][0]["path"] if paths else None


# The results of a form -> the line that has its peak memory.
_PEAKS = {"timings": "peak", "average": "peak_2020", "litert_avg": "peak_litert"}


def _peak_memory(facts: _Facts) -> tuple[int | None, list[str]]:
    """In bytes, and why it is left out although the log has it."""
    form = next(name for name in _PEAKS if name in facts)
    match, results = facts[form][0]
    printed = match.groupdict().get("mb")
    for name in _PEAKS.values():
        for match, line in facts.get(name, []):
            before = line.source == results.source and line.number < results.number
            if name != _PEAKS[form] or before:
                raise LogError("does not follow results of its form: two runs are mixed", line)
            if not line.ended and name == "peak":
                return None, [f"peak memory left out, perhaps cut off: {line.text}"]
            printed = match["mb"]
    return (round(float(printed) * 1024 * 1024) if printed else None), []


def _growth(facts: _Facts) -> tuple[dict[str, int], list[str]]:
    """In bytes, and why it is left out although the log has it."""
    _, results = facts[next(name for name in _PEAKS if name in facts)][0]
    growth: dict[str, int] = {}
    for name in ("growth", "init_litert", "overall_litert"):
        for match, line in facts.get(name, []):
            if line.source == results.source and line.number < results.number:
                raise LogError("does not follow the results: two runs are mixed", line)
            if not line.ended:
                return {}, [f"growth of memory left out, perhaps cut off: {line.text}"]
            growth |= {k: round(float(v) * 1024 * 1024) for k, v in match.groupdict().items()}
    return growth, []


def _last(lines: Sequence[Line]) -> Line:
    return lines[-1] if lines else Line("", 0, "", "", None, "", logcat=False, ended=True)
