"""What training minimises. Every term is a mean over crops, so that ranks can share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, mse_loss

from afd_mobile.afd_module import AfdModule
from afd_mobile.backbones import Backbone, Normalize
from afd_mobile.distributed import mean_over_ranks
from afd_mobile.fe_net import BlockScaleFeNet
from afd_mobile.frozen import frozen, with_deeper_features

DEEP_WEIGHT = 2.0
TAP_WEIGHT = 0.2
COMPRESSION_WEIGHT = 1.0
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

    def forward(self, clean: Tensor, compressed: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.head(self.normalize(clean))
            features = self.head(self.normalize(compressed))
        return mse_loss(self.module(features, compressed), target)


class Distill(Objective):
    """The clean picture's logits, and its features at the tap and deeper, each channel normalised.

    Where the module estimates whether a picture is compressed at all, that is trained as well:
    `compressed_share` is 1 for the qualities to repair, 0 for clean crops, and NaN in between.
    """

    def __init__(
        self, module: AfdModule, backbone: Backbone, crop: int, device: torch.device
    ) -> None:
        super().__init__(module, backbone, crop, device)
        with torch.no_grad():
            probe = backbone.head(torch.zeros(1, 3, crop, crop))
        self.head = frozen(backbone.head, device)
        self.tail = frozen(with_deeper_features(backbone.tail, probe), device)

    def forward(self, clean: Tensor, compressed: Tensor, compressed_share: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.head(self.normalize(clean).bfloat16())
            target_logits, *target_deeper = self.tail(target)
            features = self.head(self.normalize(compressed).bfloat16())
        fe_net, presence = self.module.fe_net, None
        with torch.autocast(compressed.device.type, torch.bfloat16):
            drift_map = self.module.fde_net(compressed)
            corrected = self.module.correct(features, drift_map)
            if isinstance(fe_net, BlockScaleFeNet):
                presence = fe_net.compression_logits(drift_map).float()
        logits, *deeper = self.tail(corrected.bfloat16())
        loss = kl_div(
            logits.float().log_softmax(1),
            target_logits.float().log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        deep = [_normalized_mse(x, t) for x, t in zip(deeper, target_deeper, strict=True)]
        if deep:  # a small crop or network may have nothing deeper than the tap
            loss = loss + DEEP_WEIGHT * torch.stack(deep).mean()
        loss = loss + TAP_WEIGHT * _normalized_mse(corrected, target)
        if presence is not None:
            loss = loss + COMPRESSION_WEIGHT * _known_cross_entropy(presence, compressed_share)
        return loss


OBJECTIVES: dict[str, type[Objective]] = {"feature-mse": FeatureMse, "distill": Distill}


def _normalized_mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean over channels of the squared error relative to the target channel's variance.

    The features of one flat colour do not vary, which leaves nothing to be relative to. So the
    variances are raised together until their mean is LEAST_VARIANCE of the mean square; those of
    pictures are far above (measured: 0.33 of it and more). Of all-zero features it is the error.
    """
    x, target = x.float(), target.float()
    error = (x - target).square().mean(dim=(0, 2, 3))
    mean = mean_over_ranks(target.mean(dim=(0, 2, 3)))
    mean_square = mean_over_ranks(target.square().mean(dim=(0, 2, 3)))
    variance = (mean_square - mean.square()).clamp_min(0)
    variance = variance + (LEAST_VARIANCE * mean_square.mean() - variance.mean()).clamp_min(0)
    scale = variance + 1e-3 * variance.mean()
    return (error / scale.where(scale > 0, torch.ones_like(scale))).mean()


def _known_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, logits (N, C) against (N,); crops whose target is NaN count as 0."""
    known = target.isfinite()
    targets = target.where(known, torch.zeros_like(target))[:, None].expand_as(logits)
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    return (losses * known).mean()
