"""The matrix of cases, made before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from afd_benchmark.targets import Target

CPU, GPU, NNAPI, EXTERNAL = "cpu", "gpu", "nnapi", "external:"


class Capable(Protocol):
    """What a device says of itself before a run."""

    @property
    def name(self) -> str: ...

    def refuses(self, backend: str, threads: int) -> str | None:
        """Why it cannot do that; None where it can."""


@dataclass(frozen=True)
class PlannedCase:
    """Attributes:
    against: the file it takes turns with.
    skipped: why it is not run; None where it is.
    """

    target: Target
    device: str
    backend: str
    threads: int
    against: Target | None
    skipped: str | None

    @property
    def key(self) -> tuple[object, ...]:
        """As `results.Case.key`."""
        return self.target.sha256, self.device, self.backend, self.threads, None


def plan(
    targets: Sequence[Target],
    devices: Iterable[Capable],
    backends: Sequence[str],
    threads: Sequence[int],
    against: Sequence[Target],
) -> list[PlannedCase]:
    """Every target on every device and backend with every number of threads.

    A number of threads means something on the CPU only; elsewhere the first is used.
    """
    return [
        PlannedCase(
            target,
            device.name,
            backend,
            count,
            counterpart(target, against),
            device.refuses(backend, count),
        )
        for device in devices
        for backend in backends
        for count in (threads if backend == CPU else threads[:1])
        for target in targets
    ]


def counterpart(target: Target, others: Sequence[Target]) -> Target | None:
    """The file of the same precision; where one of the two does not say, the only one there is."""
    same = [other for other in others if other.precision == target.precision]
    if len(same) == 1:
        return same[0]
    if len(others) == 1 and None in (target.precision, others[0].precision):
        return others[0]
    return None
