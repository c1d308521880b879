"""Accuracy with its uncertainty: what `Outcomes` say, as numbers that can be reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afd_mobile.degrade import CLEAN, Condition
from afd_mobile.evaluation import Outcomes

RESAMPLES = 2000
SEED = 0
# Of a recovered share with an interval. Where compression changes fewer pictures, a bootstrap of
# them says nothing: of three, all recovered, it gives 100 % to 100 %.
MIN_CHANGED = 10

Means = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from a bootstrap over pictures.

    Attributes:
        low, high: None where too few pictures give no interval.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ConditionAccuracy:
    """One condition; all shares are 0 to 1.

    Attributes:
        top1, top5, reference_top1, reference_top5: share of pictures with the right class.
        difference: top1 - reference_top1, paired.
        recovered_share: difference / (the reference's clean top1 - reference_top1); None when
            clean, and where compression costs the reference nothing. Without an interval where
            the reference is right or wrong of fewer than MIN_CHANGED pictures because of it.
        agreement: share of pictures on which both give the same class.
    """

    condition: str
    top1: Estimate
    top5: Estimate
    reference_top1: Estimate
    reference_top5: Estimate
    difference: Estimate
    recovered_share: Estimate | None
    agreement: Estimate


@dataclass(frozen=True)
class Accuracy:
    """Attributes:
    conditions: in the order asked for.
    recovered_share: the mean over single compressions; None without any. Without an interval where
        one of them has none.
    """

    pictures: int
    unreadable: list[str]
    conditions: list[ConditionAccuracy]
    recovered_share: Estimate | None


def accuracy_of(
    outcomes: Outcomes, conditions: Sequence[Condition], *, shares: bool = True
) -> Accuracy:
    """Every figure with its interval, from the same resamples, so that differences are paired.

    Args:
        conditions: those of the outcomes, CLEAN among them.
        shares: whether the reference is a classifier without correction, so that there is
            something to recover.
    """
    tables = [
        outcomes.top1,
        outcomes.top5,
        outcomes.reference_top1,
        outcomes.reference_top5,
        outcomes.agreement,
    ]
    samples = _resampled_means(np.stack(tables, axis=1))  # (1 + RESAMPLES, 5, C)
    at_clean = list(conditions).index(CLEAN)
    clean = samples[:, 2, at_clean]
    right = outcomes.reference_top1
    enough = (right != right[:, [at_clean]]).sum(axis=0) >= MIN_CHANGED

    def recovered(i: int) -> Means:
        lost = clean - samples[:, 2, i]
        gained = samples[:, 0, i] - samples[:, 2, i]
        return np.divide(gained, lost, out=np.full_like(lost, np.nan), where=lost > 0)

    rows = []
    for i, condition in enumerate(conditions):
        top1, top5, reference_top1, reference_top5, agreement = samples[:, :, i].T
        rows.append(
            ConditionAccuracy(
                condition.name,
                _estimate(top1),
                _estimate(top5),
                _estimate(reference_top1),
                _estimate(reference_top5),
                _estimate(top1 - reference_top1),
                _share(recovered(i), enough[i]) if shares and condition != CLEAN else None,
                _estimate(agreement),
            )
        )
    single = [i for i, condition in enumerate(conditions) if condition.quality is not None]
    mean = np.mean([recovered(i) for i in single], axis=0) if shares and single else None
    return Accuracy(
        len(outcomes.keys),
        list(outcomes.unreadable),
        rows,
        None if mean is None else _share(mean, enough[single].all()),
    )


def _resampled_means(table: NDArray[np.uint8]) -> Means:
    """(P, ...) -> (1 + RESAMPLES, ...): the means over pictures, then over resampled pictures."""
    rng = np.random.default_rng(SEED)
    pictures, flat = len(table), table.reshape(len(table), -1).astype(np.float64)
    means = [flat.mean(axis=0)]
    for _ in range(RESAMPLES):
        weights = np.bincount(rng.integers(pictures, size=pictures), minlength=pictures)
        means.append(weights @ flat / pictures)
    return np.asarray(means).reshape(-1, *table.shape[1:])


def _estimate(samples: Means) -> Estimate:
    """The first sample is the value itself."""
    low, high = np.nanpercentile(samples[1:], [2.5, 97.5])
    return Estimate(float(samples[0]), float(low), float(high))


def _share(samples: Means, enough: np.bool_) -> Estimate | None:
    if not np.isfinite(samples[0]):
        return None
    return _estimate(samples) if enough else Estimate(float(samples[0]), None, None)
