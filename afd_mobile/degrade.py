"""What compression does to a picture."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITIES = (25, 18, 15, 10, 7)  # the paper's quality factors (QF), as in ImageNet-C

RGB = NDArray[np.uint8]  # (H, W, 3)


class Codec(str, Enum):
    """A lossy picture format, as Pillow writes it."""

    JPEG = "jpeg"
    AVIF = "avif"


def jpeg(image: RGB, quality: int | None) -> RGB:
    """The picture after JPEG by Pillow at this quality factor; None leaves it clean."""
    return image if quality is None else _encoded(image, Codec.JPEG, quality)


@dataclass(frozen=True)
class Condition:
    """One column of an accuracy table.

    Attributes:
        quality: of a single compression; None where there is none, or a repeated one.
        times: of a repeated compression, its quality drawn from QUALITIES each time; 0 otherwise.
    """

    codec: Codec = Codec.JPEG
    quality: int | None = None
    times: int = 0

    @property
    def name(self) -> str:
        prefix = "" if self.codec is Codec.JPEG else f"{self.codec.value} "
        if self.times:
            return f"{prefix}{self.times}x"
        return "clean" if self.quality is None else f"{prefix}QF {self.quality}"

    def apply(self, image: RGB, key: str) -> RGB:
        """The degraded picture; `key` names it, and seeds what is drawn."""
        if self.times:
            rng = np.random.default_rng((zlib.crc32(key.encode()), self.times))
            for quality in rng.choice(QUALITIES, self.times):
                image = _encoded(image, self.codec, int(quality))
            return image
        return image if self.quality is None else _encoded(image, self.codec, self.quality)


CLEAN = Condition()


def _encoded(image: RGB, codec: Codec, quality: int) -> RGB:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, codec.value, quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
