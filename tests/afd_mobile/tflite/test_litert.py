"""What LiteRT says by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.afd_export.tflite_graphs import Fed, single

# A process of its own: LiteRT says it once in each.
PROGRAM = """
import os, sys
from pathlib import Path
from afd_mobile.tflite.litert import LiteRtModel
print(LiteRtModel(Path(sys.argv[1])).replaced().delegated, flush=True)
os.write(2, b"heard")
"""


def test_making_a_delegate_is_no_news_and_everything_else_is_heard(tmp_path: Path) -> None:
    model = tmp_path / "relu.tflite"
    model.write_bytes(single("RELU", [Fed((1, 4, 4, 8))], Fed((1, 4, 4, 8))))
    command = [sys.executable, "-c", PROGRAM, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "heard")


def test_without_stderr_a_file_runs_as_well(tmp_path: Path) -> None:
    model = tmp_path / "relu.tflite"
    model.write_bytes(single("RELU", [Fed((1, 4, 4, 8))], Fed((1, 4, 4, 8))))
    program = f"import os; os.close(2)\n{PROGRAM.rpartition('os.write')[0]}"
    command = [sys.executable, "-c", program, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
