"""What training minimises. Every term is a mean over crops, so that ranks can share a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, mse_loss

from afd_mobile.classifiers.backbones import Backbone, Normalize
from afd_mobile.classifiers.places import corrected, marked
from afd_mobile.common.errors import UsageError
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.corrections import AnyModule, InsideModule, Place
from afd_mobile.training.distributed import mean_over_ranks
from afd_mobile.training.frozen_classifier import fast_type, frozen, with_deeper_features

DEEP_WEIGHT = 2.0
TAP_WEIGHT = 0.2
# The drift of features at which a picture counts as drifted by half.
HALF_DRIFTED = 0.02
# Strong compression moves an answer twenty times as far as light compression does. A picture's
# weight in the loss falls with its drift, from 1 / LIGHT on.
LIGHT = 0.1
LEAST_VARIANCE = 0.01


class Objective(nn.Module):
    """What all have: the module that is trained, and the classifier's normalisation."""

    def __init__(
        self, module: AfdModule, backbone: Backbone, crop: int, device: torch.device
    ) -> None:
        super().__init__()
        self.module = module
        self.normalize = Normalize(backbone.mean, backbone.std).to(device)


class FeatureMse(Objective):
    """Corrected against clean features at the tap: the paper's loss, in float32."""

    def __init__(
        self, module: AfdModule, backbone: Backbone, crop: int, device: torch.device
    ) -> None:
        super().__init__(module, backbone, crop, device)
        self.head = backbone.head.to(device).to(memory_format=torch.channels_last)

    def forward(self, clean: Tensor, compressed: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.head(self.normalize(clean))
            features = self.head(self.normalize(compressed))
        return mse_loss(self.module(features, compressed), target)


class Distill(Objective):
    """The clean picture's logits, and its features at the tap and deeper, channels normalised."""

    def __init__(
        self, module: AfdModule, backbone: Backbone, crop: int, device: torch.device
    ) -> None:
        super().__init__(module, backbone, crop, device)
        with torch.no_grad():
            probe = backbone.head(torch.zeros(1, 3, crop, crop))
        self.dtype = fast_type(device)
        self.head = frozen(backbone.head, device)
        self.tail = frozen(with_deeper_features(backbone.tail, probe, _half(probe)), device)

    def forward(self, clean: Tensor, compressed: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.head(self.normalize(clean).to(self.dtype))
            target_logits, *target_deeper = self.tail(target)
            features = self.head(self.normalize(compressed).to(self.dtype))
        with _autocast(compressed.device, self.dtype):
            corrected = self.module(features, compressed)
        logits, *deeper = self.tail(corrected.to(self.dtype))
        loss = divergence(logits, target_logits).mean() + _deep_loss(deeper, target_deeper)
        return loss + TAP_WEIGHT * _normalized_mse(corrected, target)


class InsideDistill(nn.Module):
    """The clean picture's logits, and its last features at each resolution that is corrected.

    Corrections are trained at full strength. The gate's target is the classifier's own disagreement
    between the two pictures, whatever was done to them: drift / (drift + HALF_DRIFTED), from 0 to
    1, with the drift of its features at the tap; 0 for every clean picture. Nothing else trains it.
    """

    def __init__(
        self, module: InsideModule, backbone: Backbone, crop: int, device: torch.device
    ) -> None:
        super().__init__()
        self.module = module
        self.normalize = Normalize(backbone.mean, backbone.std).to(device)
        self.dtype = fast_type(device)
        places = module.config.places
        self.head = frozen(backbone.head, device)
        self.tail = frozen(observed(backbone, backbone.tail, places, crop), device)
        self.corrected: nn.Module = corrected(self.tail, module)

    def forward(self, clean: Tensor, compressed: Tensor) -> Tensor:
        both = torch.cat([clean, compressed])
        with torch.no_grad():
            target, features = self.head(self.normalize(both).to(self.dtype)).chunk(2)
            target_logits, *target_deeper = self.tail(target)
            drift = _normalized_errors(features, target)
        with _autocast(compressed.device, self.dtype):
            guide = self.module(compressed)
            logits, *deeper = self.corrected(features, guide)
            gate_logits = self.module.gate_logits(both)
        likeness = divergence(logits, target_logits) / (drift + LIGHT)
        drifted = drift / (drift + HALF_DRIFTED)
        gate_loss = binary_cross_entropy_with_logits(
            gate_logits.float().flatten(), torch.cat([torch.zeros_like(drifted), drifted])
        )
        return likeness.mean() + _deep_loss(deeper, target_deeper) + gate_loss


def observed(
    backbone: Backbone, tail: fx.GraphModule, places: Sequence[Place], crop: int
) -> fx.GraphModule:
    """The tail, marked at the places, with its last features at each resolution they correct."""
    with torch.no_grad():
        probe = backbone.head(torch.zeros(1, 3, crop, crop))
    # Larger maps than the first that is corrected have nothing to learn from.
    largest = -(-crop // min(place.stride for place in places))
    return with_deeper_features(marked(tail, places), probe, largest)


OBJECTIVES: dict[str, type[Objective]] = {"feature-mse": FeatureMse, "distill": Distill}


def objective_of(
    name: str, module: AnyModule, backbone: Backbone, crop: int, device: torch.device
) -> nn.Module:
    """(clean, compressed) -> the loss that `name` trains this module with.

    Raises:
        UsageError: an objective that needs a single tap, for a module that has none.
    """
    if isinstance(module, AfdModule):
        return OBJECTIVES[name](module, backbone, crop, device)
    if name != "distill":
        raise UsageError(
            f"--objective {name} compares features at a single tap, and --preset mobile corrects "
            "inside the classifier; use --objective distill, or --preset paper"
        )
    return InsideDistill(module, backbone, crop, device)


def _half(features: Tensor) -> int:
    return (features.shape[-1] + 1) // 2


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || logits) of each picture: (N, C), (N, C) -> (N,)."""
    log_p, log_q = logits.float().log_softmax(1), target.float().log_softmax(1)
    return kl_div(log_p, log_q, log_target=True, reduction="none").sum(1)


def _deep_loss(deeper: list[Tensor], target: list[Tensor]) -> Tensor | float:
    deep = [_normalized_mse(x, t) for x, t in zip(deeper, target, strict=True)]
    # A small crop or network may have nothing deeper than the tap.
    return DEEP_WEIGHT * torch.stack(deep).mean() if deep else 0.0


def _normalized_mse(x: Tensor, target: Tensor) -> Tensor:
    return _normalized_errors(x, target).mean()


def _normalized_errors(x: Tensor, target: Tensor) -> Tensor:
    """Each picture's squared error relative to the target channel's variance, a mean over channels.

    The features of one flat colour do not vary, which leaves nothing to be relative to. So the
    variances are raised together until their mean is LEAST_VARIANCE of the mean square; those of
    pictures are far above (measured: 0.33 of it and more). Of all-zero features it is the error.

    Shapes: (N, C, h, w), (N, C, h, w) -> (N,).
    """
    x, target = x.float(), target.float()
    error = (x - target).square().mean(dim=(2, 3))
    mean = mean_over_ranks(target.mean(dim=(0, 2, 3)))
    mean_square = mean_over_ranks(target.square().mean(dim=(0, 2, 3)))
    variance = (mean_square - mean.square()).clamp_min(0)
    variance = variance + (LEAST_VARIANCE * mean_square.mean() - variance.mean()).clamp_min(0)
    scale = variance + 1e-3 * variance.mean()
    return (error / scale.where(scale > 0, torch.ones_like(scale))).mean(dim=1)
