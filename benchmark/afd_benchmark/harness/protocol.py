"""The harness app's requests and results: `android_app/PROTOCOL.md`, from this side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from afd_mobile.common.errors import MeasurementError

HARNESS_SCHEMA_VERSION = 1
PACKAGE = "org.afdmobile.harness"
ACTIVITY = f"{PACKAGE}/.BenchActivity"
LOG_TAG = "AfdHarness"
CHECK, TIME = "check", "time"


_Count = Annotated[int, Meta(ge=0)]
_Time = Annotated[float, Meta(gt=0)]


class _Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON object in which every key is known."""


class HarnessError(_Closed, frozen=True):
    """Attributes: `field` and `value` of the request, or of what failed."""

    field: str
    value: str | None
    message: str
    remedy: str
    stack: str | None


class App(_Closed, frozen=True):
    package: str
    version: str


class HarnessDevice(_Closed, frozen=True):
    manufacturer: str
    model: str
    soc_model: str | None
    android: str
    sdk_int: int
    abi: str


class HarnessDelegation(_Closed, frozen=True):
    """Attributes: `delegated_nodes` is None where the plan does not show it."""

    asked: str
    actual: str
    delegate: str | None
    graph_nodes: _Count
    plan_nodes: _Count
    delegated_nodes: _Count | None

    def __post_init__(self) -> None:
        if self.delegated_nodes is not None and self.delegated_nodes > self.graph_nodes:
            raise ValueError(f"{self.delegated_nodes} of {self.graph_nodes} nodes are delegated")


class HarnessGolden(_Closed, frozen=True):
    """Attributes: `output_file` on the phone; `max_abs_error` None where nothing was expected."""

    input: str
    output_file: str
    max_abs_error: Annotated[float, Meta(ge=0)] | None
    not_finite: _Count


class Memory(_Closed, frozen=True):
    pss_before_kb: _Count | None
    pss_kb: _Count | None
    pss_peak_kb: _Count | None
    rss_peak_kb: _Count | None


class Thermal(_Closed, frozen=True):
    status: _Count | None
    headroom: float | None


class HarnessResult(_Closed, frozen=True):
    """One answer. Times in ms; empty or None where there is an error."""

    schema_version: int
    run_id: str | None
    status: str
    error: HarnessError | None
    request: dict[str, str]
    app: App | None
    runtime_version: str | None
    device: HarnessDevice | None
    model_sha256: str | None
    delegation: HarnessDelegation | None
    golden: list[HarnessGolden]
    init_ms: _Time | None
    first_ms: _Time | None
    warmup_ms: list[_Time]
    samples_ms: list[_Time]
    median_ms: _Time | None
    memory: Memory
    thermal_before: Thermal | None
    thermal_after: Thermal | None
    sustained_performance: bool
    stayed_in_front: bool
    started_at_epoch_ms: int
    elapsed_ms: Annotated[float, Meta(ge=0)] | None


def start_command(extras: Mapping[str, str]) -> list[str]:
    """`am start` with a request; every extra a string, for the shell's sake."""
    command = ["am", "start", "-S", "-n", ACTIVITY]
    for key, value in sorted(extras.items()):
        command += ["--es", key, value]
    return command


def read_result(content: bytes, run_id: str) -> HarnessResult:
    """An answer that is good.

    Raises:
        MeasurementError: it is broken, of another version or run, or says what went wrong.
    """
    try:
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version != HARNESS_SCHEMA_VERSION:
            raise MeasurementError(
                f"the app's answer has schema version {version}, expected {HARNESS_SCHEMA_VERSION}"
                "; install the app that came with this program"
            )
        result = msgspec.json.decode(content, type=HarnessResult)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MeasurementError(f"the app's answer cannot be read: {error}") from error
    if result.run_id != run_id:
        raise MeasurementError(f"the app answered run {result.run_id}, not {run_id}")
    if result.error is not None:
        e = result.error
        raise MeasurementError(f"the app refuses {e.field} {e.value}: {e.message}; {e.remedy}")
    if result.status != "ok" or result.init_ms is None or result.first_ms is None:
        raise MeasurementError(f"the app's answer says {result.status} and gives no times")
    return result


class _Versioned(msgspec.Struct):
    schema_version: int
