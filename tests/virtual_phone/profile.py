"""What a phone is: `profiles/*.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Battery:
    """Charging over USB."""

    level: int
    temperature_c: float
    voltage_mv: int


@dataclass(frozen=True)
class Sensor:
    """One of the thermal service's.

    Attributes:
        type: as in `android.os.Temperature`: 0 CPU, 1 GPU, 2 battery, 3 skin.
        celsius: at rest.
        light_c: from here on the status is 1, light; 4 degrees more are 2, moderate.
    """

    name: str
    type: int
    celsius: float
    light_c: float


@dataclass(frozen=True)
class Profile:
    """One phone model with its Android version.

    Attributes:
        features: what its adbd announces.
        top_khz: each core's highest clock.
        cpu_parts: each core's part number in /proc/cpuinfo.
        cpu_hardware: the Hardware line there; empty where the kernel has none.
        gles: SurfaceFlinger's GLES line.
        fixed_performance: whether `cmd power set-fixed-performance-mode-enabled` works.
        log: which form benchmark_model's log has, `new` or `old`.
        nnapi_accelerators: empty where NNAPI does not work.
        sensors: empty where there is no thermal service.
    """

    name: str
    features: tuple[str, ...]
    kernel: str
    memory_kb: int
    storage_kb: int
    storage_used_kb: int
    top_khz: tuple[int, ...]
    cpu_parts: tuple[str, ...]
    cpu_hardware: str
    gles: str
    fixed_performance: bool
    log: str
    gpu_delegate: bool
    external_delegate: bool
    nnapi_accelerators: tuple[str, ...]
    properties: dict[str, str]
    battery: Battery
    sensors: tuple[Sensor, ...]

    @property
    def android(self) -> int:
        return int(self.properties["ro.build.version.release"])


PROFILES = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_profile(name: str) -> Profile:
    """One of `PROFILES`; a TypeError names a key that is unknown or missing."""
    with (_FOLDER / f"{name}.toml").open("rb") as file:
        content = tomllib.load(file)
    battery = Battery(**content.pop("battery"))
    sensors = tuple(Sensor(**s) for s in content.pop("sensors", ()))
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return Profile(name=name, battery=battery, sensors=sensors, **values)
