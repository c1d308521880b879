"""How well a correction works without labels: agreement with the classifier on clean pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afd_mobile.afd_module import AfdModule
from afd_mobile.backbones import Backbone, Normalize
from afd_mobile.datasets import centre_crop, read_image
from afd_mobile.degrade import QUALITIES, jpeg
from afd_mobile.fusion import fuse

MAX_PICTURES = 128
_BATCH = 16


def split(images: list[Path]) -> tuple[list[Path], list[Path]]:
    """(training, validation): every 20th picture is held out; none of fewer than 20."""
    if len(images) < 20:
        return images, []
    return [p for i, p in enumerate(images) if i % 20], images[::20]


class Validation:
    """Share of held-out pictures whose top-1 is that of the clean picture, at every quality.

    Args:
        images: at most MAX_PICTURES of them are used, evenly spread; centre crops.
    """

    def __init__(self, backbone: Backbone, images: list[Path], device: torch.device) -> None:
        self.head, self.tail = backbone.head.to(device), backbone.tail.to(device)
        self.device = device
        self.normalize = Normalize(backbone.mean, backbone.std).to(device)
        chosen = images[:: -(-len(images) // MAX_PICTURES)]
        crops = [centre_crop(read_image(p), backbone.input_size) for p in chosen]
        self.pictures = {
            quality: np.stack([jpeg(crop, quality) for crop in crops])
            for quality in (None, *QUALITIES)
        }
        self.reference = self._top1(None, None)
        self.direct = self._agreement(None)

    def corrected(self, module: AfdModule) -> dict[str, float]:
        """Agreement by condition: `clean` and every quality."""
        return self._agreement(fuse(module))

    def recovered_share(self, corrected: dict[str, float]) -> float:
        """Mean over the qualities of (corrected - direct) / (1 - direct)."""
        qualities = [str(q) for q in QUALITIES if self.direct[str(q)] < 1]
        shares = [(corrected[q] - self.direct[q]) / (1 - self.direct[q]) for q in qualities]
        return float(np.mean(shares)) if shares else 0.0

    def _agreement(self, module: AfdModule | None) -> dict[str, float]:
        return {
            str(quality or "clean"): float((self._top1(module, quality) == self.reference).mean())
            for quality in self.pictures
        }

    @torch.no_grad()
    def _top1(self, module: AfdModule | None, quality: int | None) -> NDArray[np.int64]:
        top1: list[Tensor] = []
        pictures = self.pictures[quality]
        for first in range(0, len(pictures), _BATCH):
            batch = torch.from_numpy(pictures[first : first + _BATCH])
            image = batch.to(self.device).permute(0, 3, 1, 2).float()
            features = self.head(self.normalize(image))
            if module is not None:
                features = module(features, image)
            top1.append(self.tail(features).argmax(1).cpu())
        result: NDArray[np.int64] = torch.cat(top1).numpy()
        return result
