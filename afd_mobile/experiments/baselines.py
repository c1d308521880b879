"""Cheaper ways to repair a classifier, which the corrections must beat."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from afd_mobile.classifiers.backbones import Backbone, Normalize, classifier
from afd_mobile.classifiers.choose import blank_features, inside_preset
from afd_mobile.classifiers.places import Network
from afd_mobile.experiments.variant import Setup
from afd_mobile.network.corrections import Guide, InsideModule
from afd_mobile.network.dct import DctFrontEnd, coefficient_scale
from afd_mobile.network.fusion import fuse
from afd_mobile.network.taps import AUTO
from afd_mobile.pictures.datasets import nchw, spread_crops
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.training.loop import sharpen_gate
from afd_mobile.training.objectives import InsideDistill, observed
from afd_mobile.training.recipe import CPU, RECIPES
from afd_mobile.training.validation import MAX_PICTURES, Logits

FromPictures = Callable[[NDArray[np.uint8]], Tensor]

# --- every weight after the tap, fine-tuned -------------------------------------------------------

FINE_TUNING_RATE = 2e-4
# The gate starts from nothing, and learns at the rate of the corrections' own.
GATE_FACTOR = 10.0


class FineTuned(nn.Module):
    """A copy of what follows the tap, and the drift map with its gate.

    The statistics of normalisations stay as they are.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        config = inside_preset(backbone, [AUTO])
        scales = tuple(place for place in config.places if place.kind == "scale")
        self.guide = InsideModule(replace(config, places=scales))
        self.guide.corrections = nn.ModuleList()
        self.tail = copy.deepcopy(backbone.tail).requires_grad_(True)

    def train(self, mode: bool = True) -> FineTuned:
        super().train(mode)
        self.tail.eval()
        return self


class Mixed(nn.Module):
    """(features, guide) -> what the tuned tail gives; with a gate, as much of it as that says."""

    def __init__(self, plain: nn.Module, tuned: nn.Module, *, gated: bool) -> None:
        super().__init__()
        self.plain, self.tuned, self.gated = plain, tuned, gated

    def forward(self, features: Tensor, guide: Guide) -> Any:
        tuned = self.tuned(features)
        if not self.gated:
            return tuned
        plain = self.plain(features)
        if isinstance(tuned, Tensor):
            return _mixed(plain, tuned, guide)
        return [_mixed(p, t, guide) for p, t in zip(plain, tuned, strict=True)]


def _mixed(plain: Tensor, tuned: Tensor, guide: Guide) -> Tensor:
    gate = guide.gate.reshape(-1, *[1] * (plain.ndim - 1))
    return plain + gate * (tuned - plain)


class FineTuning(InsideDistill):
    """The loss of the corrections, for a tail that is trained itself."""

    def __init__(self, tuned: FineTuned, backbone: Backbone, crop: int) -> None:
        super().__init__(tuned.guide, backbone, crop, CPU)
        tail = observed(backbone, tuned.tail, tuned.guide.config.places, crop)
        # At full strength, as corrections are trained; the gate comes afterwards.
        self.corrected = Mixed(self.tail, tail, gated=False)


def fine_tuned(setup: Setup, *, gated: bool) -> Logits:
    """Adam at a low rate, which is what fine-tuning bears."""
    backbone = setup.backbone
    tuned = FineTuned(backbone)
    groups: list[dict[str, Any]] = [
        {"params": list(tuned.tail.parameters())},
        {"params": list(tuned.guide.parameters()), "factor": GATE_FACTOR},
    ]
    recipe = replace(
        RECIPES["distill"],
        optimizer=lambda _, rate: torch.optim.Adam(groups, rate),
        learning_rate=FINE_TUNING_RATE,
    )
    objective = FineTuning(tuned, backbone, setup.settings.crop)
    setup.fit(tuned, objective, recipe)
    if not gated:
        return classifier(replace(backbone, tail=tuned.tail), None, CPU)
    sharpen_gate(tuned.guide, setup.pictures, backbone.input_size)
    guide, mixed = fuse(tuned.guide), Mixed(backbone.tail, tuned.tail, gated=True)
    features = _features(backbone)

    @torch.no_grad()
    def logits(pictures: NDArray[np.uint8]) -> Tensor:
        result: Tensor = mixed(features(pictures), guide(_image(pictures)))
        return result

    return logits


# --- batch statistics of the one picture (arXiv 2006.16971) ---------------------------------------


class PictureNorm(nn.Module):
    """BatchNorm with the picture's own mean and variance, mixed with those of training.

    Args:
        norm: it, or timm's, which is followed by an activation.
        prior: as how many pictures those of training count; 0 for the picture's own alone.

    Shapes: (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, prior: float) -> None:
        super().__init__()
        self.norm, self.share = norm, 1 / (1 + prior)
        self.activation = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        mean, variance = (
            trained.reshape(1, -1, 1, 1).lerp(own, self.share)
            for own, trained in ((mean, norm.running_mean), (variance, norm.running_var))
        )
        weight, bias = (value.reshape(1, -1, 1, 1) for value in (norm.weight, norm.bias))
        result: Tensor = self.activation((x - mean) * (variance + norm.eps).rsqrt() * weight + bias)
        return result


def with_own_statistics(setup: Setup, prior: float) -> Logits:
    """The whole classifier, nothing trained."""
    head, tail = (
        _with_own_statistics(p, prior) for p in (setup.backbone.head, setup.backbone.tail)
    )
    return classifier(replace(setup.backbone, head=head, tail=tail), None, CPU)


def _with_own_statistics(part: fx.GraphModule, prior: float) -> fx.GraphModule:
    part = copy.deepcopy(part)
    for name, module in list(part.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            part.set_submodule(name, PictureNorm(module, prior))
    return part


# --- pooled features, re-centred (after arXiv 2510.05635) -----------------------------------------


@torch.no_grad()
def recentred(setup: Setup) -> Logits:
    """Pooled features, moved by the clean mean less the mean at the quality that is estimated.

    Both means are those of training pictures, without labels. A picture has the quality whose mean
    share of vanishing DCT coefficients, by frequency, is nearest to its own; `clean` is one.

    The classifier is cut at its `pooled_node`.
    """
    backbone = setup.backbone
    crops, _ = spread_crops(setup.pictures, MAX_PICTURES, backbone.input_size)
    features, vanishing = _features(backbone), vanishing_shares()
    means, centres = [], []
    for quality in (None, *QUALITIES):
        pictures = [np.stack([jpeg(crop, quality)]) for crop in crops]
        means.append(torch.cat([features(p) for p in pictures]).mean(0))
        centres.append(torch.cat([vanishing(p) for p in pictures]).mean(0))
    moves = means[0] - torch.stack(means)
    every = torch.stack(centres)

    @torch.no_grad()
    def logits(pictures: NDArray[np.uint8]) -> Tensor:
        nearest = torch.cdist(vanishing(pictures), every).argmin(1)
        result: Tensor = backbone.tail(features(pictures) + moves[nearest])
        return result

    return logits


def pooled_node(backbone: Backbone) -> str | None:
    """The first node with a single path that has no positions; None where no weights follow it."""
    steps = Network(backbone.tail, blank_features(backbone)).steps
    learned = [
        number
        for number, step in enumerate(steps)
        if step.node.op == "call_module"
        and any(True for _ in backbone.tail.get_submodule(str(step.node.target)).parameters())
    ]
    for step in steps[: max(learned, default=0)]:
        if step.only_path and step.size <= 1 and len(step.shape) in (2, 4):
            return step.qualname
    return None


def vanishing_shares() -> FromPictures:
    """Of each frequency, the share of blocks where it is 0: (N, S, S, 3) -> (N, 192)."""
    front_end, least = DctFrontEnd(), 0.5 * coefficient_scale().reshape(-1, 1, 1).float()

    def shares(pictures: NDArray[np.uint8]) -> Tensor:
        vanish: Tensor = front_end(_image(pictures)).abs() < least
        return vanish.float().mean((2, 3))

    return shares


def _features(backbone: Backbone) -> FromPictures:
    """Where the classifier is cut."""
    normalize = Normalize(backbone.mean, backbone.std)

    def features(pictures: NDArray[np.uint8]) -> Tensor:
        result: Tensor = backbone.head(normalize(_image(pictures)))
        return result

    return features


def _image(pictures: NDArray[np.uint8]) -> Tensor:
    return nchw(torch.from_numpy(pictures))
