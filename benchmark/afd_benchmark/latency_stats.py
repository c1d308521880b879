"""What latency samples say."""

from __future__ import annotations

from itertools import accumulate
from math import comb

import numpy as np

Interval = tuple[float, float]

LEVEL = 0.95
# The fewest values whose range encloses the median with that probability: 1 - 2 / 2**6 = 0.969.
MIN_REPEATS = 6
# A percentile needs so many samples beyond it: the 90th 100 samples, the 99th 1000.
SAMPLES_BEYOND = 10
# How far an outlier lies beyond the quartiles, in interquartile ranges (Tukey's "far out").
FAR_OUT = 3.0


def interval_of_median(values: list[float]) -> Interval | None:
    """The 95 % interval of the median of what the values are drawn from; None of fewer than 6.

    It assumes nothing of the distribution: the k-th smallest and the k-th largest of n values
    enclose the median with the probability that the binomial distribution gives. Between the two k
    around 95 %, the ends are interpolated as Hettmansperger and Sheather do ("Confidence intervals
    based on interpolated order statistics", 1986). The values are taken to be independent.
    """
    n = len(values)
    if n < MIN_REPEATS:
        return None
    ordered = sorted(values)
    below = accumulate(comb(n, i) for i in range(n // 2))
    coverage = [1 - 2 * count / 2**n for count in below]  # by k, from 1
    k = sum(covered >= LEVEL for covered in coverage)
    part = (coverage[k - 1] - LEVEL) / (coverage[k - 1] - coverage[k])
    inwards = (n - k) * part / (k + (n - 2 * k) * part)
    low = ordered[k - 1] + inwards * (ordered[k] - ordered[k - 1])
    high = ordered[n - k] - inwards * (ordered[n - k] - ordered[n - k - 1])
    return low, high


def ratio_with_interval(times: list[float], others: list[float]) -> tuple[float, Interval | None]:
    """times / others measured in turn: the median of the rounds' ratios and its 95 % interval.

    Args:
        times, others: (rounds,), one median a round each; paired, so that what both share (heat, a
            busy neighbour) cancels.
    """
    ratios = [a / b for a, b in zip(times, others, strict=True)]
    return float(np.median(ratios)), interval_of_median(ratios)


def spread(medians: list[float]) -> float | None:
    """(90th - 10th percentile) / median of the repeats' medians; None of a single one."""
    if len(medians) < 2:
        return None
    low, middle, high = np.percentile(medians, [10, 50, 90])
    return float((high - low) / middle)


def outliers(samples: list[float]) -> list[int]:
    """Indices of the samples more than 3 interquartile ranges beyond the quartiles."""
    values = np.asarray(samples, np.float64)
    if not values.size:
        return []
    first, third = np.percentile(values, [25, 75])
    reach = FAR_OUT * (third - first)
    return [int(i) for i in np.flatnonzero((values < first - reach) | (values > third + reach))]


def percentile(samples: list[float], percent: int) -> float | None:
    """Such as the 90th; None where fewer than ten samples would lie beyond it."""
    if len(samples) * (100 - percent) < 100 * SAMPLES_BEYOND:
        return None
    return float(np.percentile(samples, percent))
