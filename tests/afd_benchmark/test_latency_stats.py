"""Statistics against scipy, exact small cases and simulated data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from afd_benchmark.latency_stats import (
    interval_of_median,
    outliers,
    percentile,
    ratio_with_interval,
    spread,
)


def latencies(count: int, seed: int = 0) -> list[float]:
    """Skewed to the right, as latencies are; their median is 10 ms."""
    return [float(v) for v in 10 * np.random.default_rng(seed).lognormal(0, 0.05, count)]


# --- the interval ---------------------------------------------------------------------------------

COUNTS = (6, 7, 8, 10, 15, 20, 40)


@pytest.mark.parametrize("count", COUNTS)
def test_the_ends_lie_between_the_order_statistics_around_95_percent(count: int) -> None:
    """The k-th smallest is above the median where fewer than k of n values are below it."""
    values = sorted(latencies(count))
    missed = [2 * binom.cdf(k - 1, count, 0.5) for k in range(1, count // 2 + 1)]
    outer = sum(share <= 0.05 for share in missed)
    interval = interval_of_median(values[::-1])
    assert interval is not None
    low, high = interval
    assert values[outer - 1] <= low < values[outer]
    assert values[-1 - outer] < high <= values[-outer]


def test_the_interpolation_is_hettmansperger_s_and_sheather_s() -> None:
    # n = 10: [x2, x9] covers 0.97852, [x3, x8] 0.89063; I = 0.32444, lambda = 8 I / (2 + 6 I).
    part = (1002 / 1024 - 0.95) / (1002 / 1024 - 912 / 1024)
    inwards = 8 * part / (2 + 6 * part)
    interval = interval_of_median([float(n) for n in range(1, 11)])
    assert interval == pytest.approx((2 + inwards, 9 - inwards))


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_six_have_no_interval(count: int) -> None:
    assert interval_of_median(latencies(count)) is None
    assert 2 * 0.5**5 > 0.05 > 2 * 0.5**6


SIMULATIONS = 4_000
SHAPES: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "normal": lambda rng, n: rng.normal(0, 1, (SIMULATIONS, n)),
    "log-normal": lambda rng, n: rng.lognormal(0, 1, (SIMULATIONS, n)) - 1,
    "one in five disturbed": lambda rng, n: np.where(
        # As many are below 0 as above it: half of all, 0.625 of those undisturbed.
        rng.random((SIMULATIONS, n)) < 0.2,
        1 + 9 * rng.random((SIMULATIONS, n)),
        rng.random((SIMULATIONS, n)) - 0.625,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_holds_the_median_at_least_94_times_in_a_hundred(shape: str) -> None:
    """The ratio's, too: its rounds are as many as were asked for, whatever they show."""
    # Three standard errors of a simulated share of 0.95.
    noise = 3 * (0.95 * 0.05 / SIMULATIONS) ** 0.5
    for count in (6, 8, 10, 20):
        rows = SHAPES[shape](np.random.default_rng(count), count)
        intervals = (interval_of_median(row) for row in rows.tolist())
        hits = np.mean([low <= 0 <= high for low, high in filter(None, intervals)])
        assert 0.94 - noise <= hits <= 0.96 + noise, (count, hits)


def test_the_interval_is_the_same_every_time_and_moves_with_the_values() -> None:
    values = latencies(10)
    low, high = interval_of_median(values) or (0, 0)
    assert interval_of_median(values) == (low, high)
    assert np.allclose(interval_of_median([4 * v for v in values]) or 0, (4 * low, 4 * high))


# --- the ratio ------------------------------------------------------------------------------------


def test_what_both_share_cancels_in_the_ratio() -> None:
    drift = np.linspace(1, 3, 10)  # three times slower at the end, both alike
    ratio, interval = ratio_with_interval(list(2.2 * drift), list(2.0 * drift))
    assert interval is not None
    assert np.allclose([ratio, *interval], 1.1, rtol=1e-12)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    ratio, interval = ratio_with_interval([1.0, 30.0, 3.0], [1.0, 10.0, 1.5])
    assert ratio == 2.0  # of 1, 3, 2; the medians' ratio is 2, the means' 2.72
    assert interval is None
    assert ratio_with_interval([8.0, 1.0, 6.0], [2.0, 2.0, 2.0])[0] == 3.0  # of 4, 0.5, 3


def test_swapped_the_ratio_of_an_odd_number_of_rounds_is_the_reciprocal() -> None:
    times, others = latencies(9, 1), latencies(9, 2)
    ratio, interval = ratio_with_interval(times, others)
    swapped, reverse = ratio_with_interval(others, times)
    assert interval is not None and reverse is not None
    # Between two order statistics 1 / x is straight but for the square of their distance.
    expected = [1 / ratio, 1 / interval[1], 1 / interval[0]]
    assert np.allclose([swapped, *reverse], expected, rtol=1e-3)
    assert swapped == pytest.approx(1 / ratio, rel=1e-12)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio_with_interval([1.0, 2.0], [1.0])


# --- spread, outliers, percentiles ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([7.0, 7.0, 7.0], 0.0),
        (
            [float(n) for n in range(1, 12)],
            8 / 6,
        ),  # 1 ... 11: the percentiles are 2 and 10, the middle 6
        ([9.0, 11.0], 0.8 * 2 / 10),
    ],
)
def test_spread(medians: list[float], expected: float) -> None:
    assert spread(medians) == pytest.approx(expected)
    assert spread([3 * m for m in reversed(medians)]) == pytest.approx(expected)


def test_a_single_repeat_has_no_spread() -> None:
    assert spread([7.0]) is None


@pytest.mark.parametrize("far", [-1e3, 1e3])
def test_an_outlier_is_found_where_it_stands_on_either_side(far: float) -> None:
    assert outliers([3.0, 1.0, far, 2.0, 5.0, 4.0]) == [2]
    assert outliers([3.0, 1.0, 2.0, 5.0, 4.0]) == []


@pytest.mark.parametrize(("extra", "is_out"), [(16.0, False), (16.001, True)])
def test_the_limit_of_an_outlier_itself_is_none(extra: float, is_out: bool) -> None:
    # 9 sorted values: the quartiles are the third and the seventh, 0 and 4: reach to 4 + 3 x 4.
    values = [4.0, 0.0, extra, 0.0, 4.0, 0.0, 2.0, 2.0, 4.0]
    assert outliers(values) == ([2] if is_out else [])


def test_a_single_slow_one_among_equals_is_out_and_nothing_has_none() -> None:
    assert outliers([5.0] * 20 + [5.1]) == [20]
    assert outliers([5.0]) == [] == outliers([])


def test_percentiles_by_hand_with_ten_samples_beyond_them() -> None:
    samples = [float(n) for n in range(1, 1001)]
    assert percentile(samples, 90) == pytest.approx(900.1)
    assert percentile(samples, 99) == pytest.approx(990.01)
    assert percentile(samples[:-1], 99) is None
    assert percentile(samples[:100], 90) == pytest.approx(90.1)
    assert percentile(samples[:99], 90) is None
    assert percentile([], 90) is None
