"""Corrections at several places inside a frozen classifier, guided by one drift map.

The drift map, its summary and the gate are computed once for a picture, as a `Guide`; each place
takes from it what it needs. `places.corrected` puts the corrections into the classifier's graph.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from afd_mobile.common.errors import InputError
from afd_mobile.network import fusion
from afd_mobile.network.afd_module import (
    ACTIVATIONS,
    DRIFT_INPUTS,
    MAX_CHANNELS,
    AfdConfig,
    AfdModule,
)
from afd_mobile.network.dct import BLOCK
from afd_mobile.network.fde_net import FdeNet, NoDriftMap
from afd_mobile.network.fe_net import crop
from afd_mobile.network.gate import BlockStatistics, Gate
from afd_mobile.network.repconv import RepConv
from afd_mobile.network.taps import KINDS

ARCHITECTURE = "inside"
STRIDES = (1, 2, 4, 8, 16, 32)
# Most clean pictures are to get less than this share of the corrections.
LITTLE = 0.01
STEEPEST = 20.0


@dataclass(frozen=True)
class Place:
    """Where and how the classifier's features are corrected.

    Attributes:
        kind: `scale` multiplies each channel, `residual` adds to every position.
        node: whose output is corrected, by torchvision's feature-extraction name.
        channels: C of that output.
        stride: picture pixels per position.
        width: channels inside the correction; 0 for a scale, which has no inside.
        activation: what the classifier applied last; a residual applies it again, so that
            corrected features stay in the range that clean ones have.
    """

    kind: str
    node: str
    channels: int
    stride: int
    width: int
    activation: str = "identity"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown kind of correction {self.kind!r}; kinds: {', '.join(KINDS)}")
        if not isinstance(self.node, str) or not self.node:
            raise InputError(f"a place of correction needs the name of a node: {self}")
        least = {"channels": 1, "stride": 1, "width": int(self.kind == "residual")}
        for name, low in least.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= MAX_CHANNELS:  # a bool is not
                raise InputError(f"{name} must be an integer of {low} to {MAX_CHANNELS}: {self}")
        if self.kind == "residual" and self.stride not in STRIDES:
            raise InputError(
                f"a residual correction at {self.node} with stride {self.stride} is impossible: "
                f"the drift map comes at strides {', '.join(map(str, STRIDES))}"
            )
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {self.activation!r}")


@dataclass(frozen=True)
class InsideConfig:
    """Everything that determines an InsideModule; stored in its checkpoint.

    Attributes:
        places: in the order in which they are applied.
        fde_widths: channels after each stage of FDE-Net; the last is the drift map's, and the
            width of every residual, which it is multiplied with.
        summary: channels of what the map says of the picture as a whole.
        drift_input: what FDE-Net sees: `dct`, or an ablation of tables II and III.
    """

    places: tuple[Place, ...]
    fde_widths: tuple[int, ...]
    summary: int
    drift_input: str = "dct"
    architecture: str = ARCHITECTURE

    def __post_init__(self) -> None:
        widths = (self.summary, *self.fde_widths)
        if not self.fde_widths or not all(type(n) is int and 0 < n <= MAX_CHANNELS for n in widths):
            raise InputError(
                f"summary and widths must be positive integers up to {MAX_CHANNELS}: {self}"
            )
        if not self.places:
            raise InputError("a module inside the classifier needs at least one place")
        if self.architecture != ARCHITECTURE:
            raise InputError(f"unknown AFD architecture {self.architecture!r}")
        if self.drift_input not in DRIFT_INPUTS:
            raise InputError(f"unknown drift input {self.drift_input!r}")
        for place in self.places:
            if place.kind == "residual" and place.width != self.fde_widths[-1]:
                raise InputError(
                    f"the map must have as many channels as a residual's inside: {place}, "
                    f"FDE-Net's widths {self.fde_widths}"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InsideConfig:
        """The inverse of `dataclasses.asdict` after JSON; unknown or missing keys are refused."""
        _check_keys(cls, values, "AFD configuration")
        places = []
        for place in values["places"]:
            _check_keys(Place, place, "place of correction")
            places.append(Place(**place))
        return cls(**{**values, "places": tuple(places), "fde_widths": tuple(values["fde_widths"])})


def _check_keys(cls: type, values: Mapping[str, Any], what: str) -> None:
    names = {f.name for f in dataclasses.fields(cls)}
    if set(values) != names:
        raise InputError(f"{what} with keys {sorted(values)}, expected {sorted(names)}")


class Guide(NamedTuple):
    """What all places share, of N pictures.

    Attributes:
        gate: (N, 1, 1, 1), whether they have drifted, from 0 to 1: every correction's strength.
        strength: (N, S, 1, 1), gate * what their maps say as a whole.
        maps: by stride, gate * the drift map at that scale: (N, M, ceil(H / stride),
            ceil(W / stride)).
    """

    gate: Tensor
    strength: Tensor
    maps: dict[int, Tensor]


# --- the two kinds ------------------------------------------------------------------------------


class Factor(nn.Module):
    """1 + a bias-free 1x1 convolution; for deployment the 1 is a convolution's bias.

    Shapes: (N, C_in, 1, 1) -> (N, C_out, 1, 1).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        factor: Tensor = 1 + self.linear(x)
        return factor

    def fused(self) -> nn.Module:
        weight = self.linear.weight
        return fusion.convolution(weight, weight.new_ones(len(weight)), stride=1, padding=0)


class Scale(nn.Module):
    """features * (1 + gate * S(summary)), with S linear from the summary to the channels.

    The gate is inside S's argument, so that a scale costs two operations: a 1x1 convolution on a
    single position, and the multiplication. One convolution for all places and a slice each would
    cost one operation more, and in int8 make all places share a range.

    Shapes: (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, place: Place, summary: int) -> None:
        super().__init__()
        self.factor = Factor(summary, place.channels)

    def forward(self, features: Tensor, guide: Guide) -> Tensor:
        scaled: Tensor = features * self.factor(guide.strength)
        return scaled

    def reset_to_zero(self) -> None:
        nn.init.zeros_(self.factor.linear.weight)


class Residual(nn.Module):
    """features + W (gate * map * RepConv(features)), then the classifier's activation.

    The map takes the place of an activation. Behind a ReLU most units died: after 4,135 iterations
    25 to 32 of the 32 in each of the last three residuals were never above 0.

    Shapes: (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.stride = place.stride
        self.enter = RepConv(place.channels, place.width)
        self.leave = nn.Conv2d(place.width, place.channels, 1, bias=False)
        self.activation = ACTIVATIONS[place.activation]()

    def forward(self, features: Tensor, guide: Guide) -> Tensor:
        inside = self.enter(features) * crop(guide.maps[self.stride], features)
        corrected: Tensor = self.activation(features + self.leave(inside))
        return corrected

    def reset_to_zero(self) -> None:
        nn.init.zeros_(self.leave.weight)


def _correction(place: Place, summary: int) -> Scale | Residual:
    return Scale(place, summary) if place.kind == "scale" else Residual(place)


# --- the whole ----------------------------------------------------------------------------------


class InsideModule(nn.Module):
    """Drift map, summary, gate, and the corrections of all places.

    Picture -> DCT -> FDE-Net -> map -> summary = 1x1(mean(map)), and the map enriched by the
    summary, brought to the scale of every residual: from one stride to the next by convolutions
    with a kernel as large as their stride, down or up, because they need no padding and no delegate
    refuses them. They have no bias, so that the gate shuts the maps of all scales at once. The
    summary is linear, because more than half of it died behind a ReLU.

    The gate has features of its own. In training mode it is 1: corrections that it holds back learn
    no care with pictures that have hardly drifted.
    """

    def __init__(self, config: InsideConfig) -> None:
        super().__init__()
        self.config = config
        width, summary = config.fde_widths[-1], config.summary
        self.fde_net: FdeNet | NoDriftMap
        if config.drift_input == "none":
            self.fde_net = NoDriftMap(width)
        else:
            self.fde_net = FdeNet(config.fde_widths, config.drift_input)
        self.summary = nn.Conv2d(width, summary, 1)
        self.statistics: nn.Module = BlockStatistics()
        self.gate = Gate()
        self.corrections = nn.ModuleList(_correction(p, summary) for p in config.places)
        strides = {place.stride for place in config.places if place.kind == "residual"}
        self.context = nn.Conv2d(summary, width, 1) if strides else None
        steps = int(math.log2(max(strides, default=BLOCK) // BLOCK or 1))
        self.down = nn.ModuleList(
            nn.Conv2d(width, width, 2, stride=2, bias=False) for _ in range(steps)
        )
        steps = int(math.log2(BLOCK // min(strides, default=BLOCK) or 1))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 2, stride=2, bias=False) for _ in range(steps)
        )

    def forward(self, image: Tensor) -> Guide:
        """What the corrections need of a picture (N, 3, H, W), RGB 0 to 255."""
        drift_map = relu(self.fde_net(image))
        summary = self.summary(drift_map.mean((2, 3), keepdim=True))
        gate = image.new_ones(1, 1, 1, 1) if self.training else self.gate_logits(image).sigmoid()
        return Guide(gate, gate * summary, dict(self._maps(drift_map, summary, gate)))

    def gate_logits(self, image: Tensor) -> Tensor:
        """(N, 3, H, W), RGB 0 to 255 -> (N, 1, 1, 1), above 0 for pictures that have drifted."""
        logits: Tensor = self.gate(self.statistics(image))
        return logits

    def _maps(
        self, drift_map: Tensor, summary: Tensor, gate: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        if self.context is None:
            return
        stride, enriched = BLOCK, gate * relu(drift_map + self.context(summary))
        yield stride, enriched
        x = enriched
        for number, down in enumerate(self.down, start=1):
            odd = (x.shape[-1] % 2, x.shape[-2] % 2)
            x = down(pad(x, (0, odd[0], 0, odd[1])) if any(odd) else x)
            yield BLOCK << number, x
        x = enriched
        for number, up in enumerate(self.up, start=1):
            x = up(x)
            yield BLOCK >> number, x

    def reset_to_identity(self) -> None:
        """Makes all corrections zero: where training starts."""
        for correction in self.corrections:
            assert isinstance(correction, Scale | Residual)
            correction.reset_to_zero()

    @torch.no_grad()
    def sharpen_gate(self, clean_logits: Tensor, compressed_logits: Tensor) -> None:
        """Steepens the gate, so that half of clean pictures get less than LITTLE of corrections.

        Logits are stretched about the one that nine in ten clean pictures stay below: what is above
        gets no less than before. The tenth that is not told from light compression off the grid or
        in other formats has often been compressed before. Where nothing is to be done, or QF 25 is
        not told from clean, the gate stays as it is.

        Args:
            clean_logits, compressed_logits: (K,), of pictures without and with light compression.
        """
        wanted = math.log(LITTLE / (1 - LITTLE))
        middle, most = clean_logits.median(), clean_logits.quantile(0.9)
        if not wanted < middle < most < compressed_logits.median():
            return
        steepness = ((most - wanted) / (most - middle)).clamp_max(STEEPEST)
        logit = self.gate.logit
        assert logit.bias is not None
        logit.weight.mul_(steepness)
        logit.bias.sub_(most).mul_(steepness).add_(most)


AnyConfig = AfdConfig | InsideConfig
AnyModule = AfdModule | InsideModule


def module_of(config: AnyConfig) -> AnyModule:
    """A module of this architecture, untrained."""
    return InsideModule(config) if isinstance(config, InsideConfig) else AfdModule(config)


def still_trained(config: AnyConfig) -> bool:
    """Whether a preset of afd-train makes such modules, so that --init can start from one."""
    return isinstance(config, InsideConfig) or config.architecture == "paper"
