from __future__ import annotations

import io
import itertools
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from afd_mobile.common.errors import InputError
from afd_mobile.pictures import picture_files
from afd_mobile.pictures.degrade import RGB
from afd_mobile.pictures.picture_files import RESERVED_EVERY, list_images, read_image, split

# --- listing ------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return sorted(folder / name for name in names)


@contextmanager
def closed_to_this_user(folder: Path) -> Iterator[None]:
    folder.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may list everything
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


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


def test_links_that_cannot_be_followed_are_lost(tmp_path: Path) -> None:
    """Not only those to nowhere: into themselves, and to names that no file can have."""
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    (tmp_path / "long.jpg").symlink_to("x" * 300)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    listed = [tmp_path / "itself.jpg", tmp_path / "long.jpg"]
    assert list_images(tmp_path) == listed
    for path in listed:
        with pytest.raises(InputError, match=f"cannot read picture {path}: "):
            read_image(path)
    for name, reason in (("itself", "Too many levels"), ("x" * 300, "File name too long")):
        with pytest.raises(InputError, match=f"{name} cannot be listed: {reason}"):
            list_images(tmp_path / name)


def test_links_into_a_closed_folder_are_lost() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder closed to others
        folder, closed = Path(name), Path(name, ".closed")
        touch(closed, "x.jpg")
        (folder / "one.jpg").symlink_to(closed / "x.jpg")
        folder.chmod(0o755)
        with closed_to_this_user(closed):
            assert list_images(folder) == [folder / "one.jpg"]
            with pytest.raises(InputError, match=r"one\.jpg: .*Permission denied"):
                read_image(folder / "one.jpg")
            with pytest.raises(InputError, match="cannot be listed: Permission denied"):
                list_images(closed / "below")


def test_folders_that_link_to_each_other_end_in_one_line(tmp_path: Path) -> None:
    """Each holds two links to the next: the last is on a million paths."""
    folders = [tmp_path / f"{i:02d}" for i in range(21)]
    for folder in folders:
        folder.mkdir()
    touch(folders[-1], "x.jpg")
    for folder, following in itertools.pairwise(folders):
        (folder / "a").symlink_to(following)
        (folder / "b").symlink_to(following)
    with pytest.raises(InputError, match="lies behind more than 8 links; give the folder they"):
        list_images(folders[0])
    assert len(list_images(folders[-9])) == 2**8


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
        with (
            closed_to_this_user(folder / "closed"),
            pytest.raises(InputError, match="closed cannot be listed: Permission denied"),
        ):
            list_images(folder)


# --- content ------------------------------------------------------------------------------------


def heic(path: Path) -> None:
    """Without registering HEIC with Pillow, as a reader of pictures finds it."""
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (200, 100, 50))).save(path)


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had read no HEIC yet."""
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])


@pytest.mark.usefixtures("unregistered")
@pytest.mark.parametrize("name", ["x.heic", "x.jpg"])
def test_heic_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    heic(tmp_path / name)
    image = read_image(tmp_path / name)
    assert np.abs(image.astype(int) - (200, 100, 50)).max() < 8


@pytest.mark.parametrize("name", ["IMG_0001.HEIC", "x.jpg"])
def test_heic_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    heic(tmp_path / name)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    expected = f"{name}: HEIC needs pillow-heif: pip install pillow-heif"
    with pytest.raises(InputError, match=re.escape(expected)):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_what_only_looks_like_heic_needs_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Phones name JPEGs so; an AVIF's brands say mif1, as a HEIC's do."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "x.heic", kind)
    if kind == "AVIF":
        assert b"mif1" in (tmp_path / "x.heic").read_bytes()[:64]
    assert read_image(tmp_path / "x.heic").shape == (8, 8, 3)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved("EPS"),
        saved("PDF"),
        saved("GIF"),
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(300),
        b"".join(
            line.ljust(80).encode()
            for line in (
                "SIMPLE  = T",
                "BITPIX  = 8",
                "NAXIS   = 2",
                "NAXIS1  = 8",
                "NAXIS2  = 8",
                "END",
            )
        ).ljust(2880)
        + bytes(2880),
        struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42" + bytes(99),
    ],
    ids=["EPS", "PDF", "GIF", "PSD", "FITS", "MP4"],
)
def test_what_no_suffix_stands_for_is_refused(tmp_path: Path, content: bytes) -> None:
    """Pillow would start Ghostscript for EPS."""
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    expected = (
        f"cannot read picture {path}: its content is no JPEG, PNG, WEBP, BMP, AVIF, TIFF or HEIC"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
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
