"""Statistics against scipy, exact small cases and simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

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


@pytest.mark.parametrize("count", [1, 3, 5, 7, 9, 11, 21])
def test_the_interval_s_ends_are_the_order_statistics_that_the_binomial_gives(count: int) -> None:
    """The median of n drawn (odd) is at most x_(k) where over half of them are: P(B(n, k/n))."""
    values = sorted(latencies(count))
    at_most = [binom.sf(count // 2, count, k / count) for k in range(1, count + 1)]
    low, high = (values[int(np.searchsorted(at_most, share))] for share in (0.025, 0.975))
    assert interval_of_median(values[::-1]) == (low, high)


@pytest.mark.parametrize("count", [4, 10, 30])
def test_the_interval_is_scipy_s_within_the_resampling_s_noise(count: int) -> None:
    values = latencies(count)
    theirs = bootstrap(
        (values,), np.median, n_resamples=50_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    # A few neighbours apart at most: the two draw other samples.
    assert np.allclose(interval_of_median(values), (theirs.low, theirs.high), rtol=0.004)


def test_the_interval_holds_the_median_about_as_often_as_it_says() -> None:
    hits = [
        low <= 10 <= high
        for low, high in (interval_of_median(latencies(10, n)) for n in range(300))
    ]
    assert 0.91 <= np.mean(hits) <= 0.98


def test_the_interval_is_the_same_every_time_and_moves_with_the_values() -> None:
    values = latencies(10)
    low, high = interval_of_median(values)
    assert interval_of_median(values) == (low, high)
    assert np.allclose(interval_of_median([4 * v for v in values]), (4 * low, 4 * high))


# --- the ratio ------------------------------------------------------------------------------------


def test_what_both_share_cancels_in_the_ratio() -> None:
    drift = np.linspace(1, 3, 10)  # three times slower at the end, both alike
    ratio, (low, high) = ratio_with_interval(list(2.2 * drift), list(2.0 * drift))
    assert np.allclose([ratio, low, high], 1.1, rtol=1e-12)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    ratio, interval = ratio_with_interval([1.0, 30.0, 3.0], [1.0, 10.0, 1.5])
    assert ratio == 2.0  # of 1, 3, 2; the medians' ratio is 2, the means' 2.72
    assert interval == (1.0, 3.0)
    assert ratio_with_interval([8.0, 1.0, 6.0], [2.0, 2.0, 2.0])[0] == 3.0  # of 4, 0.5, 3


def test_swapped_the_ratio_of_an_odd_number_of_rounds_is_the_reciprocal() -> None:
    times, others = latencies(9, 1), latencies(9, 2)
    ratio, (low, high) = ratio_with_interval(times, others)
    swapped, (least, most) = ratio_with_interval(others, times)
    assert np.allclose([swapped, least, most], [1 / ratio, 1 / high, 1 / low])


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio_with_interval([1.0, 2.0], [1.0])


# --- spread, outliers, percentiles ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([7.0], 0.0),
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


def test_percentiles_by_hand_and_the_99th_from_1000_samples_on() -> None:
    samples = [float(n) for n in range(1, 1001)]
    assert percentile(samples, 0.90) == pytest.approx(900.1)
    assert percentile(samples, 0.99) == pytest.approx(990.01)
    assert percentile(samples[:-1], 0.99) is None
    assert percentile(samples[:11], 0.90) == pytest.approx(10)
    assert percentile([], 0.90) is None
