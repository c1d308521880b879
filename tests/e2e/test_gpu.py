"""LiteRT's real GPU engine takes the whole graph and agrees with the CPU.

It runs over SwiftShader, a software Vulkan driver that Debian's `chromium` package brings, with a
newer LiteRT than the converter allows: `make gpu-env` puts it into an environment of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afd_mobile.common.artifacts import read_manifest
from tests.delegate_engines import run_on_gpu

_RUN = """
import sys
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import GpuOptions, Options

model_path, input_path, output_path = sys.argv[1:]
options = Options(
    hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True)
)
model = CompiledModel.from_file(model_path, options=options)
assert model.is_fully_accelerated(), "not wholly taken"
image = np.fromfile(input_path, np.uint8).astype(np.float32)
(inputs,), (outputs,) = model.create_input_buffers(0), model.create_output_buffers(0)
inputs.write(image)
model.run_by_index(0, [inputs], [outputs])
outputs.read(1000, np.float32).astype("<f4").tofile(output_path)
"""


@pytest.mark.engine
def test_gpu_engine_takes_the_whole_graph_and_agrees(corrected: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corrected)
    entry = manifest["golden"][0]
    model, output = corrected / f"{manifest['name']}_float32.tflite", tmp_path / "output.bin"
    done = run_on_gpu(_RUN, model, corrected / entry["input"], output, runtime_dir=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = np.fromfile(corrected / entry["outputs"]["float32"], "<f4")
    error = np.abs(np.fromfile(output, "<f4") - expected).max()
    assert error <= 1e-3 * (expected.max() - expected.min())
