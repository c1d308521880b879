"""Devices, their condition and finished cases, each on one line for people."""

from __future__ import annotations

from collections import Counter

from afd_benchmark.number_format import bracketed, counted, decimals, number, size, time_scale
from afd_benchmark.report.cases import NO_INTERVAL, against
from afd_benchmark.results import Case, Condition, Device
from afd_mobile.common.terminal import printable


def describe(device: Device) -> str:
    """A device on one line."""
    parts = [
        device.model,
        device.soc,
        device.system,
        device.abi,
        " ".join(device.features or []),
        _cores(device),
        device.gpu,
        size(device.memory_bytes) if device.memory_bytes else None,
    ]
    lacks = f"; does not say: {', '.join(device.lacks)}" if device.lacks else ""
    return printable(", ".join(p for p in parts if p) + lacks)


def _cores(device: Device) -> str:
    """Such as "1 x 2.84 + 3 x 2.42 + 4 x 1.80 GHz"."""
    clocks = Counter(core.max_mhz for core in device.cores if core.max_mhz)
    if not clocks:
        return f"{len(device.cores)} cores"
    clusters = sorted(clocks.items(), reverse=True)
    return " + ".join(f"{count} x {mhz / 1000:.2f}" for mhz, count in clusters) + " GHz"


def case_line(case: Case) -> str:
    """A finished case on one line, without its reasons."""
    words = [f"{case.verdict.value:<8}", f"{case.file}", f"{case.backend} x{case.threads}"]
    words.insert(1, case.device)
    if case.median_ms is not None:
        scale = time_scale(case.median_ms, case.ci95_ms)
        words.append(f"{scale.time(case.median_ms)} {scale.interval(case.ci95_ms) or NO_INTERVAL}")
    if (ratio := case.ratio) is not None:
        places = decimals(ratio.ratio, ratio.ci95)
        interval = bracketed(ratio.ci95, places) or NO_INTERVAL
        words.append(f"{number(ratio.ratio, places)} x {against(ratio)} {interval}")
        words.append(f"median of {counted(ratio.rounds, 'round')}")
    return printable("  ".join(words))


def reason_lines(case: Case) -> list[str]:
    """What stands below the case's line, indented to the device's name."""
    return [printable(f"{'':10}{reason}") for reason in case.reasons]


def describe_condition(condition: Condition) -> str:
    """What the phone is like now."""
    hottest = max(condition.temperatures_c.items(), key=lambda item: item[1], default=None)
    parts = [
        "" if condition.battery_percent is None else f"battery {condition.battery_percent} %",
        "charging" if condition.charging else "",
        f"{hottest[0]} at {hottest[1]:.1f} degrees" if hottest else "",
        f"thermal status {condition.thermal_status}"
        if condition.thermal_status is not None
        else "",
        {True: "screen on", False: "screen off", None: ""}[condition.screen_on],
    ]
    return printable(", ".join(part for part in parts if part)) or "unknown"
