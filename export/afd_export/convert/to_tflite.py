"""ONNX -> TFLite in the asked precisions, by onnx2tf in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afd_export.convert.recipes import Recipe
from afd_export.convert.worker import run_worker, save_array
from afd_mobile.common.artifacts import Precision
from afd_mobile.common.errors import ConversionError

CONVERT_TIMEOUT_S = 900.0
RUN_TIMEOUT_S = 900.0
THREADS = 2
PREPARED = "prepared.tflite"  # the float32 graph that int8 was quantised from


def convert_tflite(
    onnx_path: Path,
    recipes: list[Recipe],
    calibration: NDArray[np.float32],
    output_name: str,
    workdir: Path,
) -> dict[Precision, list[Path] | ConversionError]:
    """Writes one `.tflite` file for each recipe and each of its float spans, into `workdir`.

    A precision that fails leaves the others as they are.

    Args:
        calibration: (N, S, S, 3) in the graph's input range.

    Returns:
        the candidates of each precision, in the recipe's order; or the error: the converter
        failed, or left an operator that phones do not take.
    """
    calibration_path = workdir / "calibration.npy"
    save_array(calibration_path, calibration)
    candidates = {
        recipe.precision: {
            workdir / f"{recipe.precision.value}-{'-'.join(map(str, span))}.tflite": span
            for span in recipe.float_spans
        }
        for recipe in recipes
    }
    request = {
        "onnx": str(onnx_path),
        "output_name": output_name,
        "calibration": str(calibration_path),
        "prepared": str(workdir / PREPARED),
        "targets": [
            {
                "precision": recipe.precision.value,
                "optimize": recipe.optimize,
                "failure": str(_failure(workdir, recipe.precision)),
                "candidates": [
                    {"path": str(path), "float_span": span}
                    for path, span in candidates[recipe.precision].items()
                ],
            }
            for recipe in recipes
        ],
    }
    died: ConversionError | None = None
    try:
        run_worker(
            "afd_export.convert.tflite_worker", request, workdir, timeout_s=CONVERT_TIMEOUT_S
        )
    except ConversionError as error:
        died = error
    converted: dict[Precision, list[Path] | ConversionError] = {}
    for precision, paths in candidates.items():
        failure = _failure(workdir, precision)
        if failure.exists():
            said = json.loads(failure.read_text("utf-8"))
            message = said["message"] or f"the converter failed on {precision.value}"
            converted[precision] = ConversionError(message, chatter=said["chatter"])
        elif died is not None and not all(path.exists() for path in paths):
            converted[precision] = died
        else:
            converted[precision] = list(paths)
    return converted


def run_tflite(path: Path, images_path: Path, workdir: Path) -> NDArray[np.float32]:
    """images (N, S, S, 3) in a .npy -> outputs (N, ...), one by one, in a process of its own.

    Raises:
        ConversionError: LiteRT refuses the file, or aborts on it.
    """
    outputs_path = workdir / "outputs.npy"
    request = {
        "model": str(path),
        "images": str(images_path),
        "outputs": str(outputs_path),
        "threads": THREADS,
    }
    run_worker("afd_export.convert.litert_worker", request, workdir, timeout_s=RUN_TIMEOUT_S)
    outputs: NDArray[np.float32] = np.load(outputs_path)
    return outputs


def _failure(workdir: Path, precision: Precision) -> Path:
    """Where the worker says why it could not make a precision."""
    return workdir / f"{precision.value}-failure.json"
