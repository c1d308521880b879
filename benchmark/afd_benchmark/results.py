"""`results.json`: what was measured, closed and typed, with the evidence of every figure.

Times are in milliseconds, temperatures in degrees Celsius, clocks in MHz, sizes in bytes.
"""

from __future__ import annotations

from enum import Enum
from math import isclose
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from afd_mobile.common.errors import InputError, reason_of
from afd_mobile.common.files import write_whole

RESULTS = "results.json"
RESULTS_SCHEMA_VERSION = 2

# Checked when a file is read.
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Celsius = Annotated[float, Meta(ge=-273.15)]
# A time in ms, 1 ns to 12 days, or a ratio of two: what scales and charts can show.
Figure = Annotated[float, Meta(ge=1e-6, le=1e9)]
Interval = tuple[Figure, Figure]


class Verdict(str, Enum):
    """What a figure may be used for."""

    VALID = "VALID"
    SUSPECT = "SUSPECT"  # measured, but heat, clocks, spread, battery or screen disturbed it
    INVALID = "INVALID"  # no time is reported
    SKIPPED = "SKIPPED"  # the device cannot do it; nothing was run


TIMED = (Verdict.VALID, Verdict.SUSPECT)
CaseKey = tuple[str, str, str, int, str | None]


class _Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A JSON object in which every key is known."""


def _check_enclosed(figure: msgspec.Struct, name: str, interval_name: str) -> None:
    """Raises: ValueError, the interval does not enclose the value."""
    value, interval = getattr(figure, name), getattr(figure, interval_name)
    if interval is not None and not (value is not None and interval[0] <= value <= interval[1]):
        raise ValueError(f"{interval_name} {list(interval)} does not enclose {name} {value}")


class Core(_Closed, frozen=True):
    index: Count
    max_mhz: Positive | None


class Device(_Closed, frozen=True):
    """What was measured on; None where the device does not say.

    Attributes:
        name: "host", or the adb serial (with `@HOST:PORT` from another adb server).
        model: "Xiaomi Mi 10", or the processor of a host.
        features: what its processor has that kernels are chosen by, such as AVX512-VNNI or I8MM,
            on every core; None where that is unknown.
        abi: of the device's processes, such as arm64-v8a or x86_64.
        lacks: what the device cannot report or do, and so what is not in the evidence.
        build: Android's fingerprint.
    """

    name: str
    kind: str  # host, phone
    model: str
    soc: str | None
    system: str  # "Android 12 (API 31)", "Linux 6.1"
    abi: str
    features: list[str] | None
    cores: list[Core]
    gpu: str | None
    memory_bytes: AtLeastOne | None
    lacks: list[str]
    build: str | None = None


class Condition(_Closed, frozen=True):
    """A device's state at one moment.

    Attributes:
        at_s: since the start of the run, on the clock of the machine that drives it.
        thermal_status: Android's, 0 (none) to 6 (shutdown).
        temperatures_c: by sensor name.
        clocks_mhz, clock_limits_mhz: of every core, in order: now, and the most it may do now;
            None where it is off.
        reference_gflops: a large float32 matrix product on the pinned core (hosts).
    """

    at_s: NotNegative
    thermal_status: Count | None = None
    temperatures_c: dict[str, Celsius] = {}
    clocks_mhz: tuple[NotNegative | None, ...] = ()
    clock_limits_mhz: tuple[NotNegative | None, ...] = ()
    battery_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    reference_gflops: Positive | None = None


class Delegation(_Closed, frozen=True):
    """Who ran the operations.

    Attributes:
        asked, actual: a backend: cpu, gpu, nnapi, external:LIB.
        delegate: its own name, such as TfLiteXNNPackDelegate; None where none was applied.
        delegated, nodes, partitions: operations taken, of how many, in how many kernels.
        whole: the asked backend runs the whole graph; None where that is unknown.
    """

    asked: str
    actual: str
    delegate: str | None
    delegated: Count | None
    nodes: Count | None
    partitions: Count | None
    whole: bool | None = None


class GoldenCheck(_Closed, frozen=True):
    """The golden pictures on this device and backend, against the exporting host's outputs.

    Attributes:
        violations: limits of the manifest that were crossed, in words; none if it agrees.
    """

    pictures: AtLeastOne
    max_abs_error: NotNegative
    range: NotNegative
    snr_db: float | None
    top1_agreement: Share | None
    violations: list[str]


class Repeat(_Closed, frozen=True):
    """One process (host) or start of the app or tool (phone).

    Attributes:
        samples_ms: every steady-state inference in order; empty where the tool gives only averages.
        median_ms: of the samples, or as the tool printed it; its mean where it printed no median.
        statistic: which of the two `median_ms` is.
        outliers: indices into `samples_ms` that lie more than 3 interquartile ranges off; kept.
        init_ms: loading and preparing; the file was read just before, so it is in the page cache.
        runtime: what ran the graph, with its version as it says itself, such as "LiteRT 2.1.0".
        peak_memory_bytes: how far loading and running raised the memory in use (`benchmark_model`:
            all of its process).
        log, log_sha256: the raw log, relative to `results.json`.
    """

    init_ms: Figure
    first_ms: Figure
    warmup_ms: Figure | None
    samples_ms: list[Figure]
    median_ms: Figure
    statistic: str  # median, mean
    runs: AtLeastOne
    outliers: list[Count]
    delegation: Delegation
    runtime: str | None
    peak_memory_bytes: AtLeastOne | None
    before: Condition
    after: Condition
    log: str
    log_sha256: str

    def __post_init__(self) -> None:
        if self.outliers and max(self.outliers) >= len(self.samples_ms):
            raise ValueError(
                f"there is no sample {max(self.outliers)} among {len(self.samples_ms)} samples_ms"
            )


class Ratio(_Closed, frozen=True):
    """This case's time over another's, measured in turn (A B B A ...).

    Attributes:
        against: the other file's name.
        against_median_ms: the other's median in the same rounds.
        against_verdict: what the other's time may be used for, and so the ratio.
        ratio, ci95: median of the rounds' ratios and its 95 % interval, None of too few rounds.
        rounds: pairs of repeats.
    """

    against: str
    against_sha256: str
    against_median_ms: Figure
    against_verdict: Verdict
    ratio: Figure
    ci95: Interval | None
    rounds: AtLeastOne

    def __post_init__(self) -> None:
        _check_enclosed(self, "ratio", "ci95")


class ProfiledOperation(_Closed, frozen=True):
    """One line of the tool's operation profile: mean time an inference."""

    operator: str
    name: str
    mean_ms: NotNegative
    share: Share  # of the whole inference
    calls: Count


class Case(_Closed, frozen=True):
    """One file on one device, backend and number of threads.

    Attributes:
        target: what was asked for: the export's name, or the file's.
        in_turn_with: sha256 of the file that this one was only measured for, to give its ratio.
        reasons: why the verdict is not VALID, or why the case was skipped; evidence in words.
        median_ms, ci95_ms: median of the repeats' medians and its 95 % interval, None of too few.
        p90_ms, p99_ms: over all samples; None where fewer than ten samples lie beyond.
        spread: (90th - 10th percentile) / median of the repeats' medians; None of a single one.
        samples_ms: every repeat's samples, in order.
        share_of_peak: multiply-adds a second over those of a large float32 matrix product on the
            same core in the same run; None with several threads.
    """

    target: str
    file: str
    sha256: str
    bytes: AtLeastOne
    precision: str | None
    device: str
    backend: str
    threads: AtLeastOne
    tool: str | None
    verdict: Verdict
    reasons: list[str]
    in_turn_with: str | None = None
    median_ms: Figure | None = None
    ci95_ms: Interval | None = None
    p90_ms: Figure | None = None
    p99_ms: Figure | None = None
    spread: NotNegative | None = None
    init_ms: Figure | None = None
    first_ms: Figure | None = None
    warmup_ms: Figure | None = None
    samples_ms: list[list[Figure]] = []
    multiply_adds: Count | None = None
    share_of_peak: NotNegative | None = None
    golden: GoldenCheck | None = None
    delegation: Delegation | None = None
    ratio: Ratio | None = None
    repeats: list[Repeat] = []
    profile: list[ProfiledOperation] = []

    def __post_init__(self) -> None:
        _check_enclosed(self, "median_ms", "ci95_ms")

    @property
    def key(self) -> CaseKey:
        """What tells two cases of one run apart."""
        return self.sha256, self.device, self.backend, self.threads, self.in_turn_with


class Results(_Closed, frozen=True):
    """A whole run.

    Attributes:
        started_at, finished_at: ISO 8601, UTC, by the driving machine's clock.
        settings: of the command, as given or by default.
        seed: of the noise that is fed where no golden pictures come with a file.
        versions: of the driving tools and runtimes.
    """

    schema_version: int
    started_at: str
    finished_at: str | None
    settings: dict[str, str]
    seed: int
    versions: dict[str, str]
    devices: list[Device]
    cases: list[Case]


def read_results(path: Path) -> Results:
    """A `results.json`, or the one in a folder.

    Raises:
        InputError: it is missing, broken, of another version, holds an unknown or ill-typed key, or
            a case claims what its evidence does not say.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        content = file.read_bytes()
        found = msgspec.json.decode(content, type=_Outline)
        version = found.schema_version
        if found.conditions:
            raise InputError(f"{file} is accuracy, as afd-eval writes it; give it by --accuracy")
        if version != RESULTS_SCHEMA_VERSION:
            raise InputError(
                f"{file} has schema version {version}, expected {RESULTS_SCHEMA_VERSION}; "
                "measure again, or use the version of afd-bench that wrote it"
            )
        results = msgspec.json.decode(content, type=Results)
        cases = {case.key: case for case in results.cases}
        for number, case in enumerate(results.cases):
            if wrong := _contradiction(case, cases):
                raise msgspec.ValidationError(f"{wrong} - at `$.cases[{number}]`")
        return results
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{file} cannot be read as results of afd-bench: {reason_of(error)}; give a folder or "
            "file that `afd-bench run` wrote"
        ) from error


def _contradiction(case: Case, cases: dict[CaseKey, Case]) -> str | None:
    """What a case claims against its own repeats, or against those of the case beside it."""
    medians = [repeat.median_ms for repeat in case.repeats]
    if case.median_ms is not None and not (medians and isclose(case.median_ms, median(medians))):
        return f"median_ms {case.median_ms} is not the median of the {len(medians)} repeats'"
    placed = [case.delegation, *(repeat.delegation for repeat in case.repeats)]
    for d in filter(None, placed):
        if d.delegated is not None and d.nodes is not None and d.delegated > d.nodes:
            return f"delegation: {d.delegated} of {d.nodes} nodes"
        if case.verdict in TIMED and d.actual != d.asked:
            return f"verdict {case.verdict.value}, but ran on {d.actual}, not on {d.asked}"
    if case.verdict in TIMED and case.median_ms is None:
        return f"verdict {case.verdict.value} without median_ms"
    if case.verdict in TIMED and case.golden and case.golden.violations:
        return f"verdict {case.verdict.value} with golden.violations"
    return _contradicted_ratio(case, cases)


def _contradicted_ratio(case: Case, cases: dict[CaseKey, Case]) -> str | None:
    """By the rounds of both cases; where the other is not there, roughly by the two medians."""
    if case.ratio is None or case.median_ms is None:
        return None
    against_ms = case.ratio.against_median_ms
    beside = cases.get((case.ratio.against_sha256, *case.key[1:4], case.sha256))
    if beside is None:
        ratios = [case.median_ms / against_ms * slack for slack in (0.5, 2)]
    elif beside.median_ms is None or not isclose(against_ms, beside.median_ms):
        return f"ratio.against_median_ms {against_ms} is not {beside.file}'s {beside.median_ms}"
    else:
        rounds = zip(case.repeats, beside.repeats, strict=False)
        ratios = [own.median_ms / other.median_ms for own, other in rounds]
    if min(ratios) * (1 - 1e-9) <= case.ratio.ratio <= max(ratios) * (1 + 1e-9):
        return None
    return f"ratio {case.ratio.ratio} is not between {min(ratios):.4g} and {max(ratios):.4g}"


def write_results(path: Path, results: Results) -> None:
    """Writes `results.json` whole."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


class _Outline(msgspec.Struct):
    """Attributes: `conditions` is what only a report of afd-eval has."""

    schema_version: int
    conditions: msgspec.Raw = msgspec.Raw()
