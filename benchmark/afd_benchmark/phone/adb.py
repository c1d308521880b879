"""One phone over adb: shell, push, pull. Every exchange is timed and has a time limit."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import adbutils

from afd_mobile.common.errors import DeviceError, MeasurementError, UsageError

T = TypeVar("T")

SHORT_S = 20.0
TRANSFER_S = 300.0
_POLL_S = 0.2
# As Java prints an exception: its class and message, then where it came from.
_EXCEPTION = re.compile(r"(?:[a-z]\w*\.)+\w*(?:Exception|Error)\b")
_STACK_FRAME = re.compile(r"\s+at |\s*\.\.\. \d+ more|\s*Caused by: ")


class DeviceLostError(DeviceError):
    """The phone does not answer any more; what was finished stays, and can be resumed."""


class InterruptedRunError(DeviceError):
    """Ctrl-C reached the exchange that was going on; those that tidy up afterwards go through."""


class AdbTimeoutError(MeasurementError):
    """A command on the phone did not end in time."""


class RefusedError(MeasurementError):
    """The phone is there and says no."""


class AdbCommandError(MeasurementError):
    """A command on the phone failed.

    Attributes: `serial`, `command`, and its `output`.
    """

    def __init__(self, serial: str, command: str, output: ShellOutput) -> None:
        super().__init__(
            f"{serial}: `{command}` ended with exit code {output.exit_code}: {output.reason}"
        )
        self.serial, self.command, self.output = serial, command, output


@dataclass(frozen=True)
class ShellOutput:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def reason(self) -> str:
        """Why it failed, in one line: of a Java exception its name and message."""
        lines = [
            line.strip()
            for line in (self.stderr.strip() or self.stdout.strip()).splitlines()
            if not _STACK_FRAME.match(line)
        ]
        named = [line for line in lines if _EXCEPTION.match(line)]
        return (named or lines or ["silent"])[0 if named else -1]


@dataclass(frozen=True)
class LocalFile:
    """What is pushed; known by its hash, so that a replay needs no file.

    Attributes: `content` as bytes, or `path`.
    """

    sha256: str
    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def of(cls, content: bytes) -> LocalFile:
        return cls(hashlib.sha256(content).hexdigest(), content=content)


class Phone(Protocol):
    """What a runner needs of a phone; real, recorded or replayed.

    Attributes:
        serial: with `@HOST:PORT` where it hangs on another adb server.
        now_s: when the last exchange ended, from the first on. Runners know no other clock, so
            that a replay is exact.
    """

    @property
    def serial(self) -> str: ...

    @property
    def now_s(self) -> float: ...

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        """Runs it in the phone's shell, whatever its exit code.

        Raises:
            AdbTimeoutError, DeviceLostError
        """

    def push(self, file: LocalFile, remote: str) -> None:
        """Raises: RefusedError (no room, no right), AdbTimeoutError, DeviceLostError."""

    def pull(self, remote: str) -> bytes:
        """Raises: RefusedError (no such file), AdbTimeoutError, DeviceLostError."""

    def sleep(self, seconds: float) -> None: ...


def checked(phone: Phone, command: Sequence[str], *, timeout_s: float = SHORT_S) -> str:
    """Standard output of a command that has to succeed.

    Raises:
        AdbCommandError: it did not.
    """
    output = phone.shell(command, timeout_s=timeout_s)
    if output.exit_code:
        raise AdbCommandError(phone.serial, shlex.join(command), output)
    return output.stdout


@dataclass(frozen=True)
class Connected:
    """A phone that an adb server lists.

    Attributes: `state` in adb's words: device, unauthorized, offline, no permissions (...) ...
    """

    serial: str
    state: str
    server: tuple[str, int]

    @property
    def name(self) -> str:
        """The serial, with its server where that is not this machine's own."""
        host, port = self.server
        return self.serial if self.server == local_server() else f"{self.serial}@{host}:{port}"

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, with the remedy; None where it can."""
        if self.state == "device":
            return None
        known = (remedy for start, remedy in _REMEDIES.items() if self.state.startswith(start))
        return f"{self.name} is {self.state}; {next(known, 'connect it again')}"


# How adb's word for a state begins -> what to do.
_REMEDIES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "authorizing": "wait a moment; if it stays so, unlock it and allow USB debugging",
    "offline": "unplug it and plug it in again, or restart adb: adb kill-server",
    "no permissions": (
        "add a udev rule for it (Debian: apt install android-sdk-platform-tools-common), add "
        "yourself to the group plugdev, log in anew and plug it in again"
    ),
    "recovery": "start Android on it: adb reboot",
    "rescue": "start Android on it: adb reboot",
    "sideload": "start Android on it: adb reboot",
    "bootloader": "start Android on it: fastboot reboot",
    "connecting": "wait a moment and try again",
    "detached": "attach it: adb attach SERIAL",
    "host": "that is a computer; name a phone",
}


def local_server() -> tuple[str, int]:
    """This machine's own adb server, where adb itself looks for it."""
    return "127.0.0.1", int(os.environ.get("ANDROID_ADB_SERVER_PORT", "5037"))


def parse_server(text: str) -> tuple[str, int]:
    """`HOST:PORT` of an adb server."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--adb-server {text}: expected HOST:PORT, such as 192.168.1.7:5037")
    return host, int(port)


def connected(servers: Sequence[tuple[str, int]]) -> list[Connected]:
    """Everything that the adb servers list, in any state.

    Raises:
        DeviceError: a server does not answer.
    """
    found = []
    for host, port in servers:
        try:
            _start_own(host, port)
            listed = _listed(adbutils.AdbClient(host, port, socket_timeout=SHORT_S))
        except (adbutils.AdbError, OSError, subprocess.SubprocessError) as error:
            raise DeviceError(
                f"the adb server {host}:{port} does not answer: {error}; start it there with "
                "`adb start-server`, or give --adb-server HOST:PORT"
            ) from error
        found += [Connected(serial, state, (host, port)) for serial, state in listed]
    return found


def _start_own(host: str, port: int) -> None:
    """Starts this machine's own server where there is none.

    adbutils would, too, but lets adb chatter into this program's output.

    Raises:
        OSError: nothing listens there.
    """
    if (host, port) == local_server() and not _listens(host, port):
        subprocess.run(  # noqa: S603 - the adb that adbutils would start
            [adbutils.adb_path(), "start-server"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SHORT_S, check=False,
        )  # fmt: skip
    with socket.create_connection((host, port), SHORT_S):
        pass


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), SHORT_S):
            return True
    except OSError:
        return False


def _listed(client: adbutils.AdbClient) -> list[tuple[str, str]]:
    """(serial, state) of all; adbutils' own list ends a state at its first word."""
    with client.make_connection() as connection:
        connection.send_command("host:devices")
        connection.check_okay()
        lines = connection.read_string_block().splitlines()
    return [(serial, state) for serial, tab, state in (x.partition("\t") for x in lines) if tab]


class AdbPhone:
    """A phone behind an adb server."""

    def __init__(self, device: Connected, stop: threading.Event) -> None:
        """`stop`: set to interrupt the exchange that is going on."""
        self._connected = device
        self._stop = stop
        self._stopped = False
        host, port = device.server
        self._device = adbutils.AdbClient(host, port).device(serial=device.serial)
        self._started = time.monotonic()
        self.serial = device.name
        self.now_s = 0.0

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        text = command if isinstance(command, str) else shlex.join(command)
        try:
            found = self._do(
                lambda: self._device.shell2(text, timeout=timeout_s, v2=True), text, timeout_s
            )
        except RefusedError as error:
            raise DeviceLostError(f"{self.serial} broke off: {error}") from error
        return ShellOutput(found.returncode, str(found.stdout), str(found.stderr))

    def push(self, file: LocalFile, remote: str) -> None:
        source = file.content if file.content is not None else file.path
        assert source is not None
        self._do(lambda: self._device.sync.push(source, remote), f"push {remote}", TRANSFER_S)

    def pull(self, remote: str) -> bytes:
        return self._do(
            lambda: bytes(self._device.sync.read_bytes(remote)), f"pull {remote}", TRANSFER_S
        )

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds) and not self._stopped:
            self._stopped = True
            raise InterruptedRunError(f"{self.serial}: interrupted")
        self._tick()

    def _tick(self) -> None:
        self.now_s = time.monotonic() - self._started

    def _do(self, action: Callable[[], T], what: str, timeout_s: float) -> T:
        """adbutils' own limits are per packet, and some of its calls have none."""
        what = what[:120]
        try:
            return self._within(action, timeout_s + SHORT_S)
        except (TimeoutError, adbutils.AdbTimeout) as error:
            self._still_there(what)
            raise AdbTimeoutError(
                f"{self.serial}: `{what}` did not end within {timeout_s:.0f} s"
            ) from error
        except (adbutils.AdbError, OSError, EOFError, AssertionError, ValueError) as error:
            self._still_there(what)
            raise RefusedError(
                f"{self.serial}: {what}: {str(error) or type(error).__name__}"
            ) from error
        finally:
            self._tick()

    def _still_there(self, what: str) -> None:
        """Tells a phone that is gone from one that refuses."""
        try:
            state = next(
                (c.state for c in connected([self._connected.server])
                 if c.serial == self._connected.serial),
                "gone",
            )  # fmt: skip
        except DeviceError as error:
            raise DeviceLostError(f"{self.serial} was lost during `{what}`: {error}") from error
        if state != "device":
            raise DeviceLostError(
                f"{self.serial} is {state} since `{what}`; connect it again and repeat with "
                "--resume"
            )

    def _within(self, action: Callable[[], T], timeout_s: float) -> T:
        """Runs `action` in a thread of its own, and leaves it behind when its time is up."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        deadline = time.monotonic() + timeout_s
        while not future.done():
            if self._stop.is_set() and not self._stopped:
                self._stopped = True
                raise InterruptedRunError(f"{self.serial}: interrupted")
            if time.monotonic() > deadline:
                raise TimeoutError
            wait([future], timeout=_POLL_S)
        return future.result()
