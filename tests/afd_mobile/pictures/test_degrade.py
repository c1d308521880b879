from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_mobile.pictures.degrade import (
    QUALITIES,
    Avif,
    Blur,
    Chroma,
    Codec,
    Degradation,
    Encoder,
    Heic,
    Jpeg,
    Noise,
    Repeated,
    Scaled,
    Shifted,
    Then,
    Webp,
    jpeg,
)

RGB = NDArray[np.uint8]


@pytest.fixture
def crop(photograph: RGB) -> RGB:
    return photograph[100:180, 200:296]


def test_none_leaves_the_picture_clean(crop: RGB) -> None:
    assert np.array_equal(jpeg(crop, None), crop)


def test_lower_quality_is_worse(crop: RGB) -> None:
    errors = []
    for quality in (95, *QUALITIES):
        compressed = jpeg(crop, quality)
        assert compressed.shape == crop.shape and compressed.dtype == np.uint8
        errors.append(np.square(compressed.astype(float) - crop).mean())
    assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1] / 4


def test_the_quality_is_pillows(crop: RGB) -> None:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=10)
    coarse = Image.open(buffer)
    assert np.array_equal(jpeg(crop, 10), np.asarray(coarse))
    tables = coarse.quantization  # type: ignore[attr-defined]
    assert tables[0][0] == 80  # 16 at quality 50, times 5


def test_the_same_every_time(crop: RGB) -> None:
    assert np.array_equal(jpeg(crop, 18), jpeg(crop, 18))


def test_a_progressive_file_decodes_to_the_same_pixels(crop: RGB) -> None:
    """So that it is no degradation of its own."""
    for quality, chroma in itertools.product((5, 25, 75), ("4:4:4", "4:2:2", "4:2:0")):
        decoded = []
        for progressive in (False, True):
            buffer = io.BytesIO()
            options = {"quality": quality, "subsampling": chroma, "progressive": progressive}
            Image.fromarray(crop).save(buffer, "JPEG", **options)
            image = Image.open(buffer)
            assert ("progressive" in image.info) == progressive
            decoded.append(np.asarray(image))
        assert np.array_equal(decoded[0], decoded[1])
        assert np.array_equal(decoded[0], Jpeg(quality, Chroma(chroma)).apply(crop, 0))


def written(monkeypatch: pytest.MonkeyPatch, degradation: Degradation, crop: RGB) -> Any:
    """The file that it goes through, opened."""
    files = []
    save = Image.Image.save

    def keep(image: Image.Image, file: io.BytesIO, *given: Any, **options: Any) -> None:
        save(image, file, *given, **options)
        files.append(file)

    monkeypatch.setattr(Image.Image, "save", keep)
    result = degradation.apply(crop, 0)
    (file,) = files
    image = Image.open(file)
    assert np.array_equal(result, np.asarray(image.convert("RGB")))
    return image


@pytest.mark.parametrize(
    ("chroma", "factors"),
    [(Chroma.FULL, [(1, 1)] * 3), (Chroma.HALF, [(2, 1), (1, 1), (1, 1)]),
     (Chroma.QUARTER, [(2, 2), (1, 1), (1, 1)]), (Chroma.GREY, [(1, 1)])],
)  # fmt: skip
def test_the_chroma_is_subsampled(
    crop: RGB, chroma: Chroma, factors: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = written(monkeypatch, Jpeg(10, chroma), crop)
    assert [part[1:3] for part in image.layer] == factors
    assert image.quantization[0][:2] == [80, 55]


@pytest.mark.parametrize(
    ("encoder", "quality", "luma", "chroma"),
    [
        # By rows; chroma may be no table of its own.
        (Encoder.MOZJPEG, 50, {0: 16, 7: 85, 8: 16, 62: 255, 63: 255}, {7: 85}),
        (Encoder.MOZJPEG, 25, {0: 32, 7: 170, 8: 32, 56: 170}, {7: 170}),
        (Encoder.MOZJPEG, 95, {0: 2, 7: 9, 63: 42}, {7: 9}),
        # In the camera's own files 12 8 8 ... and 14 14 26 48.
        (Encoder.CAMERA, 80, {0: 12, 1: 8, 3: 12, 8: 8, 9: 16, 63: 28}, {0: 14, 2: 26, 3: 48}),
        (Encoder.CAMERA, 10, {0: 150, 1: 100, 9: 200}, {0: 175, 3: 255}),
    ],
)
def test_other_encoders_tables(
    crop: RGB,
    encoder: Encoder,
    quality: int,
    luma: dict[int, int],
    chroma: dict[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = written(monkeypatch, Jpeg(quality, encoder=encoder), crop)
    tables = image.quantization
    assert {i: tables[0][i] for i in luma} == luma
    assert {i: tables[len(tables) - 1][i] for i in chroma} == chroma
    assert [part[1:3] for part in image.layer] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("quality", range(5, 96, 15))
@pytest.mark.parametrize("encoder", Encoder)
def test_every_quality_of_every_encoder_can_be_drawn(
    crop: RGB, encoder: Encoder, quality: int
) -> None:
    for chroma in Chroma:
        compressed = Jpeg(quality, chroma, encoder).apply(crop, 0)
        assert compressed.shape == crop.shape and compressed.dtype == np.uint8


def test_a_grey_jpeg_is_grey(crop: RGB) -> None:
    compressed = Jpeg(15, Chroma.GREY).apply(crop, 0)
    assert (compressed == compressed[..., :1]).all() and np.ptp(compressed) > 100


def test_avif_is_pillows(crop: RGB) -> None:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "AVIF", quality=10, max_threads=2)
    compressed = Avif(10).apply(crop, 0)
    assert np.array_equal(compressed, np.asarray(Image.open(buffer)))
    assert not np.array_equal(compressed, jpeg(crop, 10))


def test_avif_is_the_same_on_a_machine_of_one_core(
    photograph: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow takes as many threads as there are cores, and one thread encodes differently."""
    crop = photograph[100:324, 150:374]
    compressed = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        compressed.append(Avif(10).apply(crop, 0))
    assert np.array_equal(compressed[0], compressed[1])
    assert np.array_equal(compressed[1], compressed[2])


@pytest.mark.parametrize("codec", [Webp, Avif, Heic])
def test_the_other_codecs_lose_more_at_lower_quality(
    crop: RGB, codec: Callable[[int], Degradation]
) -> None:
    errors = []
    for quality in (90, 40, 5):
        compressed = codec(quality).apply(crop, 0)
        assert compressed.shape == crop.shape and compressed.dtype == np.uint8
        errors.append(np.square(compressed.astype(float) - crop).mean())
    assert 0 < errors[0] < errors[1] < errors[2]


def grid_of(image: RGB) -> tuple[int, int]:
    """Where the 8x8 grid begins: the columns and rows behind which the steps are largest."""
    steps = [np.abs(np.diff(image.astype(float).sum(2), axis=a)).sum(1 - a) for a in (1, 0)]
    by_phase = [[s[phase::8].mean() for phase in range(8)] for s in steps]
    left, up = (int(np.argmax(means) + 1) % 8 for means in by_phase)
    return left, up


@pytest.mark.parametrize(("left", "up"), [(0, 0), (4, 4), (3, 6), (1, 7)])
def test_the_grid_is_shifted(photograph: RGB, left: int, up: int) -> None:
    crop = photograph[100:324, 150:374]
    shifted = Shifted(Jpeg(5), left, up).apply(crop, 0)
    assert shifted.shape == crop.shape
    assert grid_of(shifted) == ((8 - left) % 8, (8 - up) % 8)


def test_a_shifted_picture_is_padded_by_its_edge(crop: RGB) -> None:
    seen = []

    class Keep(Jpeg):
        def apply(self, image: RGB, seed: int) -> RGB:
            seen.append(image)
            return image

    assert np.array_equal(Shifted(Keep(10), 3, 6).apply(crop, 0), crop)
    (padded,) = seen
    assert padded.shape == (crop.shape[0] + 6, crop.shape[1] + 3, 3)
    assert (padded[:6, 3:] == crop[:1]).all() and (padded[6:, :3] == crop[:, :1]).all()


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 2.0])
def test_compression_at_another_scale(crop: RGB, factor: float) -> None:
    seen = []

    class Keep(Jpeg):
        def apply(self, image: RGB, seed: int) -> RGB:
            seen.append(image.shape)
            return super().apply(image, seed)

    scaled = Scaled(Keep(10), factor).apply(crop, 0)
    assert scaled.shape == crop.shape
    assert seen == [(round(80 * factor), round(96 * factor), 3)]

    def error(image: RGB) -> float:
        return float(np.square(image.astype(float) - crop).mean())

    on_grid = error(jpeg(crop, 10))
    assert error(scaled) < on_grid if factor > 1 else error(scaled) > on_grid


def test_one_thing_after_another(crop: RGB) -> None:
    twice = Then(Jpeg(75), Shifted(Jpeg(15), 4, 4))
    assert np.array_equal(twice.apply(crop, 0), Shifted(Jpeg(15), 4, 4).apply(jpeg(crop, 75), 0))


def test_repeated_compression_draws_each_quality_anew(crop: RGB) -> None:
    once = {q: jpeg(crop, q) for q in QUALITIES}
    twice = {(a, b): jpeg(once[a], b) for a in QUALITIES for b in QUALITIES}
    drawn = []
    for seed in range(8):
        compressed = Repeated(Codec.JPEG, 2).apply(crop, seed)
        assert np.array_equal(compressed, Repeated(Codec.JPEG, 2).apply(crop, seed))
        drawn += [pair for pair, image in twice.items() if np.array_equal(image, compressed)]
    assert len(drawn) >= 8  # every one of the eight is among the 25
    assert any(a != b for a, b in drawn) and len(set(drawn)) > 2


def test_noise_is_gaussian_and_drawn_by_the_seed() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = Noise(8).apply(grey, 1)
    assert noisy.std() == pytest.approx(8, rel=0.03) and noisy.mean() == pytest.approx(128, abs=0.2)
    assert np.array_equal(noisy, Noise(8).apply(grey, 1))
    assert not np.array_equal(noisy, Noise(8).apply(grey, 2))
    white = Noise(8).apply(np.full((8, 8, 3), 255, np.uint8), 1)
    assert white.min() > 200  # nothing wraps around


def test_blur_is_gaussian() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    blurred = Blur(2).apply(np.asarray(image), 0)[..., 0].astype(float)
    there = np.arange(41) - 20
    spread = (blurred.sum(0) * there**2).sum() / blurred.sum()
    assert spread == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize(
    ("degradation", "name"),
    [
        (Jpeg(7), "QF 7"),
        (Jpeg(10, Chroma.FULL), "QF 10 4:4:4"),
        (Jpeg(15, Chroma.GREY), "QF 15 grey"),
        (Jpeg(10, encoder=Encoder.MOZJPEG), "QF 10 mozjpeg"),
        (Shifted(Jpeg(10), 4, 4), "QF 10 shifted by 4"),
        (Shifted(Webp(5), 3, 6), "webp QF 5 shifted by 3x6"),
        (Scaled(Jpeg(10), 1.25), "QF 10 at 1.25x"),
        (Then(Jpeg(75), Jpeg(15)), "QF 75, QF 15"),
        (Repeated(Codec.JPEG, 3), "3x"),
        (Repeated(Codec.AVIF, 2), "avif 2x"),
        (Webp(20), "webp QF 20"),
        (Avif(30), "avif QF 30"),
        (Heic(10), "heic QF 10"),
        (Blur(1), "blur 1"),
        (Noise(8), "noise 8"),
    ],
)
def test_names(degradation: Degradation, name: str) -> None:
    assert degradation.name == name
