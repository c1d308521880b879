"""The metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_mobile.common.errors import ParityError
from afd_mobile.common.parity import Limits, Parity, compare

REFERENCE = np.array([[3, 4, 0], [0, 0, 5]], dtype=np.float32)
ACTUAL = np.array([[4, 3, 0], [0, 0, 5]], dtype=np.float32)
NAMES = ["a.png", "b.png"]
LOOSE = Limits(1, 1, -1, -1000, 1)


def test_metrics() -> None:
    parity = compare(REFERENCE, ACTUAL, NAMES, classify=True)
    assert parity.max_abs_error == 1
    assert parity.mean_abs_error == pytest.approx(2 / 6)
    assert parity.range == 5
    assert parity.min_cosine == pytest.approx(24 / 25)  # (3 * 4 + 4 * 3) / (5 * 5)
    assert parity.snr_db == pytest.approx(10 * math.log10(50 / 2))
    assert parity.top1_agreement == 0.5
    assert parity.worst_picture == 0
    assert parity.pictures == 2
    assert parity.changed == (0,)
    # The usual shift is 1 in the first picture and 0 in the other; the worst has no say.
    assert parity.explained_margin == 0
    assert parity.changed_beyond_error == (0,)


def test_equal_outputs() -> None:
    parity = compare(REFERENCE, REFERENCE.copy(), NAMES, classify=True)
    assert (parity.max_abs_error, parity.snr_db, parity.top1_agreement) == (0, None, 1)
    assert parity.min_cosine == pytest.approx(1)
    assert (parity.explained_margin, parity.changed, parity.changed_beyond_error) == (0, (), ())
    assert parity.violations(Limits(0, 0, 0.999999, 1000, 0)) == []


def test_feature_maps_have_no_top1() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    other = maps.copy()
    other[1, 2, 1, 1] += 5
    parity = compare(maps, other, NAMES, classify=False)
    assert parity.top1_agreement is None
    assert (parity.explained_margin, parity.changed, parity.changed_beyond_error) == (None,) * 3
    assert parity.worst_picture == 1
    assert parity.max_abs_error == pytest.approx(5, rel=1e-5)


def test_violations_name_every_limit_that_is_crossed() -> None:
    parity = compare(REFERENCE, ACTUAL, NAMES, classify=True)
    assert parity.violations(LOOSE) == []
    words = parity.violations(Limits(0.1, 0.01, 0.99, 30, 0.1))
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
    assert "max" in parity.violations(Limits(0.1, 0.1, 0.9, 20, 0))[0]


def test_float32_is_summed_in_float64() -> None:
    reference = np.full((1, 100_000), 1e4, dtype=np.float32)
    reference[0, 0] = 0
    actual = reference + np.float32(1e-2)
    parity = compare(reference, actual, ["a"], classify=False)
    expected = np.abs(actual.astype(np.float64) - reference.astype(np.float64)).mean()
    assert parity.mean_abs_error == pytest.approx(expected, rel=1e-9)


# --- another top-1 -------------------------------------------------------------------------------

CLASSES, PICTURES = 50, 60
STAGE_ERROR = 0.01


@pytest.fixture
def reference() -> NDArray[np.float64]:
    """Logits of 60 pictures; the best class leads by 2, so that noise alone changes nothing."""
    logits = np.random.default_rng(0).normal(size=(PICTURES, CLASSES))
    logits[np.arange(PICTURES), logits.argmax(axis=1)] += 2
    return logits


def with_noise(reference: NDArray[np.float64], size: float = STAGE_ERROR) -> NDArray[np.float64]:
    return reference + np.random.default_rng(1).normal(scale=size, size=reference.shape)


def judged(reference: NDArray[np.float64], actual: NDArray[np.float64]) -> Parity:
    names = [str(i) for i in range(len(reference))]
    return compare(reference.astype(np.float32), actual.astype(np.float32), names, classify=True)


def test_noise_explains_six_times_the_usual_shift(reference: NDArray[np.float64]) -> None:
    parity = judged(reference, with_noise(reference))
    assert parity.changed == ()
    # Simulated: 1.64 sigma is the 90 % quantile of the median of five classes' ten differences.
    assert parity.explained_margin == pytest.approx(6 * 1.64 * STAGE_ERROR, rel=0.2)
    larger = judged(reference, with_noise(reference, 10 * STAGE_ERROR))
    assert larger.explained_margin == pytest.approx(10 * (parity.explained_margin or 0), rel=1e-3)


def test_toss_ups_do_not_count_however_many(reference: NDArray[np.float64]) -> None:
    best = reference.argmax(axis=1)
    tied = reference.copy()
    tied[np.arange(PICTURES), (best + 1) % CLASSES] = reference.max(axis=1) - STAGE_ERROR / 2
    parity = judged(tied, with_noise(tied))
    assert parity.changed is not None and len(parity.changed) > PICTURES / 5
    assert parity.changed_beyond_error == ()
    assert parity.violations(Limits(1, 1, -1, -1000, 0)) == []


def test_one_broken_picture_counts(reference: NDArray[np.float64]) -> None:
    actual = with_noise(reference)
    actual[17] = np.roll(actual[17], 1)
    parity = judged(reference, actual)
    assert parity.changed == parity.changed_beyond_error == (17,)
    sound = judged(reference, with_noise(reference))
    assert parity.explained_margin == pytest.approx(sound.explained_margin, rel=0.2)
    (word,) = parity.violations(Limits(1, 1, -1, -1000, 0))
    assert word == "share of top-1 changed beyond the error 0.0166667 above 0"


def test_up_to_one_picture_in_ten_does_not_excuse_itself(reference: NDArray[np.float64]) -> None:
    actual = with_noise(reference)
    actual[:6] = np.roll(actual[:6], 1, axis=1)
    assert judged(reference, actual).changed_beyond_error == (0, 1, 2, 3, 4, 5)


def test_two_classes_that_changed_places_count(reference: NDArray[np.float64]) -> None:
    actual = with_noise(reference)
    actual[:, [3, 4]] = actual[:, [4, 3]]
    confused = np.flatnonzero(np.isin(reference.argmax(axis=1), [3, 4]))
    assert 0 < len(confused) <= PICTURES / 10
    assert judged(reference, actual).changed_beyond_error == tuple(confused.tolist())


@pytest.mark.parametrize("fault", ["winners lowered", "best two swapped"])
def test_a_fault_of_the_winners_alone_counts_however_many(
    reference: NDArray[np.float64], fault: str
) -> None:
    picture = np.arange(PICTURES)
    first, second = np.argsort(-reference, axis=1)[:, :2].T
    actual = with_noise(reference)
    if fault == "winners lowered":
        actual[picture, first] -= 4
    else:
        actual[picture, first], actual[picture, second] = (
            actual[picture, second],
            actual[picture, first],
        )
    parity = judged(reference, actual)
    assert parity.changed == parity.changed_beyond_error
    assert parity.changed is not None and len(parity.changed) > PICTURES / 2


def test_where_more_is_broken_the_error_itself_fails(reference: NDArray[np.float64]) -> None:
    actual = with_noise(reference)
    actual[::2] = np.roll(actual[::2], 1, axis=1)
    words = " ".join(judged(reference, actual).violations(Limits(0.25, 0.05, 0.9, 20, 0)))
    assert "max error" in words and "cosine" in words and "SNR" in words


def test_of_two_classes_either_may_be_the_rival() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 2.0], [1e-3, 0.0]])
    parity = judged(reference, reference + np.array([[1, -1], [1, 0], [-1, 1]]) * 1e-3)
    assert parity.changed == (2,)
    assert parity.explained_margin == pytest.approx(6 * 2e-3, rel=1e-3)
    assert parity.changed_beyond_error == ()


def test_an_exact_tie_is_no_change_beyond_the_error() -> None:
    reference = np.array([[1.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    actual = np.array([[1.0, 1.0 + 1e-6, 0.0], [3.0, 0.0, 0.0]])
    parity = judged(reference, actual)
    assert (parity.explained_margin, parity.changed, parity.changed_beyond_error) == (0, (0,), ())
