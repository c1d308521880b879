"""The rule that chooses where a classifier is corrected, and the module for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.classifiers.places import Network, Step, activation_of, place_outputs, stride_of
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.afd_module import AfdConfig
from afd_mobile.network.corrections import AnyConfig, InsideConfig, Place
from afd_mobile.network.cost import cost_of
from afd_mobile.network.taps import AUTO, KINDS, Taps, kind_and_node, nearest

# Of `auto`, which `taps.RULE` explains.
RESIDUALS = 4
RESIDUAL_SHARE = 1 / 40

# The mobile preset's. FDE-Net's last is the map's, and a residual's inside.
FDE_WIDTHS = (64, 48, 32)
SUMMARY = 32


def check_places(backbone: Backbone, places: Sequence[Place], what: str) -> None:
    """That the classifier's features at every place are what its correction takes.

    Raises:
        InputError: a node that is missing, or gives something else.
    """
    outputs = place_outputs(backbone.tail, places, blank_features(backbone))
    for place, output in zip(places, outputs, strict=True):
        shape = tuple(output.shape)
        stride = stride_of(shape, backbone.input_size)
        if (place.channels, place.stride) != (shape[1], stride):
            raise InputError(
                f"{what} corrects features with channels {place.channels}, stride {place.stride} "
                f"at {place.node}, but {backbone.name} has {shape[1]}, {stride} there; choose "
                "another checkpoint or classifier"
            )


def preset_config(backbone: Backbone, taps: Taps, drift_input: str = "dct") -> AnyConfig:
    """The mobile preset where there are places, else the paper's at the backbone's tap."""
    if taps.places:
        return inside_preset(backbone, taps.places, drift_input)
    return AfdConfig.paper(
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
        drift_input=drift_input,
    )


def inside_preset(
    backbone: Backbone, wanted: Sequence[str], drift_input: str = "dct"
) -> InsideConfig:
    """The mobile preset with these places."""
    places = choose_places(backbone, wanted, FDE_WIDTHS[-1])
    return InsideConfig(places, FDE_WIDTHS, SUMMARY, drift_input)


def choose_places(backbone: Backbone, wanted: Sequence[str], width: int) -> tuple[Place, ...]:
    """The places for `auto`, or for KIND:NODE as typed, in the order of the network.

    Args:
        width: channels inside a residual.

    Raises:
        UsageError: what names no kind or node, or a node that cannot be corrected so.
    """
    network = Network(backbone.tail, blank_features(backbone))
    if list(wanted) == [AUTO]:
        places = list(_automatic(backbone, network, width))
    else:
        places = [_typed(backbone, network, text, width) for text in wanted]
    order = {step.qualname: number for number, step in enumerate(network.steps)}
    places.sort(key=lambda place: (order[place.node], KINDS.index(place.kind)))
    if not places:
        raise UsageError(f"--taps auto finds nothing to correct in {backbone.name}; type its nodes")
    return tuple(places)


def _typed(backbone: Backbone, network: Network, text: str, width: int) -> Place:
    kind, node = kind_and_node(text)
    inside = [s for s in network.steps if s.qualname == node or s.qualname.startswith(node + ".")]
    if not inside:
        raise UsageError(
            f"--taps {text}: {backbone.name} has no node {node} behind its tap {backbone.tap}"
            f"{nearest(node, [step.qualname for step in network.steps])}"
        )
    step = inside[-1]
    if step.size <= 1:
        raise UsageError(
            f"--taps {text}: the output of shape {tuple(step.shape)} is no feature map; choose a "
            "node of --taps list"
        )
    return _place(backbone, kind, step, width)


def _automatic(backbone: Backbone, network: Network, width: int) -> Iterator[Place]:
    for step in network.spatial_outputs():
        if step.size > 1:
            yield _place(backbone, "scale", step, width)
    for step in _residual_blocks(network, RESIDUAL_SHARE * _multiply_adds(backbone), width):
        yield _place(backbone, "residual", step, width)


def _place(backbone: Backbone, kind: str, step: Step, width: int) -> Place:
    residual = kind == "residual"
    return Place(
        kind,
        step.qualname,
        step.shape[1],
        stride_of(step.shape, backbone.input_size),
        width if residual else 0,
        activation_of(backbone.tail, step.node) if residual else "identity",
    )


def _multiply_adds(backbone: Backbone) -> int:
    image = torch.zeros(1, 3, backbone.input_size, backbone.input_size)
    parts = cost_of(backbone.head, image), cost_of(backbone.tail, blank_features(backbone))
    return sum(part.multiply_adds for part in parts)


def _residual_blocks(network: Network, limit: float, width: int) -> list[Step]:
    by_size: dict[int, list[Step]] = {}
    for block in network.blocks():
        by_size.setdefault(block.size, []).append(block)
    last: list[Step] = []
    between: list[Step] = []
    for blocks in by_size.values():
        cheap = [block for block in blocks if residual_cost(block, width) <= limit]
        # The first block of a resolution directly follows the last of the one before.
        chosen = cheap[:0:-2] or cheap
        last += chosen[:1]
        between += reversed(chosen[1:])
    return [*last, *between[: max(0, RESIDUALS - len(last))]]


def residual_cost(step: Step, width: int) -> int:
    """Multiply-adds of a fused one: a 3x3 convolution to its width, and a 1x1 one back."""
    return 10 * width * step.shape[1] * step.size**2


def blank_features(backbone: Backbone) -> Tensor:
    """What the tail takes, (1, C, h, w)."""
    return torch.zeros(1, backbone.channels, backbone.feature_size, backbone.feature_size)
