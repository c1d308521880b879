"""The fault table: what `afd-bench run` makes of every fault, through the real adb."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.afd_benchmark.conftest import SHORT, TOOL, Bench, cases, verdict
from tests.virtual_phone.faults import FAULTS, OF_THE_APP
from tests.virtual_phone.fixtures import AdbServer
from tests.virtual_phone.phone import VirtualPhone

# fault -> (exit code, the case's verdict if there is one, words in its reason or in the error)
EXPECTED = {
    "unauthorized": (7, None, "allow USB debugging"),
    "offline": (7, None, "offline"),
    "unplugged": (7, None, "--resume"),
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
    "hot": (0, "SUSPECT", "warmed"),
    "throttled@4": (0, "SUSPECT", "slowed"),
    "spread": (0, "SUSPECT", "spread"),
    "low-battery": (0, "SUSPECT", "battery"),
    "screen-off": (0, "SUSPECT", "screen"),
    "old-tool": (8, "INVALID", "Unconsumed"),
}


def test_every_fault_is_in_the_table() -> None:
    assert {name.partition("@")[0] for name in EXPECTED} | {*OF_THE_APP} == {*FAULTS}


@pytest.mark.parametrize("fault", EXPECTED)
def test_fault(
    fault: str, bench: Bench, adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    code, wanted, words = EXPECTED[fault]
    backend = "gpu" if fault in ("partial-delegation", "cpu-fallback") else "cpu"
    out = tmp_path / "out"
    with VirtualPhone("snapdragon-865", tmp_path / "phone", faults=(fault,)) as phone:
        serial = adb_server.connect(phone)
        done = bench(
            "run", corrected, "--device", serial, "--tool", TOOL, "--backend", backend,
            "--out", out, "--time-limit", 5, *SHORT, code=code,
        )  # fmt: skip
        if fault != "unplugged":
            assert not list((phone.root / "data/local/tmp").iterdir()), "not tidied up"
    found = cases(out)
    if wanted is None:
        assert found == []
        assert words in done.stderr
    else:
        (case,) = found
        assert (case["verdict"] if fault == "spread" else verdict(case)) == wanted, case["reasons"]
        assert words in " ".join(case["reasons"])
        assert (case["median_ms"] is None) == (wanted == "INVALID")
