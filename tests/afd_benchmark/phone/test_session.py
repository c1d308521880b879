"""What a session changes on a phone and puts back, and how it waits for it to cool down."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from afd_benchmark.phone.adb import SHORT_S, DeviceLostError, LocalFile, ShellOutput
from afd_benchmark.phone.facts import big_cores, identity, read_condition, read_device
from afd_benchmark.phone.session import PhoneSession, open_session
from afd_mobile.common.errors import DeviceError
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.phone_state import COOLING_C_PER_S, PhoneState
from tests.virtual_phone.profile import load_profile
from tests.virtual_phone.small_shell import SmallShell
from tests.virtual_phone.stand_ins import answer


class LocalPhone:
    """A virtual phone without adb, on which only sleeping takes time."""

    serial = "LOCAL"

    def __init__(self, root: Path, *faults: str, profile: str = "snapdragon-865") -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []
        self.state = PhoneState(load_profile(profile), FileTree(root))
        (root / "data/local/tmp").mkdir(parents=True)
        self.state.now_s = lambda: self.now_s
        self.state.set_faults(faults)

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        self.state.write_files()
        text = command if isinstance(command, str) else shlex.join(command)
        program = SmallShell(self.state, dict).read(text)
        if program is None:  # what runs another program, which here is `true` alone
            found = answer(self.state, shlex.split(text))
            assert found.run in ((), ("true",))
            return ShellOutput(found.code, found.stdout, found.stderr)
        written: list[list[bytes]] = [[], []]

        async def out(data: bytes) -> None:
            written[0].append(data)

        async def err(data: bytes) -> None:
            written[1].append(data)

        code = asyncio.run(program(out, err))
        stdout, stderr = (b"".join(parts).decode() for parts in written)
        return ShellOutput(code, stdout, stderr)

    def push(self, file: LocalFile, remote: str) -> None:
        raise NotImplementedError

    def pull(self, remote: str) -> bytes:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def phone(tmp_path: Path) -> LocalPhone:
    return LocalPhone(tmp_path, "hot")


def test_the_next_repeat_waits_until_it_is_as_cool_as_at_the_start(
    phone: LocalPhone,
) -> None:
    session = PhoneSession(phone, read_device(phone))
    said: list[str] = []
    assert session.cool_down(300, said.append) == session.start and not phone.slept_s
    for _ in range(3):
        phone.state.start([], 0)
    warm = session.after_repeat()
    assert warm.temperatures_c["skin"] == pytest.approx(session.start.temperatures_c["skin"] + 18)
    cool = session.cool_down(300, said.append)
    # 18 degrees, of which 2 may stay; it looks every 5 s.
    assert phone.slept_s == [5.0, 5.0]
    assert cool.temperatures_c["skin"] == session.start.temperatures_c["skin"]
    assert COOLING_C_PER_S * sum(phone.slept_s) >= 16
    assert len(said) == 2 and said[0].startswith("cooling down for 0 s of at most 300: ")


def test_it_waits_no_longer_than_the_limit(phone: LocalPhone) -> None:
    session = PhoneSession(phone, read_device(phone))
    for _ in range(4):
        phone.state.start([], 0)
    session.after_repeat()
    still_warm = session.cool_down(7, lambda _: None)
    assert phone.slept_s == [5.0, 2.0]
    assert still_warm.temperatures_c["skin"] == pytest.approx(
        session.start.temperatures_c["skin"] + 24 - 7 * COOLING_C_PER_S
    )


# --- what is put back -----------------------------------------------------------------------------

OWNER = "somebody@somewhere, process 1"
STAY_ON = "stay_on_while_plugged_in"


def session_of(phone: LocalPhone) -> list[str]:
    """The notices of a session in which nothing is done."""
    said: list[str] = []
    with open_session(phone, read_device(phone), OWNER, said.append):
        assert phone.state.settings["global"][STAY_ON] == "15"
    assert not (phone.state.tree.root / "data/local/tmp/afd").exists()
    return [line for line in said if "could not be put back" in line]


@pytest.mark.parametrize("before", ["0", "1", "2", "3", "4", "7", "15"])
def test_staying_awake_is_put_back_as_it_was(tmp_path: Path, before: str) -> None:
    phone = LocalPhone(tmp_path)
    phone.state.settings["global"][STAY_ON] = before
    assert session_of(phone) == []
    assert phone.state.settings["global"][STAY_ON] == before
    assert not phone.state.fixed_performance


@pytest.mark.parametrize("before", ["0", "1", "2", "4"])
def test_where_settings_are_denied_what_svc_did_svc_takes_back(tmp_path: Path, before: str) -> None:
    """Many vendors deny them; the phone was left at 15 without a word."""
    phone = LocalPhone(tmp_path, "settings-denied")
    phone.state.settings["global"][STAY_ON] = before
    assert session_of(phone) == []
    assert phone.state.settings["global"][STAY_ON] == before


def test_what_svc_cannot_put_back_is_said_with_the_command(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path, "settings-denied")
    phone.state.settings["global"][STAY_ON] = "3"
    assert session_of(phone) == [
        f"{STAY_ON} (was 3) could not be put back (java.lang.SecurityException: Permission denial: "
        "writing to settings requires:android.permission.WRITE_SECURE_SETTINGS); by hand: adb -s "
        f"LOCAL shell settings put global {STAY_ON} 3"
    ]
    assert phone.state.settings["global"][STAY_ON] == "15"


def test_a_setting_that_was_never_made_is_put_back_to_its_default(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path)
    del phone.state.settings["global"][STAY_ON]
    said = session_of(phone)
    assert said == [] and phone.state.settings["global"][STAY_ON] == "0"


def test_fixed_performance_that_stays_is_said_with_the_command(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path, "fixed-performance-stays")
    assert session_of(phone) == [
        "fixed-performance mode could not be put back (Failed to set FIXED_PERFORMANCE mode); by "
        "hand: adb -s LOCAL shell cmd power set-fixed-performance-mode-enabled false"
    ]
    assert phone.state.settings["global"][STAY_ON] == "0"  # the others are put back all the same


def test_of_a_phone_that_is_gone_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone, said = LocalPhone(tmp_path), list[str]()

    def gone(*_: object, **__: object) -> ShellOutput:
        raise DeviceLostError("LOCAL is gone")

    with open_session(phone, read_device(phone), OWNER, said.append):
        monkeypatch.setattr(phone, "shell", gone)
    left = [line.partition(" could not be put back (LOCAL is gone); by hand: ") for line in said]
    assert [what for what, middle, _ in left if middle] == [
        "fixed-performance mode", f"{STAY_ON} (was 0)", "/data/local/tmp/afd",
    ]  # fmt: skip
    assert left[-1][2] == "adb -s LOCAL shell rm -rf /data/local/tmp/afd"


def test_a_run_does_not_tell_to_remove_its_own_folder(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path)
    device = read_device(phone)
    with open_session(phone, device, OWNER, lambda _: None):
        with pytest.raises(DeviceError) as own, open_session(phone, device, OWNER, lambda _: None):
            pass
        other = OWNER.replace("1", "2")
        with pytest.raises(DeviceError) as theirs, open_session(phone, device, other, print):
            pass
    assert "measured by this very run already" in str(own.value) and "rm" not in str(own.value)
    assert f"in use by {OWNER}" in str(theirs.value) and "rm -rf" in str(theirs.value)


# --- what a phone lacks ---------------------------------------------------------------------------


def test_a_board_without_battery_is_not_suspect(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path, "no-battery")
    condition = read_condition(phone)
    assert condition.battery_percent is None
    assert condition.charging is True
    assert "battery" in read_device(phone).lacks


def test_an_offline_core_does_not_drop_the_pinning(tmp_path: Path) -> None:
    phone = LocalPhone(tmp_path, "offline-core")
    device = read_device(phone)
    assert device.cores[1].max_mhz is None and "core pinning" not in device.lacks
    assert big_cores(device, 1) == [7]


def test_a_phone_that_denies_pinning_is_measured_without_and_says_so(tmp_path: Path) -> None:
    assert "core pinning" in read_device(LocalPhone(tmp_path, "taskset-denied")).lacks


def test_one_phone_on_two_transports_has_one_identity(tmp_path: Path) -> None:
    """Emulators and cheap boards share a serial number; no two share a boot's id."""
    cable, other = (LocalPhone(tmp_path / name) for name in ("a", "b"))
    again = LocalPhone(tmp_path / "c")
    again.state.boot_id, again.serial = cable.state.boot_id, "192.168.1.7:5555"
    assert identity(cable) == identity(again) != identity(other)
    assert identity(cable)[0] == identity(other)[0] == "4f2a91c7"
