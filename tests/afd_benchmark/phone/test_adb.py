"""What an adb server lists, through a server that answers from a table; why a command failed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from afd_benchmark.phone.adb import Connected, ShellOutput, connected
from tests.afd_benchmark.conftest import TOOL, Bench, afd_bench
from tests.commands import free_port


@contextmanager
def adb_server_that_lists(text: str) -> Iterator[int]:
    """Its port. It answers host:devices, as often as asked, and bears who asks nothing."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as asked:
                if not (header := asked.read(4)):
                    continue
                assert asked.read(int(header, 16)) == b"host:devices"
                content = text.encode()
                connection.sendall(b"OKAY" + f"{len(content):04x}".encode() + content)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


NO_PERMISSIONS = (
    "no permissions (missing udev rules? user is in the plugdev group); "
    "see [http://developer.android.com/tools/device.html]"
)
LISTED = (
    f"863276c1\t{NO_PERMISSIONS}\n"
    "R58M\tauthorizing\n"
    "emul\trecovery\n"
    "????????????\tno permissions (user in plugdev group; are your udev rules wrong?); "
    "see [http://developer.android.com/tools/device.html]\n"
    "two words\tdevice\n"
    "\n"
)


def test_states_are_taken_in_adbs_words() -> None:
    with adb_server_that_lists(LISTED) as port:
        found = connected([("127.0.0.1", port)])
    assert [(c.serial, c.state) for c in found] == [
        ("863276c1", NO_PERMISSIONS),
        ("R58M", "authorizing"),
        ("emul", "recovery"),
        ("????????????", NO_PERMISSIONS.replace(
            "missing udev rules? user is in the plugdev group",
            "user in plugdev group; are your udev rules wrong?")),
        ("two words", "device"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (NO_PERMISSIONS, "udev rule"),
        ("unauthorized", "allow USB debugging"),
        ("authorizing", "wait a moment"),
        ("offline", "plug it in again"),
        ("recovery", "adb reboot"),
        ("sideload", "adb reboot"),
        ("rescue", "adb reboot"),
        ("bootloader", "fastboot reboot"),
        ("connecting", "try again"),
        ("detached", "adb attach"),
        ("host", "a computer"),
        ("unknown", "connect it again"),
    ],
)
def test_every_state_has_its_remedy(state: str, remedy: str) -> None:
    problem = Connected("R58M", state, ("127.0.0.1", 5037)).problem
    assert problem is not None and problem.startswith(f"R58M is {state}; ") and remedy in problem


def test_a_phone_that_is_ready_has_no_problem() -> None:
    assert Connected("R58M", "device", ("127.0.0.1", 5037)).problem is None


def test_devices_and_run_say_the_state_and_the_remedy(bench: Bench, exports: object) -> None:
    with adb_server_that_lists(LISTED.replace("two words\tdevice\n", "")) as port:
        server = ("--adb-server", f"127.0.0.1:{port}")
        listed = bench("devices", *server).out.splitlines()
    assert len(listed) == 4
    assert listed[0] == (
        f"863276c1@127.0.0.1:{port} is {NO_PERMISSIONS}; add a udev rule for it (Debian: apt "
        "install android-sdk-platform-tools-common), add yourself to the group plugdev, log in "
        "anew and plug it in again"
    )
    assert "is recovery; start Android on it: adb reboot" in listed[2]


def test_a_notice_names_its_device_once(exports: Path, tmp_path: Path) -> None:
    with adb_server_that_lists("R58M\tauthorizing\n") as port:
        asked = ("--device", "R58M", "--tool", TOOL, "--adb-server", f"127.0.0.1:{port}")
        done = afd_bench("run", exports / "plain", *asked, "--out", tmp_path / "out", code=7)
    remedy = "wait a moment; if it stays so, unlock it and allow USB debugging"
    problem = f"R58M@127.0.0.1:{port} is authorizing; {remedy}"
    assert done.err.splitlines() == [f"note: {problem}", f"afd-bench: error: {problem}"]


def test_the_own_server_is_started_in_silence_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    adb, started = tmp_path / "adb", tmp_path / "started"
    adb.write_text(f'#!/bin/sh\necho "* daemon not running; starting now"; echo $@ >> {started}\n')
    adb.chmod(0o755)
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(adb))
    own, other = free_port(), free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(own))
    done = afd_bench("devices", "--adb-server", f"127.0.0.1:{other}", code=7)
    assert f"127.0.0.1:{other} does not answer" in done.err and not started.exists()
    done = afd_bench("devices", code=7)
    assert f"127.0.0.1:{own} does not answer" in done.err
    assert started.read_text() == "start-server\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ("", "", "silent"),
        ("one\ntwo\n", "", "two"),
        ("one\n", "cat: x: No such file or directory\n", "cat: x: No such file or directory"),
        (
            "",
            "\nException occurred while executing 'start':\njava.lang.SecurityException: "
            "Permission Denial: starting Intent\n\tat com.android.server.wm.A.check(A.java:1)\n"
            "\tat android.os.Binder.execTransact(Binder.java:1)\n",
            "java.lang.SecurityException: Permission Denial: starting Intent",
        ),
        (
            "",
            "java.lang.IllegalStateException: no\n\tat a.B.c(B.java:1)\nCaused by: "
            "android.os.RemoteException: dead\n\t... 4 more\n",
            "java.lang.IllegalStateException: no",
        ),
    ],
)
def test_a_failure_is_told_by_the_line_that_names_it(stdout: str, stderr: str, reason: str) -> None:
    assert ShellOutput(255, stdout, stderr).reason == reason
