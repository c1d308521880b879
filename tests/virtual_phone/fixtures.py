"""A real adb server of the tests' own, and phones connected to it; for a conftest to import."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import adbutils
import pytest

from tests.commands import free_port
from tests.virtual_phone.phone import VirtualPhone

_DEADLINE_S = 60.0


@dataclass(frozen=True)
class AdbServer:
    """A server on a private port, with a home of its own for its keys."""

    port: int
    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """What makes a process use this server."""
        # Neither USB, which takes three seconds, nor mDNS nor a scan of the local ports: nobody
        # else's phones.
        return {
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",
            "ADB_MDNS": "0",
            "ADB_USB": "0",
            "ADB_MDNS_AUTO_CONNECT": "0",
        }

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | self.variables

    @property
    def client(self) -> adbutils.AdbClient:
        return adbutils.AdbClient("127.0.0.1", self.port)

    def device(self, serial: str) -> adbutils.AdbDevice:
        return self.client.device(serial)

    def adb(
        self, *arguments: str, stdin: bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """`adb ARGUMENTS`."""
        return subprocess.run(
            [adb_path(), *arguments], env=self.environment, capture_output=True,
            input=stdin, timeout=timeout_s, check=False,
        )  # fmt: skip

    def connect(self, phone: VirtualPhone) -> str:
        """`adb connect`; the serial, once the server lists it in whatever state."""
        serial = f"127.0.0.1:{phone.port}"
        # adb itself waits ten seconds for a phone that does not answer: not for its end here.
        connecting = subprocess.Popen(
            [adb_path(), "connect", serial], env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self.wait_for_state(serial, "device", "unauthorized", "offline")
        finally:
            connecting.kill()
            connecting.wait()
        return serial

    def disconnect(self, serial: str) -> None:
        """`adb disconnect`, until the server lists it no more."""
        self.adb("disconnect", serial)
        self.wait_for_state(serial, "gone")

    def wait_for_state(self, serial: str, *states: str) -> str:
        """One of the states, as `adb devices` lists them, or gone.

        Raises:
            TimeoutError: none of them came.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            found = {d.serial: d.state for d in self.client.list()}.get(serial, "gone")
            if found in states:
                return str(found)
            time.sleep(0.05)
        raise TimeoutError(f"{serial} is {found}, not {' or '.join(states)}")


def adb_path() -> str:
    """The adb that adbutils brings."""
    return str(adbutils.adb_path())


@contextmanager
def running(server: AdbServer) -> Iterator[AdbServer]:
    # Twice: adbutils starts a server, too, where a command under test finds none, and of two that
    # start at once one ends with an error.
    if server.adb("start-server").returncode:
        started = server.adb("start-server")
        assert started.returncode == 0, started.stderr
    try:
        yield server
    finally:
        server.adb("kill-server")


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """A server on a private port, for all tests of the session; `connect(phone)` gives a serial."""
    with running(AdbServer(free_port(), tmp_path_factory.mktemp("adb-home"))) as server:
        yield server
