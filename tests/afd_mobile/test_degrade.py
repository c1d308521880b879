from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_mobile.degrade import QUALITIES, jpeg

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
