"""How well a correction works without labels: against the classifier on clean pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afd_mobile.checkpoints.held_out import Answers, HeldOut, held_out_of
from afd_mobile.classifiers.backbones import Backbone, classifier
from afd_mobile.network.corrections import AnyModule
from afd_mobile.network.fusion import fuse
from afd_mobile.pictures.degrade import QUALITIES, RGB, jpeg
from afd_mobile.training.objectives import divergence

MAX_PICTURES = 128
_BATCH = 16

Logits = Callable[[NDArray[np.uint8]], Tensor]


@dataclass(frozen=True)
class Likeness:
    """How like a classifier's answers are to the plain one's on the clean picture, by condition.

    Attributes:
        agreement: share of pictures with the same top-1.
        kl: mean KL divergence from the clean picture's answer; far less noisy.
    """

    agreement: dict[str, float]
    kl: dict[str, float]


class Validation:
    """Pictures at every quality, and what the plain classifier says of them, computed once.

    Conditions are `clean` and the qualities, as text.

    Args:
        crops: pictures, (S, S, 3) each; at least one.
    """

    def __init__(self, backbone: Backbone, crops: list[RGB], device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.pictures = {
            str(quality or "clean"): np.stack([jpeg(crop, quality) for crop in crops])
            for quality in (None, *QUALITIES)
        }
        plain = self._outputs(classifier(backbone, None, device))
        self.reference = plain["clean"]
        self._direct = self._answers(plain)
        self.direct = self._likeness(self._direct)

    def corrected(self, module: AnyModule) -> Likeness:
        return self.of(self._corrected(module))

    def of(self, logits: Logits) -> Likeness:
        """Of any classifier of these classes."""
        return self._likeness(self._answers(self._outputs(logits)))

    def held_out(self, module: AnyModule) -> HeldOut:
        """What these pictures, if they were held out, say of the module."""
        return held_out_of(self._direct, self._answers(self._outputs(self._corrected(module))))

    def recovered_share(self, corrected: Likeness) -> float:
        """Mean over the qualities of (corrected - direct) / (1 - direct), of agreement."""
        pairs = [(self.direct.agreement[q], corrected.agreement[q]) for q in map(str, QUALITIES)]
        shares = [(after - before) / (1 - before) for before, after in pairs if before < 1]
        return float(np.mean(shares)) if shares else 0.0

    def kl_removed(self, corrected: Likeness) -> dict[str, float]:
        """1 - corrected / direct, of the mean KL, at every quality; 0 where there is none."""
        direct = {q: self.direct.kl[q] for q in map(str, QUALITIES)}
        return {q: 1 - corrected.kl[q] / kl if kl > 0 else 0.0 for q, kl in direct.items()}

    def _corrected(self, module: AnyModule) -> Logits:
        return classifier(self.backbone, fuse(module), self.device)

    def _outputs(self, logits: Logits) -> dict[str, Tensor]:
        """(N, classes) by condition."""
        return {
            condition: torch.cat(
                [logits(pictures[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)]
            )
            for condition, pictures in self.pictures.items()
        }

    def _answers(self, outputs: dict[str, Tensor]) -> Answers:
        top1, logits = self.reference.argmax(1), outputs.values()
        same = [(x.argmax(1) == top1).cpu().numpy() for x in logits]
        kl = [divergence(x, self.reference).cpu().numpy() for x in logits]
        return Answers(np.stack(same, axis=1).astype(np.uint8), np.stack(kl, axis=1).astype(float))

    def _likeness(self, answers: Answers) -> Likeness:
        same, kl = (
            dict(zip(self.pictures, map(float, table.mean(axis=0)), strict=True))
            for table in (answers.same, answers.kl)
        )
        return Likeness(same, kl)
