"""Results made by hand: a host run, a phone's with every verdict, averages only, hostile names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

from msgspec.structs import replace

from afd_benchmark.report.accuracy import AccuracyReport, ConditionAccuracy, Estimate
from afd_benchmark.results import (
    RESULTS_SCHEMA_VERSION,
    Case,
    Condition,
    Core,
    Delegation,
    Device,
    GoldenCheck,
    ProfiledOperation,
    Ratio,
    Repeat,
    Results,
    Verdict,
)

PLAIN, CORRECTED = "mobilenet_v2-plain", "afd-mobilenet_v2-mobile"
HOSTILE = '<script>alert("x")</script>&amp;|$\\frac{1}{2}$`[a](b)_ |'
LONG = "a-name-that-somebody-made-up-with-everything-in-it-" * 4 + "float32.tflite"
CONDITIONS = ("clean", "QF 25", "QF 18", "QF 15", "QF 10", "QF 7")


def sha(text: str) -> str:
    return f"{sum(map(ord, text)):064x}"


def condition(minute: float, *, heat: float = 30.0, phone: bool = False) -> Condition:
    if not phone:
        return Condition(
            at_s=60 * minute, clocks_mhz=(2600.0,) * 4, reference_gflops=71.5 + heat / 9
        )
    return Condition(
        at_s=60 * minute,
        thermal_status=int(heat > 38),
        temperatures_c={"AP": heat, "SKIN": heat - 4, "BAT": 28.3},
        clock_limits_mhz=(*[1804.8] * 4, *[2419.2] * 3, 2841.6 if heat <= 38 else 2553.6),
        clocks_mhz=(*[1804.8] * 4, *[2419.2 - 20 * (heat - 30)] * 3, 2841.6 - 40 * (heat - 30)),
        battery_percent=round(90 - minute),
        charging=False,
        screen_on=True,
    )


def delegation(backend: str = "cpu", delegated: int = 66, nodes: int = 66) -> Delegation:
    name = {"cpu": "TfLiteXNNPackDelegate", "gpu": "TfLiteGpuDelegateV2"}.get(backend, backend)
    return Delegation(backend, backend, name, delegated, nodes, 1 if delegated == nodes else 3)


def repeat(
    n: int, centre: float, *, runs: int = 60, phone: bool = False, heat: float = 30.0,
    averages_only: bool = False, backend: str = "cpu", minute: float = 0.0,
) -> Repeat:  # fmt: skip
    """Samples around `centre` ms, the last one an outlier in every third repeat."""
    noise = random.Random(f"{n} {centre}")
    samples = [centre * noise.lognormvariate(0, 0.012) for _ in range(runs)]
    outliers = []
    if n % 3 == 0:
        samples[-1] = centre * (1.15 if n % 2 else 3.1)
        outliers = [runs - 1]
    start = minute + 0.7 * n
    return Repeat(
        init_ms=15.25 + n / 10,
        first_ms=1.3 * centre,
        warmup_ms=1.05 * centre,
        samples_ms=[] if averages_only else samples,
        median_ms=median(samples),
        statistic="mean" if averages_only else "median",
        runs=runs,
        outliers=[] if averages_only else outliers,
        delegation=delegation(backend),
        runtime=None if averages_only else "LiteRT 2.1.0",
        peak_memory_bytes=23_400_000,
        before=condition(start, heat=heat + 0.6 * n, phone=phone),
        after=condition(start + 0.6, heat=heat + 0.6 * n + 0.5, phone=phone),
        log=f"logs/{centre:g}-{n}.txt",
        log_sha256=sha(f"log {centre} {n}"),
    )


def timed_case(
    target: str, precision: str, centre: float, *, device: str = "host", backend: str = "cpu",
    threads: int = 1, verdict: Verdict = Verdict.VALID, reasons: Sequence[str] = (),
    ratio: float | None = None, repeats: Sequence[Repeat] | None = None, profiled: int = 0,
    file: str | None = None,
) -> Case:  # fmt: skip
    repeats = [repeat(n, centre) for n in range(10)] if repeats is None else list(repeats)
    every = sorted(v for r in repeats for v in r.samples_ms)
    medians = [r.median_ms for r in repeats]
    middle = median(medians)
    quarter = len(medians) // 4
    ordered = sorted(medians)
    file = file or f"{target}_{precision}.tflite"
    shares = [1 / (n + 2) / 4 for n in range(profiled)]
    return Case(
        target=target, file=file, sha256=sha(file), bytes=14_160_000, precision=precision,
        device=device, backend=backend, threads=threads, tool="LiteRT", verdict=verdict,
        reasons=list(reasons), median_ms=middle,
        ci95_ms=(ordered[quarter], ordered[-1 - quarter]),
        p90_ms=every[int(0.9 * len(every))] if every else None,
        p99_ms=every[int(0.99 * len(every))] if len(every) >= 1000 else None,
        spread=(max(medians) - min(medians)) / middle, init_ms=15.7, first_ms=1.31 * centre,
        warmup_ms=1.04 * centre, samples_ms=[r.samples_ms for r in repeats],
        multiply_adds=300_774_272, share_of_peak=0.382 if device == "host" else None,
        golden=GoldenCheck(4, 1.2e-5, 21.4, 118.0, 1.0, []), delegation=delegation(backend),
        ratio=None if ratio is None else Ratio(
            f"{PLAIN}_float32.tflite", sha(f"{PLAIN}_float32.tflite"), middle / ratio,
            Verdict.VALID, ratio, (ratio * 0.992, ratio * 1.008), 10,
        ),
        repeats=repeats,
        profile=[
            ProfiledOperation("CONV_2D", f"model/block_{n}/conv;model/block_{n}/Relu6", s * middle,
                              s, 1)
            for n, s in enumerate(shares)
        ],
    )  # fmt: skip


def results(devices: Sequence[Device], cases: Sequence[Case], day: int = 21) -> Results:
    return Results(
        schema_version=RESULTS_SCHEMA_VERSION,
        started_at=f"2026-11-{day}T10:00:00+00:00",
        finished_at=f"2026-11-{day}T10:19:30+00:00",
        settings={"repeats": "10", "runs": "60", "threads": "1"},
        seed=0,
        versions={"afd-mobile": "0.1.0", "ai-edge-litert": "2.1.0"},
        devices=list(devices),
        cases=list(cases),
    )


HOST = Device(
    "host", "host", "AMD EPYC 9654 96-Core Processor", None, "Linux 6.1", "x86_64",
    ["AVX2", "AVX-512F", "AVX512-VNNI"], [Core(n, 3700.0) for n in range(4)], None,
    135_000_000_000, ["temperatures"],
)  # fmt: skip
PHONE = Device(
    "7f3a91c2", "phone", "Xiaomi Mi 10", "Snapdragon 865", "Android 12 (API 31)", "arm64-v8a",
    ["NEON", "dot product"],
    [Core(n, mhz) for n, mhz in enumerate([1804.8] * 4 + [2419.2] * 3 + [2841.6])], "Adreno 650",
    7_800_000_000, [],
)  # fmt: skip
OLD_PHONE = Device(
    "127.0.0.1:5561@farm:5037", "phone", HOSTILE, None, "Android 9 (API 28)", "arm64-v8a",
    None, [Core(n, None) for n in range(4)], None, None, ["thermal service", "battery"],
)  # fmt: skip


def host_run() -> Results:
    """float32, float16 and int8 with raw samples and ratios; one is dear enough for a p99."""
    plain = replace(
        timed_case(PLAIN, "float32", 7.08), in_turn_with=sha(f"{CORRECTED}_float32.tflite")
    )
    long = [repeat(n, 8.6, runs=120) for n in range(10)]
    main = [
        timed_case(CORRECTED, "float32", 8.6, ratio=1.214, repeats=long, profiled=40),
        timed_case(CORRECTED, "float16", 8.71, ratio=1.23, profiled=3),
    ]
    assert plain.median_ms is not None
    return results(
        [HOST],
        [
            *(
                replace(case, ratio=replace(case.ratio, against_median_ms=plain.median_ms))
                for case in main
                if case.ratio
            ),
            timed_case(CORRECTED, "int8", 4.18, ratio=0.588),
            plain,
            replace(plain, in_turn_with=sha(f"{CORRECTED}_float16.tflite")),
        ],
    )


def phone_run() -> Results:
    """One case of every verdict."""
    cool = [repeat(n, 21.4, phone=True) for n in range(10)]
    hot = [repeat(n, 27.9, phone=True, heat=35, minute=7, backend="gpu") for n in range(10)]
    wrong = [repeat(0, 25.55, phone=True, backend="gpu", minute=14)]
    valid = timed_case(CORRECTED, "float32", 21.4, ratio=1.31, repeats=cool, device=PHONE.name)
    suspect = timed_case(
        CORRECTED, "float32", 27.9, backend="gpu", verdict=Verdict.SUSPECT, repeats=hot,
        ratio=1.08, reasons=["heat: thermal status rose from 0 to 1"], device=PHONE.name,
    )  # fmt: skip
    invalid = timed_case(
        CORRECTED, "float16", 25.55, backend="gpu", verdict=Verdict.INVALID, profiled=2,
        ratio=1.777, reasons=["outputs differ by 3.1, at most 0.05", "SNR 4.1 dB, at least 40"],
        repeats=wrong, device=PHONE.name,
    )  # fmt: skip
    skipped = Case(
        CORRECTED, f"{CORRECTED}_int8.tflite", sha("i"), 4_100_000, "int8", PHONE.name,
        backend="nnapi", threads=1, tool=None, verdict=Verdict.SKIPPED,
        reasons=["NNAPI is deprecated from Android 15"],
    )  # fmt: skip
    return results([PHONE], [valid, suspect, invalid, skipped], day=22)


def averages_run() -> Results:
    """A tool that prints averages only, on a phone that lacks half of the services."""
    averages = [
        replace(
            repeat(n, 143.0, averages_only=True), before=Condition(60 * n), after=Condition(60 * n)
        )
        for n in range(5)
    ]
    return results(
        [OLD_PHONE],
        [
            timed_case(HOSTILE, "float32", 143.0, device=OLD_PHONE.name, repeats=averages),
            timed_case("long", "float32", 9.9, device=OLD_PHONE.name, repeats=averages, file=LONG),
        ],
        day=23,
    )


def hostile_run() -> Results:
    """Every string that a device or a person can choose."""
    case = timed_case(
        HOSTILE, HOSTILE, 5.0, device=HOSTILE, backend=f"external:{HOSTILE}", file=HOSTILE,
        verdict=Verdict.SUSPECT, reasons=[HOSTILE, "小米手机\x00"], repeats=[repeat(0, 5.0)],
        profiled=1,
    )  # fmt: skip
    device = Device(
        HOSTILE,
        "phone",
        HOSTILE,
        "小米\x07",
        HOSTILE,
        HOSTILE,
        [HOSTILE],
        [],
        HOSTILE,
        None,
        [HOSTILE],
    )
    return results([device], [case])


def everything() -> list[Results]:
    return [host_run(), phone_run(), averages_run()]


def accuracy(file: str, drop: float, reference: str = f"{PLAIN}_float32.tflite") -> AccuracyReport:
    """Of `file`, known by its hash, against the plain classifier."""

    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.03, value + 0.03)

    return AccuracyReport(
        1, file, sha(file), reference, 500,
        [
            ConditionAccuracy(name, estimate(0.834 - drop * n), estimate(0.834 - 0.08 * n))
            for n, name in enumerate(CONDITIONS)
        ],
    )  # fmt: skip


def accuracies() -> list[AccuracyReport]:
    return [
        accuracy(f"{CORRECTED}_float32.tflite", 0.05),
        accuracy(f"{CORRECTED}_int8.tflite", 0.055),
        accuracy("somebody-elses.tflite", 0.01),
    ]
