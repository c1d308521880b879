"""What a phone says of itself and of its state; what it leaves out is said, not guessed."""

from __future__ import annotations

import re

from afd_benchmark.phone.adb import Phone
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
        "core pinning": not _can_pin(phone, cores),
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


def _can_pin(
    phone: Phone, cores: list[tuple[int, float | None, float | None, float | None]]
) -> bool:
    """By trying: some makers' phones have `taskset` and refuse it to adb's shell."""
    online = [index for index, top, _, _ in cores if top is not None] or [0]
    return phone.shell(["taskset", f"{1 << online[-1]:x}", "true"]).exit_code == 0


def identity(phone: Phone) -> tuple[str, ...]:
    """What two connections to one phone, by cable and by Wi-Fi, have in common.

    Serial numbers alone are not enough: emulators and cheap boards share theirs.
    """
    said = phone.shell("getprop ro.serialno; cat /proc/sys/kernel/random/boot_id").stdout.split()
    return tuple(said) if len(said) == 2 else (phone.serial,)


def api_level(device: Device) -> int:
    """Android's; 0 where the phone does not say."""
    found = re.search(r"API (\d+)", device.system)
    return int(found[1]) if found else 0


def big_cores(device: Device, count: int) -> list[int]:
    """The `count` fastest by their top clocks; empty where they are all alike.

    A core that is offline shows no clock, and takes no thread.
    """
    clocks = {core.index: core.max_mhz for core in device.cores if core.max_mhz is not None}
    if len(set(clocks.values())) <= 1:
        return []
    fastest = sorted(clocks, key=lambda index: (clocks[index], index))
    return sorted(fastest[-count:])


def read_condition(phone: Phone) -> Condition:
    """Heat, clocks, battery and screen at this moment, in one exchange.

    What somebody has set by hand (`dumpsys battery set`, `cmd thermalservice override-status`) is
    no measurement, and unknown.
    """
    said = phone.shell(_CONDITION).stdout.replace("\r\n", "\n").split(_NEXT)
    battery, power, thermal, cores_text, zones = [*said, *[""] * 5][:5]
    temperatures = _reported_temperatures(thermal) or _zone_temperatures(zones)
    percent, battery_c, charging = _battery(battery)
    if battery_c is not None:
        temperatures.setdefault("battery", battery_c)
    cores = _cores(cores_text)
    status = re.search(r"Thermal Status: (\d+)", thermal)
    if "IsStatusOverride: true" in thermal:
        status = None
    awake = re.search(r"mWakefulness=(\w+)", power)
    display = re.search(r"Display Power: state=(\w+)", power)
    return Condition(
        at_s=phone.now_s,
        thermal_status=int(status[1]) if status else None,
        temperatures_c=temperatures,
        clocks_mhz=_known([now for _, _, now, _ in cores]),
        clock_limits_mhz=_known([limit for _, _, _, limit in cores]),
        battery_percent=percent,
        charging=charging,
        screen_on=_screen_on(awake and awake[1], display and display[1]),
    )


def _battery(text: str) -> tuple[int | None, float | None, bool | None]:
    """(level in percent, degrees, charging), by the lines that give the numbers their meaning."""
    values = dict(re.findall(r"^\s*([\w ]+): (\S*)\s*$", text, re.M))
    if "UPDATES STOPPED" in text:
        return None, None, None
    powered = [v for k, v in values.items() if k.endswith(" powered")]
    charging = "true" in powered if powered else None
    if values.get("present") == "false":
        return None, None, charging
    level, scale, tenths = (_integer(values.get(k)) for k in ("level", "scale", "temperature"))
    known = level is not None and 0 <= level <= (scale or 100)
    percent = round(100 * level / (scale or 100)) if level is not None and known else None
    # Exactly 0 degrees is what a board without a sensor says.
    return percent, tenths / 10 if tenths else None, charging


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


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
