"""What a phone says of itself and of its state; what it leaves out is said, not guessed."""

from __future__ import annotations

import re

from afd_benchmark.adb import Phone
from afd_benchmark.processor import processor_features
from afd_benchmark.results import Condition, Core, Device

# One line a core: number, top clock, clock now, highest clock allowed now, in kHz; - where unread.
_CORES = (
    "for c in /sys/devices/system/cpu/cpu[0-9]*; do "
    'echo "${c##*cpu}'
    " $(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null || echo -)"
    " $(cat $c/cpufreq/scaling_cur_freq 2>/dev/null || echo -)"
    ' $(cat $c/cpufreq/scaling_max_freq 2>/dev/null || echo -)"; done'
)
_ZONES = (
    "for z in /sys/class/thermal/thermal_zone*; do "
    'echo "$(cat $z/type 2>/dev/null || echo -) $(cat $z/temp 2>/dev/null || echo -)"; done'
)
_NEXT = "=== next ===\n"
_CONDITION = f"; echo '{_NEXT.strip()}'; ".join(
    ["dumpsys battery", "dumpsys power", "dumpsys thermalservice", _CORES, _ZONES]
)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?\d+(?:\.\d+)?), mType=(-?\d+), mName=([^,]+), ")
# Android's Temperature types that tell of the phone's heat: CPU, GPU, battery, skin, NPU.
_TELLING_TYPES = {"0", "1", "2", "3", "9"}
# Qualcomm's older kernels list their battery monitor among the thermal zones.
_NO_HEAT = re.compile(r"(soc|vbat|ibat|bcl)([-_]|$)")
# A sensor that is absent or broken says such things.
_PLAUSIBLE_C = (-20.0, 130.0)


def read_device(phone: Phone) -> Device:
    """Model, system, cores, GPU, memory; what it cannot say is in `lacks`."""
    properties = _properties(phone.shell(["getprop"]).stdout)
    cores = _cores(phone.shell(_CORES).stdout)
    gles = re.search(r"^\s*GLES: ([^\n]+)", phone.shell(["dumpsys", "SurfaceFlinger"]).stdout, re.M)
    memory = re.search(r"MemTotal:\s+(\d+) kB", phone.shell(["cat", "/proc/meminfo"]).stdout)
    features = processor_features(phone.shell(["cat", "/proc/cpuinfo"]).stdout)
    condition = read_condition(phone)
    missing = {
        "thermal status": condition.thermal_status is None,
        "temperatures": not condition.temperatures_c,
        "clocks": not condition.clocks_mhz,
        "battery": condition.battery_percent is None,
        "screen": condition.screen_on is None,
        "GPU name": gles is None,
        "processor features": features is None,
        "core pinning": phone.shell("command -v taskset").exit_code != 0,
    }
    soc = " ".join(
        p for k in ("ro.soc.manufacturer", "ro.soc.model") if (p := properties.get(k))
    ) or properties.get("ro.board.platform")
    return Device(
        name=phone.serial,
        kind="phone",
        model=" ".join(
            properties.get(f"ro.product.{key}", "?") for key in ("manufacturer", "model")
        ),
        soc=soc,
        system=(
            f"Android {properties.get('ro.build.version.release', '?')} "
            f"(API {properties.get('ro.build.version.sdk', '?')})"
        ),
        build=properties.get("ro.build.fingerprint"),
        abi=properties.get("ro.product.cpu.abi", "?"),
        features=features,
        cores=[Core(index, clock) for index, clock, _, _ in cores],
        gpu=", ".join(gles[1].split(", ")[:2]) if gles else None,
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        lacks=[what for what, absent in missing.items() if absent],
    )


def api_level(device: Device) -> int:
    """Android's; 0 where the phone does not say."""
    found = re.search(r"API (\d+)", device.system)
    return int(found[1]) if found else 0


def big_cores(device: Device, count: int) -> list[int]:
    """The `count` fastest by their top clocks; empty where clocks are unknown or all alike."""
    clocks = [core.max_mhz for core in device.cores]
    if None in clocks or len(set(clocks)) == 1:
        return []
    fastest = sorted(device.cores, key=lambda core: (core.max_mhz or 0, core.index))
    return sorted(core.index for core in fastest[-count:])


def read_condition(phone: Phone) -> Condition:
    """Heat, clocks, battery and screen at this moment, in one exchange."""
    said = phone.shell(_CONDITION).stdout.replace("\r\n", "\n").split(_NEXT)
    battery, power, thermal, cores_text, zones = [*said, *[""] * 5][:5]
    temperatures = _reported_temperatures(thermal) or _zone_temperatures(zones)
    battery_temperature = re.search(r"^\s*temperature: (-?\d+)", battery, re.M)
    if battery_temperature:
        temperatures.setdefault("battery", int(battery_temperature[1]) / 10)
    cores = _cores(cores_text)
    status = re.search(r"Thermal Status: (\d+)", thermal)
    level = re.search(r"^\s*level: (\d+)", battery, re.M)
    powered = re.findall(r"^\s*(?:AC|USB|Wireless|Dock) powered: (\w+)", battery, re.M)
    awake = re.search(r"mWakefulness=(\w+)", power)
    display = re.search(r"Display Power: state=(\w+)", power)
    return Condition(
        at_s=phone.now_s,
        thermal_status=int(status[1]) if status else None,
        temperatures_c=temperatures,
        clocks_mhz=_known([now for _, _, now, _ in cores]),
        clock_limits_mhz=_known([limit for _, _, _, limit in cores]),
        battery_percent=int(level[1]) if level else None,
        charging="true" in powered if powered else None,
        screen_on=_screen_on(awake and awake[1], display and display[1]),
    )


def _known(clocks: list[float | None]) -> tuple[float | None, ...]:
    """Empty where the phone shows none at all."""
    return tuple(clocks) if any(clock is not None for clock in clocks) else ()


def _screen_on(wakefulness: str | None, display: str | None) -> bool | None:
    if display is not None:
        return display == "ON"
    return wakefulness == "Awake" if wakefulness is not None else None


def _properties(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\[([^\]]+)\]: \[([^\]]*)\]", text, re.M))


def _cores(text: str) -> list[tuple[int, float | None, float | None, float | None]]:
    """(number, top, now, allowed) of every core, clocks in MHz."""
    cores = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and words[0].isdecimal():
            top, now, allowed = map(_mhz, words[1:])
            cores.append((int(words[0]), top, now, allowed))
    return sorted(cores, key=lambda core: core[0])


def _mhz(word: str) -> float | None:
    return int(word) / 1000 if word.isdecimal() else None


def _reported_temperatures(thermal: str) -> dict[str, float]:
    """From dumpsys thermalservice; the last list it prints (from the HAL) is the current one."""
    return {
        name: float(value)
        for value, kind, name in _TEMPERATURE.findall(thermal)
        if kind in _TELLING_TYPES and _plausible(float(value))
    }


def _zone_temperatures(text: str) -> dict[str, float]:
    """Older phones: the kernel's own zones, in thousandths of a degree (a few: in degrees)."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and name != "-" and not _NO_HEAT.match(name) and re.fullmatch(r"-?\d+", value):
            degrees = int(value) / 1000 if abs(int(value)) > 1000 else float(value)
            if _plausible(degrees) and degrees:
                found[name] = degrees
    return found


def _plausible(degrees: float) -> bool:
    low, high = _PLAUSIBLE_C
    return low < degrees < high
