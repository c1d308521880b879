"""What latency samples say: pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 5_000
SAMPLES_FOR_P99 = 1_000
# How far an outlier lies beyond the quartiles, in interquartile ranges (Tukey's "far out").
FAR_OUT = 3.0


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval (percentiles) of the median; the value itself where it is one."""
    drawn = _resample(np.asarray(values, np.float64))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def ratio_with_interval(
    times: list[float], others: list[float]
) -> tuple[float, tuple[float, float]]:
    """times / others measured in turn: the median of the rounds' ratios and its 95 % interval.

    Args:
        times, others: (rounds,), one median a round each; paired, so that what both share (heat, a
            busy neighbour) cancels.
    """
    ratios = [a / b for a, b in zip(times, others, strict=True)]
    return float(np.median(ratios)), interval_of_median(ratios)


def spread(medians: list[float]) -> float:
    """(90th - 10th percentile) / median of the repeats' medians; 0 for a single one."""
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


def percentile(samples: list[float], share: float) -> float | None:
    """The 90th (share 0.90) or another percentile; the 99th only from 1000 samples on."""
    if not samples or (share >= 0.99 and len(samples) < SAMPLES_FOR_P99):
        return None
    return float(np.percentile(samples, 100 * share))


def _resample(values: NDArray[np.float64]) -> NDArray[np.float64]:
    generator = np.random.default_rng(SEED)
    drawn: NDArray[np.float64] = generator.choice(values, (RESAMPLES, len(values)))
    return drawn
