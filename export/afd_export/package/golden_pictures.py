"""Golden pictures: JPEG files as phones leave them, and the pixels that a graph is to get of them.

With them an app checks its decoding, scaling and cropping, where most differences between app and
Python come from.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from afd_export.pictures import scikit_image_photo
from afd_mobile.pictures.datasets import centre_crop
from afd_mobile.pictures.degrade import RGB
from afd_mobile.pictures.picture_files import read_image

_QUALITY = 90


@dataclass(frozen=True)
class _Recipe:
    """Attributes:
    photo: of scikit-image, in the public domain; its middle, `width` x `height`, is taken.
    orientation: EXIF's, and how the pixels are stored for it.
    """

    photo: str
    width: int
    height: int
    orientation: int = 1
    stored: Image.Transpose | None = None
    grey: bool = False


_RECIPES = {
    "turned": _Recipe("coffee", 597, 399, 6, Image.Transpose.ROTATE_90),
    "mirrored": _Recipe("chelsea", 449, 299, 5, Image.Transpose.TRANSPOSE),
    "grey": _Recipe("camera", 501, 333, grey=True),
    "small": _Recipe("rocket", 159, 121),
}


@dataclass(frozen=True)
class GoldenPicture:
    """Attributes:
    name: what its files are called.
    jpeg: the file's content.
    pixels: (S, S, 3), after decoding, scaling and cropping.
    """

    name: str
    jpeg: bytes
    pixels: RGB


def golden_pictures(size: int, folder: Path) -> list[GoldenPicture]:
    """All of them; `folder` is for a moment's use.

    Args:
        size: S.
    """
    pictures = []
    for name, recipe in _RECIPES.items():
        path = folder / f"{name}.jpg"
        path.write_bytes(_jpeg(recipe))
        pictures.append(GoldenPicture(name, path.read_bytes(), centre_crop(read_image(path), size)))
    return pictures


def write_golden_pictures(
    folder: Path, pictures: list[GoldenPicture], top1: list[int] | None, labels: list[str] | None
) -> list[dict[str, Any]]:
    """`golden/pictures/`: every JPEG, and its pixels as PNG.

    Args:
        top1: the class that the trained network gives each; None without classes.

    Returns:
        one entry a picture, for the manifest.
    """
    (folder / "golden" / "pictures").mkdir(parents=True)
    entries = []
    for number, picture in enumerate(pictures):
        stem = f"golden/pictures/{picture.name}"
        (folder / f"{stem}.jpg").write_bytes(picture.jpeg)
        (folder / f"{stem}.png").write_bytes(_png(picture.pixels))
        best = None if top1 is None else top1[number]
        entries.append(
            {
                "jpeg": f"{stem}.jpg",
                "pixels": f"{stem}.png",
                "top1": best,
                "label": None if best is None or labels is None else labels[best],
            }
        )
    return entries


def _jpeg(recipe: _Recipe) -> bytes:
    photo = scikit_image_photo(recipe.photo)
    top, left = (photo.shape[0] - recipe.height) // 2, (photo.shape[1] - recipe.width) // 2
    image = Image.fromarray(photo[top : top + recipe.height, left : left + recipe.width])
    if recipe.grey:
        image = image.convert("L")
    if recipe.stored is not None:
        image = image.transpose(recipe.stored)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = recipe.orientation
    return _encoded(image, "JPEG", quality=_QUALITY, exif=exif)


def _png(pixels: RGB) -> bytes:
    return _encoded(Image.fromarray(np.ascontiguousarray(pixels)), "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
