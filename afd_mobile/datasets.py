"""The crops of pictures that networks are fed with."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from afd_mobile.degrade import QUALITIES, RGB, jpeg
from afd_mobile.picture_files import read_image


def centre_crop(image: RGB, size: int) -> RGB:
    """ImageNet's evaluation crop: short side to size * 256 / 224, then the centre (size, size).

    A picture that is `size` x `size` already is taken as it is.
    """
    h, w = image.shape[:2]
    if (h, w) == (size, size):
        return image
    image = _with_short_side(_no_strip(image), round(size * 256 / 224))
    h, w = image.shape[:2]
    top, left = (h - size) // 2, (w - size) // 2
    return image[top : top + size, left : left + size]


def spread_crops(paths: list[Path], most: int, size: int) -> list[RGB]:
    """Centre crops (size, size) of at most `most` pictures, evenly spread over `paths`."""
    return [centre_crop(read_image(p), size) for p in paths[:: -(-len(paths) // most)]]


def nchw(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, in the same memory order."""
    return pictures.permute(0, 3, 1, 2).float()


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, from workers that leave SIGINT and SIGTERM to this process.

    It ends them itself. `timeout` and Ctrl-C signal the whole group, and a worker that dies of it
    first would be reported as a crash.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)  # starts the workers, which inherit the mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _no_strip(image: RGB) -> RGB:
    """The middle of what is more than four times as long as wide; enlarged, it takes gigabytes."""
    h, w = image.shape[:2]
    longest = 4 * min(h, w)
    top, left = max(0, h - longest) // 2, max(0, w - longest) // 2
    return image[top : top + longest, left : left + longest]


def _with_short_side(image: RGB, short: int) -> RGB:
    h, w = image.shape[:2]
    scale = short / min(h, w)
    target = (max(short, round(w * scale)), max(short, round(h * scale)))
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))


class CompressedCrops(Dataset[tuple[RGB, RGB, float]]):
    """An endless, seeded stream of (clean, compressed, compressed share) training crops.

    Item `i` depends on `seed` and `i` alone, so a resumed training sees the same crops, however
    many processes read them. One in `1 / clean_share` is left clean (share 0) or compressed only
    lightly (QF 40 to 95, share NaN: neither to repair nor to leave alone); all others are 1.

    Shapes: both (crop, crop, 3) uint8. Compression comes after cropping, as in ImageNet-C.
    """

    def __init__(self, paths: list[Path], crop: int, *, clean_share: float, seed: int) -> None:
        self.paths, self.crop, self.clean_share, self.seed = paths, crop, clean_share, seed

    def __getitem__(self, index: int) -> tuple[RGB, RGB, float]:
        rng = np.random.default_rng((self.seed, index))
        image = read_image(self.paths[rng.integers(len(self.paths))])
        if min(image.shape[:2]) < self.crop:
            image = _with_short_side(_no_strip(image), self.crop)
        top, left = (int(rng.integers(n - self.crop + 1)) for n in image.shape[:2])
        clean = image[top : top + self.crop, left : left + self.crop]
        clean = np.ascontiguousarray(clean[:, ::-1] if rng.random() < 0.5 else clean)
        if rng.random() >= self.clean_share:
            return clean, jpeg(clean, int(rng.choice(QUALITIES))), 1.0
        if rng.random() < 0.5:
            return clean, clean, 0.0
        return clean, jpeg(clean, int(rng.integers(40, 96))), math.nan
