"""The conditions that accuracy is measured under: columns of the paper's tables, and the field."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

from afd_mobile.pictures.degrade import (
    QUALITIES,
    RGB,
    Avif,
    Blur,
    Chroma,
    Codec,
    Degradation,
    Encoder,
    Heic,
    Jpeg,
    Noise,
    Repeated,
    Scaled,
    Shifted,
    Then,
    Webp,
    heic_installed,
)


class Compress(str, Enum):
    """When pictures are degraded: at the size that the network takes, as in ImageNet-C; or the
    file at its own size, before it is scaled and cropped, as an app meets it."""

    AFTER_SCALING = "after-scaling"
    BEFORE_SCALING = "before-scaling"


LEFT_ALONE = "left alone"  # the group of what no compression did: there is nothing to recover


@dataclass(frozen=True)
class Condition:
    """One condition of an accuracy table.

    Attributes:
        degradation: None of clean pictures.
        group: under which it stands in a suite's table.
        averaged: whether the mean recovered share counts it.
    """

    degradation: Degradation | None = None
    group: str = ""
    averaged: bool = False

    @property
    def name(self) -> str:
        return "clean" if self.degradation is None else self.degradation.name

    def apply(self, image: RGB, key: str) -> RGB:
        """The degraded picture; `key` names it, and seeds what is drawn."""
        if self.degradation is None:
            return image
        return self.degradation.apply(image, zlib.crc32(key.encode()))


CLEAN = Condition()


def single(quality: int, codec: Codec = Codec.JPEG) -> Condition:
    """One compression, as the paper's Tables V and IX."""
    return Condition(codec.at(quality), codec.name, averaged=True)


def repeated(times: int, codec: Codec = Codec.JPEG) -> Condition:
    """So many compressions, each at a drawn quality, as the paper's Table VI."""
    return Condition(Repeated(codec, times), f"{codec.name} repeated")


@dataclass(frozen=True)
class Suite:
    """Conditions that are measured together.

    Attributes:
        least_loss: a condition that costs the reference less (0 to 1) has no recovered share: it
            would be a ratio of two small numbers.
    """

    name: str
    conditions: tuple[Condition, ...]
    least_loss: float = 0.0


def paper_suite() -> Suite:
    """Tables V, VI and IX; the mean is that of Table V."""
    avif = [Condition(Avif(q), "AVIF") for q in QUALITIES]
    return Suite(
        "paper", (CLEAN, *map(single, QUALITIES), *(repeated(n) for n in range(1, 6)), *avif)
    )


_FIELD: dict[str, tuple[Degradation, ...]] = {
    "JPEG": tuple(Jpeg(q) for q in (5, 7, 10, 15, 25, 30, 50, 75)),
    "other JPEG": (
        Jpeg(10, Chroma.FULL),
        Jpeg(10, Chroma.HALF),
        Jpeg(15, Chroma.GREY),
        Jpeg(10, encoder=Encoder.MOZJPEG),
        Jpeg(10, encoder=Encoder.CAMERA),
    ),
    "JPEG, other grid": (
        Shifted(Jpeg(10), 4, 4),
        Shifted(Jpeg(25), 4, 4),
        Shifted(Jpeg(15), 3, 6),
    ),
    "JPEG, other scale": (
        Scaled(Jpeg(10), 1.25),
        Scaled(Jpeg(10), 2.0),
        Scaled(Jpeg(10), 0.75),
        Scaled(Jpeg(25), 0.75),
        Scaled(Jpeg(50), 0.5),
    ),
    "JPEG repeated": (
        Repeated(Codec.JPEG, 2),
        Repeated(Codec.JPEG, 5),
        Then(Jpeg(75), Shifted(Jpeg(15), 4, 4)),
    ),
    "WebP": (Webp(5), Webp(20), Webp(50)),
    "AVIF": (Avif(10), Avif(25), Avif(50)),
    "HEIC": (Heic(10), Heic(25)),
    LEFT_ALONE: (Blur(1), Blur(2), Noise(4), Noise(8)),
}


def field_suite() -> Suite:
    """Pictures as phones have them. HEIC is in it where pillow-heif is installed."""
    groups = {g: found for g, found in _FIELD.items() if g != "HEIC" or heic_installed()}
    conditions = (
        Condition(degradation, group, averaged=group != LEFT_ALONE)
        for group, degradations in groups.items()
        for degradation in degradations
    )
    return Suite("field", (CLEAN, *conditions), least_loss=0.05)


SUITES = {"paper": paper_suite, "field": field_suite}
