"""The matrix of cases, and which file takes turns with which."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from afd_benchmark.plan import counterpart, plan
from afd_benchmark.targets import Target
from afd_mobile.tflite.litert import TensorContract

CONTRACT = TensorContract("image", (1, 4), "float32", None, None)


def target(name: str, precision: str | None = None) -> Target:
    return Target(
        name, f"{name}.tflite", None, f"sha of {name}", 1, precision, CONTRACT, CONTRACT, (), None,
        False, None,
    )  # fmt: skip


@dataclass
class Limited:
    """A device that has `cores` and no GPU; remembers what it was asked."""

    name: str
    cores: int
    asked: list[tuple[str, int]] = field(default_factory=list)

    def refuses(self, backend: str, threads: int) -> str | None:
        self.asked.append((backend, threads))
        if backend == "gpu":
            return "no GPU"
        return f"{threads} threads on {self.cores} cores" if threads > self.cores else None


def test_every_target_on_every_device_backend_and_number_of_threads_in_order() -> None:
    a, b = target("a"), target("b")
    cases = plan([a, b], [Limited("one", 8), Limited("two", 8)], ["cpu", "nnapi"], [2, 1], [])
    assert [(c.device, c.backend, c.threads, c.target.name) for c in cases] == [
        (device, backend, threads, name)
        for device in ("one", "two")
        for backend, threads in (("cpu", 2), ("cpu", 1), ("nnapi", 2))
        for name in ("a", "b")
    ]
    assert all(c.skipped is None and c.against is None for c in cases)


@pytest.mark.parametrize("backend", ["gpu", "nnapi", "external:/lib/a.so"])
def test_only_the_cpu_is_asked_for_with_every_number_of_threads(backend: str) -> None:
    device = Limited("one", 8)
    assert len(plan([target("a")], [device], [backend], [4, 1, 2], [])) == 1
    assert device.asked == [(backend, 4)]


def test_what_a_device_cannot_do_stays_in_the_plan_with_its_reason() -> None:
    cases = plan([target("a")], [Limited("one", 2)], ["cpu", "gpu"], [2, 3], [target("b")])
    assert [c.skipped for c in cases] == [None, "3 threads on 2 cores", "no GPU"]


def test_the_counterpart_has_the_same_precision() -> None:
    others = [target("x", "float32"), target("y", "int8"), target("z")]
    for precision, name in (("float32", "x"), ("int8", "y"), (None, "z")):
        found = counterpart(target("a", precision), others)
        assert found is not None and found.name == name
    assert counterpart(target("a", "float16"), others) is None


@pytest.mark.parametrize(
    ("precision", "other", "paired"),
    [(None, "int8", True), ("int8", None, True), (None, None, True), ("int8", "float32", False)],
)
def test_the_only_one_is_the_counterpart_where_one_does_not_say(
    precision: str | None, other: str | None, paired: bool
) -> None:
    only = target("x", other)
    assert (counterpart(target("a", precision), [only]) is only) == paired


def test_there_is_no_counterpart_among_several_that_fit_equally() -> None:
    assert counterpart(target("a", "int8"), [target("x", "int8"), target("y", "int8")]) is None
    assert counterpart(target("a", "int8"), [target("x"), target("y")]) is None
    assert counterpart(target("a"), []) is None
