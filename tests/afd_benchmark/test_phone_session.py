"""Waiting for a phone to cool down."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from afd_benchmark.adb import SHORT_S, LocalFile, ShellOutput
from afd_benchmark.phone_facts import read_device
from afd_benchmark.phone_session import PhoneSession
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.phone_state import COOLING_C_PER_S, PhoneState
from tests.virtual_phone.profile import load_profile
from tests.virtual_phone.small_shell import SmallShell


class HotPhone:
    """A virtual phone without adb, on which only sleeping takes time."""

    serial = "hot"

    def __init__(self, root: Path) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []
        self.state = PhoneState(load_profile("snapdragon-865"), FileTree(root))
        self.state.now_s = lambda: self.now_s
        self.state.set_faults(["hot"])

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        self.state.write_files()
        text = command if isinstance(command, str) else shlex.join(command)
        program = SmallShell(self.state, dict).read(text)
        assert program is not None
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
def phone(tmp_path: Path) -> HotPhone:
    return HotPhone(tmp_path)


def test_the_next_repeat_waits_until_the_phone_is_as_cool_as_at_the_start(phone: HotPhone) -> None:
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


def test_it_waits_no_longer_than_the_limit(phone: HotPhone) -> None:
    session = PhoneSession(phone, read_device(phone))
    for _ in range(4):
        phone.state.start([], 0)
    session.after_repeat()
    still_warm = session.cool_down(7, lambda _: None)
    assert phone.slept_s == [5.0, 2.0]
    assert still_warm.temperatures_c["skin"] == pytest.approx(
        session.start.temperatures_c["skin"] + 24 - 7 * COOLING_C_PER_S
    )
