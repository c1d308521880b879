"""A phone taken for one run: locked, kept awake, at a fixed clock, and left as it was found."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from afd_benchmark.adb import LocalFile, Phone, RefusedError, checked
from afd_benchmark.phone_facts import api_level, read_condition
from afd_benchmark.results import Condition, Device
from afd_mobile.errors import AfdError, DeviceError

FOLDER = PurePosixPath("/data/local/tmp/afd")
_OWNER = FOLDER / "owner"
_STAY_ON = "stay_on_while_plugged_in"
# How far above the start a sensor may be before the next repeat begins.
_WARM_C = 2.0
_LOOK_AGAIN_S = 5.0


def owner_name() -> str:
    """Who runs this, for the lock on the phone."""
    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"


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
    undo: list[list[str]] = []
    try:
        undo += _stay_awake(phone)
        if _fix_performance(phone, device):
            undo.append(["cmd", "power", "set-fixed-performance-mode-enabled", "false"])
        else:
            notice("there is no fixed-performance mode: clocks may change")
        if phone.shell(["settings", "get", "global", "airplane_mode_on"]).stdout.strip() == "0":
            notice("airplane mode is off: radio can disturb the timing; consider switching it on")
        yield PhoneSession(phone, device)
    finally:
        # Also after Ctrl-C. A phone that is gone cannot be put back: its lock tells who had it.
        with suppress(AfdError):
            for command in reversed(undo):
                phone.shell(command)
            phone.shell(["rm", "-rf", str(FOLDER)])


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


def _stay_awake(phone: Phone) -> list[list[str]]:
    """Keeps the screen on while plugged in; returns what puts it back."""
    before = phone.shell(["settings", "get", "global", _STAY_ON]).stdout.strip()
    if phone.shell(["svc", "power", "stayon", "true"]).exit_code:
        return []
    phone.shell(["input", "keyevent", "KEYCODE_WAKEUP"])
    return [["settings", "put", "global", _STAY_ON, before if before.isdecimal() else "0"]]


def _fix_performance(phone: Phone, device: Device) -> bool:
    """Android 11 and later, where the maker provides it."""
    if api_level(device) < 30:
        return False
    done = phone.shell(["cmd", "power", "set-fixed-performance-mode-enabled", "true"])
    return done.exit_code == 0 and not re.search(
        r"unknown|not supported|failed|error", done.stdout + done.stderr, re.I
    )
