"""Whether two networks compute the same: pure numpy metrics, judged against stated limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_mobile.common.errors import ParityError

# What a stage's error explains: so many times the shift that nine pictures of ten stay below.
_RIVALS = 5
_USUAL = 0.9
_TIMES_USUAL = 6.0


@dataclass(frozen=True)
class Limits:
    """What a stage may differ from the reference.

    Attributes:
        max_error, mean_error: largest and mean absolute error, as a share of the reference's range.
        min_cosine: smallest cosine of any picture's output to the reference's.
        min_snr_db: signal-to-noise ratio over all pictures.
        max_changed_beyond_error: share of pictures whose top-1 class changes although the
            reference's margin exceeds what the stage's error explains.
    """

    max_error: float
    mean_error: float
    min_cosine: float
    min_snr_db: float
    max_changed_beyond_error: float


@dataclass(frozen=True)
class Parity:
    """One stage against the reference, over N pictures.

    Another top-1 class says little by itself: between two classes that are all but equally likely
    any rounding may decide for the other, on anyone's pictures. So each is judged by its margin.
    With r the reference's logits of a picture, w its best class and v the stage's, the margin is
    r_w - r_v, and the class changed because the stage shifted v against w by at least as much. How
    much of that the stage's error explains is measured on all pictures alike, and on other classes
    than the best: a picture's usual shift is the median of |(a_j - a_k) - (r_j - r_k)| over all
    pairs j, k of its five next best classes, and the *explained margin* six times the 90 % quantile
    of the pictures' usual shifts. A larger margin that was lost is no toss-up:
    `changed_beyond_error`.

    Without the best class, median and quantile, so that neither a fault that strikes the winners,
    nor a few classes that changed places, nor up to one broken picture in ten excuse themselves;
    if more is broken, the limits of the error itself fail. Six times, because of sound float stages
    on real photographs hardly any shift of any picture is larger (docs/parity.md has the figures).

    Attributes:
        max_abs_error, mean_abs_error: max and mean of |actual - reference|, in logits.
        range: max - min of the reference.
        min_cosine: min over pictures of <a, r> / (|a| |r|).
        snr_db: 10 log10(sum r^2 / sum (a - r)^2); None where the two are equal.
        worst_picture: index of the picture with the largest error.
        pictures: N.
        explained_margin: in logits; None for feature maps.
        changed: indices of pictures whose top-1 differs; None for feature maps.
        changed_beyond_error: those of them whose margin exceeds `explained_margin`.
    """

    max_abs_error: float
    mean_abs_error: float
    range: float
    min_cosine: float
    snr_db: float | None
    worst_picture: int
    pictures: int
    explained_margin: float | None
    changed: tuple[int, ...] | None
    changed_beyond_error: tuple[int, ...] | None

    @property
    def top1_agreement(self) -> float | None:
        """Share of pictures with the reference's top-1 class; None for feature maps."""
        return None if self.changed is None else 1 - len(self.changed) / self.pictures

    def violations(self, limits: Limits) -> list[str]:
        """Every limit that is crossed, in words; none if all hold."""
        scale = self.range or 1.0
        checks = [
            ("max error / range", self.max_abs_error / scale, limits.max_error, False),
            ("mean error / range", self.mean_abs_error / scale, limits.mean_error, False),
            ("cosine", self.min_cosine, limits.min_cosine, True),
        ]
        if self.snr_db is not None:
            checks.append(("SNR in dB", self.snr_db, limits.min_snr_db, True))
        if self.changed_beyond_error is not None:
            share = len(self.changed_beyond_error) / self.pictures
            name = "share of top-1 changed beyond the error"
            checks.append((name, share, limits.max_changed_beyond_error, False))
        return [
            f"{name} {value:.6g} {'below' if at_least else 'above'} {limit:g}"
            for name, value, limit, at_least in checks
            if not (value >= limit if at_least else value <= limit)
        ]


def compare(
    reference: NDArray[np.float32], actual: NDArray[Any], names: list[str], *, classify: bool
) -> Parity:
    """Compares outputs picture by picture.

    Args:
        reference, actual: (N, ...), one output a picture.
        names: of the N pictures, for messages.
        classify: whether the outputs are logits (N, classes).

    Raises:
        ParityError: the shapes differ, or a value is NaN or infinite.
    """
    if reference.shape != actual.shape:
        raise ParityError(f"output shape {actual.shape}, expected {reference.shape}")
    for what, values in (("reference", reference), ("output", actual)):
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise ParityError(f"{what} of picture {names[int(bad.argmax())]} holds NaN or infinity")
    r = reference.reshape(len(reference), -1).astype(np.float64)
    a = actual.reshape(len(actual), -1).astype(np.float64)
    error = np.abs(a - r)
    noise, signal = float(np.square(error).sum()), float(np.square(r).sum())
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(r, axis=1)
    cosine = np.divide((a * r).sum(axis=1), norms, out=np.ones(len(r)), where=norms > 0)
    explained, changed, beyond = _changes(r, a) if classify else (None, None, None)
    return Parity(
        max_abs_error=float(error.max()),
        mean_abs_error=float(error.mean()),
        range=float(r.max() - r.min()),
        min_cosine=float(cosine.min()),
        snr_db=_decibels(signal, noise),
        worst_picture=int(error.max(axis=1).argmax()),
        pictures=len(r),
        explained_margin=explained,
        changed=changed,
        changed_beyond_error=beyond,
    )


def _changes(
    r: NDArray[np.float64], a: NDArray[np.float64]
) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
    """Logits (N, C) -> explained margin, pictures whose top-1 differs, those beyond the error."""
    picture, best, now = np.arange(len(r)), r.argmax(axis=1), a.argmax(axis=1)
    margin = r[picture, best] - r[picture, now]
    # Of fewer than four classes, the best one has to join in.
    first = 1 if r.shape[1] > 3 else 0
    rivals = np.argsort(-r, axis=1, kind="stable")[:, first : 1 + _RIVALS]
    error = np.take_along_axis(a - r, rivals, axis=1)
    j, k = np.triu_indices(rivals.shape[1], 1)
    usual = np.median(np.abs(error[:, j] - error[:, k]), axis=1)
    # One of the values, never between two: so of two pictures and more the worst has no say.
    explained = _TIMES_USUAL * float(np.quantile(usual, _USUAL, method="lower"))
    differs = now != best
    beyond = differs & (margin > explained)
    return (
        explained,
        tuple(np.flatnonzero(differs).tolist()),
        tuple(np.flatnonzero(beyond).tolist()),
    )


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return None
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
