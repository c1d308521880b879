"""Estimates over pictures with their 95 % intervals: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
# Of a recovered share with an interval. Where compression changes fewer pictures, a bootstrap of
# them says nothing: of three, all recovered, it gives 100 % to 100 %.
MIN_CHANGED = 10
_Z = NormalDist().inv_cdf(0.975)

Hits = NDArray[np.uint8]
Means = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        low, high: None where too few pictures give no interval.
    """

    value: float
    low: float | None
    high: float | None


def share(hits: Hits) -> Estimate:
    """Of ones among (P,), with Wilson's interval: never a point, not even where all are alike."""
    n, value = len(hits), float(hits.mean())
    width = 1 + _Z**2 / n
    centre = (value + _Z**2 / (2 * n)) / width
    reach = _Z * sqrt(value * (1 - value) / n + (_Z / (2 * n)) ** 2) / width
    return Estimate(
        value, max(0.0, min(value, centre - reach)), min(1.0, max(value, centre + reach))
    )


def difference(hits: Hits, reference_hits: Hits) -> Estimate:
    """Of two paired shares, (P,) each, with the interval of Bonett and Price (2012).

    It adds one picture to those that are won and one to those that are lost, so that it is no
    point where neither happens.
    """
    n, won, lost = len(hits), int((hits > reference_hits).sum()), int((hits < reference_hits).sum())
    value = (won - lost) / n
    more, less = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    reach = _Z * sqrt((more + less - (more - less) ** 2) / (n + 2))
    return Estimate(value, max(-1.0, more - less - reach), min(1.0, more - less + reach))


def resampled_means(table: NDArray[Any]) -> Means:
    """(P, ...) -> (1 + RESAMPLES, ...): the means over pictures, then over resampled pictures."""
    rng = np.random.default_rng(SEED)
    pictures, flat = len(table), table.reshape(len(table), -1).astype(np.float64)
    means = [flat.mean(axis=0)]
    for _ in range(RESAMPLES):
        weights = np.bincount(rng.integers(pictures, size=pictures), minlength=pictures)
        means.append(weights @ flat / pictures)
    return np.asarray(means).reshape(-1, *table.shape[1:])
