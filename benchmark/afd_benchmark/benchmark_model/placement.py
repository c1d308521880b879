"""Who ran the graph, from what `benchmark_model` says of its delegates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from afd_benchmark.benchmark_model.lines import Line, LogError
from afd_benchmark.plan import CPU, EXTERNAL, GPU, NNAPI

Found = tuple[re.Match[str], Line]

_PROVIDER = "(?P<name>GPU|NNAPI|XNNPACK|EXTERNAL|Hexagon|COREML|STABLE_DELEGATE)"
SHAPES: dict[str, tuple[str, str]] = {
    "use": (
        r"Use (?i:gpu|nnapi|xnnpack) ?:",
        r"Use (?P<name>(?i:gpu|nnapi|xnnpack)) ?: \[(?P<on>[01])\]",
    ),
    "library": (r"External delegate path", r"External delegate path ?: \[(?P<path>.*)\]"),
    "created": (
        r"Created TensorFlow Lite (?:XNNPACK )?delegate for",
        r"Created TensorFlow Lite (?:XNNPACK )?delegate for (?P<name>CPU|GPU|NNAPI)\.",
    ),
    "replacing": (
        r"Replacing \d",
        r"Replacing (?P<delegated>\d+)(?: out of (?P<nodes>\d+))? node\(s\) with delegate "
        r"\((?P<delegate>[^)]+)\) node, yielding (?P<partitions>\d+) partitions"
        r"(?: for (?:the whole graph|subgraph (?P<subgraph>\d+)(?: \(.*\))?))?\.?",
    ),
    "share": (
        r"\w+ delegate: \d+ nodes",
        r"(?P<delegate>\w+) delegate: (?P<delegated>\d+) nodes delegated out of (?P<nodes>\d+) "
        r"nodes with \d+ partitions\.?",
    ),
    "applied": (
        r"(?:Explicitly applied|Applied) \S+ delegate",
        rf"(?:Explicitly applied|Applied) {_PROVIDER} delegate, and the model graph will be "
        r"(?P<part>completely|partially) executed (?:by|w/) the delegate"
        r"(?: w/ (?P<kernels>\d+) delegate kernels)?\.?",
    ),
    "refused": (
        r"Though \S+ delegate",
        rf"Though {_PROVIDER} delegate is (?:explicitly )?applied, the model graph will not be "
        r"executed (?:by|w/) the delegate\.?",
    ),
}


@dataclass(frozen=True)
class AppliedDelegate:
    """One delegate on one subgraph.

    Attributes:
        delegate: its own name, such as TfLiteGpuDelegateV2.
        backend: cpu (XNNPACK), gpu, nnapi, npu, flex, or external.
        delegated, nodes: operations it took, of how many; old tools do not say of how many.
        partitions: parts that the graph fell into, those left to others included.
        subgraph: None where the tool does not say.
    """

    delegate: str
    backend: str
    delegated: int
    nodes: int | None
    partitions: int | None
    subgraph: int | None


@dataclass(frozen=True)
class Placement:
    """Who was asked to run the graph, and who did.

    Attributes:
        asked, actual: a backend (cpu, gpu, nnapi, external:LIBRARY); None where the log does not
            show it.
        main: what the actual backend's delegate took of the main graph.
        kernels: in how many pieces the asked backend's delegate runs its share.
        fully: the asked backend runs the whole graph.
        delegates: all that took something, the asked backend's first.
    """

    asked: str | None
    actual: str | None
    main: AppliedDelegate | None
    kernels: int | None
    fully: bool | None
    delegates: tuple[AppliedDelegate, ...]


def read_placement(found: Mapping[str, Sequence[Found]]) -> Placement:
    """From the lines of one run.

    Args:
        found: by the names of `SHAPES`; those without a line are left out.

    Raises:
        LogError: two lines contradict each other.
    """
    asked = _asked(found)
    delegates = _delegates(found)
    taken = [d.backend for d in delegates if d.backend not in (CPU, _FLEX)]
    kind = asked or next(iter(taken), CPU if delegates else None)
    own = next((d for d in delegates if d.backend == kind and not d.subgraph), None)
    part, kernels = _verdict(found, kind, own)
    if part == _WHOLE and own:  # so that an old tool's silence about the rest means none
        delegates[delegates.index(own)] = replace(own, nodes=own.delegated)

    actual = kind
    if kind != CPU and part is None:
        actual = kind if own and own.delegated else CPU if own else None
    elif part == _NOT:
        actual = CPU
    fully = part == _WHOLE if part else None
    if part is None and own and own.nodes is not None:
        fully = own.delegated == own.nodes
    return Placement(
        asked=_named(asked, found),
        actual=_named(actual, found),
        main=next((d for d in delegates if d.backend == actual and not d.subgraph), None),
        kernels=kernels,
        fully=fully,
        delegates=tuple(sorted(delegates, key=lambda d: d.backend != kind)),
    )


_WHOLE, _PARTIAL, _NOT = "completely", "partially", "not"
_EXTERNAL, _NPU, _FLEX = EXTERNAL.rstrip(":"), "npu", "flex"


def _asked(found: Mapping[str, Sequence[Found]]) -> str | None:
    """The first accelerator that is asked for; else the CPU, where the log says as much."""
    if any(m["path"] for m, _ in found.get("library", [])):
        return _EXTERNAL
    uses = {_kind(m["name"]): m["on"] == "1" for m, _ in found.get("use", [])}
    named = [_kind(m["name"]) for name in _NAMING for m, _ in found.get(name, [])]
    wanted = [kind for kind, on in uses.items() if on] + named
    accelerator = next((kind for kind in wanted if kind != CPU), None)
    # That XNNPACK is asked for says nothing of accelerators; where it is all, its own lines follow.
    off = uses.get(CPU) is False or not (uses.get(GPU, True) or uses.get(NNAPI, True))
    return accelerator or (CPU if CPU in named or off else None)


_NAMING = ("created", "applied", "refused")


def _kind(provider: str) -> str:
    name = provider.lower()
    return CPU if name == "xnnpack" else name


def _delegates(found: Mapping[str, Sequence[Found]]) -> list[AppliedDelegate]:
    replacing = [_applied(match, line) for match, line in found.get("replacing", [])]
    known = {d.delegate for d in replacing}
    shares = [_applied(match, line) for match, line in found.get("share", [])]
    return replacing + [d for d in shares if d.delegate not in known]


def _applied(match: re.Match[str], line: Line) -> AppliedDelegate:
    count = {
        name: int(value) for name, value in match.groupdict().items() if value and value.isdigit()
    }
    if count["delegated"] > count.get("nodes", count["delegated"]):
        raise LogError(f"{count['delegated']} of {count['nodes']} operations", line)
    return AppliedDelegate(
        delegate=match["delegate"],
        backend=_backend(match["delegate"]),
        delegated=count["delegated"],
        nodes=count.get("nodes"),
        partitions=count.get("partitions"),
        subgraph=count.get("subgraph"),
    )


def _backend(delegate: str) -> str:
    name = delegate.lower()
    marks = {
        "xnnpack": CPU,
        "gpu": GPU,
        "litert_cl": GPU,
        "litert_gl": GPU,
        "nnapi": NNAPI,
        "dispatchdelegate": _NPU,
        "flex": _FLEX,
    }
    return next((backend for mark, backend in marks.items() if mark in name), _EXTERNAL)


def _verdict(
    found: Mapping[str, Sequence[Found]], kind: str | None, own: AppliedDelegate | None
) -> tuple[str | None, int | None]:
    """How much of the graph the tool says the backend runs, and in how many kernels."""
    said = [
        (match.groupdict().get("part") or _NOT, match.groupdict().get("kernels"), line)
        for name in ("applied", "refused")
        for match, line in found.get(name, [])
        if _kind(match["name"]) == kind
    ]
    if not said:
        return None, None
    part, kernels, line = said[0]
    if own:
        possible = {
            _WHOLE: own.nodes in (None, own.delegated),
            _PARTIAL: own.delegated > 0 and own.nodes != own.delegated,
            _NOT: own.delegated == 0,
        }
        if len({p for p, _, _ in said}) > 1 or not possible[part]:
            raise LogError(
                f"contradicts that {own.delegate} took {own.delegated} of {own.nodes} operations",
                line,
            )
    return part, 1 if part == _WHOLE else int(kernels) if kernels else None


def _named(kind: str | None, found: Mapping[str, Sequence[Found]]) -> str | None:
    """An external delegate by its library's file name, as far as the log tells."""
    if kind != _EXTERNAL:
        return kind
    paths = [match["path"] for match, _ in found.get("library", []) if match["path"]]
    return EXTERNAL + PurePosixPath(paths[0]).name if paths else None
