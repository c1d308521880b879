"""`afd-bench` on what `afd-export` ships: on this host, and on three phones, by the real adb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from afd_mobile.artifacts import read_manifest
from tests.afd_benchmark.conftest import TOOL, bench_environment, verdict
from tests.afd_benchmark.test_harness_app import APK, needs_apk
from tests.virtual_phone.fixtures import AdbServer, adb_server
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

__all__ = ["adb_server"]


def run(environment: dict[str, str], out: Path, *arguments: object) -> list[dict[str, Any]]:
    """The cases of `afd-bench run ARGUMENTS --out OUT`, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "afd_benchmark.cli", "run", *map(str, arguments), "--out", str(out)],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cases: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["cases"]
    return cases


def test_on_this_host(corrected: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    cases = run(environment, tmp_path / "out", corrected, "--repeats", 3, "--runs", 10)
    assert [case["precision"] for case in cases] == ["float16", "float32", "int8"]
    for case in cases:
        assert case["verdict"] in ("VALID", "SUSPECT"), case["reasons"]
        assert case["golden"]["max_abs_error"] == 0, "another machine than the one that exported?"
        assert case["delegation"]["partitions"] == 1
        assert all(len(samples) >= 10 for samples in case["samples_ms"])
        assert case["share_of_peak"] > 0
    assert cases[2]["multiply_adds"] > cases[1]["multiply_adds"] > 3e8
    assert (
        read_manifest(corrected)["cost"]["graph"]["deployed"]["multiply_adds"]
        == (cases[1]["multiply_adds"])
    )


def test_on_three_phones_at_once(corrected: Path, tmp_path: Path, adb_server: AdbServer) -> None:
    with ExitStack() as stack:
        serials = [
            adb_server.connect(stack.enter_context(VirtualPhone(name, tmp_path / name)))
            for name in PROFILES
        ]
        environment = bench_environment(adb_server)
        cases = run(
            environment, tmp_path / "out", corrected, "--device", *serials, "--tool", TOOL,
            "--repeats", 2, "--runs", 3, "--min-secs", 0, "--cool-down", 1,
        )  # fmt: skip
        for serial in serials:
            adb_server.adb("disconnect", serial)
    assert [(c["device"], c["precision"]) for c in cases] == [
        (serial, precision) for serial in serials for precision in ("float16", "float32", "int8")
    ]
    for case in cases:
        assert verdict(case) == "VALID", case["reasons"]
        assert case["golden"]["pictures"] == 6 and case["golden"]["violations"] == []


@needs_apk
def test_by_the_harness_app(corrected: Path, tmp_path: Path, adb_server: AdbServer) -> None:
    """TensorFlow Lite 2.16.1 out of the APK, on what LiteRT's converter made."""
    with VirtualPhone("snapdragon-8-gen-2", tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        environment = bench_environment(adb_server)
        cases = run(
            environment, tmp_path / "out", corrected, "--device", serial, "--tool", APK,
            "--repeats", 1, "--runs", 3, "--min-secs", 0, "--cool-down", 1,
        )  # fmt: skip
        assert phone.state.packages.installs == 1
    assert [case["precision"] for case in cases] == ["float16", "float32", "int8"]
    for case in cases:
        assert verdict(case) == "VALID", case["reasons"]
        assert case["tool"] == "harness" and len(case["samples_ms"][0]) == 3
        assert case["golden"]["pictures"] == 6 and case["golden"]["violations"] == []
