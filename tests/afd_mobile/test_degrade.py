from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_mobile.degrade import CLEAN, QUALITIES, Codec, Condition, jpeg

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


def test_a_condition_of_one_quality_is_that_compression(crop: RGB) -> None:
    assert np.array_equal(Condition(quality=10).apply(crop, "a"), jpeg(crop, 10))
    assert np.array_equal(Condition(quality=10).apply(crop, "b"), jpeg(crop, 10))
    assert np.array_equal(CLEAN.apply(crop, "a"), crop)


def test_avif_is_pillows(crop: RGB) -> None:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "AVIF", quality=10)
    compressed = Condition(Codec.AVIF, 10).apply(crop, "a")
    assert np.array_equal(compressed, np.asarray(Image.open(buffer)))
    assert not np.array_equal(compressed, jpeg(crop, 10))


def test_repeated_compression_draws_each_quality_anew(crop: RGB) -> None:
    once = {q: jpeg(crop, q) for q in QUALITIES}
    twice = {(a, b): jpeg(once[a], b) for a in QUALITIES for b in QUALITIES}
    drawn = []
    for key in "abcdefgh":
        compressed = Condition(times=2).apply(crop, key)
        assert np.array_equal(compressed, Condition(times=2).apply(crop, key))
        drawn += [pair for pair, image in twice.items() if np.array_equal(image, compressed)]
    assert len(drawn) >= 8  # every one of the eight is among the 25
    assert any(a != b for a, b in drawn) and len(set(drawn)) > 2


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (CLEAN, "clean"),
        (Condition(quality=7), "QF 7"),
        (Condition(times=3), "3x"),
        (Condition(Codec.AVIF, 30), "avif QF 30"),
        (Condition(Codec.AVIF, times=2), "avif 2x"),
    ],
)
def test_the_name_of_a_condition(condition: Condition, name: str) -> None:
    assert condition.name == name
