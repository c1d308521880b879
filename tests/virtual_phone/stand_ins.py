"""What Android's commands answer: the other end of `bin/stand_in`.

Texts as Android's services print them (`ThermalManagerService.dumpInternal`, `BatteryService.dump`,
`PowerManagerService.dumpInternal` and their like), shortened to the parts that tools read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.virtual_phone.packages import parse_start
from tests.virtual_phone.phone_state import PhoneState
from tests.virtual_phone.profile import Sensor

# As Android 12 prints it where a vendor does not let adb's shell write settings.
_DENIED = (
    "\nException occurred while executing 'put':\n"
    "java.lang.SecurityException: Permission denial: writing to settings requires:"
    "android.permission.WRITE_SECURE_SETTINGS\n"
    "\tat com.android.providers.settings.SettingsProvider.enforceWritePermission"
    "(SettingsProvider.java:1)\n"
    "\tat android.os.Binder.execTransact(Binder.java:1)\n"
)
_STAY_ON = {"true": "15", "false": "0", "usb": "2", "ac": "1", "wireless": "4"}


@dataclass(frozen=True)
class Answer:
    """What a stand-in prints, its exit code, and what it becomes instead of ending."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0
    run: tuple[str, ...] = field(default=())


Command = Callable[[PhoneState, list[str]], Answer]


def answer(phone: PhoneState, arguments: list[str]) -> Answer:
    """Of a command line; the name, without folder, comes first."""
    name, *rest = arguments
    return COMMANDS[name](phone, rest)


def _lines(lines: Iterable[str]) -> Answer:
    return Answer("".join(f"{line}\n" for line in lines))


def _getprop(phone: PhoneState, arguments: list[str]) -> Answer:
    properties = phone.profile.properties
    if not arguments:
        return _lines(f"[{k}]: [{v}]" for k, v in sorted(properties.items()))
    default = arguments[1] if len(arguments) > 1 else ""
    return _lines([properties.get(arguments[0], default)])


def _settings(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["get", space, key] if space in phone.settings:
            return _lines([phone.settings[space].get(key, "null")])
        case ["put", *_] if phone.has("settings-denied"):
            return Answer(stderr=_DENIED, code=255)
        case ["put", space, key, value, *_] if space in phone.settings:
            phone.settings[space][key] = value
            return Answer()
        case ["delete", space, key] if space in phone.settings:
            found = phone.settings[space].pop(key, None)
            return _lines([f"Deleted {int(found is not None)} rows"])
        case ["list", space] if space in phone.settings:
            return _lines(f"{k}={v}" for k, v in sorted(phone.settings[space].items()))
    return Answer(stderr="Invalid arguments to settings\n", code=255)


def _svc(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["power", "stayon", how] if how in _STAY_ON:
            phone.settings["global"]["stay_on_while_plugged_in"] = _STAY_ON[how]
            return Answer()
    return Answer(stderr="Available commands:\n    help\n    power\n", code=255)


def _input(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["keyevent", "KEYCODE_WAKEUP" | "224"]:
            phone.awake = True
        case ["keyevent", "KEYCODE_SLEEP" | "223"]:
            phone.awake = False
        case ["keyevent", "KEYCODE_POWER" | "26"]:
            phone.awake = not phone.awake
        case ["keyevent" | "tap" | "swipe" | "text", *_]:
            pass
        case _:
            return Answer(stderr="Error: Invalid arguments for command: \n", code=255)
    return Answer()


def _cmd(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["power", "set-fixed-performance-mode-enabled", value] if phone.profile.android >= 11:
            if not phone.profile.fixed_performance:
                return Answer(
                    stderr="Failed to set FIXED_PERFORMANCE mode\n"
                    "This is likely because Power HAL AIDL is not implemented on this device\n",
                    code=255,
                )
            if value == "false" and phone.has("fixed-performance-stays"):
                return Answer(stderr="Failed to set FIXED_PERFORMANCE mode\n", code=255)
            phone.fixed_performance = value == "true"
            return Answer()
        case ["settings", *rest]:
            return _settings(phone, rest)
        case ["package", *rest]:
            return _pm(phone, rest)
        case ["activity", *rest]:
            return _am(phone, rest)
        case ["power", command, *_]:
            return Answer(f"Unknown command: {command}\n", code=255)
        case [service, *_]:
            return Answer(stderr=f"cmd: Can't find service: {service}\n", code=20)
    return Answer(stderr="cmd: No service specified; use -l to list all services\n", code=20)


def _pm(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["list", "packages", *options]:
            names = [o for o in options if not o.startswith("-")]
            system = (
                [] if "-3" in options else ["android", "com.android.settings", "com.android.shell"]
            )
            found = [*system, *phone.packages.names]
            return _lines(f"package:{p}" for p in found if all(n in p for n in names))
        case ["path", package]:
            if package not in phone.packages.names:
                return Answer(code=1)
            return _lines([f"package:{phone.tree.phone_text(str(phone.packages.path(package)))}"])
        case ["install", *options] if options:
            return _done(phone.packages.install(Path(options[-1])))
        case ["uninstall", package]:
            return _done(phone.packages.uninstall(package))
        case [command, *_]:
            return Answer(f"Unknown command: {command}\n", code=255)
    return Answer("Package manager (package) commands:\n", code=255)


def _done(text: str) -> Answer:
    return Answer(f"{text}\n", code=int(text != "Success"))


def _am(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["start", *options] if (asked := parse_start(options)) is not None:
            package, name, extras = asked
            short = name.removeprefix(package)
            said = f"Starting: Intent {{ cmp={package}/{short} }}\n"
            if not phone.packages.has_activity(package, name):
                full = package + name if name.startswith(".") else name
                wrong = f"Activity class {{{package}/{full}}} does not exist."
                return Answer(said, f"Error type 3\nError: {wrong}\n", 1)
            phone.start((package, *extras.values()), 0).running = False
            phone.packages.start(package, extras)
            return Answer(said)
        case ["get-current-user"]:
            return _lines(["10" if phone.has("second-user") else "0"])
        case ["force-stop" | "kill", package]:
            phone.packages.stop(package)
            return Answer()
        case [command, *_]:
            return Answer(stderr=f"Unknown command: {command}\n", code=255)
    return Answer(stderr="Activity manager (activity) commands:\n", code=255)


def _logcat(phone: PhoneState, arguments: list[str]) -> Answer:
    if "-c" in arguments:
        phone.packages.log.clear()
        return Answer()
    return _lines(["--------- beginning of main", *phone.packages.log])


# --- dumpsys --------------------------------------------------------------------------------------


def _dumpsys(phone: PhoneState, arguments: list[str]) -> Answer:
    match arguments:
        case ["battery", *_]:
            return _lines(_battery(phone))
        case ["power", *_]:
            return _lines(_power(phone))
        case ["SurfaceFlinger", *_]:
            return _lines(["EGL implementation : 1.5", f"GLES: {phone.profile.gles}"])
        case ["thermalservice"] if phone.profile.sensors:
            return _lines(_thermalservice(phone))
    # As it is: an exit code of 0.
    return Answer(stderr=f"Can't find service: {' '.join(arguments[:1])}\n")


def _battery(phone: PhoneState) -> list[str]:
    if phone.has("no-battery"):
        return [
            "Current Battery Service state:",
            "  AC powered: true",
            "  USB powered: false",
            "  Wireless powered: false",
            "  status: 1",
            "  health: 1",
            "  present: false",
            "  level: 0",
            "  scale: 100",
            "  voltage: 0",
            "  temperature: 0",
            "  technology: ",
        ]
    charging = phone.charging
    dock = ["  Dock powered: false"] if phone.profile.android >= 13 else []
    return [
        "Current Battery Service state:",
        "  AC powered: false",
        f"  USB powered: {str(charging).lower()}",
        "  Wireless powered: false",
        *dock,
        "  Max charging current: 500000",
        "  Max charging voltage: 5000000",
        f"  Charge counter: {phone.battery_level * 43000}",
        f"  status: {2 if charging else 3}",
        "  health: 2",
        "  present: true",
        f"  level: {phone.battery_level}",
        "  scale: 100",
        f"  voltage: {phone.profile.battery.voltage_mv}",
        f"  temperature: {phone.battery_celsius * 10:.0f}",
        "  technology: Li-ion",
    ]


def _power(phone: PhoneState) -> list[str]:
    wakefulness = "Awake" if phone.screen_on else "Asleep"
    stay_on = phone.settings["global"].get("stay_on_while_plugged_in", "0")
    return [
        "POWER MANAGER (dumpsys power)",
        "",
        "Power Manager State:",
        "  mDirty=0x0",
        f"  mWakefulness={wakefulness}",
        "  mWakefulnessChanging=false",
        f"  mIsPowered={str(phone.charging).lower()}",
        "  mPlugType=2",
        f"  mBatteryLevel={phone.battery_level}",
        f"  mStayOn={str(stay_on != '0').lower()}",
        "",
        "Settings and Configuration:",
        f"  mStayOnWhilePluggedInSetting={stay_on}",
        f"  mScreenOffTimeoutSetting={phone.settings['system']['screen_off_timeout']}",
        "",
        f"Display Power: state={'ON' if phone.screen_on else 'OFF'}",
    ]


def _thermalservice(phone: PhoneState) -> list[str]:
    def temperature(sensor: Sensor) -> str:
        return (
            f"\tTemperature{{mValue={phone.celsius(sensor):.1f}, mType={sensor.type}, "
            f"mName={sensor.name}, mStatus={phone.status(sensor)}}}"
        )

    def threshold(sensor: Sensor) -> str:
        hot = ", ".join(f"{sensor.light_c + 4 * i:.1f}" for i in range(6))
        cold = ", ".join(["NaN"] * 7)
        return (
            f"\tTemperatureThreshold{{mType={sensor.type}, mName={sensor.name}, "
            f"mHotThrottlingThresholds=[NaN, {hot}], mColdThrottlingThresholds=[{cold}]}}"
        )

    listeners = ["\tcallbacks: 1", "\tkilled: false", "\tbroadcasts count: -1"]
    sensors = phone.profile.sensors
    hal = "\tThermalHAL AIDL 1  connected: yes" if phone.profile.android >= 14 else (
        "\tThermalHAL 2.0 connected: yes"
    )  # fmt: skip
    return [
        "IsStatusOverride: false",
        "ThermalEventListeners:",
        *listeners,
        "ThermalStatusListeners:",
        *listeners,
        f"Thermal Status: {phone.thermal_status}",
        "Cached temperatures:",
        *map(temperature, sensors),
        "HAL Ready: true",
        "HAL connection:",
        hal,
        "Current temperatures from HAL:",
        *map(temperature, sensors),
        "Current cooling devices from HAL:",
        "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}",
        "Temperature static thresholds from HAL:",
        *map(threshold, sensors),
    ]


# --- toybox ---------------------------------------------------------------------------------------


def _taskset(phone: PhoneState, arguments: list[str]) -> Answer:
    """Checks the mask and runs the command on whatever cores the host has."""
    if len(arguments) < 2 or arguments[0].startswith("-"):
        return Answer(stderr="usage: taskset [-ap] [mask] [PID | cmd [args...]]\n", code=1)
    mask, *command = arguments
    try:
        cores = int(mask, 16)
    except ValueError:
        return Answer(stderr=f"taskset: bad mask '{mask}'\n", code=1)
    if phone.has("taskset-denied"):
        said = f"taskset: failed to set {os.getpid()}'s affinity: Operation not permitted\n"
        return Answer(stderr=said, code=1)
    if not cores & sum(1 << core for core in phone.online_cores):
        return Answer(
            stderr=f"taskset: failed to set {os.getpid()}'s affinity: Invalid argument\n", code=1
        )
    return Answer(run=tuple(command))


def _date(phone: PhoneState, arguments: list[str]) -> Answer:
    return Answer(run=("/bin/date", "-d", f"@{phone.clock_s:.9f}", *arguments))


def _df(phone: PhoneState, arguments: list[str]) -> Answer:
    human = any(a.startswith("-") and "h" in a for a in arguments)
    total, used = phone.profile.storage_kb, phone.storage_used_kb
    numbers = [f"{n / 2**20:.0f}G" if human else str(n) for n in (total, used, total - used)]
    header = ["Size", "Used", "Avail"] if human else ["1K-blocks", "Used", "Available"]
    share = f"{-(-100 * used // total)}%"
    rows = [
        ["Filesystem", *header, "Use%", "Mounted on"],
        ["/dev/block/dm-5", *numbers, share, "/data"],
    ]
    return _lines("{:<16} {:>9} {:>9} {:>9} {:>4} {}".format(*row) for row in rows)


def _uname(phone: PhoneState, arguments: list[str]) -> Answer:
    parts = {"s": "Linux", "n": "localhost", "r": phone.profile.kernel, "m": "aarch64"}
    asked = "".join(arguments).replace("-", "") or "s"
    return _lines([" ".join(v for k, v in parts.items() if k in asked or "a" in asked)])


def _id(phone: PhoneState, arguments: list[str]) -> Answer:
    if "-u" in arguments:
        return _lines(["2000"])
    return _lines(["uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),1007(log)"])


def _pidof(phone: PhoneState, arguments: list[str]) -> Answer:
    pids = [str(i.pid) for i in phone.invocations if i.running and "benchmark_model" in arguments]
    pids += [str(pid) for name in arguments if (pid := phone.packages.pid(name)) is not None]
    return Answer(" ".join(pids) + "\n") if pids else Answer(code=1)


def _pkill(phone: PhoneState, arguments: list[str]) -> Answer:
    """Ends benchmark_model, and never anything else of the host's."""
    patterns = [a for a in arguments if not a.startswith("-")]
    running = [i for i in phone.invocations if i.running and "benchmark_model" in "".join(patterns)]
    for invocation in running:
        os.kill(invocation.pid, signal.SIGKILL)
    return Answer(code=0 if running else 1)


COMMANDS: dict[str, Command] = {
    "am": _am,
    "cmd": _cmd,
    "date": _date,
    "df": _df,
    "dumpsys": _dumpsys,
    "getprop": _getprop,
    "id": _id,
    "input": _input,
    "killall": _pkill,
    "logcat": _logcat,
    "nproc": lambda phone, arguments: _lines([str(len(phone.profile.top_khz))]),
    "pidof": _pidof,
    "pkill": _pkill,
    "pm": _pm,
    "settings": _settings,
    "svc": _svc,
    "taskset": _taskset,
    "uname": _uname,
    "whoami": lambda phone, arguments: _lines(["shell"]),
}
