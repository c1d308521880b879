"""Accuracy from `afd-eval --json` beside the latency of the very same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from afd_benchmark.report.cases import Shown
from afd_mobile.common.errors import InputError, reason_of

_SCHEMA_VERSION = 1
_CLEAN = "clean"
_AFTER_SCALING = "after-scaling"
Share = Annotated[float, Meta(ge=0, le=1)]


class Estimate(msgspec.Struct, frozen=True):
    """A share, 0 to 1, with its 95 % interval."""

    value: Share
    low: Share
    high: Share

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"the interval [{self.low}, {self.high}] does not enclose {self.value}"
            )


class ConditionAccuracy(msgspec.Struct, frozen=True):
    condition: str
    top1: Estimate
    reference_top1: Estimate


class RecoveredShare(msgspec.Struct, frozen=True):
    """Of what compression costs the reference, how much comes back; may be below 0 or above 1.

    Attributes:
        low, high: its 95 % interval; None where too few pictures give none.
    """

    value: float
    low: float | None = None
    high: float | None = None


class AccuracyReport(msgspec.Struct, frozen=True):
    """What the report needs of one file; `reference` is only known by its name.

    Attributes:
        recovered_share: the mean over the conditions; None where nothing is to be recovered.
    """

    schema_version: int
    model: str
    model_sha256: str | None
    reference: str
    pictures: Annotated[int, Meta(ge=1)]
    conditions: list[ConditionAccuracy]
    recovered_share: RecoveredShare | None = None
    compress: str = _AFTER_SCALING


class _Outline(msgspec.Struct):
    """Attributes: `cases` is what only results of afd-bench have."""

    cases: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True)
class Suite:
    """What was asked of a model: these conditions, on so many pictures, before or after scaling."""

    conditions: tuple[str, ...]
    pictures: int
    compress: str = _AFTER_SCALING

    @property
    def degraded(self) -> tuple[int, ...]:
        """Indices of the conditions whose mean counts: all but clean pictures, if there are any."""
        some = tuple(i for i, name in enumerate(self.conditions) if name != _CLEAN)
        return some or tuple(range(len(self.conditions)))

    @property
    def averaged(self) -> str:
        names = ", ".join(self.conditions[i] for i in self.degraded)
        when = "" if self.compress == _AFTER_SCALING else f" ({self.compress.replace('-', ' ')})"
        return names + when


@dataclass(frozen=True)
class Matched:
    """A timed case whose file's accuracy is known.

    Attributes:
        top1: for each of the suite's conditions.
        by_hash: whether the file is the measured one; else its name is that of the reference.
        recovered: None where it is unknown, or reports disagree on it; the reference's is 0.
    """

    shown: Shown
    suite: Suite
    top1: tuple[Estimate, ...]
    by_hash: bool
    recovered: RecoveredShare | None

    @property
    def mean(self) -> float:
        """Over the degraded conditions, 0 to 1."""
        return sum(self.top1[i].value for i in self.suite.degraded) / len(self.suite.degraded)


@dataclass(frozen=True)
class AccuracyThere:
    """One suite's accuracy of the cases on one device."""

    suite: Suite
    where: str
    matched: list[Matched]


def read_accuracy(path: Path) -> AccuracyReport:
    """A file that `afd-eval --json` wrote.

    Raises:
        InputError: it is missing, broken, something else, or of another schema version.
    """
    try:
        content = path.read_bytes()
        if msgspec.json.decode(content, type=_Outline).cases:
            raise InputError(f"{path} is afd-bench's own; give it as RESULTS, not by --accuracy")
        report = msgspec.json.decode(content, type=AccuracyReport)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as accuracy: {reason_of(error)}; make it with afd-eval --json"
        ) from error
    if report.schema_version != _SCHEMA_VERSION or not report.conditions:
        raise InputError(
            f"{path} has schema version {report.schema_version} and {len(report.conditions)} "
            f"conditions, expected version {_SCHEMA_VERSION} and at least one; "
            "make it with afd-eval --json"
        )
    return report


def match(cases: Sequence[Shown], reports: Sequence[AccuracyReport]) -> list[AccuracyThere]:
    """Timed cases with their accuracy, by suite and device.

    A model is matched by its file's SHA-256 only. A reference is recorded without one and matched
    by its file's whole name, as long as all reports agree on its figures. A file that was measured
    in turn with several is shown once.
    """
    once: dict[tuple[int, str, str, str], Shown] = {}
    for shown in cases:
        if shown.timed:
            once.setdefault((shown.run, shown.case.sha256, shown.where, shown.setup), shown)
    found: dict[tuple[Suite, str], list[Matched]] = {}
    for suite in dict.fromkeys(map(_suite, reports)):
        here = [report for report in reports if _suite(report) == suite]
        for shown in once.values():
            matched = _match(shown, suite, here)
            if matched:
                found.setdefault((suite, shown.where), []).append(matched)
    return [AccuracyThere(suite, where, group) for (suite, where), group in found.items()]


def _suite(report: AccuracyReport) -> Suite:
    return Suite(tuple(c.condition for c in report.conditions), report.pictures, report.compress)


def _match(shown: Shown, suite: Suite, reports: Sequence[AccuracyReport]) -> Matched | None:
    of_file = [r for r in reports if r.model_sha256 == shown.case.sha256]
    own = {tuple(c.top1 for c in r.conditions) for r in of_file}
    shares = {r.recovered_share for r in of_file}
    as_reference = {
        tuple(c.reference_top1 for c in r.conditions)
        for r in reports
        if r.reference == shown.case.file
    }
    if own:
        recovered = shares.pop() if len(shares) == 1 else None
        return Matched(shown, suite, own.pop(), True, recovered) if len(own) == 1 else None
    if len(as_reference) == 1:
        return Matched(shown, suite, as_reference.pop(), False, RecoveredShare(0.0))
    return None
