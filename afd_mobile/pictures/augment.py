"""How training crops are cut, mixed and degraded: all of it is drawn anew for every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from afd_mobile.pictures.degrade import (
    QUALITIES,
    RGB,
    Avif,
    Blur,
    Chroma,
    Degradation,
    Encoder,
    Jpeg,
    Noise,
    Scaled,
    Shifted,
    Then,
    Webp,
    resized,
)

T = TypeVar("T")
Rng = np.random.Generator

# --- what is drawn ------------------------------------------------------------------------------

AREA = (0.15, 1.0)  # of the picture, uniform
ASPECT = (3 / 4, 4 / 3)
MIXED_SHARE = 0.4  # half of them CutMix, half mixup
# Blurred or noisy from the start, whatever else happens: the teacher sees them like that.
SPOILT_SHARE = 0.1
BLUR = (0.5, 2.0)
NOISE = (2.0, 12.0)
# To be repaired; drawn as often below their geometric mean, 14, as above it.
STRONG = (5, 40)
# Hardly to be seen; uniform.
LIGHT = (40, 95)
CHROMA = {Chroma.QUARTER: 0.75, Chroma.HALF: 0.1, Chroma.FULL: 0.1, Chroma.GREY: 0.05}
ENCODER = {Encoder.STANDARD: 0.8, Encoder.MOZJPEG: 0.1, Encoder.CAMERA: 0.1}
TWICE_SHARE = 0.15  # of JPEGs
SCALE = (0.5, 2.0)
# A phone crops after compression, so the blocks of half of the WebP and AVIF begin anywhere.
OFF_GRID_SHARE = 0.5
# At speed 6, as pictures are measured, AVIF would take more time than all the rest.
AVIF_SPEEDS = (8, 9, 10)


def _quality(rng: Rng) -> int:
    return round(_log_uniform(rng, *STRONG))


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _one_of(rng: Rng, shares: dict[T, float]) -> T:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]


def _shifted(inner: Degradation, blocks: int, rng: Rng) -> Shifted:
    """Anywhere but at the corner."""
    up, left = divmod(int(rng.integers(1, blocks**2)), blocks)
    return Shifted(inner, left, up)


def _jpeg(rng: Rng) -> Degradation:
    last = Jpeg(_quality(rng), _one_of(rng, CHROMA), _one_of(rng, ENCODER))
    if rng.random() >= TWICE_SHARE:
        return last
    return Then(_shifted(Jpeg(_quality(rng)), 8, rng), last)


def _papers_jpeg(rng: Rng) -> Degradation:
    return Jpeg(int(rng.choice(QUALITIES)))


def _shifted_jpeg(rng: Rng) -> Degradation:
    return _shifted(_jpeg(rng), 8, rng)


def _scaled_jpeg(rng: Rng) -> Degradation:
    return Scaled(_jpeg(rng), _log_uniform(rng, *SCALE))


def _webp(rng: Rng) -> Degradation:
    return _perhaps_shifted(Webp(_quality(rng)), rng)


def _avif(rng: Rng) -> Degradation:
    return _perhaps_shifted(Avif(_quality(rng), int(rng.choice(AVIF_SPEEDS))), rng)


def _perhaps_shifted(inner: Degradation, rng: Rng) -> Degradation:
    return _shifted(inner, 16, rng) if rng.random() < OFF_GRID_SHARE else inner


def _clean_or_light(rng: Rng) -> Degradation | None:
    if rng.random() < 0.5:
        return None
    return _perhaps_shifted(Jpeg(int(rng.integers(*LIGHT, endpoint=True))), rng)


# --- how crops are cut and mixed ----------------------------------------------------------------


def window(image: RGB, size: int, rng: Rng) -> RGB:
    """A square of `size` pixels, or of all that a smaller picture has, enlarged."""
    side = min(size, *image.shape[:2])
    return _part(image, side, side, size, rng)


def random_area(image: RGB, size: int, rng: Rng) -> RGB:
    """A part of random area and aspect, scaled to `size`; enlarged only if the picture is small."""
    h, w = image.shape[:2]
    least = min(AREA[1], max(AREA[0], size * size / (h * w)))
    area = rng.uniform(least, AREA[1]) * h * w
    aspect = _log_uniform(rng, *ASPECT)
    down, across = (round(math.sqrt(area * stretch)) for stretch in (1 / aspect, aspect))
    return _part(image, min(h, max(1, down)), min(w, max(1, across)), size, rng)


def _part(image: RGB, down: int, across: int, size: int, rng: Rng) -> RGB:
    """(down, across) pixels from anywhere in the picture, scaled to (size, size)."""
    top, left = (
        int(rng.integers(n - part + 1))
        for n, part in zip(image.shape[:2], (down, across), strict=True)
    )
    part = image[top : top + down, left : left + across]
    if (down, across) == (size, size):
        return part
    return resized(part, (size, size))


def mixed(one: RGB, other: RGB, rng: Rng) -> RGB:
    """CutMix or mixup of two crops."""
    share = rng.random()
    if rng.random() < 0.5:
        return np.rint(one + share * (other.astype(np.float32) - one)).astype(np.uint8)
    size = len(one)
    side = size * math.sqrt(share)
    top, left = (int(rng.integers(size)) - round(side / 2) for _ in range(2))
    rows, columns = (slice(max(0, n), max(0, n + round(side))) for n in (top, left))
    result = one.copy()
    result[rows, columns] = other[rows, columns]
    return result


@dataclass(frozen=True)
class Augmentation:
    """How one kind of training draws its crops.

    Attributes:
        cut: (picture, size, rng) -> (size, size, 3).
        mixed_share: share of crops that are mixed of two, before anything else happens to them.
        spoilt_share: share of crops that are blurred or noisy, before compression.
        kinds: what happens then: how often, and what draws it.
    """

    cut: Callable[[RGB, int, Rng], RGB]
    mixed_share: float
    spoilt_share: float
    kinds: dict[Callable[[Rng], Degradation | None], float]

    def degraded(self, crop: RGB, rng: Rng) -> tuple[RGB, RGB]:
        """(clean, compressed); a spoilt crop is spoilt in both."""
        if rng.random() < self.spoilt_share:
            blurs = rng.random() < 0.5
            spoils = Blur(rng.uniform(*BLUR)) if blurs else Noise(rng.uniform(*NOISE))
            crop = spoils.apply(crop, _seed(rng))
        degradation = _one_of(rng, self.kinds)(rng)
        return crop, crop if degradation is None else degradation.apply(crop, _seed(rng))


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**32))


# The paper's: windows, each compressed at one of its five qualities.
PAPER = Augmentation(window, 0.0, 0.0, {_papers_jpeg: 1.0})
# Pictures as phones have them.
FIELD = Augmentation(
    random_area,
    MIXED_SHARE,
    SPOILT_SHARE,
    {
        _jpeg: 0.40,
        _shifted_jpeg: 0.16,
        _scaled_jpeg: 0.10,
        _webp: 0.09,
        _avif: 0.09,
        _clean_or_light: 0.16,
    },
)
