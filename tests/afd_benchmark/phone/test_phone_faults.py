"""The fault table: what `afd-bench` makes of every fault.

Most go through the real adb. Those that only change what a phone says of itself, or how long
inferences take, are written into a recorded session, which is replayed.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.afd_benchmark.conftest import (
    BRIEF,
    SHORT,
    TOOL,
    Bench,
    cases,
    ended,
    start_bench,
    verdict,
)
from tests.virtual_phone.faults import FAULTS, OF_THE_APP, OF_THE_SESSION
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.fixtures import AdbServer
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.phone_state import PhoneState
from tests.virtual_phone.profile import load_profile
from tests.virtual_phone.small_shell import SmallShell

# fault -> (exit code, the case's verdict if there is one, words in its reason or in the error)
EXPECTED = {
    "unauthorized": (7, None, "allow USB debugging"),
    "offline": (7, None, "offline"),
    "unplugged": (7, None, "--resume"),
    "unplugged-in-push": (7, None, "--resume"),
    "storage-full": (7, None, "MB are free"),
    "out-of-memory": (8, "INVALID", "out of memory"),
    "hang": (8, "INVALID", "did not end within"),
    "garbled-log": (8, "INVALID", "stdout"),
    "truncated-log": (8, "INVALID", "cut off"),
    "error-after-timings": (8, "INVALID", "Benchmarking failed"),
    "clock-jump": (0, "VALID", ""),
    "partial-delegation": (0, "SUSPECT", "the rest on the CPU"),
    "cpu-fallback": (8, "INVALID", "ran on cpu although gpu"),
    "wrong-output": (8, "INVALID", "wrong outputs"),
    "old-tool": (8, "INVALID", "Unconsumed"),
}
# fault -> words in the reason why the case is SUSPECT
SUSPECT = {
    "hot": "warmed",
    "throttled@4": "slowed",
    "spread": "spread",
    "low-battery": "battery",
    "screen-off": "screen",
}


def test_every_fault_is_in_the_tables() -> None:
    named = {name.partition("@")[0] for name in (*EXPECTED, *SUSPECT)}
    assert named | {*OF_THE_APP, *OF_THE_SESSION} == {*FAULTS}


@pytest.mark.parametrize("fault", EXPECTED)
def test_fault(
    fault: str, bench: Bench, adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    code, wanted, words = EXPECTED[fault]
    backend = "gpu" if fault in ("partial-delegation", "cpu-fallback") else "cpu"
    # Of a tool that never ends any limit can be awaited; one that ends is to end before it.
    limit_s = 1 if fault == "hang" else 240
    out = tmp_path / "out"
    with VirtualPhone("snapdragon-865", tmp_path / "phone", faults=(fault,)) as phone:
        serial = adb_server.connect(phone)
        run = ("run", corrected, "--device", serial, "--tool", TOOL, "--backend", backend,
               "--out", out, "--time-limit", limit_s, *BRIEF)  # fmt: skip
        if fault.startswith("unplugged"):
            # A process of its own: adbutils leaves a socket to a phone that is gone open.
            errors = ended(start_bench(*run, server=adb_server), code)
        else:
            errors = bench(*run, code=code).err
            assert not list((phone.root / "data/local/tmp").iterdir()), "not tidied up"
    if fault in ("unauthorized", "offline"):  # nothing to measure on
        assert words in errors and not (out / "results.json").exists()
        return
    found = cases(out)
    if wanted is None:
        assert found == []
        assert words in errors
    else:
        (case,) = found
        assert verdict(case) == wanted, case["reasons"]
        assert words in " ".join(case["reasons"])
        assert (case["median_ms"] is None) == (wanted == "INVALID")


# --- in a recorded session ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cassette(
    bench: Bench, adb_server: AdbServer, exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A session without any fault: two golden runs and two repeats."""
    folder = tmp_path_factory.mktemp("recorded")
    with VirtualPhone("snapdragon-865", folder / "phone") as phone:
        serial = adb_server.connect(phone)
        bench(
            "run", exports / "corrected", "--device", serial, "--tool", TOOL,
            "--out", folder / "out", *SHORT,
        )  # fmt: skip
    (cassette,) = (folder / "out" / "cassettes").iterdir()
    return cassette


def with_fault(cassette: Path, fault: str, folder: Path) -> Path:
    """A copy in which the phone has the fault."""
    state = PhoneState(load_profile("snapdragon-865"), FileTree(folder / "phone"))
    state.set_faults([fault])
    state.now_s = lambda: 0.0  # no time to cool down
    copy = shutil.copytree(cassette, folder / "cassette")
    header, *lines = (copy / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    exchanges = [json.loads(line) for line in lines]
    for exchange in exchanges:
        if "/benchmark_model --graph=" in exchange["request"]:
            state.start([], 0)
            if state.has("spread") and len(state.invocations) % 2:
                exchange["stdout"] = slowed(exchange["stdout"])
        elif exchange["request"].startswith("dumpsys battery"):
            exchange["stdout"] = said(state, exchange["request"])
    text = "".join(f"{line}\n" for line in [header, *map(json.dumps, exchanges)])
    (copy / "exchanges.jsonl").write_text(text, encoding="utf-8")
    return copy


def said(state: PhoneState, command: str) -> str:
    """What the phone answers."""
    state.write_files()
    program = SmallShell(state, dict).read(command)
    assert program is not None
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)

    assert asyncio.run(program(keep, keep)) == 0
    return b"".join(parts).decode()


def slowed(log: str) -> str:
    """The tool's log, had every inference taken three times as long."""

    def tripled(found: re.Match[str]) -> str:
        name, text = found.groups()
        return name + (str(3 * int(text)) if text.isdecimal() else f"{3 * float(text):g}")

    names = "(?:first|curr|min|max|avg|std|p5|median|p95)=|(?:First inference|[(]avg[)]): "
    return re.sub(rf"({names})([\d.e+]+)", tripled, log)


def test_the_recorded_session_itself_is_valid(cassette: Path, bench: Bench, tmp_path: Path) -> None:
    bench("replay", cassette, "--out", tmp_path)
    (case,) = cases(tmp_path)
    assert verdict(case) == "VALID", case["reasons"]


@pytest.mark.parametrize("fault", SUSPECT)
def test_suspect(fault: str, cassette: Path, bench: Bench, tmp_path: Path) -> None:
    bench("replay", with_fault(cassette, fault, tmp_path), "--out", tmp_path / "out")
    (case,) = cases(tmp_path / "out")
    assert case["verdict"] == "SUSPECT" and case["median_ms"] is not None
    assert SUSPECT[fault] in " ".join(case["reasons"])
    if fault != "spread":
        assert verdict(case) == "SUSPECT", case["reasons"]
