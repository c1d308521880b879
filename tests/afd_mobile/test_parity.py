"""The metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_mobile.errors import ParityError
from afd_mobile.parity import Limits, compare

REFERENCE = np.array([[3, 4, 0], [0, 0, 5]], dtype=np.float32)
ACTUAL = np.array([[4, 3, 0], [0, 0, 5]], dtype=np.float32)
NAMES = ["a.png", "b.png"]
LOOSE = Limits(1, 1, -1, -1000, 0)


def test_metrics() -> None:
    parity = compare(REFERENCE, ACTUAL, NAMES, classify=True)
    assert parity.max_abs_error == 1
    assert parity.mean_abs_error == pytest.approx(2 / 6)
    assert parity.range == 5
    assert parity.min_cosine == pytest.approx(24 / 25)  # (3 * 4 + 4 * 3) / (5 * 5)
    assert parity.snr_db == pytest.approx(10 * math.log10(50 / 2))
    assert parity.top1_agreement == 0.5
    assert parity.worst_picture == 0
    assert parity.disagreeing_pictures == (0,)


def test_equal_outputs() -> None:
    parity = compare(REFERENCE, REFERENCE.copy(), NAMES, classify=True)
    assert (parity.max_abs_error, parity.snr_db, parity.top1_agreement) == (0, None, 1)
    assert parity.min_cosine == pytest.approx(1)
    assert parity.violations(Limits(0, 0, 0.999999, 1000, 1)) == []


def test_feature_maps_have_no_top1() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    other = maps.copy()
    other[1, 2, 1, 1] += 5
    parity = compare(maps, other, NAMES, classify=False)
    assert (parity.top1_agreement, parity.disagreeing_pictures) == (None, ())
    assert parity.worst_picture == 1
    assert parity.max_abs_error == pytest.approx(5, rel=1e-5)


def test_violations_name_every_limit_that_is_crossed() -> None:
    parity = compare(REFERENCE, ACTUAL, NAMES, classify=True)
    assert parity.violations(LOOSE) == []
    words = parity.violations(Limits(0.1, 0.01, 0.99, 30, 0.9))
    assert len(words) == 5
    for word, name in zip(words, ("max", "mean", "cosine", "SNR", "top-1"), strict=True):
        assert name in word


def test_limits_hold_where_they_are_met_exactly() -> None:
    parity = compare(REFERENCE, ACTUAL, NAMES, classify=True)
    met = Limits(0.2, parity.mean_abs_error / 5, parity.min_cosine, parity.snr_db or 0, 0.5)
    assert parity.violations(met) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_and_names_the_picture(value: float) -> None:
    broken = ACTUAL.copy()
    broken[1, 2] = value
    with pytest.raises(ParityError, match=r"output of picture b\.png"):
        compare(REFERENCE, broken, NAMES, classify=True)
    with pytest.raises(ParityError, match=r"reference of picture b\.png"):
        compare(broken, ACTUAL, NAMES, classify=True)


@pytest.mark.parametrize("shape", [(2, 1, 3), (3, 2), (1, 3), (6,)])
def test_another_shape_fails_even_with_as_many_values(shape: tuple[int, ...]) -> None:
    other: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
    with pytest.raises(ParityError, match="shape"):
        compare(REFERENCE, other, NAMES, classify=True)


def test_zeros_against_something_are_no_agreement() -> None:
    parity = compare(REFERENCE, np.zeros_like(REFERENCE), NAMES, classify=False)
    assert "max" in parity.violations(Limits(0.1, 0.1, 0.9, 20, 1))[0]


def test_float32_is_summed_in_float64() -> None:
    reference = np.full((1, 100_000), 1e4, dtype=np.float32)
    reference[0, 0] = 0
    actual = reference + np.float32(1e-2)
    parity = compare(reference, actual, ["a"], classify=False)
    expected = np.abs(actual.astype(np.float64) - reference.astype(np.float64)).mean()
    assert parity.mean_abs_error == pytest.approx(expected, rel=1e-9)
