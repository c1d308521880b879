from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from afd_mobile.common.errors import InputError
from afd_mobile.pictures import decoding
from afd_mobile.pictures.degrade import RGB
from afd_mobile.pictures.picture_files import read_image

Chunks = tuple[tuple[bytes, bytes], ...]


def write_png(
    path: Path, values: NDArray[Any], depth: int, before: Chunks = (), after: Chunks = ()
) -> None:
    """(H, W, channels) of 1 to 16 bits, which Pillow reads and does not write; chunks around it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    h, w, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + packed(row, depth) for row in values)
    header = (b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour_type, 0, 0, 0))
    chunks = (header, *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks))


def packed(values: NDArray[Any], depth: int) -> bytes:
    """Values of `depth` bits, one after the other, the highest bit first."""
    bits = values.reshape(-1, 1).astype(int) >> np.arange(depth)[::-1] & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def write_tiff(path: Path, planes: list[bytes], shape: tuple[int, ...], **tags: int) -> None:
    """Uncompressed, a strip a plane, (H, W, channels); `tags`: depth and photometric."""
    h, w, channels = shape
    content = bytearray(b"II*\0\0\0\0\0")
    offsets = []
    for plane in planes:
        offsets.append(len(content))
        content += plane
    entries = b""
    for tag, longs in (
        (256, [w]),
        (257, [h]),
        (258, [tags["depth"]] * channels),
        (259, [1]),
        (262, [tags["photometric"]]),
        (273, offsets),
        (277, [channels]),
        (278, [h]),
        (279, [len(plane) for plane in planes]),
        (284, [1 if len(planes) == 1 else 2]),
    ):
        value = struct.pack(f"<{len(longs)}I", *longs)
        if len(longs) > 1:
            place = struct.pack("<I", len(content))
            content += value
            value = place
        entries += struct.pack("<HHI", tag, 4, len(longs)) + value
    struct.pack_into("<I", content, 4, len(content))
    path.write_bytes(content + struct.pack("<H", len(entries) // 12) + entries + bytes(4))


# --- orientation --------------------------------------------------------------------------------

# EXIF 2.32, 4.6.4, tag 274: what the stored picture's first row and column show -> how numpy
# turns the upright picture into the stored one.
STORED: dict[int, Any] = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.swapaxes(0, 1),
    6: lambda up: up.swapaxes(0, 1)[::-1],
    7: lambda up: up.swapaxes(0, 1)[::-1, ::-1],
    8: lambda up: up.swapaxes(0, 1)[:, ::-1],
}


def quadrants(height: int = 48, width: int = 80) -> RGB:
    """Four colours, no two alike, so that every turn and mirror image shows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (250, 20, 20)
    image[: height // 2, width // 2 :] = (20, 250, 20)
    image[height // 2 :, : width // 2] = (20, 20, 250)
    image[height // 2 :, width // 2 :] = (250, 250, 20)
    return image


def stored_with(orientation: int, image: RGB) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](image))), exif


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tiff", "heic"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = quadrants()
    stored, exif = stored_with(orientation, upright)
    if suffix == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    path = tmp_path / f"x.{suffix}"
    stored.save(path, exif=exif.tobytes(), quality=95)  # of HEIC, pillow-heif takes bytes only
    image = read_image(path).astype(int)
    assert image.shape == upright.shape
    # Away from the borders, where lossy formats blur colours.
    for top in (12, 36):
        for left in (20, 60):
            assert np.abs(image[top, left] - upright[top, left]).max() < 30


def test_a_phones_jpeg_with_a_second_picture_is_upright(tmp_path: Path) -> None:
    """Multi-picture format: what phones write beside a depth map or a preview."""
    upright = quadrants()
    stored, exif = stored_with(6, upright)
    path = tmp_path / "x.jpg"
    stored.save(path, "MPO", save_all=True, append_images=[stored], exif=exif, quality=95)
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert np.abs(read_image(path).astype(int) - upright).mean() < 8


@pytest.mark.parametrize(
    "exif",
    [b"", b"rubbish", b"MM\0*\0\0\xff\xff", b"II*\0\x08\0\0\0\xff\xff"],
    ids=["empty", "no TIFF", "offset beyond its end", "cut off"],
)  # fmt: skip
def test_broken_exif_leaves_a_picture_as_it_lies(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(quadrants()).save(path, exif=b"Exif\0\0" + exif, quality=95)
    assert np.abs(read_image(path).astype(int) - quadrants()).mean() < 8


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "x.jpg"
    Image.fromarray(quadrants()).save(path, exif=exif, quality=95)
    assert read_image(path).shape == (48, 80, 3)


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_an_orientation_in_xmp_turns_nothing(tmp_path: Path, suffix: str) -> None:
    """Android's ExifInterface knows EXIF's alone; Pillow takes either."""
    options: dict[str, Any] = {"xmp": XMP, "quality": 95}
    if suffix == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": text}
    elif suffix == "tiff":
        options = {"tiffinfo": {700: XMP}}
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(quadrants()).save(path, **options)
    with Image.open(path) as image:
        assert image.getexif()[ExifTags.Base.Orientation] == 6
    assert np.abs(read_image(path).astype(int) - quadrants()).mean() < 8


def test_exif_behind_a_pngs_pixels_turns_it(tmp_path: Path) -> None:
    stored, exif = stored_with(6, quadrants())
    path = tmp_path / "x.png"
    write_png(path, np.asarray(stored), 8, after=((b"eXIf", exif.tobytes()[6:]),))
    assert np.array_equal(read_image(path), quadrants())


# --- modes and depths ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "name", "error"),
    [
        ("1", "x.png", 128),
        ("L", "x.png", 0),
        ("L", "x.jpg", 3),
        ("P", "x.png", 40),
        ("RGB", "x.png", 0),
        ("RGB", "x.bmp", 0),
        ("RGBA", "x.png", 0),
        ("RGBA", "x.webp", 3),
        ("RGBX", "x.tiff", 0),
        ("LA", "x.png", 0),
        ("CMYK", "x.jpg", 3),
        ("CMYK", "x.tiff", 1),
        ("YCbCr", "x.jpg", 3),
        ("YCbCr", "x.tiff", 3),
    ],
)
def test_every_mode_is_read_as_rgb(
    tmp_path: Path, photograph: RGB, mode: str, name: str, error: float
) -> None:
    """`error`: the largest mean difference, of what mode and format lose."""
    path = tmp_path / name
    picture = Image.fromarray(photograph[:40, :60])
    options: dict[str, Any] = {} if name.endswith("png") else {"quality": 95}
    picture.convert(mode).save(path, **options)
    image = read_image(path)
    grey = mode in ("1", "L", "LA")
    expected = np.asarray(picture.convert("L").convert("RGB") if grey else picture)
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).mean() <= error


def grey_ramp() -> RGB:
    return np.tile(np.arange(256, dtype=np.uint8), (4, 1))


@pytest.mark.parametrize(
    ("mode", "name"),
    [("I;16", "x.png"), ("I;16", "x.tiff"), ("I;16B", "x.tiff")],
)
def test_16_bits_of_grey_are_as_8(tmp_path: Path, mode: str, name: str) -> None:
    """Pillow's own conversion cuts at 255, and makes all of it white."""
    values = grey_ramp().astype(np.uint16) * 257
    content = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    path = tmp_path / name
    Image.frombytes(mode, (256, 4), content).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
    assert np.array_equal(read_image(path), np.stack([grey_ramp()] * 3, axis=-1))


def test_16_bits_of_colour_are_as_8(tmp_path: Path) -> None:
    values = np.stack([grey_ramp(), grey_ramp()[:, ::-1], grey_ramp() // 2], axis=-1)
    path = tmp_path / "x.png"
    write_png(path, values.astype(int) * 257, 16)
    assert np.array_equal(read_image(path), values)


def test_12_bits_in_16_are_refused(tmp_path: Path) -> None:
    """As 16 bits they are black, and nothing in the file says that they are 12."""
    path = tmp_path / "x.png"
    values = grey_ramp().astype("<u2") * 16
    Image.frombytes("I;16", (256, 4), values.tobytes()).save(path)
    with pytest.raises(InputError, match=r"x\.png: no value exceeds 4080 of 65535: 12 bits"):
        read_image(path)


def test_16_bits_may_be_black(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.frombytes("I;16", (8, 8), bytes(128)).save(path)
    assert read_image(path).max() == 0


def test_white_may_be_zero(tmp_path: Path) -> None:
    """PhotometricInterpretation 0, which Pillow heeds up to 8 bits."""
    path = tmp_path / "x.tiff"
    for depth, values in ((8, grey_ramp()), (16, grey_ramp().astype("<u2") * 257)):
        write_tiff(path, [values.tobytes()], (4, 256, 1), depth=depth, photometric=0)
        assert np.array_equal(read_image(path), np.stack([255 - grey_ramp()] * 3, axis=-1)), depth


def test_12_bits_that_say_so_are_as_8(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    values = np.arange(4096).reshape(16, 256)
    write_tiff(path, [packed(values, 12)], (16, 256, 1), depth=12, photometric=1)
    expected = np.round(values / 4095 * 255)
    assert np.array_equal(read_image(path), np.stack([expected] * 3, axis=-1))
    write_tiff(path, [packed(values * 0 + 4095, 12)], (16, 256, 1), depth=12, photometric=1)
    assert read_image(path).min() == 255


TWELVE = grey_ramp().astype(int) * 16
FULL = np.full_like(TWELVE, 65535)


@pytest.mark.parametrize(
    ("channels", "highest"),
    [
        ((TWELVE, TWELVE, TWELVE), 4095),
        ((TWELVE, TWELVE, TWELVE, TWELVE), 4095),
        ((TWELVE, TWELVE // 2, TWELVE // 2, FULL), 4095),
        ((TWELVE, FULL), 4095),
        ((TWELVE // 4, TWELVE // 4, TWELVE // 4), 1023),
        ((TWELVE // 16, TWELVE // 16, TWELVE // 16), 255),
    ],
    ids=["RGB", "RGBA", "RGB and full alpha", "LA", "10 bits", "8 bits"],
)
def test_12_bits_of_colour_in_16_are_refused(
    tmp_path: Path, channels: tuple[NDArray[Any], ...], highest: int
) -> None:
    values = np.stack(channels, axis=-1)
    write_png(tmp_path / "x.png", values, 16)
    with pytest.raises(InputError, match=rf"x\.png: no value exceeds {highest} of 65535: 12 bits"):
        read_image(tmp_path / "x.png")


def test_a_tiffs_12_bits_of_colour_in_16_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    for scale, dark in ((16, True), (257, False)):
        values = np.stack([grey_ramp()] * 3, axis=-1).astype("<u2") * scale
        write_tiff(path, [values.tobytes()], values.shape, depth=16, photometric=2)
        if dark:
            with pytest.raises(InputError, match=r"x\.tiff: no value exceeds 4095 of 65535"):
                read_image(path)
        else:
            assert np.array_equal(read_image(path), values // 257)


def test_16_bits_of_black_under_an_alpha_are_a_drawing(tmp_path: Path) -> None:
    values = np.stack([TWELVE * 0] * 3 + [grey_ramp().astype(int) * 257], axis=-1)
    write_png(tmp_path / "x.png", values, 16)
    expected = np.stack([255 - grey_ramp()] * 3, axis=-1)
    assert np.array_equal(read_image(tmp_path / "x.png"), expected)


def test_16_bit_channels_one_after_the_other_are_refused(tmp_path: Path) -> None:
    """Pillow takes every byte for a value."""
    plane = (grey_ramp().astype("<u2") * 257).tobytes()
    write_tiff(tmp_path / "x.tiff", [plane] * 3, (4, 256, 3), depth=16, photometric=2)
    with pytest.raises(InputError, match=r"x\.tiff: its 16-bit channels lie one after the other"):
        read_image(tmp_path / "x.tiff")
    plane = grey_ramp().tobytes()
    write_tiff(tmp_path / "x.tiff", [plane] * 3, (4, 256, 3), depth=8, photometric=2)
    assert np.array_equal(read_image(tmp_path / "x.tiff"), np.stack([grey_ramp()] * 3, axis=-1))


@pytest.mark.parametrize(("mode", "kind"), [("I", np.int32), ("F", np.float32)])
def test_32_bits_are_refused_by_name(tmp_path: Path, mode: str, kind: type) -> None:
    path = tmp_path / "x.tiff"
    Image.frombytes(mode, (256, 4), grey_ramp().astype(kind).tobytes()).save(path)
    with pytest.raises(InputError, match=r"x\.tiff: its 32-bit values do not say which is white"):
        read_image(path)


def transparent(mode: str) -> Image.Image:
    """Left half clear over a hidden blue (of greys: black), middle half clear, right half solid."""
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 2] = 200 if mode == "RGBA" else 0
    rgba[:, 2:4, 3], rgba[:, 4:, 3] = 128, 255
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("RGBA", "webp"), ("LA", "png")])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    transparent(mode).save(path, **options)
    image = read_image(path)
    blue = 200 if mode == "RGBA" else 0
    assert (image[:, :2] == 255).all()
    assert np.abs(image[:, 2:4].astype(int) - (127, 127, 127 + blue // 2)).max() <= 1
    assert (image[:, 4:] == (0, 0, blue)).all()


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_transparent_colour_is_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.png"
    image = Image.new(mode, (4, 2), 7)
    if mode == "P":
        image.putpalette([10, 20, 30] * 256)
    image.putpixel((3, 0), 8)
    image.save(path, transparency=7)
    read = read_image(path)
    assert (read[:, :3] == 255).all()
    assert tuple(read[0, 3]) == ((10, 20, 30) if mode == "P" else (8, 8, 8))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_every_depth_is_white(tmp_path: Path, depth: int) -> None:
    """PNG names it by the file's own values."""
    white = 2**depth - 1
    values = np.array([[0, 0, white // 3, white // 3 + 1, white]])
    transparent = white // 3
    path = tmp_path / "x.png"
    write_png(path, values[..., None], depth, ((b"tRNS", struct.pack(">H", transparent)),))
    expected = np.where(values == transparent, 255, np.round(values / white * 255))
    assert np.array_equal(read_image(path)[..., 0], expected)


def test_a_transparent_colour_of_16_bits_is_white(tmp_path: Path) -> None:
    """By its upper 8 bits, which are all that Pillow keeps."""
    values = np.array([[[7000, 300, 40000], [7000, 700, 40000], [65535, 0, 0]]])
    path = tmp_path / "x.png"
    write_png(path, values, 16, ((b"tRNS", struct.pack(">HHH", 7000, 300, 40000)),))
    assert read_image(path).tolist() == [[[255, 255, 255], [27, 2, 156], [255, 0, 0]]]


@pytest.mark.parametrize("grey", [True, False])
def test_16_bits_of_alpha_are_as_8(tmp_path: Path, grey: bool) -> None:
    colours = np.array([[0, 20, 40, 60]] if grey else [[0, 20, 40], [60, 80, 100], [1, 2, 3]])
    colours = colours[..., None] if grey else colours[None]
    alpha = np.array([0, 51, 102, 255])[None, : colours.shape[1], None]
    write_png(tmp_path / "x.png", np.concatenate([colours, alpha], axis=-1) * 257, 16)
    expected = np.round(255 + (colours - 255) * (alpha / 255))
    assert np.abs(read_image(tmp_path / "x.png") - expected).max() <= 1


def test_what_is_transparent_is_made_white_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of 100 million pixels would take 1.6 GB."""
    rgba = np.random.default_rng(0).integers(0, 256, (10, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    whole = read_image(tmp_path / "x.png")
    assert np.abs(whole - (255 + (rgba[..., :3] - 255.0) * (rgba[..., 3:] / 255))).max() <= 1
    composite, heights = Image.alpha_composite, []

    def watched(below: Image.Image, above: Image.Image) -> Image.Image:
        heights.append(above.height)
        return composite(below, above)

    monkeypatch.setattr(Image, "alpha_composite", watched)
    monkeypatch.setattr(decoding, "_ROWS", 4)
    assert np.array_equal(read_image(tmp_path / "x.png"), whole)
    assert heights == [4, 4, 2]
