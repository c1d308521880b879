"""`afd-bench` on what `afd-export` ships: on this host, and on three phones, by the real adb."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from afd_mobile.common.artifacts import read_manifest
from tests.afd_benchmark.conftest import (
    BRIEF,
    TOOL,
    cases,
    ended,
    harness_apk,
    start_bench,
    verdict,
)
from tests.virtual_phone.fixtures import AdbServer, adb_server
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

__all__ = ["adb_server"]


def run(out: Path, *arguments: object, server: AdbServer | None = None) -> list[dict[str, Any]]:
    """The cases of `afd-bench run ARGUMENTS --out OUT`, which must succeed."""
    ended(start_bench("run", *arguments, "--out", out, server=server), 0)
    return cases(out)


def test_on_this_host(corrected: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "out", corrected, "--repeats", 1, "--runs", 10)
    assert [case["precision"] for case in found] == ["float16", "float32", "int8"]
    for case in found:
        assert case["verdict"] in ("VALID", "SUSPECT"), case["reasons"]
        assert case["golden"]["max_abs_error"] == 0, "another machine than the one that exported?"
        assert case["delegation"]["partitions"] == 1
        assert all(len(samples) >= 10 for samples in case["samples_ms"])
        assert case["share_of_peak"] > 0
    assert found[2]["multiply_adds"] > found[1]["multiply_adds"] > 3e8
    assert (
        read_manifest(corrected)["cost"]["graph"]["deployed"]["multiply_adds"]
        == (found[1]["multiply_adds"])
    )


@pytest.mark.long
def test_on_three_phones_at_once(corrected: Path, tmp_path: Path, adb_server: AdbServer) -> None:
    """One file on all of them, and the other precisions on the first."""
    files = {path.stem.rpartition("_")[2]: path for path in corrected.glob("*.tflite")}
    options = ("--tool", TOOL, *BRIEF)
    with ExitStack() as stack:
        serials = [
            adb_server.connect(stack.enter_context(VirtualPhone(name, tmp_path / name)))
            for name in PROFILES
        ]
        found = run(
            tmp_path / "1", files.pop("float32"), "--device", *serials, *options, server=adb_server
        )
        found += run(
            tmp_path / "2", *files.values(), "--device", serials[0], *options, server=adb_server
        )
        for serial in serials:
            adb_server.disconnect(serial)
    assert {(c["device"], c["precision"]) for c in found} == {
        *((serial, "float32") for serial in serials),
        (serials[0], "float16"),
        (serials[0], "int8"),
    }
    for case in found:
        assert verdict(case) == "VALID", case["reasons"]
        assert case["golden"]["pictures"] == 6 and case["golden"]["violations"] == []


@pytest.mark.engine
def test_by_the_harness_app(corrected: Path, tmp_path: Path, adb_server: AdbServer) -> None:
    """TensorFlow Lite 2.16.1 out of the APK, on what LiteRT's converter made."""
    apk = harness_apk()
    with VirtualPhone("snapdragon-8-gen-2", tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        found = run(
            tmp_path / "out", corrected, "--device", serial, "--tool", apk, *BRIEF,
            server=adb_server,
        )  # fmt: skip
        assert phone.state.packages.installs == 1
    assert [case["precision"] for case in found] == ["float16", "float32", "int8"]
    for case in found:
        assert verdict(case) == "VALID", case["reasons"]
        assert case["tool"] == "harness" and len(case["samples_ms"][0]) == 3
        assert case["golden"]["pictures"] == 6 and case["golden"]["violations"] == []
