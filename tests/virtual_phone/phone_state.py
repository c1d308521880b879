"""A phone's state as its files and services show it, faults included."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.virtual_phone.faults import Fault, parse_faults
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.packages import Packages
from tests.virtual_phone.profile import Profile, Sensor

HEAT_PER_START_C = 6.0
COOLING_C_PER_S = 2.0
CLOCK_JUMP_S = 5 * 3600


@dataclass
class Invocation:
    """One start of benchmark_model.

    Attributes:
        arguments: as given, in the phone's paths.
        running: until its process has ended.
    """

    arguments: tuple[str, ...]
    pid: int
    running: bool = True


@dataclass
class PhoneState:
    """What tests look at afterwards, and what the stand-ins answer from.

    Attributes:
        commands: every command line that came over adb, as it came.
        settings: namespace -> key -> value, as `settings` keeps them.
        now_s: a clock that only goes on.
    """

    profile: Profile
    tree: FileTree
    commands: list[str] = field(default_factory=list)
    invocations: list[Invocation] = field(default_factory=list)
    settings: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "global": {"airplane_mode_on": "0", "stay_on_while_plugged_in": "0"},
            "system": {"screen_off_timeout": "30000", "screen_brightness": "102"},
            "secure": {},
        }
    )
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    fixed_performance: bool = False
    awake: bool = True
    faults: tuple[Fault, ...] = ()
    now_s: Callable[[], float] = time.monotonic
    _heat: tuple[float, float] = (0.0, 0.0)  # degrees above rest, and when
    _written: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.packages = Packages(self.profile, self.tree, self.has)
        self._booted_s = self.now_s() - 4217.0

    def set_faults(self, texts: Sequence[str]) -> None:
        """From now on; ValueError names one that there is not."""
        self.faults = parse_faults(texts)

    def has(self, fault: str) -> bool:
        return any(f.name == fault and f.hits(len(self.invocations)) for f in self.faults)

    def once(self, fault: str) -> bool:
        """Whether it is there; not any more from then on."""
        there = self.has(fault)
        if there:
            self.faults = tuple(f for f in self.faults if f.name != fault)
        return there

    def start(self, arguments: Sequence[str], pid: int) -> Invocation:
        """benchmark_model begins."""
        invocation = Invocation(tuple(self.tree.phone_text(a) for a in arguments), pid)
        self.invocations.append(invocation)
        if self.has("hot"):
            self._heat = (self.heat_c + HEAT_PER_START_C, self.now_s())
        return invocation

    # --- what changes with time and faults ----------------------------------------------------

    @property
    def heat_c(self) -> float:
        """Degrees above rest."""
        degrees, when = self._heat
        return max(0.0, degrees - COOLING_C_PER_S * (self.now_s() - when))

    def celsius(self, sensor: Sensor) -> float:
        # A battery warms slowest.
        return sensor.celsius + self.heat_c * (0.25 if sensor.type == 2 else 1.0)

    def status(self, sensor: Sensor) -> int:
        above = self.celsius(sensor) - sensor.light_c
        return 0 if above < 0 else min(6, 1 + int(above / 4))

    @property
    def thermal_status(self) -> int:
        return max((self.status(s) for s in self.profile.sensors), default=0)

    @property
    def battery_celsius(self) -> float:
        return self.profile.battery.temperature_c + 0.25 * self.heat_c

    @property
    def battery_level(self) -> int:
        return 9 if self.has("low-battery") else self.profile.battery.level

    @property
    def charging(self) -> bool:
        return not self.has("low-battery")

    @property
    def screen_on(self) -> bool:
        return self.awake and not self.has("screen-off")

    @property
    def clock_s(self) -> float:
        """Seconds since 1970, as the phone believes."""
        return time.time() + (CLOCK_JUMP_S if self.has("clock-jump") else 0)

    @property
    def storage_used_kb(self) -> int:
        profile = self.profile
        return profile.storage_kb if self.has("storage-full") else profile.storage_used_kb

    @property
    def online_cores(self) -> list[int]:
        cores = range(len(self.profile.top_khz))
        return [core for core in cores if core != 1 or not self.has("offline-core")]

    def current_khz(self, core: int) -> int:
        return self.profile.top_khz[core] * (6 if self.has("throttled") else 10) // 10

    # --- files ------------------------------------------------------------------------------------

    def write_files(self) -> None:
        """/proc and /sys as they are now."""
        up_s = self.now_s() - self._booted_s
        cores = range(len(self.profile.top_khz))
        free_kb = self.profile.memory_kb * 2 // 5
        files = {
            "proc/uptime": f"{up_s:.2f} {up_s * len(cores) * 0.8:.2f}",
            "proc/meminfo": _meminfo(self.profile.memory_kb, free_kb),
            "proc/cpuinfo": _cpuinfo(self.profile),
            "proc/sys/kernel/random/boot_id": self.boot_id,
            "proc/version": f"Linux version {self.profile.kernel} (build@host) SMP PREEMPT",
            "sys/devices/system/cpu/possible": f"0-{len(cores) - 1}",
            "sys/devices/system/cpu/online": f"0-{len(cores) - 1}",
        }
        online = self.online_cores
        files |= {
            f"sys/devices/system/cpu/cpu{core}/online": str(int(core in online)) for core in cores
        }
        for core in online:
            folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            files |= {
                f"{folder}/cpuinfo_max_freq": f"{self.profile.top_khz[core]}",
                f"{folder}/cpuinfo_min_freq": "300000",
                f"{folder}/scaling_cur_freq": f"{self.current_khz(core)}",
                f"{folder}/scaling_max_freq": f"{self.current_khz(core)}",
                f"{folder}/scaling_governor": "schedutil",
            }
        for number, (kind, celsius) in enumerate(self._zones()):
            folder = f"sys/class/thermal/thermal_zone{number}"
            files |= {f"{folder}/type": kind, f"{folder}/temp": f"{celsius * 1000:.0f}"}
        changed = {name: text for name, text in files.items() if self._written.get(name) != text}
        self._written |= changed
        for name, text in changed.items():
            path = self.tree.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: another shell may be reading.
            partial = path.with_name(f".{path.name}")
            partial.write_text(f"{text}\n", encoding="ascii")
            partial.rename(path)

    def _zones(self) -> list[tuple[str, float]]:
        zones = [(f"{s.name.lower()}-usr", self.celsius(s)) for s in self.profile.sensors]
        return zones or [("mtktscpu", 38.0 + self.heat_c), ("mtktsbattery", self.battery_celsius)]


def _meminfo(total_kb: int, free_kb: int) -> str:
    rows = {"MemTotal": total_kb, "MemFree": free_kb // 4, "MemAvailable": free_kb}
    return "\n".join(f"{k + ':':<16}{v:>8} kB" for k, v in rows.items())


def _cpuinfo(profile: Profile) -> str:
    blocks = [
        f"processor\t: {core}\nBogoMIPS\t: 38.40\n"
        "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part}\nCPU revision\t: 4\n"
        for core, part in enumerate(profile.cpu_parts)
    ]
    if profile.cpu_hardware:
        blocks.append(f"Hardware\t: {profile.cpu_hardware}")
    return "\n".join(blocks)
