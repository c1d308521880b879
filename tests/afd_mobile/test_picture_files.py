from __future__ import annotations

import io
import os
import re
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_mobile import picture_files
from afd_mobile.errors import InputError
from afd_mobile.picture_files import RESERVED_EVERY, list_images, read_image, split

RGB = NDArray[np.uint8]


# --- listing ------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return sorted(folder / name for name in names)


def test_pictures_are_listed_recursively_and_sorted(tmp_path: Path) -> None:
    pictures = touch(
        tmp_path, "b.PNG", "a.jpeg", "deep/er/c.webp", "deep/d.avif", "e.HEIC", "f.tif"
    )
    touch(tmp_path, "notes.txt", "x.gif")
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == pictures


def test_hidden_files_and_folders_hold_no_pictures(tmp_path: Path) -> None:
    """macOS leaves a `._x.jpg` beside every picture, and keeps thumbnails in hidden folders."""
    pictures = touch(tmp_path, "x.jpg", "y/x.jpg")
    touch(tmp_path, "._x.jpg", ".hidden.png", "y/._x.jpg", ".thumbnails/z.jpg", ".Trash/1/z.jpg")
    assert list_images(tmp_path) == pictures


def test_a_hidden_folder_may_be_given(tmp_path: Path) -> None:
    pictures = touch(tmp_path / ".cache", "x.jpg")
    assert list_images(tmp_path / ".cache") == pictures


@pytest.mark.parametrize(("n", "held_out"), [(0, 0), (7, 0), (8, 1), (9, 1), (16, 2), (400, 50)])
def test_every_eighth_picture_is_reserved(n: int, held_out: int) -> None:
    assert RESERVED_EVERY == 8
    images = [Path(f"{i:03}.png") for i in range(n)]
    learnt, reserved = split(images)
    assert len(reserved) == held_out and (learnt, reserved) == split(images)
    assert sorted([*learnt, *reserved]) == images and not set(learnt) & set(reserved)
    assert [int(p.stem) for p in reserved] == [8 * i + 7 for i in range(held_out)]


def test_what_lies_beside_a_folder_does_not_change_what_is_reserved_in_it() -> None:
    pictures = [Path(f"train/pets/{i:02}.png") for i in range(20)]
    others = [Path(f"train/{i}.png") for i in range(5)] + [Path(f"a/{i}.png") for i in range(9)]
    expected = [pictures[7], pictures[15]]
    assert split(pictures)[1] == expected
    assert split([*others, *pictures])[1] == [Path("a/7.png"), *expected]
    assert set(split(pictures[::-1])[1]) == set(expected)


def test_links_to_folders_and_pictures_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store", "tench/1.jpg", "2.jpg")
    given = tmp_path / "given"
    given.mkdir()
    (given / "n01440764").symlink_to(tmp_path / "store" / "tench")
    (given / "one.jpg").symlink_to(tmp_path / "store" / "2.jpg")
    assert list_images(given) == [given / "n01440764" / "1.jpg", given / "one.jpg"]


def test_a_link_back_to_a_folder_above_ends(tmp_path: Path) -> None:
    pictures = touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "b" / "itself").symlink_to(tmp_path / "b")
    # `back` leads to the folder itself, from which `a` has been entered already.
    assert list_images(tmp_path) == pictures


def test_a_link_that_leads_nowhere_is_listed_and_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "gone.jpg")
    assert list_images(tmp_path) == [tmp_path / "lost.jpg"]
    with pytest.raises(InputError, match=r"lost\.jpg: .*No such file"):
        read_image(tmp_path / "lost.jpg")


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    (picture,) = touch(tmp_path, "x.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "pipe.jpg")
    assert list_images(tmp_path) == [picture]


def test_no_folder_and_no_pictures_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image folder"):
        list_images(tmp_path / "none")
    with pytest.raises(InputError, match="no pictures"):
        list_images(tmp_path)
    (picture,) = touch(tmp_path, "x.jpg")
    with pytest.raises(InputError, match=r"x\.jpg is a file; give the folder"):
        list_images(picture)


def test_a_folder_that_may_not_be_listed_says_so() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder closed to others
        folder = Path(name)
        touch(folder, "closed/x.jpg")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)  # root may list everything
        try:
            with pytest.raises(InputError, match="closed cannot be listed: Permission denied"):
                list_images(folder)
        finally:
            os.seteuid(user)
            (folder / "closed").chmod(0o755)


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
    path.write_bytes(png16(values.astype(">u2") * 257))
    assert np.array_equal(read_image(path), values)


def png16(values: NDArray[Any]) -> bytes:
    """(H, W, 3) of 16 bits as PNG, which Pillow reads and does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    h, w, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


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


def test_heic_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (path,) = touch(tmp_path, "IMG_0001.HEIC")
    expected = r"IMG_0001\.HEIC: HEIC needs pillow-heif: pip install 'afd-mobile\[heic\]'"
    with pytest.raises(InputError, match=expected):
        read_image(path)


# --- sizes --------------------------------------------------------------------------------------


def test_a_jpeg_above_the_limit_is_decoded_smaller(
    tmp_path: Path, photograph: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a phone's 200 million pixels are."""
    path = tmp_path / "x.jpg"
    h, w = photograph.shape[:2]
    picture = Image.fromarray(photograph)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif, quality=95)
    for scale, limit in ((1, h * w), (2, h * w - 1), (8, h * w // 64)):
        monkeypatch.setattr(picture_files, "MAX_PIXELS", limit)
        image = read_image(path)
        assert image.shape == (-(-w // scale), -(-h // scale), 3)
        small = np.asarray(picture.reduce(scale).transpose(Image.Transpose.ROTATE_270))
        assert np.abs(image.astype(int) - small).mean() < 6


@pytest.mark.parametrize("name", ["x.png", "x.webp"])
def test_others_above_the_limit_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 100)
    Image.new("RGB", (10, 11)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"10 x 11 pixels are more than .* million; scale it down"):
        read_image(tmp_path / name)


def test_a_phones_108_million_pixels_are_read_without_a_warning(tmp_path: Path) -> None:
    """Pillow warns from 89 million on, and refuses from 179; warnings are errors here."""
    path = tmp_path / "x.jpg"
    Image.new("L", (16320, 12240), 77).save(path, quality=95)
    image = read_image(path)
    assert image.shape == (6120, 8160, 3) and int(image[3000, 4000, 0]) == 77
    assert Image.MAX_IMAGE_PIXELS is not None  # other users of Pillow keep its limit


def test_what_cannot_be_decoded_is_an_input_error(tmp_path: Path, photograph: RGB) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "PNG")
    whole = buffer.getvalue()
    for name, content in (("empty", b""), ("text", b"hello"), ("half", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.png") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="gone"):
        read_image(tmp_path / "gone.png")


def test_a_moving_picture_is_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for name in ("x.webp", "x.png", "x.tiff"):
        options: dict[str, Any] = {"lossless": True} if name == "x.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        assert (read_image(tmp_path / name) == (255, 0, 0)).all(), name


def test_all_that_is_listed_can_be_opened() -> None:
    Image.init()
    unknown = picture_files.SUFFIXES - set(Image.EXTENSION)
    assert unknown <= {".heic", ".heif"}  # pillow-heif's


def test_the_limit_is_said_in_millions() -> None:
    assert re.fullmatch(r"\d+000000", str(picture_files.MAX_PIXELS))
