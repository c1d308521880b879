from __future__ import annotations

import multiprocessing
import os
import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from afd_mobile.pictures.augment import FIELD, PAPER, Augmentation
from afd_mobile.pictures.datasets import (
    CompressedCrops,
    DrawnPictures,
    batches_of,
    centre_crop,
    spread_crops,
)
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import list_images, read_image

RGB = NDArray[np.uint8]


def crops(
    photos: Path, augmentation: Augmentation = PAPER, *, size: int = 64, seed: int = 0
) -> CompressedCrops:
    return CompressedCrops(list_images(photos), size, augmentation, seed=seed)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (90, 200), (224, 225), (512, 512)])
def test_centre_crop_has_its_size(photograph: RGB, shape: tuple[int, int]) -> None:
    assert centre_crop(photograph[: shape[0], : shape[1]], 224).shape == (224, 224, 3)


def test_centre_crop_takes_a_picture_of_its_size_as_it_is(photograph: RGB) -> None:
    image = photograph[:224, :224]
    assert np.array_equal(centre_crop(image, 224), image)


def test_centre_crop_is_the_centre() -> None:
    image = np.zeros((256, 512, 3), dtype=np.uint8)
    image[:, 256:] = 200  # the short side stays 256, so nothing is resized
    crop = centre_crop(image, 224)
    assert crop[:, :112].max() == 0 and crop[:, 112:].min() == 200


@pytest.mark.parametrize("long", [(1, 6000), (6000, 1), (3, 65500)])
def test_of_a_strip_the_middle_is_enlarged_in_little_memory(
    tmp_path: Path, long: tuple[int, int]
) -> None:
    """Enlarged whole, 1 x 6000 pixels took 4.2 GB."""
    strip = np.zeros((*long, 3), dtype=np.uint8)
    centre = tuple(slice(max(0, n // 2 - 6), n // 2 + 6) for n in long)
    strip[centre] = 200
    path = tmp_path / "strip.png"
    Image.fromarray(strip).save(path)
    datasets = [CompressedCrops([path], 64, a, seed=0) for a in (PAPER, FIELD)]
    tracemalloc.start()
    crop, cleans = centre_crop(strip, 64), [dataset[0].clean for dataset in datasets]
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert {crop.shape, *(clean.shape for clean in cleans)} == {(64, 64, 3)}
    assert (crop == 200).all()


@pytest.mark.parametrize("shape", [(100, 400), (400, 100), (300, 500)])
def test_what_is_no_strip_is_scaled_whole(photograph: RGB, shape: tuple[int, int]) -> None:
    image = np.resize(photograph, (*shape, 3))
    h, w = shape
    short = 256 / min(shape)
    whole = Image.fromarray(image).resize(
        (round(w * short), round(h * short)), Image.Resampling.BILINEAR
    )
    top, left = (whole.height - 224) // 2, (whole.width - 224) // 2
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    assert np.array_equal(centre_crop(image, 224), expected)


@pytest.mark.parametrize("augmentation", [PAPER, FIELD], ids=["paper", "field"])
def test_an_item_depends_on_seed_and_index_alone(photos: Path, augmentation: Augmentation) -> None:
    forwards, backwards = crops(photos, augmentation), crops(photos, augmentation)
    items = [forwards[i] for i in range(12)]
    for i in reversed(range(12)):
        (clean, compressed, share, *draws), again = items[i], backwards[i]
        assert np.array_equal(clean, again[0]) and np.array_equal(compressed, again[1])
        assert np.array_equal(share, again[2], equal_nan=True) and draws == list(again[3:])
    other = crops(photos, augmentation, seed=1)
    assert any(not np.array_equal(items[i][0], other[i][0]) for i in range(12))
    assert len({item[0].tobytes() for item in items}) > 1


def test_crops_come_from_the_pictures_plain_or_mirrored(photos: Path) -> None:
    pictures = [read_image(p) for p in list_images(photos)]
    mirrored = set()
    for i in range(12):
        clean, compressed, *_ = crops(photos)[i]
        assert clean.shape == compressed.shape == (64, 64, 3)
        found = [
            flip
            for flip, image in ((f, p[:, :: -1 if f else 1]) for p in pictures for f in (0, 1))
            for top in range(image.shape[0] - 63)
            for left in range(image.shape[1] - 63)
            if np.array_equal(image[top, left : left + 64], clean[0])
            and np.array_equal(image[top : top + 64, left : left + 64], clean)
        ]
        assert found
        mirrored.update(found)
    assert mirrored == {0, 1}


def test_a_picture_smaller_than_the_crop_is_enlarged(photos: Path) -> None:
    clean, compressed, *_ = crops(photos, size=128)[0]
    assert clean.shape == compressed.shape == (128, 128, 3)


def test_a_crop_is_compressed_after_it_was_cut(photos: Path) -> None:
    for crop in (crops(photos)[i] for i in range(8)):
        assert any(np.array_equal(jpeg(crop.clean, q), crop.compressed) for q in QUALITIES)
        assert len(crop.pictures) == 1


def test_crops_of_two_pictures_are_mixed_before_compression(tmp_path: Path) -> None:
    paths = [tmp_path / f"{value}.png" for value in (40, 240)]
    for path in paths:
        Image.new("RGB", (64, 64), (int(path.stem),) * 3).save(path)
    drawn = [
        CompressedCrops(paths, 32, replace(PAPER, mixed_share=0.5), seed=0)[i] for i in range(80)
    ]
    assert np.mean([len(crop.pictures) for crop in drawn]) == pytest.approx(1.5, abs=0.15)
    between = 0
    for clean, compressed, pictures, _ in drawn:
        if len(set(pictures)) == 1:
            assert (clean == (40, 240)[pictures[0]]).all()
        else:
            between += 40 < clean.mean() < 240
        assert any(np.array_equal(jpeg(clean, q), compressed) for q in QUALITIES)
    assert between > 10


def test_pictures_are_thinned_evenly_and_the_next_one_is_taken_for_a_broken_one(
    tmp_path: Path, photograph: RGB
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        Image.fromarray(photograph[i : i + 16, :16]).save(path)
    for i in (3, 6, 7, 8):
        paths[i].write_bytes(b"no picture")
    found, unreadable = spread_crops(paths, 3, 16)
    assert len(found) == 2  # of 6, 7 and 8 none can be read
    for crop, i in zip(found, (0, 4), strict=True):
        assert np.array_equal(crop, photograph[i : i + 16, :16])
    assert [text.split(":")[0] for text in unreadable] == [
        f"cannot read picture {paths[i]}" for i in (3, 6, 7, 8)
    ]
    assert spread_crops([], 3, 16) == ([], [])
    assert len(spread_crops(paths[:3], 128, 16)[0]) == 3


def with_broken(tmp_path: Path, photograph: RGB, readable: int, broken: int) -> list[Path]:
    paths = [tmp_path / f"{i:03}.png" for i in range(readable + broken)]
    for i, path in enumerate(paths):
        if i < broken:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(photograph[i : i + 20, :20]).save(path)
    return paths


def test_for_a_broken_picture_another_one_is_drawn(tmp_path: Path, photograph: RGB) -> None:
    paths = with_broken(tmp_path, photograph, readable=6, broken=2)
    datasets = [CompressedCrops(paths, 16, PAPER, seed=0) for _ in range(2)]
    crops = [datasets[0][i] for i in range(40)]
    assert {i for crop in crops for i in crop.pictures} == {2, 3, 4, 5, 6, 7}
    assert {i for crop in crops for i in crop.unreadable} == {0, 1}
    for crop in crops:
        source = read_image(paths[crop.pictures[0]])
        windows = np.lib.stride_tricks.sliding_window_view(source, (16, 16, 3))
        assert any(
            np.array_equal(window, clean)
            for window in windows.reshape(-1, 16, 16, 3)
            for clean in (crop.clean, crop.clean[:, ::-1])
        )
        assert all(text.startswith(f"cannot read picture {paths[i]}: ")
                   for i, text in crop.unreadable.items())  # fmt: skip
    again = [datasets[1][i] for i in reversed(range(40))][::-1]
    assert [crop[2:] for crop in again] == [crop[2:] for crop in crops]


def test_where_none_can_be_read_a_crop_says_so(tmp_path: Path, photograph: RGB) -> None:
    paths = with_broken(tmp_path, photograph, readable=0, broken=3)
    crop = CompressedCrops(paths, 16, PAPER, seed=0)[0]
    assert set(crop.unreadable) == {0, 1, 2} and crop.clean.shape == (16, 16, 3)


def test_what_is_unreadable_is_said_once() -> None:
    pictures = DrawnPictures(100)
    assert pictures.note([((5,), {}), ((6, 8), {1: "one", 2: "two"})]) == ["one", "two"]
    assert pictures.note([((5,), {2: "two"}), ((7,), {3: "three"})]) == ["three"]
    assert pictures.drawn == {1, 2, 3, 5, 6, 7, 8} and pictures.unreadable == {1, 2, 3}


@pytest.mark.parametrize(
    ("total", "drawn", "unreadable", "refused"),
    [
        (1, 1, 1, True),
        (9, 3, 1, True),
        (10, 10, 1, False),
        (100, 100, 10, False),
        (100, 60, 11, True),  # it is known of more than a tenth of all
        (10**5, 1, 1, False),
        (10**5, 100, 24, False),  # 10 on average of a tenth; 24 may be chance
        (10**5, 100, 26, True),
        (10**5, 10**4, 1100, False),
        (10**5, 10**4, 1200, True),
        (10**5, 10**5, 10**4, False),
    ],
)
def test_more_than_a_tenth_is_refused_as_soon_as_it_is_certain(
    total: int, drawn: int, unreadable: int, refused: bool
) -> None:
    pictures = DrawnPictures(total)
    pictures.drawn, pictures.unreadable = set(range(drawn)), set(range(unreadable))
    said = pictures.refusal()
    assert (said is not None) == refused
    if said:
        assert f"{unreadable} of the {drawn} pictures drawn so far, of {total}, cannot" in said


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_interrupts_a_command_is_left_to_it_by_its_workers(sent: signal.Signals) -> None:
    others = multiprocessing.active_children()
    batches = batches_of(DataLoader(range(8), num_workers=1))  # type: ignore[arg-type]
    (worker,) = set(multiprocessing.active_children()) - set(others)
    assert worker.pid is not None
    os.kill(worker.pid, sent)
    assert [int(batch) for batch in batches] == list(range(8))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
