"""What happens to pictures on their way: compression, other grids and scales, blur and noise."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

QUALITIES = (25, 18, 15, 10, 7)  # the paper's quality factors (QF), as in ImageNet-C

RGB = NDArray[np.uint8]  # (H, W, 3)


class Degradation(Protocol):
    """One thing that happens to a picture; several are put together by those that hold others."""

    @property
    def name(self) -> str:
        """Short, for tables."""

    def apply(self, image: RGB, seed: int) -> RGB:
        """The degraded picture, of the same size; `seed` decides all that is drawn."""


# --- codecs -------------------------------------------------------------------------------------


class Chroma(str, Enum):
    """How much of a JPEG's colour is kept; in Pillow's words, but for grey."""

    FULL = "4:4:4"
    HALF = "4:2:2"
    QUARTER = "4:2:0"
    GREY = "grey"


class Encoder(str, Enum):
    """Whose quantisation tables a JPEG has. Most phones and libraries use the standard's."""

    STANDARD = "standard"
    MOZJPEG = "mozjpeg"
    CAMERA = "camera"


# By rows, for luma and chroma, at QF 50. mozjpeg's is its default (by N. Robidoux, for both). The
# camera's are a Pentax Optio S6's, 2.5 times as coarse as in its files, as the standard's at QF 50
# are. Those of a Google Pixel and of Motorola, HTC and LG phones were the standard's.
_MOZJPEG = (
    *(16, 16, 16, 18, 25, 37, 56, 85),
    *(16, 17, 20, 27, 34, 40, 53, 75),
    *(16, 20, 24, 31, 43, 62, 91, 135),
    *(18, 27, 31, 40, 53, 74, 106, 156),
    *(25, 34, 43, 53, 69, 94, 131, 189),
    *(37, 40, 62, 74, 94, 124, 169, 238),
    *(56, 53, 91, 106, 131, 169, 226, 311),
    *(85, 75, 135, 156, 189, 238, 311, 418),
)
_TABLES = {
    Encoder.MOZJPEG: (_MOZJPEG, _MOZJPEG),
    Encoder.CAMERA: (
        (
            *(30, 20, 20, 30, 45, 55, 60, 80),
            *(20, 40, 25, 30, 40, 50, 60, 70),
            *(20, 25, 25, 30, 50, 60, 70, 70),
            *(30, 30, 30, 55, 60, 70, 70, 70),
            *(45, 40, 50, 60, 70, 70, 70, 70),
            *(55, 50, 60, 70, 70, 70, 70, 70),
            *(60, 60, 70, 70, 70, 70, 70, 70),
            *(80, 70, 70, 70, 70, 70, 70, 70),
        ),
        (
            *(35, 35, 65, 120, 100, 100, 85, 85),
            *(35, 60, 80, 70, 70, 70, 70, 70),
            *(65, 80, 70, 70, 70, 70, 70, 70),
            *(120, 70, 70, 70, 70, 70, 70, 70),
            *(100, 70, 70, 70, 70, 70, 70, 70),
            *(100, 70, 70, 70, 70, 70, 70, 70),
            *(85, 70, 70, 70, 70, 70, 70, 70),
            *(85, 70, 70, 70, 70, 70, 70, 70),
        ),
    ),
}


@dataclass(frozen=True)
class Jpeg:
    """Pillow's JPEG, of quality 1 to 100.

    Its grid begins at the picture's corner. A progressive file decodes to the same pixels, and so
    is none of its own.
    """

    quality: int
    chroma: Chroma = Chroma.QUARTER
    encoder: Encoder = Encoder.STANDARD

    @property
    def name(self) -> str:
        chroma = "" if self.chroma is Chroma.QUARTER else f" {self.chroma.value}"
        encoder = "" if self.encoder is Encoder.STANDARD else f" {self.encoder.value}"
        return f"QF {self.quality}{chroma}{encoder}"

    def apply(self, image: RGB, seed: int) -> RGB:
        options: dict[str, Any] = {"quality": self.quality}
        if self.encoder is not Encoder.STANDARD:
            options = {"qtables": _at_quality(_TABLES[self.encoder], self.quality)}
        if self.chroma is Chroma.GREY:
            return _decoded(Image.fromarray(image).convert("L"), "JPEG", options)
        options["subsampling"] = self.chroma.value
        return _decoded(Image.fromarray(image), "JPEG", options)


def _at_quality(tables: tuple[tuple[int, ...], ...], quality: int) -> list[list[int]]:
    """As libjpeg scales tables from QF 50."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [[min(255, max(1, (step * percent + 50) // 100)) for step in table] for table in tables]


@dataclass(frozen=True)
class Webp:
    """Pillow's lossy WebP, of quality 0 to 100."""

    quality: int

    @property
    def name(self) -> str:
        return f"webp QF {self.quality}"

    def apply(self, image: RGB, seed: int) -> RGB:
        return _decoded(Image.fromarray(image), "WEBP", {"quality": self.quality})


@dataclass(frozen=True)
class Avif:
    """Pillow's AVIF, of quality 0 to 100, and its speed: 6 as Pillow has it, 10 takes a tenth."""

    quality: int
    speed: int = 6

    @property
    def name(self) -> str:
        return f"avif QF {self.quality}"

    def apply(self, image: RGB, seed: int) -> RGB:
        # One thread encodes differently from several: the picture must not depend on the machine.
        options = {"quality": self.quality, "speed": self.speed, "max_threads": 2}
        return _decoded(Image.fromarray(image), "AVIF", options)


@dataclass(frozen=True)
class Heic:
    """HEIC by pillow-heif, where it is installed (`heic_installed`), of quality 0 to 100."""

    quality: int

    @property
    def name(self) -> str:
        return f"heic QF {self.quality}"

    def apply(self, image: RGB, seed: int) -> RGB:
        import pillow_heif

        pillow_heif.register_heif_opener()
        return _decoded(Image.fromarray(image), "HEIF", {"quality": self.quality})


def heic_installed() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def jpeg(image: RGB, quality: int | None) -> RGB:
    """The picture after JPEG by Pillow at this quality factor; None leaves it clean."""
    return image if quality is None else Jpeg(quality).apply(image, 0)


def _decoded(image: Image.Image, form: str, options: dict[str, Any]) -> RGB:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


# --- around a codec -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shifted:
    """The codec's grid begins so many pixels left of and above the picture."""

    inner: Degradation
    left: int
    up: int

    @property
    def name(self) -> str:
        by = f"{self.left}" if self.left == self.up else f"{self.left}x{self.up}"
        return f"{self.inner.name} shifted by {by}"

    def apply(self, image: RGB, seed: int) -> RGB:
        padded = np.pad(image, ((self.up, 0), (self.left, 0), (0, 0)), "edge")
        return self.inner.apply(padded, seed)[self.up :, self.left :]


@dataclass(frozen=True)
class Scaled:
    """The picture had `factor` times the pixels, each way, when this happened to it."""

    inner: Degradation
    factor: float

    @property
    def name(self) -> str:
        return f"{self.inner.name} at {self.factor:.3g}x"

    def apply(self, image: RGB, seed: int) -> RGB:
        h, w = image.shape[:2]
        other = (max(1, round(w * self.factor)), max(1, round(h * self.factor)))
        there = self.inner.apply(resized(image, other), seed)
        return resized(there, (w, h))


def resized(image: RGB, size: tuple[int, int]) -> RGB:
    """Scaled to (W, H)."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Then:
    """One thing after another."""

    first: Degradation
    second: Degradation

    @property
    def name(self) -> str:
        return f"{self.first.name}, {self.second.name}"

    def apply(self, image: RGB, seed: int) -> RGB:
        return self.second.apply(self.first.apply(image, seed), seed)


@dataclass(frozen=True)
class Repeated:
    """So many compressions, each at one of the paper's five qualities, drawn anew."""

    codec: Codec
    times: int

    @property
    def name(self) -> str:
        prefix = "" if self.codec is Codec.JPEG else f"{self.codec.value} "
        return f"{prefix}{self.times}x"

    def apply(self, image: RGB, seed: int) -> RGB:
        rng = np.random.default_rng((seed, self.times))
        for quality in rng.choice(QUALITIES, self.times):
            image = self.codec.at(int(quality)).apply(image, seed)
        return image


class Codec(str, Enum):
    """The formats of the paper's tables."""

    JPEG = "jpeg"
    AVIF = "avif"

    def at(self, quality: int) -> Degradation:
        return Jpeg(quality) if self is Codec.JPEG else Avif(quality)


# --- what no compression did --------------------------------------------------------------------


@dataclass(frozen=True)
class Blur:
    """A Gaussian of so many pixels."""

    sigma: float

    @property
    def name(self) -> str:
        return f"blur {self.sigma:.3g}"

    def apply(self, image: RGB, seed: int) -> RGB:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(self.sigma)))


@dataclass(frozen=True)
class Noise:
    """Gaussian, of so many of the 255 steps."""

    sigma: float

    @property
    def name(self) -> str:
        return f"noise {self.sigma:.3g}"

    def apply(self, image: RGB, seed: int) -> RGB:
        noise = np.random.default_rng(seed).normal(0, self.sigma, image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
