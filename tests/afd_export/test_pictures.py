from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_export import pipeline
from afd_export.pictures import (
    CONDITIONS,
    Picture,
    PictureSet,
    as_input,
    load_pictures,
    scikit_image_crops,
    surest,
)
from afd_export.request import ExportRequest
from afd_mobile.common.artifacts import InputRange, Precision
from afd_mobile.common.errors import InputError, ParityError
from afd_mobile.pictures.picture_files import list_images, split
from tests.afd_export.conftest import write_pictures

SIZE = 64


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    write_pictures(folder, 40)
    return folder


@pytest.mark.parametrize(
    ("count", "both", "calibrating", "inputs"),
    [
        (1, 1, 1, 6),  # in all six conditions
        (24, 21, 21, 105),  # three are reserved
        (25, 21, 22, 88),  # one of them does not verify
        (100, 21, 88, 88),
        (120, 12, 96, 96),
        (133, 1, 96, 96),
        (137, 0, 96, 96),
    ],
)
def test_verification_pictures_calibrate_until_there_are_enough(
    tmp_path: Path, count: int, both: int, calibrating: int, inputs: int
) -> None:
    write_pictures(tmp_path / "mine", count)
    pictures = load_pictures(tmp_path / "mine", 8)
    verified = {p.name for p in pictures.verification}
    used = {p.name for p in pictures.calibration}
    assert len(verified) == min(count, 24)
    assert len(verified & used) == both
    assert len(used) == pictures.calibrating == calibrating
    # A picture that comes again meets another condition.
    seen = {(p.name, p.quality) for p in pictures.calibration}
    assert len(seen) == len(pictures.calibration) == inputs
    assert pictures.source == "mine"


def test_every_picture_is_verified_in_all_six_conditions(large: Path) -> None:
    pictures = load_pictures(large, SIZE).verification
    assert len(CONDITIONS) == 6
    assert len(pictures) == 24 * 6
    for name in {p.name for p in pictures}:
        assert {p.quality for p in pictures if p.name == name} == {None, 25, 18, 15, 10, 7}


def test_calibration_sees_all_six_conditions(large: Path) -> None:
    assert {p.quality for p in load_pictures(large, SIZE).calibration} == set(CONDITIONS)


def test_a_worse_quality_is_farther_from_the_clean_picture(large: Path) -> None:
    by_quality = {p.quality: p.rgb.astype(float) for p in load_pictures(large, SIZE).verification}
    errors = {q: np.abs(rgb - by_quality[None]).mean() for q, rgb in by_quality.items()}
    assert errors[None] == 0 < errors[25] < errors[7]


def test_the_same_folder_gives_the_same_pictures(large: Path) -> None:
    assert_equal(load_pictures(large, SIZE), load_pictures(large, SIZE))


def test_the_built_in_photographs_are_always_the_same() -> None:
    first, second = load_pictures(None, SIZE), load_pictures(None, SIZE)
    assert_equal(first, second)
    assert first.source == "scikit-image"
    assert len(first.verification) == 6 * len(scikit_image_crops(SIZE))
    assert all(p.rgb.shape == (SIZE, SIZE, 3) for p in first.verification)
    names = [p.label for p in first.verification]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("count", [10, 40])
def test_nothing_is_calibrated_with_a_reserved_picture(tmp_path: Path, count: int) -> None:
    """Whether verification pictures calibrate as well or not."""
    write_pictures(tmp_path, count)
    pictures = load_pictures(tmp_path, SIZE)
    _, reserved = split(list_images(tmp_path))
    calibrating = {p.name for p in pictures.calibration}
    assert calibrating and not calibrating & {p.name for p in reserved}
    assert {p.name for p in pictures.verification} & {p.name for p in reserved}


def test_reserved_pictures_alone_are_an_error_that_names_the_first_other(tmp_path: Path) -> None:
    write_pictures(tmp_path, 8)
    for number in range(7):
        (tmp_path / f"{number:03}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"only reserved pictures .*000\.png"):
        load_pictures(tmp_path, SIZE)


RGB = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("distinct", "doubt"),
    [
        (
            95,
            "int8 is calibrated with 95 pictures; 96 are recommended: give 137 or more with "
            "--images, of which 24 verify and every 8th is reserved",
        ),
        (96, None),
    ],
)
def test_few_pictures_to_calibrate_with_are_a_doubt(distinct: int, doubt: str | None) -> None:
    """A picture that comes again, in another condition, is no other."""
    calibration = [Picture(str(i), q, RGB) for i in range(distinct) for q in (None, 7)]
    assert PictureSet([], calibration, [], "mine").doubt == doubt


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
def test_int8_alone_is_said_to_be_calibrated_with_few(
    make_request: Callable[..., ExportRequest],
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
) -> None:
    def stop(*_: object) -> None:
        raise ParityError("far enough")

    monkeypatch.setattr(pipeline, "_run_passes", stop)
    notices: list[str] = []
    with pytest.raises(ParityError, match="far enough"):
        pipeline.export(make_request(precisions=(precision,)), lambda _: None, notices.append)
    found = [line for line in notices if "calibrated with 2 pictures" in line]
    assert len(found) == (precision is Precision.INT8)


def test_what_is_built_in_is_enough_to_try_and_not_to_ship() -> None:
    doubt = load_pictures(None, SIZE).doubt
    assert doubt is not None and "calibrated with 28 pictures; 96 are recommended" in doubt


def crops_and_margins(
    margin: Callable[[int], float], *, photographs: int, crops: int
) -> tuple[list[Picture], NDArray[np.float32]]:
    """Crops, clean and at QF 7, and logits; clean, all margins are large."""
    pictures = [
        Picture(f"photo-{p}-{c}", quality, RGB)
        for p in range(photographs)
        for c in range(crops)
        for quality in (None, 7)
    ]
    logits = np.zeros((len(pictures), 5), np.float32)
    for index, picture in enumerate(pictures):
        logits[index, index % 5] = 100 if picture.quality is None else margin(index // 2)
    return pictures, logits


def names(pictures: list[Picture], indices: list[int]) -> set[str]:
    return {pictures[i].name for i in indices}


def test_the_surest_crops_are_those_of_the_exported_network() -> None:
    pictures, logits = crops_and_margins(lambda n: 1.0 + n, photographs=20, crops=1)
    chosen = surest(pictures, logits)
    assert chosen == sorted(chosen) and len(chosen) == 16 * 2
    assert names(pictures, chosen) == {f"photo-{p}-0" for p in range(4, 20)}
    # Another network, other crops.
    pictures, logits = crops_and_margins(lambda n: 21.0 - n, photographs=20, crops=1)
    assert names(pictures, surest(pictures, logits)) == {f"photo-{p}-0" for p in range(16)}


def test_every_photograph_has_its_surest_crops_among_them() -> None:
    # The last photograph's crops have the largest margins, and within each the last crop.
    pictures, logits = crops_and_margins(lambda n: 1.0 + n, photographs=7, crops=4)
    expected = {f"photo-{p}-{c}" for p in range(7) for c in (2, 3)} | {"photo-6-1", "photo-5-1"}
    assert names(pictures, surest(pictures, logits)) == expected


def test_equal_margins_are_chosen_by_name() -> None:
    pictures, logits = crops_and_margins(lambda _: 1.0, photographs=20, crops=1)
    expected = set(sorted({p.name for p in pictures})[:16])
    assert names(pictures, surest(pictures, logits)) == expected
    assert names(pictures[::-1], surest(pictures[::-1], logits[::-1])) == expected


def test_pictures_in_subfolders_are_named_by_their_path(tmp_path: Path) -> None:
    write_pictures(tmp_path / "all" / "cats", 1)
    (picture, *_) = load_pictures(tmp_path / "all", SIZE).verification
    assert picture.label == "cats/000.png (clean)"


def test_an_unreadable_picture_is_named_and_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    pictures = load_pictures(tmp_path, SIZE)
    assert {p.name for p in pictures.verification} == {"000.png", "002.png"}
    assert len(pictures.unreadable) == 2
    assert "001.png" in pictures.unreadable[0]
    assert "text.jpg" in pictures.unreadable[1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "avif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_of_any_kind_is_left_out(
    tmp_path: Path, suffix: str, share: float
) -> None:
    write_pictures(tmp_path, 1)
    whole = tmp_path / f"whole.{suffix}"
    Image.open(tmp_path / "000.png").save(whole)
    content = whole.read_bytes()
    whole.unlink()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(len(content) * share)])
    pictures = load_pictures(tmp_path, SIZE)
    assert {p.name for p in pictures.verification} == {"000.png"}
    assert f"cut.{suffix}" in pictures.unreadable[0]


def test_only_unreadable_pictures_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the pictures .*a\.png"):
        load_pictures(tmp_path, SIZE)


def test_grey_palette_and_transparent_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (70, 90)).save(tmp_path / f"{mode}.{suffix}")
    pictures = load_pictures(tmp_path, SIZE)
    assert pictures.unreadable == []
    assert {p.rgb.shape for p in pictures.verification} == {(SIZE, SIZE, 3)}


def test_as_input_normalises_only_when_asked(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    pictures = load_pictures(tmp_path, SIZE).verification
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 0.2)
    raw = as_input(pictures, InputRange.RGB255, mean, std)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw[0], pictures[0].rgb)
    normalized = as_input(pictures, InputRange.NORMALIZED, mean, std)
    assert normalized.dtype == np.float32
    expected = (pictures[0].rgb.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(normalized[0], expected, atol=1e-6)


def assert_equal(first: PictureSet, second: PictureSet) -> None:
    for ours, theirs in (
        (first.verification, second.verification),
        (first.calibration, second.calibration),
    ):
        assert [p.label for p in ours] == [p.label for p in theirs]
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.rgb, b.rgb)
