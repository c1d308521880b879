"""Corrections put into a classifier's graph, and the rule that chooses where."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from afd_mobile.common.errors import InputError
from afd_mobile.network.corrections import AnyModule, InsideModule, Place
from afd_mobile.network.fusion import Reparameterizable

# An fx node's name in torchvision's feature extraction, kept in its meta where the graph is cut.
QUALNAME = "qualname"


# --- surgery ------------------------------------------------------------------------------------


def marked(tail: fx.GraphModule, places: Sequence[Place]) -> fx.GraphModule:
    """The tail, with the same weights, and an identity named `place_K` behind every place's node.

    Whatever traces it again (folding, casting, freezing) keeps identities, and `corrected` then
    puts the corrections, which are not frozen, in their stead.

    Raises:
        InputError: a node that is not in the tail.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(tail.graph, copies)
    graph.output(result)
    ends = {node.meta[QUALNAME]: node for node in graph.nodes if QUALNAME in node.meta}
    for number, place in enumerate(places):
        if place.node not in ends:
            raise InputError(
                f"the classifier has no node {place.node!r} behind its tap to be corrected"
            )
        node = ends[place.node]
        with graph.inserting_after(node):
            mark = graph.call_module(_mark(number), (node,))
        node.replace_all_uses_with(mark, delete_user_cb=lambda user, mark=mark: user is not mark)
        ends[place.node] = mark  # a second correction of a node follows the first
    modules = _targets(tail) | {_mark(number): nn.Identity() for number in range(len(places))}
    return fx.GraphModule(modules, graph, "MarkedTail").eval()


def corrected(marked_tail: fx.GraphModule, module: InsideModule) -> fx.GraphModule:
    """(features, guide) -> what the marked tail gives, corrected at every mark.

    It holds the tail's and the module's own parts, no copies of them.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(marked_tail.graph, copies)
    graph.output(result)
    features = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(features):
        guide = graph.placeholder("guide")
    modules = _targets(marked_tail)
    for number, correction in enumerate(module.corrections):
        (mark,) = (node for node in graph.nodes if node.target == _mark(number))
        target = _correction(number)
        del modules[_mark(number)]
        modules[target] = correction
        with graph.inserting_before(mark):
            call = graph.call_module(target, (*mark.args, guide))
        mark.replace_all_uses_with(call)
        graph.erase_node(mark)
    return fx.GraphModule(modules, graph, "CorrectedTail")


def corrected_tail(tail: fx.GraphModule, module: InsideModule) -> fx.GraphModule:
    """(features, guide) -> logits, with the classifier's weights as they are.

    Raises:
        InputError: a place that is not in the tail.
    """
    return corrected(marked(tail, module.config.places), module)


def tail_with(tail: fx.GraphModule, module: AnyModule | None) -> fx.GraphModule:
    """What `corrected_logits` takes: with the corrections in it, where they are inside."""
    return corrected_tail(tail, module) if isinstance(module, InsideModule) else tail


def corrected_logits(
    tail: nn.Module, module: AnyModule | None, features: Tensor, image: Tensor
) -> Tensor:
    """What `tail_with(tail, module)` gives, corrected at the tap or inside; plain without module.

    Shapes: tapped features (N, C, h, w), picture (N, 3, H, W) -> (N, classes).
    """
    if isinstance(module, InsideModule):
        logits: Tensor = tail(features, module(image))
    elif module is not None:
        logits = tail(module(features, image))
    else:
        logits = tail(features)
    return logits


def observed_place(module: InsideModule) -> Place:
    """The deepest place: there, all corrections show."""
    return module.config.places[-1]


def up_to_place(
    tail: fx.GraphModule, module: InsideModule, place: Place
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """(features) and (features, guide) -> the features at `place`, plain and corrected there."""
    places = module.config.places
    number = len(places) - 1 - places[::-1].index(place)
    plain = marked(tail, places)
    return (
        _ending_at(plain, _mark(number)),
        _ending_at(corrected(plain, module), _correction(number)),
    )


def _ending_at(network: fx.GraphModule, target: str) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.target == target:
            graph.output(copies[node])
            break
    return fx.GraphModule(network, graph)


def place_outputs(tail: fx.GraphModule, places: Sequence[Place], features: Tensor) -> list[Tensor]:
    """What the plain tail makes of the features, at every place."""
    outputs = node_outputs(marked(tail, places), features)
    by_target = {str(node.target): tensor for node, tensor in outputs.items()}
    return [by_target[_mark(number)] for number in range(len(places))]


def _mark(number: int) -> str:
    return f"place_{number}"


def _correction(number: int) -> str:
    return f"correction_{number}"


def _targets(graph: fx.GraphModule) -> dict[str, object]:
    """What the graph calls or reads, by name."""
    return {
        str(node.target): operator.attrgetter(str(node.target))(graph)
        for node in graph.graph.nodes
        if node.op in ("call_module", "get_attr")
    }


def node_outputs(graph: fx.GraphModule, features: Tensor) -> dict[fx.Node, Tensor]:
    """Every node that gives a tensor, with it, in order; the features come first."""
    outputs: dict[fx.Node, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor) and n.op not in ("get_attr", "output"):
                outputs[n] = result
            return result

    with torch.no_grad():
        Recorder(graph).run(features)
    return outputs


# --- the network as traced ------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A node that gives a tensor.

    Attributes:
        shape: for one picture.
        spatial: how many spatial convolutions come before its result.
        only_path: all that comes later is computed from it alone.
    """

    qualname: str
    node: fx.Node
    shape: torch.Size
    spatial: int
    only_path: bool

    @property
    def size(self) -> int:
        """Positions along a side; 0 of what is no feature map."""
        return self.shape[-1] if len(self.shape) == 4 else 0


class Network:
    """A traced network, or the part behind its tap, with what the rules ask of it.

    Args:
        x: for one picture, what the network takes.
    """

    def __init__(self, network: fx.GraphModule, x: Tensor) -> None:
        self.network = network
        outputs = node_outputs(network, x)
        self.spatial = [n for n in outputs if self._is_spatial(n, depthwise=False)]
        self.steps = list(self._steps(outputs))

    def spatial_outputs(self) -> list[Step]:
        """Of each spatial convolution, or of the depthwise ones where there are any, what its
        normalisation and activation make of it."""
        by_node = {step.node: step for step in self.steps}
        depthwise = [n for n in self.spatial if self._is_spatial(n, depthwise=True)]
        convolutions = depthwise or self.spatial
        return [by_node[self.activated(node)] for node in convolutions if node in by_node]

    def blocks(self) -> list[Step]:
        """The ends of blocks, each with at least one spatial convolution more than the last."""
        ends: dict[tuple[int, int], Step] = {}
        for step in self.steps:
            if step.only_path and step.size > 1 and step.spatial and not self._is_idle(step.node):
                key = (step.size, step.spatial)
                if key not in ends or step.shape[1] <= ends[key].shape[1]:
                    ends[key] = step
        return list(ends.values())

    def _steps(self, outputs: dict[fx.Node, Tensor]) -> Iterator[Step]:
        order = {node: number for number, node in enumerate(self.network.graph.nodes)}
        last_use, spatial = 0, 0
        for node, output in outputs.items():
            spatial += node in self.spatial
            only_path = last_use <= order[node]
            last_use = max(last_use, *(order[user] for user in node.users))
            if QUALNAME in node.meta:
                yield Step(node.meta[QUALNAME], node, output.shape, spatial, only_path)

    def activated(self, node: fx.Node) -> fx.Node:
        """What normalisation and activation make of a node's output."""
        activated = node
        while len(node.users) == 1 and self._is_pointwise(user := next(iter(node.users))):
            node = user
            if not self._is_idle(node):
                activated = node
        return activated

    def _is_idle(self, node: fx.Node) -> bool:
        return node.op == "call_module" and type(self._module(node)) is nn.Identity

    def _is_pointwise(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            module = self._module(node)
            own = type(module).__module__ == "torch.nn.modules.activation"
            return own or isinstance(module, nn.Identity | nn.modules.batchnorm._BatchNorm)
        return node.target in (torch.relu, nn.functional.relu, nn.functional.relu6, "relu")

    def _is_spatial(self, node: fx.Node, *, depthwise: bool) -> bool:
        if node.op != "call_module":
            return False
        module = self._module(node)
        whole = isinstance(module, Reparameterizable)
        for conv in module.modules() if whole else [module]:
            if isinstance(conv, nn.Conv2d) and max(conv.kernel_size) > 1:
                return not depthwise or conv.groups == conv.in_channels > 1
        return False

    def _module(self, node: fx.Node) -> nn.Module:
        return self.network.get_submodule(str(node.target))


def activation_of(network: nn.Module, node: fx.Node) -> str:
    """What `node` applied last: identity, relu or relu6."""
    if node.op != "call_module":
        relus = (torch.relu, nn.functional.relu, "relu")
        return "relu" if node.target in relus else "identity"
    module = network.get_submodule(str(node.target))
    module = getattr(module, "act", module)  # a timm block that was traced whole
    return {nn.ReLU: "relu", nn.ReLU6: "relu6"}.get(type(module), "identity")


def stride_of(shape: Sequence[int], input_size: int) -> int:
    """Pixels per position of features (N, C, h, w); 0 of what is no feature map."""
    is_map = len(shape) == 4 and shape[-1] > 1
    return 1 << round(math.log2(input_size / shape[-1])) if is_map else 0
