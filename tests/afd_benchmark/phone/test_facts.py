"""What phones say of themselves, Android 9 to 15, through a phone that answers from a table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace as changed

from afd_benchmark.phone.adb import SHORT_S, LocalFile, ShellOutput
from afd_benchmark.phone.facts import api_level, big_cores, read_condition, read_device
from afd_benchmark.results import Core, Device, Verdict
from afd_benchmark.verdict import judge
from tests.afd_benchmark.test_verdict import GOLDEN, REPEAT

PROPERTIES_9 = """\
[persist.sys.timezone]: [Asia/Kolkata]
[ro.board.platform]: [mt6761]
[ro.build.fingerprint]: [Nokia/Wasp_00WW/WSP_sprout:9/PPR1.180610.011/00WW_1_250:user/release-keys]
[ro.build.version.release]: [9]
[ro.build.version.sdk]: [28]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [HMD Global]
[ro.product.model]: [Nokia 2.2]
[ro.vendor.note]: [two
lines]
"""
PROPERTIES_15 = """\
[ro.board.platform]: [zuma]
[ro.build.version.release]: [15]
[ro.build.version.sdk]: [35]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
"""
BATTERY_9 = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 2835000
  status: 2
  health: 2
  present: true
  level: 63
  scale: 100
  voltage: 3921
  temperature: 283
  technology: Li-ion
"""
BATTERY_15 = """\
Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Dock powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 1989000
  status: 3
  health: 2
  present: true
  level: 47
  scale: 100
  voltage: 3870
  temperature: 301
  technology: Li-ion
  Charging state: 0
  Charging policy: 0
  Capacity level: -1
"""
# Samsung's, with its own lines before and after.
BATTERY_SAMSUNG = """\
Current Battery Service state:
  AC powered: true
  USB powered: false
  Wireless powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 3510000
  status: 2
  health: 2
  present: true
  level: 78
  scale: 100
  voltage: 4216
  temperature: 315
  technology: Li-ion
  batteryMiscEvent: 65536
  mSecPlugTypeSummary: 1
  LED Charging: true
  current now: 850
  Adaptive Fast Charging Settings: true
  FEATURE_HICCUP_CONTROL: true
"""
POWER_9 = """\
POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Awake
  mWakefulnessChanging=false
  mIsPowered=true
  mDisplayReady=true

Display Power: state=ON
"""
POWER_15 = """\
POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Dozing
  mWakefulnessChanging=false
  mInteractive=false
  mHoldingDisplaySuspendBlocker=false
"""
THERMAL_10 = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=24.0, mType=3, mName=SKIN, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=31.2, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=28.9, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=28.3, mType=2, mName=BAT, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 43.0, 45.0, NaN], mCold}
"""
THERMAL_15 = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 2  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=47.0, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=44.5, mType=1, mName=G3D, mStatus=0}
\tTemperature{mValue=41.0, mType=9, mName=TPU, mStatus=0}
\tTemperature{mValue=39.25, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
\tTemperature{mValue=-274.0, mType=3, mName=absent, mStatus=0}
\tTemperature{mValue=NaN, mType=3, mName=silent, mStatus=0}
\tTemperature{mValue=33.0, mType=4, mName=usb_pwr_therm, mStatus=0}
\tTemperature{mValue=3870.0, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=850.0, mType=7, mName=ibat, mStatus=0}
\tTemperature{mValue=53.0, mType=8, mName=soc, mStatus=0}
\tTemperature{mValue=20.0, mType=-1, mName=unknown, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=thermal-cpufreq-0}
"""
GLES_9 = "GLES: Imagination Technologies, PowerVR Rogue GE8300, OpenGL ES 3.2 build 1.10@5187610"
GLES_15 = """\
 ------------RE GLES (Ganesh)------------
EGL implementation : 1.5
EGL_KHR_get_all_proc_addresses EGL_ANDROID_presentation_time
GLES: ARM, Mali-G715, OpenGL ES 3.2 v1.r44p0-01eac0.0b0b, from a build of today
GL_EXT_debug_marker GL_ARM_rgba8
"""
CORES_4 = "".join(f"{n} 2001000 1500000 2001000\n" for n in range(4))
# As the shell sorts them, ten and more cores too; core 3 is off, core 4 hides its clock.
CORES_ODD = """\
0 1704000 - 1704000
1 1704000 324000 1704000
10 2914000 500000 2802000
2 1704000 324000 1704000
3 - - -
4 2367000 <unknown> 2367000
"""
ZONES = """\
mtktscpu 41234
mtktsbattery 30000
tsensor 37
broken -127000
modem -40000
xo-therm 0
bms 305
- 33000
unread -
with space 35500
"""


# What the little cores lack, no kernel can count on.
CPUINFO_15 = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp i8mm bf16 bti
CPU implementer\t: 0x41
CPU part\t: 0xd46

processor\t: 5
Features\t: fp asimd fphp asimdhp asimddp i8mm bf16 sve sve2 bti
CPU implementer\t: 0x41
CPU part\t: 0xd4e
"""


class TablePhone:
    """Answers commands from a table; what is not in the table is not there."""

    serial = "TABLE"
    now_s = 12.5

    def __init__(self, **table: str) -> None:
        """Names: getprop, meminfo, cpuinfo, cores, zones, taskset, or a service of dumpsys."""
        self.table = table

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        text = command if isinstance(command, str) else shlex.join(command)
        if text.startswith("taskset "):
            found = "taskset" in self.table
            assert text == "taskset 400 true" or not found  # core 10, of which the clock is known
            return ShellOutput(0 if found else 127, "", "")
        # Several commands may come at once, with words to tell their answers apart.
        parts = re.split(r"; echo '(.+?)'; ", text)
        answers = [f"{p}\n" if n % 2 else self._answer(p) for n, p in enumerate(parts)]
        return ShellOutput(0, "".join(answers), "")

    def _answer(self, command: str) -> str:
        if "cpuinfo_max_freq" in command:
            name = "cores"
        elif "thermal_zone" in command:
            name = "zones"
        elif command.startswith("cat /proc/"):
            name = command.removeprefix("cat /proc/")
        else:
            name = command.removeprefix("dumpsys ")
            assert command in ("getprop", f"dumpsys {name}")
        return self.table.get(name, "")

    def push(self, file: LocalFile, remote: str) -> None:
        raise AssertionError(remote)

    def pull(self, remote: str) -> bytes:
        raise AssertionError(remote)

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


ANDROID_9 = TablePhone(
    getprop=PROPERTIES_9, battery=BATTERY_9, power=POWER_9, SurfaceFlinger=GLES_9, cores=CORES_4,
    zones=ZONES, meminfo="MemTotal:        1925664 kB\nMemFree:  51200 kB\n",
    cpuinfo="processor\t: 0\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 crc32\n",
)  # fmt: skip
ANDROID_15 = TablePhone(
    getprop=PROPERTIES_15, battery=BATTERY_15, power=POWER_15, SurfaceFlinger=GLES_15,
    thermalservice=THERMAL_15, cores=CORES_ODD, zones=ZONES, taskset="",
    meminfo="MemTotal:        7729452 kB\n", cpuinfo=CPUINFO_15,
)  # fmt: skip


def condition_of(**table: str) -> dict[str, Any]:
    found = read_condition(TablePhone(**table))
    return {name: getattr(found, name) for name in found.__struct_fields__}


# --- the phone ------------------------------------------------------------------------------------


def test_android_9_with_half_of_the_services() -> None:
    assert read_device(ANDROID_9) == Device(
        name="TABLE", kind="phone", model="HMD Global Nokia 2.2", soc="mt6761",
        system="Android 9 (API 28)", abi="arm64-v8a", features=["NEON"],
        build="Nokia/Wasp_00WW/WSP_sprout:9/PPR1.180610.011/00WW_1_250:user/release-keys",
        cores=[Core(n, 2001.0) for n in range(4)],
        gpu="Imagination Technologies, PowerVR Rogue GE8300", memory_bytes=1925664 * 1024,
        lacks=["thermal status", "core pinning"],
    )  # fmt: skip


def test_android_15() -> None:
    assert read_device(ANDROID_15) == Device(
        name="TABLE", kind="phone", model="Google Pixel 8", soc="Google Tensor G3",
        system="Android 15 (API 35)", abi="arm64-v8a", build=None,
        features=["NEON", "FP16", "dot product", "I8MM", "BF16"],
        cores=[Core(0, 1704.0), Core(1, 1704.0), Core(2, 1704.0), Core(3, None), Core(4, 2367.0),
               Core(10, 2914.0)],
        gpu="ARM, Mali-G715", memory_bytes=7729452 * 1024, lacks=[],
    )  # fmt: skip


def test_a_phone_that_says_nothing_is_described_without_guesses() -> None:
    assert read_device(TablePhone()) == Device(
        name="TABLE", kind="phone", model="? ?", soc=None, system="Android ? (API ?)", abi="?",
        build=None, features=None, cores=[], gpu=None, memory_bytes=None,
        lacks=["thermal status", "temperatures", "clocks", "battery", "screen", "GPU name",
               "processor features", "core pinning"],
    )  # fmt: skip


def test_api_level() -> None:
    assert api_level(read_device(ANDROID_9)) == 28
    assert api_level(read_device(ANDROID_15)) == 35
    assert api_level(read_device(TablePhone())) == 0


@pytest.mark.parametrize(
    ("clocks", "count", "expected"),
    [
        ([1800] * 4 + [2400] * 3 + [2800], 1, [7]),
        ([1800] * 4 + [2400] * 3 + [2800], 2, [6, 7]),
        ([1800] * 4 + [2400] * 3 + [2800], 5, [3, 4, 5, 6, 7]),
        ([2800, 1800, 2400], 2, [0, 2]),
        ([2000] * 4, 2, []),  # all alike: nothing to choose
        ([2000, None, 2400], 1, [2]),  # core 1 is offline
        ([2000, None, 2000], 1, []),
        ([None, None], 1, []),
        ([], 1, []),
        ([1800, 2400], 2, [0, 1]),
    ],
)
def test_big_cores_are_the_fastest(
    clocks: list[float | None], count: int, expected: list[int]
) -> None:
    device = changed(read_device(TablePhone()), cores=[Core(n, c) for n, c in enumerate(clocks)])
    assert big_cores(device, count) == expected


# --- its condition --------------------------------------------------------------------------------


def test_the_thermal_service_s_current_temperatures() -> None:
    found = condition_of(thermalservice=THERMAL_10, zones=ZONES)
    assert found["thermal_status"] == 0
    assert found["temperatures_c"] == {"AP": 31.2, "SKIN": 28.9, "BAT": 28.3}


def test_only_sensors_that_tell_of_heat_and_work_count() -> None:
    found = condition_of(thermalservice=THERMAL_15)
    assert found["thermal_status"] == 2
    assert found["temperatures_c"] == {
        "BIG": 47.0, "G3D": 44.5, "TPU": 41.0, "VIRTUAL-SKIN": 39.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    "thermal",
    ["", "Permission Denial: can't dump thermalservice from from pid=3, uid=2000\n",
     "IsStatusOverride: false\nThermal Status: 1\nCached temperatures:\nHAL Ready: false\n"],
)  # fmt: skip
def test_without_sensors_there_the_kernel_s_zones_count(thermal: str) -> None:
    found = condition_of(thermalservice=thermal, zones=ZONES)
    assert found["thermal_status"] == (1 if "Status: 1" in thermal else None)
    assert found["temperatures_c"] == {
        "mtktscpu": 41.234, "mtktsbattery": 30.0, "tsensor": 37.0, "with space": 35.5,
    }  # fmt: skip


def test_zones_that_measure_charge_and_voltage_are_no_heat() -> None:
    """Qualcomm's kernels, up to about 2019, list their battery monitor among the zones."""
    zones = "cpu-1-0-usr 38200\nibat-high 1250\nvbat 4207\nvbat_low 4207\nsoc 71\n"
    assert condition_of(zones=zones)["temperatures_c"] == {"cpu-1-0-usr": 38.2}


def test_an_unreadable_temperature_is_left_out() -> None:
    thermal = THERMAL_10.replace("mValue=31.2", "mValue=-").replace("mValue=28.9", "mValue=1.2.3")
    assert condition_of(thermalservice=thermal)["temperatures_c"]["BAT"] == 28.3


@pytest.mark.parametrize(
    ("battery", "percent", "charging", "celsius"),
    [
        (BATTERY_9, 63, True, 28.3),
        (BATTERY_15, 47, False, 30.1),
        (BATTERY_SAMSUNG, 78, True, 31.5),
        (BATTERY_9.replace("temperature: 283", "temperature: -45"), 63, True, -4.5),
        (BATTERY_15.replace("Dock powered: false", "Dock powered: true"), 47, True, 30.1),
        (BATTERY_9.replace("\n", "\r\n"), 63, True, 28.3),
        ("", None, None, None),
    ],
)
def test_battery(
    battery: str, percent: int | None, charging: bool | None, celsius: float | None
) -> None:
    found = condition_of(battery=battery)
    assert (found["battery_percent"], found["charging"]) == (percent, charging)
    assert found["temperatures_c"] == ({} if celsius is None else {"battery": celsius})


@pytest.mark.parametrize(
    ("power", "screen_on"),
    [
        (POWER_9, True),
        (POWER_9.replace("state=ON", "state=OFF"), False),
        (POWER_9.replace("state=ON", "state=DOZE"), False),
        (POWER_15, False),
        (POWER_15.replace("Dozing", "Awake"), True),
        (POWER_15.replace("Dozing", "Asleep"), False),
        ("", None),
    ],
)
def test_screen(power: str, screen_on: bool | None) -> None:
    assert condition_of(power=power)["screen_on"] is screen_on


def test_clocks_are_in_the_cores_order() -> None:
    found = condition_of(
        cores="1 2400000 900000 2200000\n10 3 3000 4000\n0 1800000 300000 1800000\n"
    )
    assert found["clocks_mhz"] == (300.0, 900.0, 3.0)
    assert found["clock_limits_mhz"] == (1800.0, 2200.0, 4.0)


def test_unreadable_clocks_and_other_lines() -> None:
    found = condition_of(cores="0 - - -\nsh: cat: denied\n\n* - - -\n")
    assert found["clocks_mhz"] == () == found["clock_limits_mhz"]


def test_the_time_is_the_phone_s() -> None:
    assert condition_of()["at_s"] == 12.5


def test_a_phone_that_says_nothing_has_an_empty_condition() -> None:
    known = {k: v for k, v in condition_of().items() if v not in (None, (), {})}
    assert known == {"at_s": 12.5}


@pytest.mark.parametrize("first", ["off", "on"])
def test_a_small_core_that_is_switched_off_slows_no_other(first: str) -> None:
    """The kernel's hotplug takes a core's clocks away with it."""
    whole = "".join(
        f"{n} {c} {c} {c}\n" for n, c in enumerate([1800000, 1800000, 2800000, 2800000])
    )
    partly = whole.replace("1 1800000 1800000 1800000", "1 - - -")
    states = [partly, whole] if first == "off" else [whole, partly]
    before, after = (read_condition(TablePhone(cores=cores)) for cores in states)
    repeat = changed(REPEAT, before=before, after=after)
    verdict = judge([repeat] * 6, golden=GOLDEN, precision=None, full_delegation=False)
    assert verdict == (Verdict.VALID, [])


CASES_BATTERY = {
    # `present: false`: a board on mains power
    "no battery": ("present: true", "present: false", (None, None)),
    "of 200": ("level: 63\n  scale: 100", "level: 170\n  scale: 200", (85, 28.3)),
    "no sensor": ("temperature: 283", "temperature: 0", (63, None)),
    "more than all": ("level: 63", "level: 163", (None, 28.3)),
    "set by hand": (
        "Current Battery Service state:",
        "Current Battery Service state:\n  (UPDATES STOPPED -- use 'reset' to restart)",
        (None, None),
    ),
}


@pytest.mark.parametrize("case", CASES_BATTERY)
def test_battery_numbers_are_read_with_what_gives_them_meaning(case: str) -> None:
    before, after, (percent, degrees) = CASES_BATTERY[case]
    assert before in BATTERY_9
    found = condition_of(battery=BATTERY_9.replace(before, after))
    assert found["battery_percent"] == percent
    assert found["temperatures_c"].get("battery") == degrees
    assert found["charging"] is (None if case == "set by hand" else True)


def test_a_thermal_status_set_by_hand_is_unknown() -> None:
    found = condition_of(thermalservice=THERMAL_15.replace("Override: false", "Override: true"))
    assert found["thermal_status"] is None and found["temperatures_c"]["BIG"] == 47.0
