"""Which of a file's operations benchmark_model's delegates take, and what they say of it.

XNNPACK is LiteRT's own, and asked. The others run on the CPU here; what they take of a file is
judged by the exporter's rules, so that the counts in the log are true of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from afd_export.placement.operations import Operation, read_operations
from afd_export.placement.place import node_subsets, place
from afd_export.placement.rules import Delegate, load_rules
from tests.virtual_phone.native_log import Log


@dataclass(frozen=True)
class Cut:
    """How a delegate cuts a graph.

    Attributes:
        kernels: how many of the delegate's there are, each in place of some operations.
        subsets: those and the CPU's stretches between them, "partitions" in the log.
    """

    delegated: int
    total: int
    kernels: int
    subsets: int

    @property
    def whole(self) -> bool:
        return self.kernels == self.subsets == 1


def xnnpack_cut(path: Path, interpreter: Interpreter) -> Cut:
    """Of an interpreter whose tensors are allocated.

    A kernel's replaced operations are those that its outputs need, back to its inputs.
    """
    details: list[dict[str, Any]] = interpreter._get_ops_details()
    nodes = [d for d in details if d["op_name"] != "DELEGATE"]
    producers = {int(tensor): node["index"] for node in nodes for tensor in node["outputs"]}
    inputs = {node["index"]: list(map(int, node["inputs"])) for node in nodes}
    taken: set[int] = set()
    for kernel in (d for d in details if d["op_name"] == "DELEGATE"):
        given, wanted = set(map(int, kernel["inputs"])), list(map(int, kernel["outputs"]))
        while wanted:
            node = producers.get(tensor := wanted.pop())
            if node is not None and tensor not in given and node not in taken:
                taken.add(node)
                wanted += inputs[node]
    operations = read_operations(path)
    return _cut(operations, [o.index in taken for o in operations], None)


def accelerator_cut(
    path: Path, delegate: Delegate | None, limit: int | None, faults: Sequence[str], log: Log
) -> Cut:
    """Of the GPU or NNAPI; an external delegate (None) takes everything.

    Args:
        limit: how many kernels there may be; None for any number.
    """
    operations = read_operations(path)
    refusals: Sequence[Any] = [None] * len(operations)
    if delegate is not None:
        refusals = place(operations, load_rules(delegate)).refusals
    taken = [r is None for r in refusals]
    if "partial-delegation" in faults:
        taken[len(taken) - max(1, len(taken) // 3) :] = [False] * max(1, len(taken) // 3)
    if "cpu-fallback" in faults:
        taken = [False] * len(taken)
    if delegate is Delegate.GPU and not all(taken):
        _complain(operations, refusals, taken, log)
    return _cut(operations, taken, limit)


def _cut(operations: Sequence[Operation], taken: Sequence[bool], limit: int | None) -> Cut:
    """With the largest kernels only, where there is a limit."""
    kernels = [nodes for on, nodes in node_subsets(operations, taken) if on]
    kept = sorted(kernels, key=len, reverse=True)[:limit]
    nodes = {n for kernel in kept for n in kernel}
    subsets = node_subsets(operations, [i in nodes for i in range(len(operations))])
    return Cut(len(nodes), len(operations), len(kept), len(subsets))


def _complain(
    operations: Sequence[Operation], refusals: Sequence[Any], taken: Sequence[bool], log: Log
) -> None:
    """An ERROR of many lines, also where all goes on well with fewer operations."""
    reasons = {
        f"{o.operator}: {refusal.reason if refusal else 'Operation is not supported'}."
        for o, refusal, on in zip(operations, refusals, taken, strict=True)
        if not on
    }
    count = sum(taken)
    result = (
        f"{count} operations will run on the GPU, and the remaining {len(taken) - count} "
        "operations will run on the CPU."
        if count
        else f"No operations will run on the GPU, and all {len(taken)} operations will run on the "
        "CPU."
    )
    lines = ["Following operations are not supported by GPU delegate:", *sorted(reasons), result]
    log.runtime("\n".join(lines), "ERROR")
