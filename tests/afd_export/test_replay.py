"""`tests/runtimes/replay.py`, the gate of old runtimes and other processors, on this one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from afd_mobile.common.artifacts import MANIFEST, Precision
from tests.afd_export.conftest import Exported
from tests.runtimes.replay import replay

REPLAY = Path(__file__).resolve().parents[1] / "runtimes" / "replay.py"


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A copy of the export that a test may spoil."""
    return Path(shutil.copytree(exported.folder, tmp_path / "folder"))


def replay_alone(folder: Path) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as old runtimes have it."""
    command = [sys.executable, str(REPLAY), "ai-edge-litert", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def golden(
    folder: Path, precision: str, picture: int = 2
) -> np.memmap[tuple[int], np.dtype[np.float32]]:
    return np.memmap(folder / "golden" / f"{picture}_{precision}.bin", "<f4", "r+")


def output_step(path: Path) -> float:
    """Of the int8 tensor that the last operation, a DEQUANTIZE, reads."""
    (graph,) = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs
    (step,) = graph.tensors[graph.operators[-1].inputs[0]].quantization.scale
    return float(step)


def test_the_runtime_that_made_the_folder_agrees_with_it(folder: Path) -> None:
    done = replay_alone(folder)
    assert done.returncode == 0, done.stderr
    header, _, *lines = done.stdout.splitlines()
    assert header.startswith("ai-edge-litert ")
    assert {line.split()[0] for line in lines} == {p.value for p in Precision}
    assert all(line.endswith(" 6/6") for line in lines)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("value", [0.01, np.nan])
def test_a_float_file_must_keep_its_limit(folder: Path, precision: str, value: float) -> None:
    outputs = golden(folder, precision)
    outputs[outputs.argmin()] += value * np.ptp(outputs)
    outputs.flush()
    wrong, *_ = replay(Interpreter, folder)
    assert wrong.startswith(f"{precision} differs by ")


def test_an_int8_file_may_differ_but_not_in_its_top1(
    exported: Exported, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = golden(folder, "int8")
    outputs[outputs.argmin()] -= 3 * output_step(exported.tflite("int8"))
    outputs.flush()
    assert replay(Interpreter, folder) == []
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("int8"))
    assert line.split()[3:] == ["3", "6/6"]

    outputs[[outputs.argmin(), outputs.argmax()]] = outputs[[outputs.argmax(), outputs.argmin()]]
    outputs.flush()
    done = replay_alone(folder)
    assert done.returncode == 1
    entry = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["golden"][2]
    assert f"int8 gives another top-1 for {entry['picture']}" in done.stderr


def test_other_inputs_than_raw_rgb_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps(manifest | {"input_range": "normalized"}))
    (wrong,) = replay(Interpreter, folder)
    assert "normalized" in wrong
