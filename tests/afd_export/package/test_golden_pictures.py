"""Photographs as phones leave them, and the pixels that Python makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afd_export.package.golden_pictures import golden_pictures, write_golden_pictures
from afd_mobile.pictures.picture_files import read_image

# What the app's own decoding is tested with (PhotosTest.java).
OF_THE_APP = Path(__file__).parents[3] / "android_app/src/test/resources/golden_pictures"


def test_they_are_turned_mirrored_grey_and_small(tmp_path: Path) -> None:
    pictures = golden_pictures(64, tmp_path)
    found = {}
    for picture in pictures:
        assert picture.pixels.shape == (64, 64, 3)
        with Image.open(tmp_path / f"{picture.name}.jpg") as image:
            assert image.format == "JPEG"
            found[picture.name] = (image.mode, image.getexif()[0x0112], *image.size)
    assert found == {
        "turned": ("RGB", 6, 399, 597),
        "mirrored": ("RGB", 5, 299, 449),
        "grey": ("L", 1, 501, 333),
        "small": ("RGB", 1, 159, 121),
    }


def test_two_calls_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = golden_pictures(64, tmp_path), golden_pictures(64, tmp_path)
    assert [p.jpeg for p in first] == [p.jpeg for p in second]


def test_the_app_is_tested_with_the_same_ones(tmp_path: Path) -> None:
    """Another version of the JPEG library may round otherwise."""
    for picture in golden_pictures(224, tmp_path):
        for suffix, own in (("jpg", read_image(tmp_path / f"{picture.name}.jpg")),
                            ("png", picture.pixels)):  # fmt: skip
            stored = read_image(OF_THE_APP / f"{picture.name}.{suffix}")
            assert stored.shape == own.shape
            assert np.abs(stored.astype(int) - own).mean() < 0.5, (picture.name, suffix)


@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_files_and_entries(tmp_path: Path, labels: list[str] | None) -> None:
    pictures = golden_pictures(64, tmp_path)[:2]
    out = tmp_path / "out"
    entries = write_golden_pictures(out, pictures, [1, 0], labels)
    assert [(e["top1"], e["label"]) for e in entries] == (
        [(1, None), (0, None)] if labels is None else [(1, "b"), (0, "a")]
    )
    for entry, picture in zip(entries, pictures, strict=True):
        assert (out / entry["jpeg"]).read_bytes() == picture.jpeg
        assert np.array_equal(read_image(out / entry["pixels"]), picture.pixels)


def test_features_have_no_class(tmp_path: Path) -> None:
    (entry,) = write_golden_pictures(
        tmp_path / "out", golden_pictures(64, tmp_path)[:1], None, None
    )
    assert entry["top1"] is None and entry["label"] is None
