"""Accuracy with its uncertainty: what `Outcomes` say, as numbers that can be reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afd_mobile.conditions import CLEAN, LEFT_ALONE, Condition
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
        group: of the condition.
        recovered_share: difference / (the reference's clean top1 - reference_top1); None when
            clean, and where compression costs the reference too little. Without an interval where
            the reference is right or wrong of fewer than MIN_CHANGED pictures because of it.
        agreement: share of pictures on which both give the same class.
    """

    condition: str
    group: str
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
    recovered_share: the mean over the conditions that count; None without any. Without an interval
        where one of them has none.
    group_shares: the mean over each group that has any, likewise.
    """

    pictures: int
    unreadable: list[str]
    conditions: list[ConditionAccuracy]
    recovered_share: Estimate | None
    group_shares: dict[str, Estimate]


def accuracy_of(
    outcomes: Outcomes,
    conditions: Sequence[Condition],
    *,
    shares: bool = True,
    least_loss: float = 0.0,
) -> Accuracy:
    """Every figure with its interval, from the same resamples, so that differences are paired.

    Args:
        conditions: those of the outcomes, CLEAN among them.
        shares: whether the reference is a classifier without correction, so that there is
            something to recover.
        least_loss: what costs the reference less than this, 0 to 1, has no recovered share.
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

    recovered: dict[int, Means] = {}
    for i, condition in enumerate(conditions if shares else ()):
        lost = clean - samples[:, 2, i]
        if condition.group != LEFT_ALONE and lost[0] > 0 and lost[0] >= least_loss:
            gained = samples[:, 0, i] - samples[:, 2, i]
            nothing = np.full_like(lost, np.nan)
            recovered[i] = np.divide(gained, lost, out=nothing, where=lost > 0)

    rows = []
    for i, condition in enumerate(conditions):
        top1, top5, reference_top1, reference_top5, agreement = samples[:, :, i].T
        rows.append(
            ConditionAccuracy(
                condition.name,
                condition.group,
                _estimate(top1),
                _estimate(top5),
                _estimate(reference_top1),
                _estimate(reference_top5),
                _estimate(top1 - reference_top1),
                _share(recovered[i], enough[i]) if i in recovered else None,
                _estimate(agreement),
            )
        )
    by_group: dict[str, list[int]] = {}
    for i in recovered:
        by_group.setdefault(conditions[i].group, []).append(i)
    counted = [i for i in recovered if conditions[i].averaged]

    def mean(chosen: list[int]) -> Estimate:
        return _share(np.mean([recovered[i] for i in chosen], axis=0), enough[chosen].all())

    return Accuracy(
        len(outcomes.keys),
        list(outcomes.unreadable),
        rows,
        mean(counted) if counted else None,
        {group: mean(chosen) for group, chosen in by_group.items()},
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


def _share(samples: Means, enough: np.bool_) -> Estimate:
    return _estimate(samples) if enough else Estimate(float(samples[0]), None, None)
