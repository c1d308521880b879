"""Replays `golden/` of an export folder with one TFLite runtime, and judges what it gives.

    python replay.py tflite-runtime FOLDER

Needs numpy and the runtime only, so that it also runs beside an old runtime and on an emulated
processor. Ends with exit code 1 where a float file leaves its limit or any picture's top-1 differs.
"""
# ruff: noqa: T201

from __future__ import annotations

import importlib
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Largest difference as a share of the golden outputs' range; both files compute in float32.
LIMITS = {"float32": 2e-5, "float16": 2e-5}


def run(interpreter: Any, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One picture, raw RGB (S, S, 3), -> the outputs in real values, flat."""
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    values: NDArray[Any] = image
    scale, zero_point = given["quantization"]
    if scale:
        limits = np.iinfo(given["dtype"])
        values = np.clip(np.rint(image / scale) + zero_point, limits.min, limits.max)
    interpreter.set_tensor(given["index"], values.astype(given["dtype"]).reshape(given["shape"]))
    interpreter.invoke()
    outputs: NDArray[np.float32] = interpreter.get_tensor(result["index"]).ravel()
    scale, zero_point = result["quantization"]
    return (outputs.astype(np.float32) - zero_point) * np.float32(scale) if scale else outputs


def quantization_step(interpreter: Any) -> float:
    """Of the output, or of what a last DEQUANTIZE makes it from; 0 where neither is quantised."""
    (result,) = interpreter.get_output_details()
    steps = {d["index"]: d["quantization"][0] for d in interpreter.get_tensor_details()}
    sources = [
        node["inputs"][0]
        for node in interpreter._get_ops_details()
        if node["op_name"] == "DEQUANTIZE" and result["index"] in node["outputs"]
    ]
    return float(steps[sources[0] if sources else result["index"]])


def replay(make_interpreter: Any, folder: Path) -> list[str]:
    """Prints a line for every file of the folder; returns what is wrong, in words."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["input_range"] != "rgb255":
        return [f"{folder} takes {manifest['input_range']} input, but golden/ holds raw RGB"]
    golden, wrong = manifest["golden"], []
    images = [np.fromfile(folder / entry["input"], np.uint8) for entry in golden]
    print(f"{'file':<9}{'max difference':>15}{'of range':>10}{'steps':>7}  same top-1")
    for file in (f for f in manifest["files"] if "precision" in f):
        precision = file["precision"]
        expected = np.stack([np.fromfile(folder / e["outputs"][precision], "<f4") for e in golden])
        interpreter = make_interpreter(model_path=str(folder / file["path"]), num_threads=1)
        interpreter.allocate_tensors()
        actual = np.stack([run(interpreter, image) for image in images])

        error = float(np.abs(actual - expected).max())
        share = error / float(np.ptp(expected))
        step = quantization_step(interpreter)
        steps = f"{error / step:.0f}" if step else ""
        same = actual.argmax(axis=1) == expected.argmax(axis=1)
        agreement = f"{same.sum()}/{len(same)}"
        print(f"{precision:<9}{error:>15.2g}{share:>10.1e}{steps:>7}  {agreement}", flush=True)

        limit = LIMITS.get(precision, np.inf)
        if not share <= limit:
            wrong.append(f"{precision} differs by {share:.1e} of the range, limit {limit:g}")
        wrong += [
            f"{precision} gives another top-1 for {entry['picture']} (quality {entry['quality']})"
            for entry, agrees in zip(golden, same, strict=True)
            if not agrees
        ]
    return wrong


def main() -> None:
    package, folder = sys.argv[1], Path(sys.argv[2])
    interpreter = importlib.import_module(f"{package.replace('-', '_')}.interpreter").Interpreter
    print(f"{package} {version(package)} on {platform.machine()}", flush=True)
    sys.exit("\n".join(replay(interpreter, folder)) or None)


if __name__ == "__main__":
    main()
