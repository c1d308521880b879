"""The crops of pictures that networks are fed with."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from afd_mobile.common.errors import InputError
from afd_mobile.pictures.augment import Augmentation, mixed
from afd_mobile.pictures.degrade import RGB, resized
from afd_mobile.pictures.picture_files import read_image

# Where at most a tenth cannot be read, so many in a row do not happen.
_DRAWS = 20


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


def spread_crops(paths: list[Path], most: int, size: int) -> tuple[list[RGB], list[str]]:
    """Centre crops (size, size) of at most `most` pictures, evenly spread over `paths`.

    For one that cannot be read the next one is taken.

    Returns:
        The crops, and what was said of those that cannot be read.
    """
    step = -(-len(paths) // most) or 1
    crops: list[RGB] = []
    unreadable: list[str] = []
    for first in range(0, len(paths), step):
        for path in paths[first : first + step]:
            try:
                crops.append(centre_crop(read_image(path), size))
                break
            except InputError as error:
                unreadable.append(str(error))
    return crops, unreadable


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
    return resized(image, (max(short, round(w * scale)), max(short, round(h * scale))))


class TrainingCrop(NamedTuple):
    """Shapes: `clean` and `compressed` are (crop, crop, 3) uint8.

    Attributes:
        pictures: indices of the pictures that it was cut from, one or two.
        unreadable: the pictures drawn before those, by index, and why they cannot be read.
    """

    clean: RGB
    compressed: RGB
    pictures: tuple[int, ...]
    unreadable: dict[int, str]


class CompressedCrops(Dataset[TrainingCrop]):
    """An endless, seeded stream of training crops.

    Item `i` depends on `seed` and `i` alone, so a resumed training sees the same crops, however
    many processes read them. For a picture that cannot be read another one is drawn; where none of
    many can, the crop is black, and `unreadable` says so.

    Compression comes after cropping, as in ImageNet-C.
    """

    def __init__(
        self, paths: list[Path], crop: int, augmentation: Augmentation, *, seed: int
    ) -> None:
        self.paths, self.crop, self.augmentation, self.seed = paths, crop, augmentation, seed

    def __getitem__(self, index: int) -> TrainingCrop:
        rng = np.random.default_rng((self.seed, index))
        unreadable: dict[int, str] = {}
        crop, *pictures = self._cut(rng, unreadable)
        if rng.random() < self.augmentation.mixed_share:
            other, picture = self._cut(rng, unreadable)
            crop = mixed(crop, other, rng)
            pictures.append(picture)
        clean, compressed = self.augmentation.degraded(crop, rng)
        return TrainingCrop(clean, compressed, tuple(pictures), unreadable)

    def _cut(self, rng: np.random.Generator, unreadable: dict[int, str]) -> tuple[RGB, int]:
        """A crop of a drawn picture, plain or mirrored, and its index."""
        image, picture = self._draw(rng, unreadable)
        crop = self.augmentation.cut(image, self.crop, rng)
        return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop), picture

    def _draw(self, rng: np.random.Generator, unreadable: dict[int, str]) -> tuple[RGB, int]:
        for _ in range(_DRAWS):
            picture = int(rng.integers(len(self.paths)))
            try:
                return read_image(self.paths[picture]), picture
            except InputError as error:
                unreadable[picture] = str(error)
        return np.zeros((self.crop, self.crop, 3), np.uint8), picture


class DrawnPictures:
    """Which of the training's pictures were drawn, and which of those cannot be read."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.drawn: set[int] = set()
        self.unreadable: set[int] = set()

    def note(self, crops: Iterable[tuple[tuple[int, ...], dict[int, str]]]) -> list[str]:
        """Takes `pictures` and `unreadable` of crops; returns what is new of the unreadable."""
        said = []
        for pictures, unreadable in crops:
            said += [text for i, text in unreadable.items() if i not in self.unreadable]
            self.unreadable |= unreadable.keys()
            self.drawn |= {*pictures, *unreadable}
        return said

    def refusal(self) -> str | None:
        """Why there are too many: certainly more than a tenth of all cannot be read."""
        found, drawn = len(self.unreadable), len(self.drawn)
        # Pictures are drawn at random: five standard deviations above a tenth are no chance.
        by_chance = drawn / 10 + 5 * math.sqrt(0.09 * drawn)
        if found <= min(self.total / 10, by_chance):
            return None
        return (
            f"{found} of the {drawn} pictures drawn so far, of {self.total}, cannot be read: more "
            "than a tenth; remove them from --images, or convert them"
        )
