"""How a case is measured: outputs first, turns, when it stops, and what failures leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from afd_benchmark.latency_stats import interval_of_median, ratio_with_interval
from afd_benchmark.measure import Settings, measure, skipped
from afd_benchmark.plan import PlannedCase
from afd_benchmark.results import (
    Case,
    Condition,
    Delegation,
    Device,
    ProfiledOperation,
    Repeat,
    Verdict,
)
from afd_benchmark.targets import GoldenPicture, Pixels, Target
from afd_mobile.common.errors import DeviceError, MeasurementError
from afd_mobile.common.parity import Limits
from afd_mobile.tflite.litert import TensorContract
from tests.afd_benchmark.sample_results import HOST

LOGITS = np.linspace(-3, 5, 10, dtype=np.float32)[None]
LIMITS = Limits(1e-3, 1e-3, 0.99, 40.0, 0.0)


def target(name: str, *, golden: int = 2, multiply_adds: int | None = 50_000_000) -> Target:
    pixels = np.zeros((1, 8, 8, 3), np.float32)
    pictures = tuple(GoldenPicture(f"p{n}", pixels, LOGITS + n) for n in range(golden))
    contract = TensorContract("image", (1, 8, 8, 3), "float32", None, None)
    return Target(
        name=name, file=f"{name}.tflite", path=None, sha256=f"sha of {name}", bytes=9,
        precision="float32", input=contract, output=contract, golden=pictures,
        limits=LIMITS if golden else None, classify=True, multiply_adds=multiply_adds,
    )  # fmt: skip


A, B = target("a"), target("b")


@dataclass
class Scripted:
    """A device that takes the times it is told to, and remembers what it was asked.

    Attributes:
        times: (samples in ms by target's name and number of its repeat).
        wrong: added to a target's outputs.
        fails: "KIND NAME NUMBER" -> what is raised, such as "repeat a 3".
    """

    times: Callable[[str, int], list[float]] = lambda name, number: [10.0, 10.0, 10.0]
    wrong: dict[str, float] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    gflops: float | None = 50.0
    asked: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    device: Device = HOST
    tool: str = "Script"

    def _step(self, kind: str, name: str, log: str) -> int:
        number = sum(a == f"{kind} {name}" for a in self.asked) + 1
        self.asked.append(f"{kind} {name}")
        self.logs.append(log)
        if error := self.fails.get(f"{kind} {name} {number}"):
            raise error
        return number

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        self._step("outputs", target.name, log)
        return [p.expected + np.float32(self.wrong.get(target.name, 0)) for p in target.golden]

    def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
        number = self._step("repeat", target.name, log)
        samples = self.times(target.name, number)
        condition = Condition(at_s=0.0, reference_gflops=self.gflops)
        return Repeat(
            init_ms=number, first_ms=20.0 + number, warmup_ms=None, samples_ms=samples,
            median_ms=float(np.median(samples)), statistic="median", runs=len(samples),
            outliers=[], delegation=Delegation(case.backend, case.backend, None, 4, 4, 1),
            runtime=None, peak_memory_bytes=None, before=condition, after=condition, log=log,
            log_sha256="",
        )  # fmt: skip

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        self._step("profile", target.name, log)
        return [ProfiledOperation("CONV_2D", "c", 1.0, 1.0, 1)]


def planned(main: Target = A, against: Target | None = None) -> PlannedCase:
    return PlannedCase(main, "host", "cpu", 1, against, None)


def measured(
    runner: Scripted, case: PlannedCase | None = None, said: list[str] | None = None,
    **settings: object,
) -> list[Case]:  # fmt: skip
    said = [] if said is None else said
    chosen = Settings(**{"repeats": 6, **settings})  # type: ignore[arg-type]
    return measure(runner, case or planned(), chosen, said.append)


def jittered(level: dict[str, float], width: float) -> Callable[[str, int], list[float]]:
    """Times around each target's level; the pattern makes every round's ratio another."""
    return lambda name, number: [level[name] * (1 + width * (number * 7 % 5 - 2) * (name == "a"))]


# --- a case by itself -----------------------------------------------------------------------------


def test_outputs_come_first_then_the_repeats_and_the_profile() -> None:
    runner, said = Scripted(), list[str]()
    (case,) = measured(runner, said=said, profile=True)
    assert runner.asked == ["outputs a", *["repeat a"] * 6, "profile a"]
    assert case.verdict is Verdict.VALID and case.reasons == []
    assert case.golden is not None
    assert (case.golden.pictures, case.golden.max_abs_error, case.golden.violations) == (2, 0, [])
    assert [o.operator for o in case.profile] == ["CONV_2D"]
    assert said == [f"{n}/6 10.0 ms" for n in range(1, 7)]
    assert runner.asked.count("profile a") == 1 and measured(Scripted())[0].profile == []


def test_the_figures_are_those_of_the_repeats() -> None:
    samples = [[9.0, 10.0, 30.0], [10.2] * 3, [9.8, 9.8, 11.0], [10.1] * 3, [10.0] * 3, [10.3] * 99]
    (case,) = measured(Scripted(times=lambda name, number: samples[number - 1]))
    medians = [10.0, 10.2, 9.8, 10.1, 10.0, 10.3]
    assert case.median_ms == pytest.approx(10.05)
    assert case.ci95_ms == interval_of_median(medians)
    assert case.samples_ms == samples and [r.median_ms for r in case.repeats] == medians
    flat = [s for some in samples for s in some]
    assert case.p90_ms == pytest.approx(np.percentile(flat, 90)) and case.p99_ms is None
    assert case.spread == pytest.approx(
        (np.percentile(medians, 90) - np.percentile(medians, 10)) / 10.05
    )
    assert (case.init_ms, case.first_ms, case.warmup_ms) == (3.5, 23.5, None)
    # 2 x 50 M operations in 10.05 ms, over 50 G a second.
    assert case.share_of_peak == pytest.approx(2 * 50e6 / 10.05e-3 / 50e9)
    assert (case.target, case.file, case.sha256, case.tool) == ("a", "a.tflite", A.sha256, "Script")
    assert case.ratio is None and case.in_turn_with is None


def test_the_99th_percentile_comes_with_a_thousand_samples() -> None:
    (case,) = measured(Scripted(times=lambda name, number: [10.0] * 250))
    assert case.p99_ms == 10.0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("gflops", [None, 50.0])
@pytest.mark.parametrize("multiply_adds", [None, 50_000_000])
def test_the_share_of_the_peak_needs_both_and_a_single_core(
    gflops: float | None, multiply_adds: int | None, threads: int
) -> None:
    runner = Scripted(gflops=gflops)
    plan = replace(planned(target("a", multiply_adds=multiply_adds)), threads=threads)
    (case,) = measured(runner, plan)
    known = None not in (gflops, multiply_adds) and threads == 1
    assert (case.share_of_peak is not None) == known


def test_without_golden_pictures_nothing_is_checked_and_the_time_is_suspect() -> None:
    runner = Scripted(wrong={"a": 9.0})
    (case,) = measured(runner, planned(target("a", golden=0)))
    assert runner.asked == ["repeat a"] * 6
    assert case.verdict is Verdict.SUSPECT and case.golden is None and case.median_ms == 10.0


@pytest.mark.parametrize("wrong", [1.0, float("nan"), float("inf")])
def test_wrong_outputs_are_invalid_and_never_timed(wrong: float) -> None:
    runner = Scripted(wrong={"a": wrong})
    (case,) = measured(runner)
    assert runner.asked == ["outputs a"]
    assert case.verdict is Verdict.INVALID and case.reasons[0].startswith("wrong outputs")
    assert case.median_ms is None and case.samples_ms == [] and case.repeats == []
    if np.isfinite(wrong):
        assert case.golden is not None and case.golden.max_abs_error == 1.0
        assert "largest error 1 at p" in case.reasons[0]


def test_the_limits_are_the_manifest_s() -> None:
    # Of a range of 8 + 1: an error of 0.009 is a thousandth.
    for wrong, verdict in ((0.0085, Verdict.VALID), (0.0095, Verdict.INVALID)):
        (case,) = measured(Scripted(wrong={"a": wrong}))
        assert case.verdict is verdict, case.reasons


def test_outputs_of_another_shape_are_wrong() -> None:
    class Short(Scripted):
        def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
            return [p.expected[:, :9] for p in target.golden]

    (case,) = measured(Short())
    assert case.verdict is Verdict.INVALID and "output shape" in case.reasons[0]


@pytest.mark.parametrize("step", ["outputs a 1", "repeat a 1", "repeat a 3"])
def test_a_failure_is_the_reason_on_one_line_and_ends_the_case(step: str) -> None:
    runner = Scripted(fails={step: MeasurementError("the tool was killed:\n  out of memory")})
    (case,) = measured(runner, profile=True)
    assert case.verdict is Verdict.INVALID
    assert case.reasons == ["the tool was killed: out of memory"]
    assert case.median_ms is None and case.tool == "Script"
    assert runner.asked[-1] == step[:-2]


def test_a_device_that_is_gone_ends_the_run() -> None:
    with pytest.raises(DeviceError, match="unplugged"):
        measured(Scripted(fails={"repeat a 2": DeviceError("unplugged")}))


def test_another_backend_than_asked_has_no_time() -> None:
    class Fallback(Scripted):
        def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
            found = super().repeat(case, target, log)
            found = Repeat(**{f: getattr(found, f) for f in found.__struct_fields__} | {
                "delegation": Delegation("gpu", "cpu", None, 0, 4, 0)})  # fmt: skip
            return found

    (case,) = measured(Fallback(), replace(planned(), backend="gpu"))
    assert case.verdict is Verdict.INVALID and case.median_ms is None and case.samples_ms == []
    assert len(case.repeats) == 6 and case.delegation is not None  # the evidence


def test_what_is_skipped_says_why() -> None:
    case = skipped(replace(planned(), skipped="4 threads on 2 cores"))
    assert (case.verdict, case.reasons, case.tool) == (
        Verdict.SKIPPED, ["4 threads on 2 cores"], None,
    )  # fmt: skip


# --- in turn --------------------------------------------------------------------------------------


def turns(runner: Scripted) -> str:
    return "".join(a[-1] for a in runner.asked if a.startswith("repeat"))


def test_two_take_turns_a_b_b_a() -> None:
    runner = Scripted(times=jittered({"a": 20.0, "b": 10.0}, 0.2))
    main, other = measured(runner, planned(A, B), repeats=5)
    assert runner.asked[:2] == ["outputs a", "outputs b"]
    assert turns(runner) == "abbaabbaab"
    assert main.ratio is not None and main.ratio.rounds == 5
    medians: list[Sequence[float]] = [[r.median_ms for r in c.repeats] for c in (main, other)]
    assert (main.ratio.ratio, main.ratio.ci95) == ratio_with_interval(*map(list, medians))
    assert main.ratio.against == "b.tflite" and main.ratio.against_sha256 == other.sha256
    assert main.ratio.against_median_ms == other.median_ms
    assert other.in_turn_with == main.sha256 and main.in_turn_with is None and other.ratio is None


@pytest.mark.parametrize("against", [None, B])
def test_the_rounds_are_as_many_as_were_asked_for_however_alike(against: Target | None) -> None:
    """Stopping once an interval is narrow would make it one that holds the ratio less often."""
    main, *others = measured(Scripted(), planned(A, against), repeats=12)
    assert [len(case.repeats) for case in (main, *others)] == [12] * (1 + len(others))


def test_a_ratio_of_too_few_rounds_has_no_interval() -> None:
    for repeats in (5, 6):
        main, _ = measured(Scripted(), planned(A, B), repeats=repeats)
        assert main.ratio is not None and main.ratio.ratio == 1.0
        assert main.ratio.ci95 == (None if repeats == 5 else (1.0, 1.0))


def test_a_ratio_to_a_suspect_time_says_so() -> None:
    unchecked = target("b", golden=0)
    main, other = measured(Scripted(), planned(A, unchecked))
    assert (main.verdict, other.verdict) == (Verdict.VALID, Verdict.SUSPECT)
    assert main.ratio is not None and main.ratio.against_verdict is Verdict.SUSPECT
    main, _ = measured(Scripted(), planned(A, B))
    assert main.ratio is not None and main.ratio.against_verdict is Verdict.VALID


@pytest.mark.parametrize("step", ["outputs b 1", "repeat b 1", "repeat b 2"])
def test_a_failing_counterpart_costs_the_ratio_only(step: str) -> None:
    runner = Scripted(fails={step: MeasurementError("killed")})
    main, other = measured(runner, planned(A, B))
    assert (main.median_ms, len(main.repeats), main.ratio) == (10.0, 6, None)
    assert main.reasons == ["no ratio: b.tflite is INVALID"]
    assert other.verdict is Verdict.INVALID and other.reasons == ["killed"]
    assert other.median_ms is None


@pytest.mark.parametrize("step", ["outputs a 1", "repeat a 2"])
def test_a_failing_case_ends_the_turns(step: str) -> None:
    runner = Scripted(fails={step: MeasurementError("killed")})
    main, *others = measured(runner, planned(A, B), profile=True)
    assert main.verdict is Verdict.INVALID and main.ratio is None
    assert all(other.ratio is None for other in others) and turns(runner).count("b") <= 2
    assert "profile a" not in runner.asked


NAMESAKE = replace(B, file="a.tflite")  # another file of this name, from another folder


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([planned(A), replace(planned(A), threads=2)], id="threads"),
        pytest.param([planned(A), planned(NAMESAKE)], id="files of one name"),
        pytest.param([planned(A, NAMESAKE)], id="in turn with a file of the same name"),
        pytest.param([planned(A, B), planned(B)], id="against a file that is measured too"),
        pytest.param([planned(A, B), planned(target("c"), B)], id="two against one"),
    ],
)
def test_no_raw_log_is_written_over_another(cases: list[PlannedCase]) -> None:
    """They are evidence, known by their hash: every step of a run has a file of its own."""
    runner = Scripted()
    for case in cases:
        measured(runner, case, repeats=2, profile=True)
    assert {log for log in runner.logs if runner.logs.count(log) > 1} == set()


def test_log_names_stay_in_their_folder() -> None:
    runner = Scripted()
    measured(
        runner, replace(planned(A), backend="external:../../lib x.so", device="10.0.0.1:5@h:1")
    )
    for log in runner.logs:
        folder, _, name = log.partition("/")
        assert folder == "logs" and "/" not in name and ":" not in name and name.endswith(".log")
