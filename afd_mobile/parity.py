"""Whether two networks compute the same: pure numpy metrics, judged against stated limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_mobile.errors import ParityError


@dataclass(frozen=True)
class Limits:
    """What a stage may differ from the reference.

    Attributes:
        max_error, mean_error: largest and mean absolute error, as a share of the reference's range.
        min_cosine: smallest cosine of any picture's output to the reference's.
        min_snr_db: signal-to-noise ratio over all pictures.
        min_top1_agreement: share of pictures with the reference's top-1 class.
    """

    max_error: float
    mean_error: float
    min_cosine: float
    min_snr_db: float
    min_top1_agreement: float


@dataclass(frozen=True)
class Parity:
    """One stage against the reference, over N pictures.

    Attributes:
        max_abs_error, mean_abs_error: max and mean of |actual - reference|, in logits.
        range: max - min of the reference.
        min_cosine: min over pictures of <a, r> / (|a| |r|).
        snr_db: 10 log10(sum r^2 / sum (a - r)^2); None where the two are equal.
        top1_agreement: share of pictures with equal argmax; None for feature maps.
        worst_picture: index of the picture with the largest error.
        disagreeing_pictures: indices of pictures whose top-1 differs.
    """

    max_abs_error: float
    mean_abs_error: float
    range: float
    min_cosine: float
    snr_db: float | None
    top1_agreement: float | None
    worst_picture: int
    disagreeing_pictures: tuple[int, ...]

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
        if self.top1_agreement is not None:
            checks.append(("top-1 agreement", self.top1_agreement, limits.min_top1_agreement, True))
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
    differs = np.flatnonzero(a.argmax(axis=1) != r.argmax(axis=1)) if classify else None
    return Parity(
        max_abs_error=float(error.max()),
        mean_abs_error=float(error.mean()),
        range=float(r.max() - r.min()),
        min_cosine=float(cosine.min()),
        snr_db=_decibels(signal, noise),
        top1_agreement=None if differs is None else 1 - len(differs) / len(r),
        worst_picture=int(error.max(axis=1).argmax()),
        disagreeing_pictures=() if differs is None else tuple(int(i) for i in differs),
    )


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return None
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
