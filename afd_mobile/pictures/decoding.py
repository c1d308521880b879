"""Opened pictures made RGB: upright, of 8 bits, and what is transparent white."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from afd_mobile.pictures.degrade import RGB

# Converted at a time, as Pillow takes four bytes a pixel, and several copies.
_ROWS = 256
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


def decode(image: ImageFile) -> RGB:
    """The pixels of an opened picture, (H, W, 3).

    Raises:
        ValueError: it does not say which value is white.
        Exception: whatever a broken file makes a decoder stumble over.
    """
    depth = _depth(image)
    white_is_zero = _white_is_zero(image)
    _match_transparency(image, depth)
    # Photo apps turn by EXIF alone; Pillow turns a TIFF by XMP, too.
    image.info.pop("xmp", None)
    image.load()
    upright = _upright(image)
    if upright.mode in ("I", "F"):
        raise ValueError("its 32-bit values do not say which is white; save it with 8 or 16 bits")
    if upright.mode.startswith("I;16"):
        upright = _grey(upright, depth, white_is_zero)
    elif depth == 16:
        _refuse_dark_colours(upright)
    return _opaque(upright)


def _depth(image: ImageFile) -> int:
    """Bits of a channel in the file; Pillow keeps the upper 8 of colours, and all of greys."""
    if isinstance(image, TiffImageFile):
        depth = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        planes_apart = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
        if planes_apart and depth == 16 and image.tile[0].codec_name == "raw":
            # Pillow would take every byte for a value.
            raise ValueError("its 16-bit channels lie one after the other; save it with 8 bits")
        return int(depth)
    if isinstance(image, PngImageFile):  # "RGB", "L;4", "I;16B"
        return int(str(image.tile[0].args).partition(";")[2].rstrip("B") or 8)
    return 8


def _white_is_zero(image: ImageFile) -> bool:
    """Pillow inverts such TIFFs itself, all but those of 16 bits."""
    return (
        isinstance(image, TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )


def _match_transparency(image: ImageFile, depth: int) -> None:
    """PNG names the transparent colour by the file's own values, of which Pillow makes 8 bits."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * (255 // (2**depth - 1))
    elif image.mode == "RGB" and isinstance(colour, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _upright(image: Image.Image) -> Image.Image:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        turn = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF: every app shows such a picture as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def _grey(image: Image.Image, depth: int, white_is_zero: bool) -> Image.Image:
    """Grey of 12 or 16 bits -> 8 bits, as bright: 255 is the depth's highest value."""
    values = image.convert("I")
    highest = int(np.max(values.getextrema()))
    if depth == 16 and 0 < highest < 4096:
        raise _too_dark(highest)
    white = 2**depth - 1
    table = np.minimum((np.arange(65536) * 255 + white // 2) // white, 255)
    if white_is_zero:
        table = 255 - table
    # PNG's one transparent value.
    transparent = values.info.pop("transparency", None)
    if transparent is not None:
        table[transparent] = 255
    return values.point(table.tolist(), "L")


def _refuse_dark_colours(image: Image.Image) -> None:
    highest = np.asarray(image.getextrema())[:, 1]
    colours, alpha = int(highest[:3].max()), int(highest[3:].max(initial=0))
    # Black under a drawn alpha is a drawing.
    if colours < 16 and (colours > 0 or alpha < 16):
        raise _too_dark(colours * 256 + 255)


def _too_dark(highest: int) -> ValueError:
    return ValueError(
        f"no value exceeds {highest} of 65535: 12 bits or fewer, stored in 16; "
        "scale them to 65535, or save it with 8 bits"
    )


def _opaque(image: Image.Image) -> RGB:
    """In strips."""
    w, h = image.size
    pixels = np.empty((h, w, 3), np.uint8)
    for top in range(0, h, _ROWS):
        strip = image.crop((0, top, w, min(top + _ROWS, h)))
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        pixels[top : top + _ROWS] = np.asarray(strip.convert("RGB"))
    return pixels
