"""What measures on a phone: TFLite's `benchmark_model`, or the project's harness app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afd_benchmark.phone.adb import LocalFile
from afd_benchmark.phone.session import PhoneSession
from afd_benchmark.plan import PlannedCase
from afd_benchmark.results import Delegation, ProfiledOperation
from afd_benchmark.targets import Pixels, Target
from afd_mobile.common.errors import MeasurementError
from afd_mobile.tflite.litert import dequantize, quantize


@dataclass(frozen=True)
class Timing:
    """What one start measured; as in `results.Repeat`.

    Attributes: `raw` is everything the tool said.
    """

    init_ms: float
    first_ms: float
    warmup_ms: float | None
    samples_ms: list[float]
    median_ms: float
    statistic: str
    runs: int
    delegation: Delegation
    runtime: str | None
    peak_memory_bytes: int | None
    raw: bytes


class PhoneTool(Protocol):
    """Used within one session; every start keeps what was said in `log`, whatever it was."""

    @property
    def name(self) -> str: ...

    def refuses(self, backend: str) -> str | None:
        """Why it cannot drive that backend; None where it can."""

    def begin(self, session: PhoneSession) -> None:
        """Puts itself on the phone.

        Raises:
            DeviceError: the phone does not take it.
        """

    def end(self) -> None:
        """Removes what does not lie in the session's folder."""

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        """The golden pictures' outputs, in real values."""

    def time(self, case: PlannedCase, target: Target, log: str) -> Timing:
        """One start. Raises: MeasurementError, it failed or said nonsense."""

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        """Mean time of every operation."""


def push_input(session: PhoneSession, target: Target, image: Pixels, number: int) -> str:
    """Raw bytes as the graph takes them, once a picture; returns their path on the phone."""
    content = quantize(image, target.input).tobytes()
    return session.push(LocalFile.of(content), f"{target.sha256[:16]}-{number}.bin")


def real_output(content: bytes, target: Target, picture: str) -> Pixels:
    """Raw bytes as the graph gives them -> real values.

    Raises:
        MeasurementError: they are not as many as the graph gives.
    """
    contract = target.output
    expected = int(np.prod(contract.shape)) * np.dtype(contract.dtype).itemsize
    if len(content) != expected:
        raise MeasurementError(
            f"wrong outputs: {len(content)} bytes for {picture}, expected {expected}"
        )
    return dequantize(np.frombuffer(content, contract.dtype).reshape(contract.shape), contract)
