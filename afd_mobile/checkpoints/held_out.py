"""What a training found on its held-out pictures, with intervals, and what that says of it.

Where it is worse than no correction, `afd-train` says so, the checkpoint remembers it, and whatever
uses the checkpoint repeats it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_mobile.common.intervals import MIN_CHANGED, Estimate, Hits, resampled_means, share

# Of the clean pictures, a correction that does no harm keeps the class of at least so many.
# Measured on 10, 32 and 112 resampled photographs, 60 draws each: of the modules then shipped for
# MobileNetV2, `mobile`, of a single tap, is called worse 0, 0 and 0 times, `paper`, which keeps
# 87 %, 20, 17 and 54 times, and one that does neither good nor harm 9, 4 and 2 times.
KEEPS_CLEAN = 0.95
RULE = (
    "WORSE than no correction: the 95 % interval over the held-out pictures of the KL removed, or\n"
    "of the recovered share, lies below 0, or that of the clean pictures that keep their class\n"
    f"lies below {100 * KEEPS_CLEAN:.0f} %. Better: that of the KL removed lies above 0, and\n"
    f"none of these holds. Fewer than {MIN_CHANGED} pictures have no interval, and decide nothing."
)


class Verdict(Enum):
    BETTER = "better"
    UNDECIDED = "undecided"
    WORSE = "worse"


@dataclass(frozen=True)
class Answers:
    """A classifier's on P pictures, clean first and then at the qualities: (P, 1 + Q) each.

    Attributes:
        same: 1 where the top-1 is that of the plain classifier on the clean picture, else 0.
        kl: divergence from its answer there.
    """

    same: Hits
    kl: NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """Attributes:
    pictures: how many were held out and could be read.
    kl_removed, recovered_share: means over the qualities, 1 for all and below 0 for harm.
    clean_kept: share of the clean pictures whose top-1 stays.
    """

    pictures: int
    verdict: Verdict
    kl_removed: Estimate
    recovered_share: Estimate
    clean_kept: Estimate

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"verdict": self.verdict.value}

    @classmethod
    def from_dict(cls, values: Any) -> HeldOut:
        """The inverse of `as_dict` after JSON.

        Raises:
            ValueError: not what that gives.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError("held_out is not what afd-train records")
        if type(values["pictures"]) is not int or values["pictures"] < 1:
            raise ValueError(f"held_out: {values['pictures']!r} pictures")
        return cls(
            values["pictures"],
            Verdict(values["verdict"]),
            *(_estimate(values[k]) for k in ("kl_removed", "recovered_share", "clean_kept")),
        )

    def text(self) -> str:
        """One line."""
        words = {
            Verdict.BETTER: "better than no correction",
            Verdict.UNDECIDED: "too few to tell it from no correction"
            if self.pictures < MIN_CHANGED
            else "cannot be told from no correction",
            Verdict.WORSE: f"WORSE than no correction ({', '.join(self._harms())})",
        }
        pictures = f"{self.pictures} picture{'s' * (self.pictures > 1)}"
        return (
            f"held out, {pictures}: {words[self.verdict]}; KL removed {_percent(self.kl_removed)}, "
            f"recovered {_percent(self.recovered_share)}, clean {_percent(self.clean_kept)}"
        )

    def _harms(self) -> Iterator[str]:
        if _below(self.kl_removed, 0):
            yield "answers move further away"
        if _below(self.recovered_share, 0):
            yield "it changes more top-1 than it brings back"
        if _below(self.clean_kept, KEEPS_CLEAN):
            yield "clean pictures lose their class"


def held_out_line(found: HeldOut | None) -> str:
    """For the end of a training."""
    if found is None:
        return "held out: no picture, so nothing says how good it is; afd-eval does"
    return found.text()


def held_out_of(direct: Answers, corrected: Answers) -> HeldOut:
    """What the corrected classifier's answers, beside the plain one's, say of the correction."""
    pictures = len(direct.same)
    enough = pictures >= MIN_CHANGED
    # Logits that are no numbers are as wrong as can be.
    kl = np.nan_to_num(corrected.kl, nan=1e6, posinf=1e6)
    lost = 1.0 - direct.same[:, 1:]
    changed = lost.sum(axis=0)
    removed = _removed(direct.kl[:, 1:], kl[:, 1:], enough=enough)
    recovered = _removed(
        lost,
        1.0 - corrected.same[:, 1:],
        enough=not ((changed > 0) & (changed < MIN_CHANGED)).any(),
    )
    kept = share(corrected.same[:, 0])
    kept = kept if enough else Estimate(kept.value, None, None)
    found = HeldOut(pictures, Verdict.UNDECIDED, removed, recovered, kept)
    if any(found._harms()):
        return dataclasses.replace(found, verdict=Verdict.WORSE)
    if removed.low is not None and removed.low > 0:
        return dataclasses.replace(found, verdict=Verdict.BETTER)
    return found


def _removed(before: NDArray[np.float64], after: NDArray[np.float64], *, enough: bool) -> Estimate:
    """Mean over Q of 1 - after / before, of the means over pictures, (P, Q) each.

    A quality at which all is 0 before does not count. Bootstrapped over pictures.

    Args:
        enough: whether there are pictures enough for an interval.
    """
    counted = before.any(axis=0)
    if not counted.any():
        return Estimate(0.0, None, None)
    samples = resampled_means(np.stack([before, after], axis=1)[:, :, counted])
    lost, left = samples[:, 0], samples[:, 1]
    shares = 1 - np.divide(left, lost, out=np.full_like(lost, np.nan), where=lost > 0)
    value, *resampled = shares.mean(axis=1)
    if not enough:
        return Estimate(float(value), None, None)
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def _below(estimate: Estimate, limit: float) -> bool:
    return estimate.high is not None and estimate.high < limit


def _percent(estimate: Estimate) -> str:
    interval = (
        ""
        if estimate.low is None or estimate.high is None
        else f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    )
    return f"{estimate.value:.1%}{interval}"


def _estimate(values: Any) -> Estimate:
    if not isinstance(values, dict) or set(values) != {"value", "low", "high"}:
        raise ValueError(f"held_out: {values!r} is no estimate")
    value, low, high = numbers = [values[k] for k in ("value", "low", "high")]
    none = low is None and high is None
    if not all(type(n) is float and math.isfinite(n) for n in (numbers[:1] if none else numbers)):
        raise ValueError(f"held_out: {values!r} is no estimate")
    return Estimate(value, low, high)
