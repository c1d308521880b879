"""Which operations of a `.tflite` file a delegate takes, why not, and how often it is entered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afd_export.placement.operations import Operation, read_operations
from afd_export.placement.rules import Delegate, Folding, Refusal, Rules, load_rules


@dataclass(frozen=True)
class Placement:
    """One delegate on one graph, by its rules.

    Attributes:
        refusals: one an operation, None where the delegate takes it.
        partitions: how many operations each delegate kernel holds, in execution order.
        node_subsets: the partitions and the CPU's stretches between them; LiteRT's log line
            "Replacing N out of M node(s) ..., yielding P partitions" calls these P partitions.
        delegated: how many operations run there, N of that line: all that are taken, or the
            largest partitions' where the delegate keeps only some by default.
    """

    rules: Rules
    refusals: tuple[Refusal | None, ...]
    partitions: tuple[int, ...]
    node_subsets: int
    delegated: int

    @property
    def total(self) -> int:
        return len(self.refusals)

    @property
    def whole(self) -> bool:
        """Whether the whole graph runs in one delegate kernel."""
        return self.partitions == (self.total,)

    def as_dict(self) -> dict[str, Any]:
        return {
            "runtime": self.rules.runtime,
            "read_from": list(self.rules.read_from),
            "delegated": self.delegated,
            "total": self.total,
            "partitions": len(self.partitions),
            "partition_operations": list(self.partitions),
            "max_partitions": self.rules.max_partitions,
        }


@dataclass(frozen=True)
class GraphPlacement:
    """All delegates on one file."""

    operations: tuple[Operation, ...]
    placements: dict[Delegate, Placement]

    def as_dict(self) -> dict[str, Any]:
        return {
            "delegates": {d.value: p.as_dict() for d, p in self.placements.items()},
            "operations": [
                {
                    "index": operation.index,
                    "operator": operation.operator,
                    "version": operation.version,
                    "output": operation.outputs[0].name,
                    "shape": operation.outputs[0].shape,
                    "type": operation.outputs[0].type,
                    "refused": {
                        d.value: refusal.reason
                        for d, p in self.placements.items()
                        if (refusal := p.refusals[operation.index]) is not None
                    },
                }
                for operation in self.operations
            ],
        }


def place_file(path: Path) -> GraphPlacement:
    """Judges every operation of a file for every delegate.

    Raises:
        ConversionError: the file has several subgraphs.
    """
    operations = read_operations(path)
    placements = {d: place(operations, load_rules(d)) for d in Delegate}
    return GraphPlacement(tuple(operations), placements)


def place(operations: Sequence[Operation], rules: Rules) -> Placement:
    """Judges every operation for one delegate, and counts the partitions that follow."""
    refusals = _refusals(operations, rules)
    subsets = node_subsets(operations, [refusal is None for refusal in refusals])
    partitions = tuple(len(nodes) for taken, nodes in subsets if taken)
    return Placement(
        rules=rules,
        refusals=tuple(refusals),
        partitions=partitions,
        node_subsets=len(subsets),
        delegated=sum(sorted(partitions, reverse=True)[: rules.max_partitions]),
    )


def _refusals(operations: Sequence[Operation], rules: Rules) -> list[Refusal | None]:
    foldable = [o.unpacks in rules.folds for o in operations]
    refusals = [
        None if folds else rules.refusal(o) for o, folds in zip(operations, foldable, strict=True)
    ]
    on_cpu = [o for o, refusal in zip(operations, refusals, strict=True) if refusal is not None]
    needed = {t.index for o in on_cpu for t in o.inputs if t is not None}
    if rules.folding is Folding.EACH:
        unpacked = [o.outputs[0].index in needed for o in operations]
        reason = "unpacks a constant that an operation on the CPU needs"
    else:
        unpacked = [bool(on_cpu)] * len(operations)
        reason = "constants are unpacked on the CPU unless the whole graph is taken"
    return [
        Refusal("folding", reason) if folds and stays else refusal
        for refusal, folds, stays in zip(refusals, foldable, unpacked, strict=True)
    ]


def node_subsets(
    operations: Sequence[Operation], taken: Sequence[bool]
) -> list[tuple[bool, list[int]]]:
    """How TFLite's runtime cuts a graph into kernels of a delegate and stretches on the CPU.

    A subset starts with the first operation in execution order whose inputs are there, and takes
    every further one of its kind (taken, or not) whose inputs are there or come from the subset,
    skipping those of the other kind; then the next subset starts.

    Returns:
        (taken, indices of operations) of each subset, in the order in which they run.
    """
    waiting = {t.index for o in operations for t in o.outputs}
    left = list(range(len(operations)))
    subsets: list[tuple[bool, list[int]]] = []
    while left:
        kind: bool | None = None
        nodes: list[int] = []
        progress = True
        while progress:
            progress = False
            for index in left.copy():
                operation = operations[index]
                ready = not any(t is not None and t.index in waiting for t in operation.inputs)
                if ready and kind in (None, taken[index]):
                    kind, progress = taken[index], True
                    nodes.append(index)
                    left.remove(index)
                    waiting -= {t.index for t in operation.outputs}
        assert kind is not None, "the graph has a cycle"
        subsets.append((kind, nodes))
    return subsets


# --- Markdown ---------------------------------------------------------------------------------


def placement_section(files: dict[str, GraphPlacement]) -> list[str]:
    """A section for `parity.md`: how much each delegate takes, and a table of what one refuses.

    Args:
        files: by what they are called, as `float32`.
    """
    rules = [p.rules for p in next(iter(files.values())).placements.values()]
    lines = [
        "## Placement",
        "",
        "By the delegates' published lists: how many operations each takes, and in how many "
        "partitions. What is refused runs on the CPU; `placement.json` has every operation.",
        "",
        *(f"- {r.name}: {r.runtime}." for r in rules),
        "",
        f"| file |{''.join(f' {r.name} |' for r in rules)}",
        f"|---|{'---|' * len(rules)}",
    ]
    for name, graph in files.items():
        cells = (_summary(p) for p in graph.placements.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, graph in files.items():
        if any(refusal for p in graph.placements.values() for refusal in p.refusals):
            lines += ["", f"### What is refused of {name}", "", *_refusal_table(graph)]
    return lines


def _summary(placement: Placement) -> str:
    count = len(placement.partitions)
    if placement.whole:
        return f"all {placement.total}, 1 partition"
    limit = placement.rules.max_partitions
    dropped = limit is not None and count > limit
    return f"{placement.delegated} of {placement.total}, {count} partition{'s' * (count != 1)}" + (
        f", the largest {limit} kept" if dropped else ""
    )


def _refusal_table(graph: GraphPlacement) -> list[str]:
    """A row for each operation that a delegate refuses; those that unpack constants, alike one
    after another, share one."""
    names = [p.rules.name for p in graph.placements.values()]
    lines = [
        f"| operation | output |{''.join(f' {n} |' for n in names)}",
        f"|---|---|{'---|' * len(names)}",
    ]
    rows: list[tuple[list[int], str, str]] = []
    for operation in graph.operations:
        refusals = [p.refusals[operation.index] for p in graph.placements.values()]
        if not any(refusals):
            continue
        cells = " | ".join("yes" if r is None else r.reason for r in refusals)
        kind = operation.outputs[0].type
        output = f"{'x'.join(map(str, operation.outputs[0].shape))} {kind}"
        if operation.unpacks is not None:
            output = f"constants, {operation.unpacks} to {kind}"
            if rows and rows[-1][1:] == (output, cells):
                rows[-1][0].append(operation.index)
                continue
        rows.append(([operation.index], output, cells))
    for indices, output, cells in rows:
        first, last = indices[0], indices[-1]
        number = f"{first}" if first == last else f"{first} to {last}"
        lines.append(f"| {number} {graph.operations[first].operator} | {output} | {cells} |")
    return lines
