"""Picture files: found in folders, and read as a photo app shows them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from afd_mobile.common.errors import InputError
from afd_mobile.pictures.decoding import decode
from afd_mobile.pictures.degrade import RGB

T = TypeVar("T")

SUFFIXES = {
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".avif", ".tif", ".tiff"),
    *(".heic", ".heif"),
}
# What they stand for, by Pillow's names. Others start what nobody asked for: EPS Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF", "TIFF")
# Brands in the first box of an ISO file; an AVIF calls itself mif1, too.
_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
# What is decoded at most. Phones' JPEGs of 108 and 200 million pixels are decoded at 1/2 or less.
MAX_PIXELS = 100_000_000
_JPEG_SCALES = (1, 2, 4, 8)
# Folders that link to each other hold every picture on more paths than can be listed.
_MAX_LINKS = 8
# Every eighth picture of a folder stays unseen: neither trained on nor calibrated with, by anybody.
RESERVED_EVERY = 8


def list_images(folder: Path) -> list[Path]:
    """All pictures below `folder`, sorted, by suffix; also behind symbolic links.

    What begins with a dot is no picture: macOS leaves a `._x.jpg` beside every `x.jpg`.

    Raises:
        InputError: no such folder, one that cannot be listed, none in it, or links without end.
    """
    paths = sorted(_pictures_below(folder))
    if not paths:
        raise InputError(f"no pictures ({' '.join(sorted(SUFFIXES))}) in {folder}")
    return paths


def evenly(items: list[T], count: int) -> list[T]:
    """At most `count` of them, spread over the whole list."""
    if len(items) <= count:
        return items
    return [items[i * len(items) // count] for i in range(count)]


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


def _pictures_below(top: Path) -> Iterator[Path]:
    # With each folder: device and inode of those above, into which a link may lead back, and how
    # many links lead to it.
    waiting: list[tuple[Path, frozenset[tuple[int, int]], int]] = [(top, frozenset(), 0)]
    while waiting:
        folder, above, links = waiting.pop()
        if links > _MAX_LINKS:
            raise InputError(
                f"{folder} lies behind more than {_MAX_LINKS} links; give the folder they lead to"
            )
        try:
            status = folder.stat()
            entries = list(os.scandir(folder))
        except FileNotFoundError as error:
            raise InputError(f"no such image folder: {folder}") from error
        except NotADirectoryError as error:
            raise InputError(f"{folder} is a file; give the folder that it lies in") from error
        except OSError as error:
            raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == "folder":
                below = (folder / entry.name, above | {here}, links + entry.is_symlink())
                waiting.append(below)
            elif kind != "other" and Path(entry.name).suffix.lower() in SUFFIXES:
                yield folder / entry.name


def _kind(entry: os.DirEntry[str]) -> str:
    """A link that leads nowhere, or where nobody may look, is "lost"; its reading tells."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:
        return "lost"
    return "other"


def read_image(path: Path) -> RGB:
    """Decodes one picture as RGB, (H, W, 3): upright, and what is transparent white.

    Which decoder reads it, its content decides, not its suffix. A JPEG of more than MAX_PIXELS is
    decoded at a half, a quarter or an eighth of its size. MAX_PIXELS take 0.8 GB as PNG, 1.2 GB if
    turned, and 1.6 GB as WebP.

    Of 16 bits the highest value is white. Where none exceeds 12 bits, the picture is refused. What
    cannot be known: 14 bits in 16, read as a quarter as bright; colours of 8 bits in 16 beside an
    alpha of 16, read as black; two 16-bit colours that differ in the lower 8 bits alone, of which
    PNG names one transparent: both are read as white.

    Raises:
        InputError: it cannot be decoded, is too large, or does not say which value is white.
    """
    try:
        with (
            _own_limit(),
            path.open("rb") as file,
            Image.open(file, formats=_formats(file)) as image,
        ):
            _fit_limit(image)
            return decode(image)
    except UnidentifiedImageError as error:
        raise InputError(
            f"cannot read picture {path}: its content is no {', '.join(_FORMATS)} or HEIC"
        ) from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read picture {path}: {reason}") from error


def _formats(file: BinaryIO) -> tuple[str, ...]:
    start = file.read(256)
    # An ISO file's first box: its size, "ftyp", the main brand, a version, the other brands.
    size = int.from_bytes(start[:4], "big")
    brands = {start[i : i + 4] for i in range(8, min(size, len(start)), 4)}
    if start[4:8] != b"ftyp" or brands & _AVIF or not brands & _HEIF:
        return _FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        raise ValueError("HEIC needs pillow-heif: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


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
