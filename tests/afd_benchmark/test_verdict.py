"""Every rule of the verdict at its limit, just below and just above."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from msgspec.structs import replace

from afd_benchmark.latency_stats import MIN_REPEATS
from afd_benchmark.results import Condition, Delegation, GoldenCheck, Repeat, Verdict
from afd_benchmark.verdict import judge

GOLDEN = GoldenCheck(4, 1e-5, 20.0, 110.0, 1.0, [])
CPU = Delegation("cpu", "cpu", "TfLiteXNNPackDelegate", 66, 66, 1)
CALM = Condition(
    at_s=0.0,
    thermal_status=0,
    temperatures_c={"AP": 30.0, "SKIN": 28.0},
    clocks_mhz=(1000.0, 2000.0),
    clock_limits_mhz=(1800.0, 2200.0),
    battery_percent=80,
    charging=True,
    screen_on=True,
)
REPEAT = Repeat(
    init_ms=5.0,
    first_ms=12.0,
    warmup_ms=11.0,
    samples_ms=[],
    median_ms=10.0,
    statistic="median",
    runs=50,
    outliers=[],
    delegation=CPU,
    runtime=None,
    peak_memory_bytes=None,
    before=CALM,
    after=CALM,
    log="logs/some.log",
    log_sha256="0" * 64,
)


def judged(
    repeats: Sequence[Repeat],
    *,
    golden: GoldenCheck | None = GOLDEN,
    precision: str | None = "float32",
    full_delegation: bool = False,
) -> tuple[str, str]:
    """With as many quiet repeats after them as a verdict needs."""
    quiet = replace(repeats[-1], before=Condition(at_s=0.0), after=Condition(at_s=0.0))
    repeats = [*repeats, *[quiet] * (MIN_REPEATS - len(repeats))]
    verdict, reasons = judge(
        repeats, golden=golden, precision=precision, full_delegation=full_delegation
    )
    assert (verdict is Verdict.VALID) == (not reasons)
    assert all("\n" not in reason for reason in reasons)
    return verdict.value, "; ".join(reasons)


def between(*conditions: Condition) -> list[Repeat]:
    """Repeats before and after which these conditions were seen."""
    return [replace(REPEAT, before=before, after=after) for before, after in pairwise(conditions)]


def after(**changes: object) -> list[Repeat]:
    """Three repeats; the condition changes for a moment, and comes back."""
    return between(CALM, CALM, replace(CALM, **changes), CALM)


def on(backend: str, delegated: int | None, nodes: int | None, actual: str = "") -> Repeat:
    name = "TfLiteGpuDelegateV2"
    return replace(
        REPEAT, delegation=Delegation(backend, actual or backend, name, delegated, nodes, 1)
    )


def test_nothing_disturbed_is_valid() -> None:
    assert judged([REPEAT] * 6) == judged([REPEAT] * 10) == ("VALID", "")


def test_unchecked_outputs_are_suspect() -> None:
    assert judged([REPEAT], golden=None) == (
        "SUSPECT", "outputs not checked: no golden pictures come with the file",
    )  # fmt: skip


# --- the backend ----------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 2])
def test_another_backend_in_any_repeat_is_invalid_and_the_only_reason(position: int) -> None:
    repeats = [on("gpu", 66, 66) for _ in range(3)]
    repeats[position] = replace(on("gpu", 0, 66, "cpu"), log="logs/that.log")
    assert judged(repeats, golden=None) == (
        "INVALID", "ran on cpu although gpu was asked for (logs/that.log)",
    )  # fmt: skip


def test_partial_delegation_is_suspect_or_invalid_where_full_was_asked() -> None:
    whole, all_but_one = on("gpu", 66, 66), on("gpu", 65, 66)
    for full in (False, True):
        assert judged([whole], full_delegation=full) == ("VALID", "")
    verdict, reason = judged([all_but_one])
    assert verdict == "SUSPECT" and reason == "65 of 66 operations on gpu, the rest on the CPU"
    verdict, reason = judged([whole, all_but_one], full_delegation=True)
    assert verdict == "INVALID" and reason.startswith("65 of 66 operations on gpu")


def test_partial_delegation_in_a_later_repeat_counts_too() -> None:
    verdict, reason = judged([on("gpu", 66, 66), on("gpu", 60, 66), on("gpu", 66, 66)])
    assert verdict == "SUSPECT" and "60 of 66" in reason


@pytest.mark.parametrize("delegated", [60, None])
def test_a_share_of_an_unknown_whole_is_not_taken_for_all_of_it(delegated: int | None) -> None:
    """Old builds name no total; where the log lost the delegates' lines, it names nothing."""
    verdict, reason = judged([on("gpu", delegated, None)])
    assert verdict == "SUSPECT" and "None" not in reason


@pytest.mark.parametrize("full", [False, True])
def test_what_xnnpack_leaves_to_the_other_kernels_is_the_cpu_too(full: bool) -> None:
    assert judged([on("cpu", 60, 66)], full_delegation=full) == ("VALID", "")


@pytest.mark.parametrize(
    ("backend", "precision", "verdict"),
    [("gpu", "int8", "SUSPECT"), ("gpu", "float16", "VALID"), ("gpu", "dynamic", "VALID"),
     ("gpu", None, "VALID"), ("cpu", "int8", "VALID"), ("nnapi", "int8", "VALID")],
)  # fmt: skip
def test_an_int8_time_of_the_gpu_is_none(backend: str, precision: str, verdict: str) -> None:
    found, reason = judged([on(backend, 66, 66)], precision=precision)
    assert found == verdict and ("no int8 time" in reason) == (verdict == "SUSPECT")


# --- heat -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "later", "verdict"),
    [(0, 0, "VALID"), (0, 1, "SUSPECT"), (1, 1, "VALID"), (2, 1, "VALID"), (1, 2, "SUSPECT"),
     (None, None, "VALID"), (0, None, "VALID"), (None, 0, "VALID"), (None, 1, "SUSPECT")],
)  # fmt: skip
def test_a_thermal_status_above_the_start_s(
    start: int | None, later: int | None, verdict: str
) -> None:
    first = replace(CALM, thermal_status=start)
    found, reason = judged(between(first, first, replace(first, thermal_status=later), first))
    assert found == verdict and ("thermal status rose" in reason) == (verdict == "SUSPECT")
    if verdict == "SUSPECT":
        assert reason.endswith(f"to {later}") and "None" not in reason


@pytest.mark.parametrize(
    ("celsius", "verdict"), [(34.5, "VALID"), (35.0, "VALID"), (35.1, "SUSPECT"), (20.0, "VALID")]
)
def test_a_sensor_may_warm_by_five_degrees(celsius: float, verdict: str) -> None:
    found, reason = judged(after(temperatures_c={"AP": celsius, "SKIN": 30.0}))
    assert found == verdict
    if verdict == "SUSPECT":
        assert reason == "AP warmed by 5.1 degrees, limit 5"


def test_the_sensor_that_warmed_most_is_named() -> None:
    _, reason = judged(after(temperatures_c={"AP": 36.0, "SKIN": 35.5}))
    assert reason == "SKIN warmed by 7.5 degrees, limit 5"


@pytest.mark.parametrize("temperatures", [{}, {"AP": 30.0}, {"AP": 30.0, "SKIN": 28.0, "new": 90}])
def test_sensors_may_come_and_go(temperatures: dict[str, float]) -> None:
    assert judged(after(temperatures_c=temperatures)) == ("VALID", "")
    bare = replace(CALM, temperatures_c={})
    assert judged(between(bare, replace(bare, temperatures_c=temperatures))) == ("VALID", "")


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "verdict"), [(2200.0, "VALID"), (2000.0, "VALID"), (1999.0, "SUSPECT")]
)
def test_a_core_may_be_slowed_to_its_clock_over_1_10(limit: float, verdict: str) -> None:
    found, reason = judged(after(clock_limits_mhz=(1800.0, limit)))
    assert found == verdict
    if verdict == "SUSPECT":
        assert reason == "core 1 was slowed from 2200 to 1999 MHz"


def test_the_clocks_of_the_moment_are_no_limit() -> None:
    assert judged(after(clocks_mhz=(300.0, 300.0))) == ("VALID", "")


@pytest.mark.parametrize("limits", [(), (1800.0, 2400.0)])
def test_unknown_and_higher_clocks_are_fine(limits: tuple[float, ...]) -> None:
    assert judged(after(clock_limits_mhz=limits)) == ("VALID", "")
    unknown = replace(CALM, clock_limits_mhz=())
    assert judged(between(unknown, replace(unknown, clock_limits_mhz=limits))) == ("VALID", "")


@pytest.mark.parametrize("limits", [(1800.0,), (1800.0, 2200.0, 2400.0)])
def test_a_core_that_goes_off_or_comes_on_in_mid_run_does_no_harm(
    limits: tuple[float, ...],
) -> None:
    verdict, reason = judged(after(clock_limits_mhz=limits))
    assert verdict != "INVALID" and "slowed from" not in reason


# --- battery and screen ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "verdict"), [(21, "VALID"), (20, "VALID"), (19, "SUSPECT"), (None, "VALID")]
)
def test_a_battery_below_20_percent(percent: int | None, verdict: str) -> None:
    found, reason = judged(after(battery_percent=percent))
    assert found == verdict
    if verdict == "SUSPECT":
        assert reason == "battery at 19 %, limit 20 %"


@pytest.mark.parametrize(
    ("screen_on", "verdict"), [(True, "VALID"), (None, "VALID"), (False, "SUSPECT")]
)
def test_a_screen_that_was_off_at_any_moment(screen_on: bool | None, verdict: str) -> None:
    found, reason = judged(after(screen_on=screen_on))
    assert found == verdict and ("screen was off" in reason) == (verdict == "SUSPECT")


# --- the core's own speed -------------------------------------------------------------------------


def at_speeds(*gflops: float | None) -> list[Repeat]:
    """Two figures a repeat."""
    bare = Condition(at_s=0.0)
    return [
        replace(
            REPEAT,
            before=replace(bare, reference_gflops=before),
            after=replace(bare, reference_gflops=later),
        )
        for before, later in zip(gflops[::2], gflops[1::2], strict=True)
    ]


@pytest.mark.parametrize(("slow", "verdict"), [(101, "VALID"), (100, "VALID"), (99, "SUSPECT")])
def test_a_core_whose_reference_falls_by_more_than_1_10(slow: float, verdict: str) -> None:
    found, reason = judged(at_speeds(slow, 110, 110, 110))
    assert found == verdict
    if verdict == "SUSPECT":
        assert reason == (
            "the core's own speed fell from 110 to 99 GFLOP/s during the run: slowed or shared"
        )
    assert judged(at_speeds(*[110] * 6))[0] == "VALID"


def test_a_tenth_of_slow_moments_is_let_pass_and_no_more() -> None:
    for slow, verdict in ((1, "VALID"), (2, "VALID"), (3, "SUSPECT")):
        assert judged(at_speeds(*[50.0] * slow, *[110.0] * (20 - slow)))[0] == verdict


def test_devices_without_a_reference() -> None:
    assert judged(at_speeds(None, None)) == ("VALID", "")
    assert judged(at_speeds(None, 100, None, 100)) == ("VALID", "")


# --- spread ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half", "told"), [(0.49, False), (0.5, False), (0.51, True)])
def test_medians_may_spread_by_a_tenth(half: float, told: bool) -> None:
    # Of three and three the 10th and 90th percentiles are the two values.
    repeats = [replace(REPEAT, median_ms=10 + d) for d in [-half] * 3 + [half] * 3]
    assert ("medians spread over 10%" in judged(repeats)[1]) == told


@pytest.mark.parametrize(("half", "verdict"), [(0.149, "VALID"), (0.151, "SUSPECT")])
def test_the_median_is_known_to_three_percent(half: float, verdict: str) -> None:
    # Of three and three the interval is all between the two values.
    repeats = [replace(REPEAT, median_ms=10 + d) for d in [-half] * 3 + [half] * 3]
    found, reason = judged(repeats)
    assert found == verdict and ("is known to 3.0% only" in reason) == (verdict == "SUSPECT")


@pytest.mark.parametrize("count", range(1, MIN_REPEATS))
def test_too_few_repeats_are_suspect_however_quiet(count: int) -> None:
    verdict, reasons = judge(
        [REPEAT] * count, golden=GOLDEN, precision="float32", full_delegation=False
    )
    assert verdict is Verdict.SUSPECT
    assert reasons == [f"too few repeats for a 95 % interval, {count}: give --repeats 6 or more"]


def test_every_disturbance_is_told() -> None:
    worse = replace(
        CALM, thermal_status=3, temperatures_c={"AP": 50.0}, clock_limits_mhz=[900.0, 900.0],
        battery_percent=5, screen_on=False,
    )  # fmt: skip
    repeats = [
        replace(on("gpu", 5, 66), before=CALM, after=worse, median_ms=median)
        for median in (5.0, 10.0)
    ]
    verdict, reasons = judge(repeats, golden=None, precision="int8", full_delegation=False)
    assert verdict is Verdict.SUSPECT
    words = ["not checked", "5 of 66", "no int8 time", "thermal status", "AP warmed", "core 0",
             "battery", "screen", "spread", "too few repeats"]  # fmt: skip
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
