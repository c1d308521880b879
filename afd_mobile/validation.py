"""How well a correction works without labels: agreement with the classifier on clean pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afd_mobile.backbones import Backbone, classifier
from afd_mobile.corrections import AnyModule
from afd_mobile.degrade import QUALITIES, RGB, jpeg
from afd_mobile.fusion import fuse

MAX_PICTURES = 128
_BATCH = 16


class Validation:
    """Share of held-out pictures whose top-1 is that of the clean picture, at every quality.

    Args:
        crops: held-out pictures, (S, S, 3) each; at least one.
    """

    def __init__(self, backbone: Backbone, crops: list[RGB], device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.pictures = {
            quality: np.stack([jpeg(crop, quality) for crop in crops])
            for quality in (None, *QUALITIES)
        }
        self.reference = self._top1(classifier(backbone, None, device), None)
        self.direct = self._agreement(None)

    def corrected(self, module: AnyModule) -> dict[str, float]:
        """Agreement by condition: `clean` and every quality."""
        return self._agreement(fuse(module))

    def recovered_share(self, corrected: dict[str, float]) -> float:
        """Mean over the qualities of (corrected - direct) / (1 - direct)."""
        qualities = [str(q) for q in QUALITIES if self.direct[str(q)] < 1]
        shares = [(corrected[q] - self.direct[q]) / (1 - self.direct[q]) for q in qualities]
        return float(np.mean(shares)) if shares else 0.0

    def _agreement(self, module: AnyModule | None) -> dict[str, float]:
        logits = classifier(self.backbone, module, self.device)
        return {
            str(quality or "clean"): float((self._top1(logits, quality) == self.reference).mean())
            for quality in self.pictures
        }

    def _top1(
        self, logits: Callable[[NDArray[np.uint8]], Tensor], quality: int | None
    ) -> NDArray[np.int64]:
        pictures = self.pictures[quality]
        batches = [pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)]
        result: NDArray[np.int64] = torch.cat([logits(b).argmax(1) for b in batches]).numpy()
        return result
