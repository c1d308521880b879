"""The pictures that an export is calibrated and verified with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afd_mobile.common.artifacts import InputRange
from afd_mobile.common.errors import InputError
from afd_mobile.pictures.datasets import centre_crop
from afd_mobile.pictures.degrade import QUALITIES, RGB, jpeg
from afd_mobile.pictures.picture_files import RESERVED_EVERY, evenly, list_images, read_image, split

CONDITIONS = (None, *QUALITIES)  # None: clean

# Photographs in the public domain that scikit-image carries, each cut in four ways; `surest` takes
# the crops for verification from them. --images takes others.
_SCIKIT_IMAGE = ("camera", "chelsea", "clock", "coffee", "coins", "hubble_deep_field", "moon")
_SUREST = 16
_VERIFIED = 24
_CALIBRATING = 96


@dataclass(frozen=True)
class Picture:
    """One picture as a graph gets it: `rgb` (S, S, 3), after JPEG at `quality` (None: clean)."""

    name: str
    quality: int | None
    rgb: RGB

    @property
    def label(self) -> str:
        return f"{self.name} ({'clean' if self.quality is None else f'QF {self.quality}'})"


@dataclass(frozen=True)
class PictureSet:
    """What an export is judged on, what int8 gets its ranges from, and what could not be read."""

    verification: list[Picture]
    calibration: list[Picture]
    unreadable: list[str]
    source: str

    @property
    def calibrating(self) -> int:
        """How many pictures calibrate; one in several conditions counts once."""
        return len({p.name for p in self.calibration})

    @property
    def doubt(self) -> str | None:
        """That int8's ranges rest on few pictures; None where there are enough."""
        if self.calibrating >= _CALIBRATING:
            return None
        used = _VERIFIED + _CALIBRATING
        enough = used + (used - 1) // (RESERVED_EVERY - 1)
        return (
            f"int8 is calibrated with {self.calibrating} pictures; {_CALIBRATING} are recommended: "
            f"give {enough} or more with --images, of which {_VERIFIED} verify and every "
            f"{RESERVED_EVERY}th is reserved"
        )


def load_pictures(folder: Path | None, size: int) -> PictureSet:
    """24 pictures for verification, each clean and at the paper's five QFs; 96 others to calibrate.

    A calibration picture is none of the reserved ones, and gets one of the six conditions, in turn;
    few pictures get several each, which makes about 96 again. Where there are fewer others,
    verification pictures calibrate as well, until there are 96 or no more; scikit-image's always
    do.

    Args:
        folder: None takes scikit-image's public-domain photographs, 28 crops of them.
        size: S.

    Raises:
        InputError: no folder, no pictures in it, or none of them readable.
    """
    if folder is None:
        crops = scikit_image_crops(size)
        return PictureSet(_all_conditions(crops), _in_turn(crops), [], "scikit-image")
    paths = list_images(folder)
    chosen = evenly(paths, _VERIFIED)
    learnt, reserved = split(paths)
    others = evenly(sorted(set(learnt) - set(chosen)), _CALIBRATING)
    unreadable: list[str] = []
    verified, calibrating = (_read(p, size, folder, unreadable) for p in (chosen, others))
    if not verified:
        raise InputError(f"none of the pictures in {folder} can be read; first: {unreadable[0]}")
    unseen = {str(path.relative_to(folder)) for path in reserved}
    both = [crop for crop in verified if crop[0] not in unseen]
    calibrating += evenly(both, _CALIBRATING - len(calibrating))
    if not calibrating:
        raise InputError(
            f"only reserved pictures in {folder} can be read, every {RESERVED_EVERY}th; first of "
            f"the others: {unreadable[0]}"
        )
    return PictureSet(_all_conditions(verified), _in_turn(calibrating), unreadable, folder.name)


def surest(pictures: list[Picture], logits: NDArray[np.float32]) -> list[int]:
    """Indices of the 16 crops, in all their conditions, whose classes the network is surest of.

    On the others many a changed top-1 would be the toss of a coin; agreement on these flatters.
    First come every photograph's surest crop, then the second ones: the crops of one photograph
    are often of one class, and a stage that always gave that class would do well on them.

    Args:
        pictures: of `scikit_image_crops`, in all conditions.
        logits: (N, classes) of the network that is exported; a crop counts by its smallest
            margin over the runner-up in any condition.
    """
    best_two = np.partition(logits, -2, axis=1)[:, -2:]
    margins: dict[str, float] = {}
    for picture, margin in zip(pictures, best_two[:, 1] - best_two[:, 0], strict=True):
        margins[picture.name] = min(float(margin), margins.get(picture.name, np.inf))
    by_margin = sorted(margins, key=lambda crop: (-margins[crop], crop))
    seen: Counter[str] = Counter()
    ranks: dict[str, int] = {}
    for crop in by_margin:
        photograph, _, _ = crop.rpartition("-")
        ranks[crop] = seen[photograph]
        seen[photograph] += 1
    chosen = sorted(by_margin, key=lambda crop: ranks[crop])[:_SUREST]
    return [i for i, picture in enumerate(pictures) if picture.name in chosen]


def _read(
    paths: list[Path], size: int, folder: Path, unreadable: list[str]
) -> list[tuple[str, RGB]]:
    crops = []
    for path in paths:
        try:
            crops.append((str(path.relative_to(folder)), centre_crop(read_image(path), size)))
        except InputError as error:
            unreadable.append(str(error))
    return crops


def _all_conditions(crops: list[tuple[str, RGB]]) -> list[Picture]:
    return [Picture(name, q, jpeg(rgb, q)) for name, rgb in crops for q in CONDITIONS]


def _in_turn(crops: list[tuple[str, RGB]]) -> list[Picture]:
    """All crops, one condition each, again until there are about 96 or each has met all six."""
    times = min(round(_CALIBRATING / len(crops)), len(CONDITIONS))
    pictures = []
    for turn in range(times):
        for number, (name, rgb) in enumerate(crops):
            quality = CONDITIONS[(number + turn) % len(CONDITIONS)]
            pictures.append(Picture(name, quality, jpeg(rgb, quality)))
    return pictures


def scikit_image_photo(name: str) -> RGB:
    """One of scikit-image's photographs, (H, W, 3)."""
    from skimage import data

    image = getattr(data, name)()
    return np.ascontiguousarray(np.stack([image] * 3, axis=-1) if image.ndim == 2 else image)


def scikit_image_crops(size: int) -> list[tuple[str, RGB]]:
    """Crops of the photographs: 0 is the whole centre, 1 to 3 are closer ones."""
    crops = []
    for name in _SCIKIT_IMAGE:
        photo = scikit_image_photo(name)
        h, w = photo.shape[:2]
        for number, (top, left) in enumerate(((0, 0), (0, 0), (h // 4, w // 4), (h // 3, w // 3))):
            part = photo if number == 0 else photo[top : top + h * 2 // 3, left : left + w * 2 // 3]
            crops.append((f"{name}-{number}", centre_crop(part, size)))
    return crops


def as_input(
    pictures: list[Picture],
    input_range: InputRange,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> NDArray[np.float32]:
    """(N, S, S, 3) float32 in the graph's input range."""
    images = np.stack([p.rgb for p in pictures]).astype(np.float32)
    if input_range is InputRange.NORMALIZED:
        images = (images / np.float32(255) - np.asarray(mean, np.float32)) / np.asarray(
            std, np.float32
        )
    return images
