"""The cut of a traced classifier at its tap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from afd_mobile.classifiers.from_onnx.node import Operation
from afd_mobile.classifiers.places import QUALNAME, Network, activation_of, stride_of
from afd_mobile.classifiers.sources import NAMED_TAPS
from afd_mobile.common.errors import InputError
from afd_mobile.network.dct import BLOCK
from afd_mobile.network.fusion import Reparameterizable
from afd_mobile.network.taps import nearest


def _tracer() -> Any:
    from torchvision.models.feature_extraction import NodePathTracer

    class Tracer(NodePathTracer):  # type: ignore[misc]
        """torchvision's node names; layers and re-parameterisable blocks stay whole."""

        def is_leaf_module(self, m: nn.Module, qualname: str) -> bool:
            whole = isinstance(m, Reparameterizable | Operation)
            whole = whole or type(m).__module__.startswith("timm.layers")
            return whole or bool(super().is_leaf_module(m, qualname))

    return Tracer(leaf_modules=[])


# Every node of the traced network by its name, in the order of computation.
Nodes = dict[str, fx.Node]


def traced(model: nn.Module, name: str) -> Nodes:
    tracer = _tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # torch.fx raises whatever the network's forward does
        raise InputError(f"{name} cannot be traced symbolically: {error!r}") from error
    nodes = {tracer.node_to_qualname[n]: n for n in graph.nodes if n in tracer.node_to_qualname}
    for qualname, node in nodes.items():
        node.meta[QUALNAME] = qualname
    return nodes


def node_of(nodes: Nodes, name: str, wanted: str) -> fx.Node:
    """The node of this name, or the last one of the module of this name."""
    inside = [node for q, node in nodes.items() if q == wanted or q.startswith(wanted + ".")]
    if not inside or inside[-1].op == "placeholder":
        modules = {q.rsplit(".", k)[0] for q in nodes for k in range(1, q.count(".") + 1)}
        known = [*NAMED_TAPS.get(name, {}), *nodes, *sorted(modules)]
        raise InputError(
            f"backbone {name} has no node {wanted!r}{nearest(wanted, known)}; --taps list "
            "shows those that can be corrected"
        )
    return inside[-1]


def default_tap(
    model: nn.Module, name: str, nodes: Nodes, probe: Tensor, before: Sequence[str]
) -> str:
    """The cut that `taps.RULE` states."""
    order = {node: number for number, node in enumerate(nodes.values())}
    first = min((order[node_of(nodes, name, wanted)] for wanted in before), default=len(order))
    own = next(iter(NAMED_TAPS.get(name, {}).values()), None)
    if own is not None and order[node_of(nodes, name, own)] <= first:
        return own
    network = Network(fx.GraphModule(model, next(iter(nodes.values())).graph), probe)
    if before:
        maps = [s for s in network.steps if s.size > 1 and s.node.op != "placeholder"]
        taps = [s for s in maps if order[s.node] <= first and _leads_alone(s.node)]
    else:
        blocks = [block for block in network.blocks() if _leads_alone(block.node)]
        taps = [b for b in blocks if stride_of(b.shape, probe.shape[-1]) <= BLOCK] or blocks[:1]
    if not taps:
        what = f"before {', '.join(before)} " if before else ""
        raise InputError(
            f"backbone {name} has no feature map {what}from which alone the rest is computed, so "
            "it cannot be cut; choose other --taps"
        )
    return taps[-1].qualname


def cut(
    model: nn.Module, name: str, tap: str, node: fx.Node
) -> tuple[fx.GraphModule, fx.GraphModule, str]:
    """Head, tail, and the activation before the tap."""
    if not _leads_alone(node):
        raise InputError(
            f"tap {tap} of {name} lies beside another path (a skip connection), so the rest of "
            "the network cannot be computed from it alone; choose another tap"
        )
    return (
        fx.GraphModule(model, _part(node, start=None), "Head").eval(),
        fx.GraphModule(model, _part(_result(node.graph), start=node), "Tail").eval(),
        activation_of(model, node),
    )


def _leads_alone(node: fx.Node) -> bool:
    """Whether the network's result is computed from this node's alone."""
    needed = _needed(_result(node.graph), start=node)
    return not any(other.op == "placeholder" for other in needed)


def _part(result: fx.Node, start: fx.Node | None) -> fx.Graph:
    """What computes `result`, with `start` (if given) as its input."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("features")
        copies[start].meta.update(start.meta)
    needed = _needed(result, start)
    for node in result.graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[result])
    return part


def _needed(result: fx.Node, start: fx.Node | None) -> set[fx.Node]:
    """What computes `result`, given what `start` gives."""
    needed: set[fx.Node] = set()
    queue = [result]
    while queue:
        node = queue.pop()
        if node is not start and node not in needed:
            needed.add(node)
            queue.extend(node.all_input_nodes)
    return needed


def _result(graph: fx.Graph) -> fx.Node:
    (output,) = (node for node in graph.nodes if node.op == "output")
    result: fx.Node = output.args[0]
    return result
