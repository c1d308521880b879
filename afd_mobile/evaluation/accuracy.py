"""Accuracy with its uncertainty: what `Outcomes` say, as numbers that can be reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afd_mobile.common.intervals import (
    MIN_CHANGED,
    Estimate,
    Means,
    difference,
    resampled_means,
    share,
)
from afd_mobile.evaluation.conditions import CLEAN, LEFT_ALONE, Condition
from afd_mobile.evaluation.outcomes import Outcomes


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
    group_shares: the same over each group that has any.
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
    """Every figure with its interval.

    Args:
        conditions: those of the outcomes, CLEAN among them.
        shares: whether the model is to recover something, and the reference is not.
        least_loss: what costs the reference less than this, 0 to 1, has no recovered share.
    """
    right, at_clean = outcomes.reference_top1, list(conditions).index(CLEAN)
    enough = (right != right[:, [at_clean]]).sum(axis=0) >= MIN_CHANGED
    samples = resampled_means(np.stack([outcomes.top1, right], axis=1))  # (1 + RESAMPLES, 2, C)

    recovered: dict[int, Means] = {}
    for i, condition in enumerate(conditions if shares else ()):
        lost = samples[:, 1, at_clean] - samples[:, 1, i]
        if condition.group != LEFT_ALONE and lost[0] > 0 and lost[0] >= least_loss:
            gained = samples[:, 0, i] - samples[:, 1, i]
            nothing = np.full_like(lost, np.nan)
            recovered[i] = np.divide(gained, lost, out=nothing, where=lost > 0)

    def mean(counted: list[int]) -> Estimate:
        value, *resampled = np.mean([recovered[i] for i in counted], axis=0)
        if not enough[counted].all():
            return Estimate(float(value), None, None)
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        return Estimate(float(value), float(low), float(high))

    rows = [
        ConditionAccuracy(
            condition.name,
            condition.group,
            share(outcomes.top1[:, i]),
            share(outcomes.top5[:, i]),
            share(right[:, i]),
            share(outcomes.reference_top5[:, i]),
            difference(outcomes.top1[:, i], right[:, i]),
            mean([i]) if i in recovered else None,
            share(outcomes.agreement[:, i]),
        )
        for i, condition in enumerate(conditions)
    ]
    by_group: dict[str, list[int]] = {}
    for i in recovered:
        by_group.setdefault(conditions[i].group, []).append(i)
    counted = [i for i in recovered if conditions[i].averaged]
    return Accuracy(
        len(outcomes.keys),
        list(outcomes.unreadable),
        rows,
        mean(counted) if counted else None,
        {group: mean(found) for group, found in by_group.items()},
    )
