"""How a case is measured on whatever device: outputs first, then repeats, in turn with another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from afd_benchmark import latency_stats
from afd_benchmark.number_format import duration
from afd_benchmark.plan import PlannedCase
from afd_benchmark.results import (
    AtLeastOne,
    Case,
    Count,
    Device,
    GoldenCheck,
    NotNegative,
    ProfiledOperation,
    Ratio,
    Repeat,
    Verdict,
)
from afd_benchmark.targets import Pixels, Target
from afd_benchmark.verdict import judge
from afd_mobile.common.errors import MeasurementError, ParityError
from afd_mobile.common.parity import compare

_replace = msgspec.structs.replace
_LONGEST_STEM = 100  # bytes of a log's name, which may have 255


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often and how long. Seconds are those of one repeat.

    Attributes:
        time_limit_secs: of one process or start, all in all.
        cool_down_secs: how long to wait for a phone to be as cool as at the start.
        full_delegation: what a delegate leaves to the CPU makes a case INVALID.
    """

    repeats: AtLeastOne = 10
    runs: AtLeastOne = 50
    min_secs: NotNegative = 0.5
    max_secs: NotNegative = 60.0
    warmup_runs: Count = 1
    warmup_min_secs: NotNegative = 0.3
    time_limit_secs: NotNegative = 240.0
    cool_down_secs: NotNegative = 300.0
    full_delegation: bool = False
    profile: bool = False
    delegate_options: dict[str, str] = {}


class Runner(Protocol):
    """One device, ready to run cases."""

    @property
    def device(self) -> Device: ...

    @property
    def tool(self) -> str: ...

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        """The golden pictures' outputs, in real values."""

    def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
        """One process or start; its raw log is written to `log` (relative to the results)."""

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        """Mean time of every operation."""


@dataclass
class _Party:
    """One of the two that take turns."""

    target: Target
    golden: GoldenCheck | None = None
    repeats: list[Repeat] = field(default_factory=list)
    failure: str | None = None


def measure(
    runner: Runner,
    case: PlannedCase,
    settings: Settings,
    progress: Callable[[str], None],
) -> list[Case]:
    """The case, and the one that it took turns with.

    Raises:
        DeviceError: the device is gone; nothing is kept of the case.
    """
    main = _Party(case.target)
    parties = [main] + ([_Party(case.against)] if case.against else [])
    for party in parties:
        with _kept(party):
            _check(runner, case, party)
        if main.failure:
            return [_case(runner, case, main, settings)]
    for number in range(settings.repeats):
        # A B, B A, ...: what drifts in time hits both alike.
        turn = parties if number % 2 == 0 else parties[::-1]
        for party in turn:
            if party.failure is None:
                with _kept(party):
                    log = _log(case, party.target, f"{number + 1:02}")
                    party.repeats.append(runner.repeat(case, party.target, log))
        if main.failure:
            break
        progress(f"{number + 1}/{settings.repeats} {duration(main.repeats[-1].median_ms)}")
    profile: list[ProfiledOperation] = []
    no_profile: list[str] = []
    if settings.profile and not main.failure:
        try:
            profile = runner.profile(case, main.target, _log(case, main.target, "profile"))
        except MeasurementError as error:
            no_profile = [f"no operation profile: {error}"]
    found = _case(runner, case, main, settings)
    found = _replace(found, profile=profile, reasons=[*found.reasons, *no_profile])
    if len(parties) == 1:
        return [found]
    other = _case(runner, case, parties[1], settings)
    other = _replace(other, in_turn_with=main.target.sha256)
    if found.median_ms and other.median_ms:
        found = _replace(found, ratio=_ratio(parties, other))
    elif found.median_ms:
        found = _replace(found, reasons=[*found.reasons, f"no ratio: {other.file} is INVALID"])
    return [found, other]


@contextmanager
def _kept(party: _Party) -> Iterator[None]:
    """A failure ends the party, not the run: it becomes the reason of its verdict."""
    try:
        yield
    except MeasurementError as error:
        party.failure = " ".join(str(error).split())


def _log(case: PlannedCase, target: Target, what: str) -> str:
    """A raw log's name, relative to the results."""
    stem, device, backend = (
        re.sub(r"[^\w.-]", "_", text)
        for text in (_cut(Path(target.file).stem), case.device, case.backend)
    )
    name = f"{stem}-{target.sha256[:8]}"
    if target is case.against:
        name += f"-in-turn-with-{case.target.sha256[:8]}"
    return f"logs/{name}-{device}-{backend}-{case.threads}-{what}.log"


def _cut(text: str) -> str:
    return text.encode()[:_LONGEST_STEM].decode(errors="ignore")


def _check(runner: Runner, case: PlannedCase, party: _Party) -> None:
    """Golden pictures on the device and backend that will be timed."""
    target = party.target
    if target.limits is None or not target.golden:
        return
    expected = np.stack([picture.expected for picture in target.golden])
    actual = np.stack(runner.outputs(case, target, _log(case, target, "golden")))
    count = len(expected)
    names = [picture.name for picture in target.golden]
    try:
        parity = compare(
            expected.reshape(count, -1), actual.reshape(count, -1), names, classify=target.classify
        )
    except ParityError as error:
        raise MeasurementError(f"wrong outputs: {error}") from error
    party.golden = GoldenCheck(
        pictures=count,
        max_abs_error=parity.max_abs_error,
        range=parity.range,
        snr_db=parity.snr_db,
        top1_agreement=parity.top1_agreement,
        violations=parity.violations(target.limits),
    )
    if party.golden.violations:
        raise MeasurementError(
            f"wrong outputs: {'; '.join(party.golden.violations)} (golden pictures, largest error "
            f"{parity.max_abs_error:.3g} at {names[parity.worst_picture]})"
        )


def _ratio(parties: Sequence[_Party], other: Case) -> Ratio:
    ratio, interval = latency_stats.ratio_with_interval(*map(_medians, parties))
    assert other.median_ms is not None
    return Ratio(
        against=other.file,
        against_sha256=other.sha256,
        against_median_ms=other.median_ms,
        ratio=ratio,
        against_verdict=other.verdict,
        ci95=interval,
        rounds=len(parties[0].repeats),
    )


def skipped(case: PlannedCase) -> Case:
    """A case that the device cannot do."""
    assert case.skipped is not None
    return _described(case, case.target, None, Verdict.SKIPPED, [case.skipped])


def _case(runner: Runner, case: PlannedCase, party: _Party, settings: Settings) -> Case:
    if party.failure is not None:
        found = _described(case, party.target, runner.tool, Verdict.INVALID, [party.failure])
        return _replace(found, golden=party.golden)
    verdict, reasons = judge(
        party.repeats,
        golden=party.golden,
        precision=party.target.precision,
        full_delegation=settings.full_delegation,
    )
    found = _described(case, party.target, runner.tool, verdict, reasons)
    found = _replace(
        found,
        golden=party.golden,
        repeats=party.repeats,
        delegation=party.repeats[0].delegation,
    )
    if verdict is Verdict.INVALID:
        return found
    medians = _medians(party)
    samples = [r.samples_ms for r in party.repeats if r.samples_ms]
    flat = [s for some in samples for s in some]
    median = float(np.median(medians))
    return _replace(
        found,
        median_ms=median,
        ci95_ms=latency_stats.interval_of_median(medians),
        p90_ms=latency_stats.percentile(flat, 90),
        p99_ms=latency_stats.percentile(flat, 99),
        spread=latency_stats.spread(medians),
        init_ms=float(np.median([r.init_ms for r in party.repeats])),
        first_ms=float(np.median([r.first_ms for r in party.repeats])),
        warmup_ms=_median_of([r.warmup_ms for r in party.repeats]),
        samples_ms=samples,
        share_of_peak=_share_of_peak(case, party, median),
    )


def _described(
    case: PlannedCase, target: Target, tool: str | None, verdict: Verdict, reasons: list[str]
) -> Case:
    return Case(
        target=target.name,
        file=target.file,
        sha256=target.sha256,
        bytes=target.bytes,
        precision=target.precision,
        device=case.device,
        backend=case.backend,
        threads=case.threads,
        tool=tool,
        verdict=verdict,
        reasons=reasons,
        multiply_adds=target.multiply_adds,
    )


def _share_of_peak(case: PlannedCase, party: _Party, median_ms: float) -> float | None:
    """None with several threads: the reference is one core's."""
    if case.threads > 1:
        return None
    peaks = [r.after.reference_gflops for r in party.repeats if r.after.reference_gflops]
    if not peaks or not party.target.multiply_adds:
        return None
    return 2 * party.target.multiply_adds / (median_ms * 1e6) / float(np.median(peaks))


def _medians(party: _Party) -> list[float]:
    return [repeat.median_ms for repeat in party.repeats]


def _median_of(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None
