"""A phone taken for one run: locked, kept awake, at a fixed clock, and left as it was found."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from afd_benchmark.phone.adb import LocalFile, Phone, RefusedError, checked
from afd_benchmark.phone.facts import api_level, read_condition
from afd_benchmark.results import Condition, Device
from afd_mobile.common.errors import AfdError, DeviceError

FOLDER = PurePosixPath("/data/local/tmp/afd")
_OWNER = FOLDER / "owner"
_STAY_ON = "stay_on_while_plugged_in"
# How far above the start a sensor may be before the next repeat begins.
_WARM_C = 2.0
_LOOK_AGAIN_S = 5.0


def owner_name() -> str:
    """Who runs this, for the lock on the phone."""
    # Containers may share a host's name, and have processes of their own.
    processes = Path("/proc/self/ns/pid")
    inside = f" ({processes.stat().st_ino})" if processes.exists() else ""
    return f"{getpass.getuser()}@{socket.gethostname()}{inside}, process {os.getpid()}"


class PhoneSession:
    """What a run needs of its phone; made by `open_session`.

    Attributes:
        start: the condition to which `cool_down` returns.
    """

    def __init__(self, phone: Phone, device: Device) -> None:
        self.phone = phone
        self.device = device
        self.start = read_condition(phone)
        self._latest: Condition | None = self.start
        self._pushed: dict[str, str] = {}

    def push(self, file: LocalFile, name: str, *, executable: bool = False) -> str:
        """Puts a file into the run's folder unless it is there; returns its path on the phone.

        Raises:
            DeviceError: no room, or what arrived is not what was sent.
        """
        remote = str(FOLDER / name)
        if self._pushed.get(remote) == file.sha256:
            return remote
        try:
            self.phone.push(file, remote)
        except RefusedError as error:
            raise DeviceError(
                f"{self.phone.serial}: {remote} cannot be written: {error}; {self._room()}"
            ) from error
        arrived = checked(self.phone, ["sha256sum", remote]).split()
        if not arrived or arrived[0] != file.sha256:
            raise DeviceError(
                f"{self.phone.serial}: {remote} did not arrive whole; {self._room()}; try again"
            )
        if executable:
            checked(self.phone, ["chmod", "755", remote])
        self._pushed[remote] = file.sha256
        return remote

    def cool_down(self, limit_s: float, progress: Callable[[str], None]) -> Condition:
        """Waits until the phone is as cool as at the start; at most `limit_s`."""
        waited_since = self.phone.now_s
        while True:
            condition = self._latest or read_condition(self.phone)
            self._latest = None
            warmer = _warmer(self.start, condition)
            waited = self.phone.now_s - waited_since
            if warmer is None or waited >= limit_s:
                return condition
            progress(f"cooling down for {waited:.0f} s of at most {limit_s:.0f}: {warmer}")
            self.phone.sleep(min(_LOOK_AGAIN_S, max(0.1, limit_s - waited)))

    def after_repeat(self) -> Condition:
        """The condition now; also what the next `cool_down` begins with."""
        self._latest = read_condition(self.phone)
        return self._latest

    def _room(self) -> str:
        lines = self.phone.shell(["df", "-k", str(FOLDER)]).stdout.splitlines()
        columns = lines[-1].split() if lines else []
        if len(columns) < 4 or not columns[3].isdecimal():
            return "how much room it has is unknown"
        return f"{int(columns[3]) / 1024:.0f} MB are free there"


def _warmer(start: Condition, now: Condition) -> str | None:
    if (now.thermal_status or 0) > (start.thermal_status or 0):
        return f"thermal status {now.thermal_status}"
    for name, degrees in now.temperatures_c.items():
        if degrees > start.temperatures_c.get(name, degrees) + _WARM_C:
            return f"{name} {degrees:.1f} degrees, {start.temperatures_c[name]:.1f} at the start"
    return None


@contextmanager
def open_session(
    phone: Phone, device: Device, owner: str, notice: Callable[[str], None]
) -> Iterator[PhoneSession]:
    """Locks and prepares the phone; afterwards everything is put back and removed.

    Raises:
        DeviceError: another run has it.
    """
    _lock(phone, owner)
    undo: list[_Change] = []
    try:
        undo += _stay_awake(phone)
        if _fix_performance(phone, device):
            undo.append(_FIXED_PERFORMANCE)
        else:
            notice("there is no fixed-performance mode: clocks may change")
        if phone.shell(["settings", "get", "global", "airplane_mode_on"]).stdout.strip() == "0":
            notice("airplane mode is off: radio can disturb the timing; consider switching it on")
        yield PhoneSession(phone, device)
    finally:
        # Also after Ctrl-C. Of a phone that is gone the lock tells who had it.
        for change in reversed([_FOLDER, *undo]):
            if (left := change.take_back(phone)) is not None:
                serial = phone.serial.partition("@")[0]
                by_hand = f"adb -s {serial} shell {shlex.join(change.back)}"
                notice(f"{change.what} could not be put back ({left}); by hand: {by_hand}")


@dataclass(frozen=True)
class _Change:
    """What the run changes on the phone.

    Attributes:
        back: the command that takes it back.
        look: the command that then prints `before`; None where nothing shows it.
    """

    what: str
    back: list[str]
    look: list[str] | None = None
    before: str = ""

    def take_back(self, phone: Phone) -> str | None:
        """Why it was not possible; None where it was."""
        try:
            done = phone.shell(self.back)
            if done.exit_code or _REFUSAL.search(done.stdout + done.stderr):
                return done.reason
            now = self.before if self.look is None else phone.shell(self.look).stdout.strip()
            return None if now == self.before else f"it is {now}, and was {self.before}"
        except AfdError as error:
            return str(error)


_FOLDER = _Change(str(FOLDER), ["rm", "-rf", str(FOLDER)])
_FIXED_PERFORMANCE = _Change(
    "fixed-performance mode", ["cmd", "power", "set-fixed-performance-mode-enabled", "false"]
)
# What some services say with exit code 0.
_REFUSAL = re.compile(r"unknown|not supported|failed|error|exception", re.I)
# Values of `stay_on_while_plugged_in` that `svc` can set; it is allowed to where `settings` is not.
_SVC_STAY_ON = {"0": "false", "1": "ac", "2": "usb", "4": "wireless", "8": "dock"}


def _lock(phone: Phone, owner: str) -> None:
    """The folder itself is the lock: making it succeeds for one only."""
    claim = f"mkdir {FOLDER} && echo {shlex.quote(owner)} > {_OWNER}"
    if phone.shell(claim).exit_code == 0:
        return
    holder = phone.shell(["cat", str(_OWNER)]).stdout.strip()
    if _left_behind(holder, owner):
        checked(phone, ["rm", "-rf", str(FOLDER)])
        if phone.shell(claim).exit_code == 0:
            return
    if holder == owner:
        raise DeviceError(
            f"{phone.serial} is measured by this very run already; name it once with --device"
        )
    listed = phone.shell(["ls", "-d", str(FOLDER)])
    if listed.exit_code:
        raise DeviceError(
            f"{phone.serial}: {FOLDER} cannot be made; is there room, and is adb's shell allowed "
            "to write to /data/local/tmp?"
        )
    raise DeviceError(
        f"{phone.serial} is in use by {holder or 'an unknown run'}; if that run is over, remove "
        f"its lock: adb -s {phone.serial.partition('@')[0]} shell rm -rf {FOLDER}"
    )


def _left_behind(holder: str, owner: str) -> bool:
    """Whether the lock is of a process of this very user and machine that is no more."""
    held = re.fullmatch(r"(.+), process (\d+)", holder)
    if held is None or held[1] != owner.rpartition(", process ")[0]:
        return False
    try:
        os.kill(int(held[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _stay_awake(phone: Phone) -> list[_Change]:
    """Keeps the screen on while plugged in."""
    look = ["settings", "get", "global", _STAY_ON]
    said = phone.shell(look).stdout.strip()
    before = said if said.isdecimal() else "0"  # "null": never set
    if phone.shell(["svc", "power", "stayon", "true"]).exit_code:
        return []
    phone.shell(["input", "keyevent", "KEYCODE_WAKEUP"])
    if said and phone.shell(look).stdout.strip() == said:
        return []
    back = ["settings", "put", "global", _STAY_ON, before]
    if before in _SVC_STAY_ON:
        back = ["svc", "power", "stayon", _SVC_STAY_ON[before]]
    what = f"{_STAY_ON} (was {before})"
    return [_Change(what, back, look, before) if said else _Change(what, back)]


def _fix_performance(phone: Phone, device: Device) -> bool:
    """Android 11 and later, where the maker provides it."""
    if api_level(device) < 30:
        return False
    done = phone.shell(["cmd", "power", "set-fixed-performance-mode-enabled", "true"])
    return done.exit_code == 0 and not _REFUSAL.search(done.stdout + done.stderr)
