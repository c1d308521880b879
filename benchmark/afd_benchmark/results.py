"""`results.json`: what was measured, closed and typed, with the evidence of every figure.

Times are in milliseconds, temperatures in degrees Celsius, clocks in MHz, sizes in bytes.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec

from afd_mobile.errors import InputError
from afd_mobile.files import write_whole

RESULTS = "results.json"
RESULTS_SCHEMA_VERSION = 1


class Verdict(str, Enum):
    """What a figure may be used for."""

    VALID = "VALID"
    SUSPECT = "SUSPECT"  # measured, but heat, clocks, spread, battery or screen disturbed it
    INVALID = "INVALID"  # no time is reported
    SKIPPED = "SKIPPED"  # the device cannot do it; nothing was run


class _Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A JSON object in which every key is known."""


class Core(_Closed, frozen=True):
    index: int
    max_mhz: float | None


class Device(_Closed, frozen=True):
    """What was measured on; None where the device does not say.

    Attributes:
        name: "host", or the adb serial (with `@HOST:PORT` from another adb server).
        model: "Xiaomi Mi 10", or the processor of a host.
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
    cores: list[Core]
    gpu: str | None
    memory_bytes: int | None
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

    at_s: float
    thermal_status: int | None = None
    temperatures_c: dict[str, float] = {}
    clocks_mhz: tuple[float | None, ...] = ()
    clock_limits_mhz: tuple[float | None, ...] = ()
    battery_percent: int | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    reference_gflops: float | None = None


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
    delegated: int | None
    nodes: int | None
    partitions: int | None
    whole: bool | None = None


class GoldenCheck(_Closed, frozen=True):
    """The golden pictures on this device and backend, against the exporting host's outputs.

    Attributes:
        violations: limits of the manifest that were crossed, in words; none if it agrees.
    """

    pictures: int
    max_abs_error: float
    range: float
    snr_db: float | None
    top1_agreement: float | None
    violations: list[str]


class Repeat(_Closed, frozen=True):
    """One process (host) or start of the app or tool (phone).

    Attributes:
        samples_ms: every steady-state inference in order; empty where the tool gives only averages.
        median_ms: of the samples, or as the tool printed it; its mean where it printed no median.
        statistic: which of the two `median_ms` is.
        outliers: indices into `samples_ms` that lie more than 3 interquartile ranges off; kept.
        log, log_sha256: the raw log, relative to `results.json`.
    """

    init_ms: float
    first_ms: float
    warmup_ms: float | None
    samples_ms: list[float]
    median_ms: float
    statistic: str  # median, mean
    runs: int
    outliers: list[int]
    delegation: Delegation
    peak_memory_bytes: int | None
    before: Condition
    after: Condition
    log: str
    log_sha256: str


class Ratio(_Closed, frozen=True):
    """This case's time over another's, measured in turn (A B B A ...).

    Attributes:
        against: the other file's name.
        against_median_ms: the other's median in the same rounds.
        rounds: pairs of repeats.
        stopped_early: its interval was already narrower than 2 %.
    """

    against: str
    against_sha256: str
    against_median_ms: float
    ratio: float
    ci95: tuple[float, float]
    rounds: int
    stopped_early: bool


class ProfiledOperation(_Closed, frozen=True):
    """One line of the tool's operation profile: mean time an inference."""

    operator: str
    name: str
    mean_ms: float
    share: float  # of the whole inference, 0 to 1
    calls: int


class Case(_Closed, frozen=True):
    """One file on one device, backend and number of threads.

    Attributes:
        target: what was asked for: the export's name, or the file's.
        in_turn_with: sha256 of the file that this one was only measured for, to give its ratio.
        reasons: why the verdict is not VALID, or why the case was skipped; evidence in words.
        median_ms, ci95_ms: median of the repeats' medians and its bootstrap interval.
        p90_ms, p99_ms: over all samples; p99 from 1000 samples on, both None without raw samples.
        spread: (90th - 10th percentile) / median of the repeats' medians.
        samples_ms: every repeat's samples, in order.
        share_of_peak: multiply-adds a second over those of a large matrix product in the same run.
    """

    target: str
    file: str
    sha256: str
    bytes: int
    precision: str | None
    device: str
    backend: str
    threads: int
    tool: str | None
    verdict: Verdict
    reasons: list[str]
    in_turn_with: str | None = None
    median_ms: float | None = None
    ci95_ms: tuple[float, float] | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    spread: float | None = None
    init_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: float | None = None
    samples_ms: list[list[float]] = []
    multiply_adds: int | None = None
    share_of_peak: float | None = None
    golden: GoldenCheck | None = None
    delegation: Delegation | None = None
    ratio: Ratio | None = None
    repeats: list[Repeat] = []
    profile: list[ProfiledOperation] = []

    @property
    def key(self) -> tuple[str, str, str, int, str | None]:
        """What tells two cases of one run apart."""
        return self.sha256, self.device, self.backend, self.threads, self.in_turn_with


class Results(_Closed, frozen=True):
    """A whole run.

    Attributes:
        started_at, finished_at: ISO 8601, UTC, by the driving machine's clock.
        settings: of the command, as given or by default.
        seed: of the bootstrap.
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
        InputError: it is missing, broken, of another version, or holds an unknown or ill-typed key.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        content = file.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version != RESULTS_SCHEMA_VERSION:
            raise InputError(
                f"{file} has schema version {version}, expected {RESULTS_SCHEMA_VERSION}; "
                "measure again, or use the version of afd-bench that wrote it"
            )
        return msgspec.json.decode(content, type=Results)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read as results of afd-bench: {error}; give a folder or file that "
            "`afd-bench run` wrote"
        ) from error


def write_results(path: Path, results: Results) -> None:
    """Writes `results.json` whole."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


class _Versioned(msgspec.Struct):
    schema_version: int
