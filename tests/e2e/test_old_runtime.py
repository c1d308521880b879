"""Every file also runs on tflite-runtime 2.14 of 2023, the last release of that name.

`make tflite214-env` puts it into an environment of its own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from afd_mobile.common.artifacts import read_manifest
from afd_mobile.tflite.minimum_version import minimum_runtime
from tests.commands import python_of

REPLAY = Path(__file__).resolve().parents[1] / "runtimes" / "replay.py"


@pytest.mark.engine
def test_every_file_has_the_same_top1_on_a_runtime_of_2023(corrected: Path) -> None:
    command = [str(python_of("tflite214")), str(REPLAY), "tflite-runtime", str(corrected)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    header, _, *lines = done.stdout.splitlines()
    assert header.startswith("tflite-runtime 2.14.0 ")
    files = [f for f in read_manifest(corrected)["files"] if "precision" in f]
    assert [line.split()[0] for line in lines] == [f["precision"] for f in files]


def test_no_file_needs_a_newer_runtime_than_that(corrected: Path) -> None:
    for path in corrected.glob("*.tflite"):
        needed = minimum_runtime(path)
        assert needed is not None
        assert [int(n) for n in needed.split(".")] < [2, 15]
