"""Picture files: found in folders, and decoded as a photo app shows them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from afd_mobile.degrade import RGB
from afd_mobile.errors import InputError

_HEIC = {".heic", ".heif"}
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".avif", ".tif", ".tiff", *_HEIC}
# What is decoded at most. Phones' JPEGs of 108 and 200 million pixels are decoded at 1/2 or less.
MAX_PIXELS = 100_000_000
_JPEG_SCALES = (1, 2, 4, 8)
# Every eighth picture of a folder stays unseen: neither trained on nor calibrated with, by anybody.
RESERVED_EVERY = 8
# EXIF's orientation -> what turns the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_images(folder: Path) -> list[Path]:
    """All pictures below `folder`, sorted, by suffix; also behind symbolic links.

    What begins with a dot is no picture: macOS leaves a `._x.jpg` beside every `x.jpg`.

    Raises:
        InputError: no such folder, one that cannot be listed, or none in it.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the folder that it lies in")
    if not folder.is_dir():
        raise InputError(f"no such image folder: {folder}")
    paths = sorted(_pictures_below(folder, ()))
    if not paths:
        raise InputError(f"no pictures ({' '.join(sorted(SUFFIXES))}) in {folder}")
    return paths


def split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """(those to learn from, the reserved ones): of every folder the eighth by name, the 16th, ...

    It counts in every folder by itself, so that what lies beside a folder does not change what is
    reserved in it.
    """
    places: dict[Path, int] = {}
    seen: dict[Path, int] = {}
    for path in sorted(paths):
        places[path] = seen[path.parent] = seen.get(path.parent, 0) + 1
    learnt = [path for path in paths if places[path] % RESERVED_EVERY]
    return learnt, [path for path in paths if places[path] % RESERVED_EVERY == 0]


def _pictures_below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """`above`: device and inode of the folders on the way, into which a link may lead back."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _pictures_below(folder / entry.name, (*above, here))
        elif Path(entry.name).suffix.lower() in SUFFIXES and _is_file_or_lost(entry):
            yield folder / entry.name


def _is_file_or_lost(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere is listed, so that its reading tells."""
    return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())


def read_image(path: Path) -> RGB:
    """Decodes one picture as RGB, (H, W, 3): upright, and what is transparent white.

    Of 16-bit greys the highest value is white. A JPEG of more than MAX_PIXELS is decoded at a half,
    a quarter or an eighth of its size.

    Raises:
        InputError: it cannot be decoded, is too large, or does not say which value is white.
    """
    if path.suffix.lower() in _HEIC:
        _enable_heic(path)
    try:
        with _own_limit(), Image.open(path) as image:
            _fit_limit(image)
            image.load()
            return np.asarray(_rgb(_upright(image)))
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read picture {path}: its content is no picture") from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read picture {path}: {reason}") from error


def _enable_heic(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            f"cannot read picture {path}: HEIC needs pillow-heif: pip install 'afd-mobile[heic]'"
        ) from error
    pillow_heif.register_heif_opener()


@contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow refuses large pictures before their size can be reduced.

    It also warns of what does no harm to the pixels, such as broken EXIF; what does, it raises.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _fit_limit(image: Image.Image) -> None:
    w, h = image.size
    if image.format in ("JPEG", "MPO"):
        scale = next(s for s in _JPEG_SCALES if (w // s) * (h // s) <= MAX_PIXELS)
        if scale > 1:
            image.draft(None, (w // scale, h // scale))
    elif w * h > MAX_PIXELS:
        raise ValueError(
            f"{w} x {h} pixels are more than {MAX_PIXELS // 10**6} million; scale it down"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF: every app shows such a picture as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError("its 32-bit values do not say which is white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> 8 bits. As bright as 8 bits 255 is 65535, whatever the camera's own depth."""
    values = np.asarray(image).astype(np.uint32)
    if 0 < values.max() < 4096:
        raise ValueError(
            f"no value exceeds {values.max()} of 65535: 12 bits or fewer, stored in 16; "
            "scale them to 65535, or save it with 8 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
