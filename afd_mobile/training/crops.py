"""The crops of a training, in batches that no number of ranks changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from afd_mobile.pictures.datasets import CompressedCrops, TrainingCrop, batches_of
from afd_mobile.training.distributed import rank, world
from afd_mobile.training.recipe import CPU, RECIPES, Settings


def crop_batches(
    images: list[Path],
    settings: Settings,
    *,
    start: int = 0,
    workers: int = 1,
    device: torch.device = CPU,
) -> Iterator[Any]:
    """This rank's part of every batch from the `start`-th on: what `_collate` makes of crops."""
    share = settings.batch // world()
    augmentation = RECIPES[settings.objective].augmentation
    loader = DataLoader(
        CompressedCrops(images, settings.crop, augmentation, seed=settings.seed),
        batch_sampler=_Batches(start, settings.iterations, settings.batch, rank() * share, share),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    return batches_of(loader)


class _Batches:
    """This rank's part of every batch: indices that no number of ranks changes."""

    def __init__(self, start: int, stop: int, batch: int, offset: int, share: int) -> None:
        self.start, self.stop, self.batch = start, stop, batch
        self.offset, self.share = offset, share

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.start, self.stop):
            first = iteration * self.batch + self.offset
            yield list(range(first, first + self.share))


def _collate(
    crops: list[TrainingCrop],
) -> tuple[Tensor, Tensor, list[tuple[tuple[int, ...], dict[int, str]]]]:
    return (
        torch.from_numpy(np.stack([crop.clean for crop in crops])),
        torch.from_numpy(np.stack([crop.compressed for crop in crops])),
        [(crop.pictures, crop.unreadable) for crop in crops],
    )
