from __future__ import annotations

import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from afd_mobile.datasets import CompressedCrops, batches_of, centre_crop, list_images, read_image
from afd_mobile.degrade import QUALITIES, jpeg
from afd_mobile.errors import InputError

RGB = NDArray[np.uint8]


def crops(
    photos: Path, *, size: int = 64, clean_share: float = 0.2, seed: int = 0
) -> CompressedCrops:
    return CompressedCrops(list_images(photos), size, clean_share=clean_share, seed=seed)


def test_pictures_are_listed_recursively_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "folder.png").mkdir()
    names = ["b.PNG", "a.jpeg", "deep/er/c.webp", "deep/d.avif"]
    for name in (*names, "notes.txt", "x.gif"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == sorted(tmp_path / name for name in names)


def test_no_folder_and_no_pictures_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image folder"):
        list_images(tmp_path / "none")
    with pytest.raises(InputError, match="no pictures"):
        list_images(tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, photograph: RGB, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.fromarray(photograph[:20, :30]).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8


def test_what_cannot_be_decoded_is_an_input_error(tmp_path: Path, photos: Path) -> None:
    whole = list_images(photos)[0].read_bytes()
    for name, content in (("empty", b""), ("text", b"hello"), ("half", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.png") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="gone"):
        read_image(tmp_path / "gone.png")


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


def test_an_item_depends_on_seed_and_index_alone(photos: Path) -> None:
    forwards, backwards = crops(photos), crops(photos)
    items = [forwards[i] for i in range(8)]
    for i in reversed(range(8)):
        (clean, compressed, share), again = items[i], backwards[i]
        assert np.array_equal(clean, again[0]) and np.array_equal(compressed, again[1])
        assert np.array_equal(share, again[2], equal_nan=True)
    assert any(not np.array_equal(items[i][0], crops(photos, seed=1)[i][0]) for i in range(8))
    assert len({item[0].tobytes() for item in items}) > 1


def test_crops_come_from_the_pictures_plain_or_mirrored(photos: Path) -> None:
    pictures = [read_image(p) for p in list_images(photos)]
    mirrored = set()
    for i in range(12):
        clean, compressed, _ = crops(photos)[i]
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
    clean, compressed, _ = crops(photos, size=128)[0]
    assert clean.shape == compressed.shape == (128, 128, 3)


def quality_classes(photos: Path, clean_share: float, n: int) -> dict[str, float]:
    """Shares of crops that were left clean, compressed with a paper's quality, and lightly."""
    dataset = crops(photos, size=16, clean_share=clean_share)
    counts = {"clean": 0, "heavy": 0, "light": 0}
    for i in range(n):
        clean, compressed, share = dataset[i]
        if np.array_equal(clean, compressed):
            counts["clean"] += 1
            assert share == 0
        elif any(np.array_equal(jpeg(clean, q), compressed) for q in QUALITIES):
            counts["heavy"] += 1
            assert share == 1
        else:
            assert any(np.array_equal(jpeg(clean, q), compressed) for q in range(40, 96))
            counts["light"] += 1
            assert math.isnan(share)
    return {k: v / n for k, v in counts.items()}


def test_half_of_the_clean_share_is_clean_and_half_light(photos: Path) -> None:
    shares = quality_classes(photos, 0.4, 300)
    assert shares["clean"] == pytest.approx(0.2, abs=0.07)
    assert shares["light"] == pytest.approx(0.2, abs=0.07)
    assert shares["heavy"] == pytest.approx(0.6, abs=0.08)


def test_no_clean_share_compresses_every_crop(photos: Path) -> None:
    assert quality_classes(photos, 0.0, 60)["heavy"] == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_interrupts_a_command_is_left_to_it_by_its_workers(sent: signal.Signals) -> None:
    others = multiprocessing.active_children()
    batches = batches_of(DataLoader(range(8), num_workers=1))  # type: ignore[arg-type]
    (worker,) = set(multiprocessing.active_children()) - set(others)
    assert worker.pid is not None
    os.kill(worker.pid, sent)
    assert [int(batch) for batch in batches] == list(range(8))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
