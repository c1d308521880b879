"""A small export folder with its manifest, and the command line, for the benchmark's tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_mobile.artifacts import sha256
from afd_mobile.litert import LiteRtModel
from tests.afd_export.tflite_graphs import Fed, Graph, Stored
from tests.virtual_phone.fixtures import AdbServer, adb_server

__all__ = ["adb_server"]

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "tests" / "virtual_phone" / "benchmark_model"
SIZE, CLASSES = 32, 10
# Enough to go through every step once and have a second repeat.
SHORT = ("--repeats", 2, "--runs", 3, "--min-secs", 0, "--cool-down", 1)
LIMITS = {
    "max_error": 2e-5,
    "mean_error": 5e-6,
    "min_cosine": 0.999999,
    "min_snr_db": 90.0,
    "min_top1_agreement": 1.0,
}


def small_graph(channels: int = 16, seed: int = 0) -> bytes:
    """Two convolutions, a mean and a matrix product: 1 x 32 x 32 x 3 -> 1 x 10."""
    rng = np.random.default_rng(seed)
    graph = Graph()

    def stored(*shape: int) -> int:
        values = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)
        return graph.store(Stored(values.astype(np.float32)))

    def convolve(given: int, inputs: int, outputs: int) -> int:
        result = graph.tensor(Fed((1, SIZE, SIZE, outputs)))
        weights, bias = stored(outputs, 3, 3, inputs), stored(outputs)
        return graph.run("CONV_2D", [given, weights, bias], [result], strideH=1, strideW=1)

    features = convolve(graph.feed(Fed((1, SIZE, SIZE, 3))), 3, channels)
    features = convolve(features, channels, channels)
    axes = graph.store(Stored(np.array([1, 2], np.int32)))
    pooled = graph.run("MEAN", [features, axes], [graph.tensor(Fed((1, channels)))])
    logits = graph.tensor(Fed((1, CLASSES)))
    graph.run("FULLY_CONNECTED", [pooled, stored(CLASSES, channels), stored(CLASSES)], [logits])
    return graph.finish([logits])


def write_export(folder: Path, name: str, content: bytes, precision: str = "float32") -> Path:
    """An export folder with one file, as `afd-export` lays it out."""
    (folder / "golden").mkdir(parents=True)
    model = folder / f"{name}_{precision}.tflite"
    model.write_bytes(content)
    rng = np.random.default_rng(1)
    golden = []
    for number, quality in enumerate([None, 7]):
        rgb = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        given, expected = f"golden/{number}_input.bin", f"golden/{number}_{precision}.bin"
        (folder / given).write_bytes(rgb.tobytes())
        logits = LiteRtModel(model).run(rgb[None].astype(np.float32))
        (folder / expected).write_bytes(logits.tobytes())
        outputs = {precision: expected}
        entry = {"picture": f"p{number}", "quality": quality, "input": given, "outputs": outputs}
        golden.append(entry)
    manifest = {
        "schema_version": 1,
        "name": name,
        "scope": "classifier",
        "input_range": "rgb255",
        "backbone": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "files": [{"path": model.name, "sha256": sha256(model), "precision": precision}],
        "golden": golden,
        "parity": {"stages": [{"stage": f"tflite {precision}", "limits": LIMITS}]},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def corrected(tmp_path: Path) -> Path:
    return write_export(tmp_path / "corrected", "corrected", small_graph(24))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_export(tmp_path / "plain", "plain", small_graph(16))


@pytest.fixture
def picture() -> NDArray[np.float32]:
    return np.random.default_rng(2).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)


Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bench(adb_server: AdbServer) -> Bench:
    """`bench(ARGUMENT, ...)` runs `afd-bench` with the tests' own adb server."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "afd_benchmark.cli", *map(str, arguments)],
            env=bench_environment(adb_server), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def bench_environment(server: AdbServer) -> dict[str, str]:
    return server.environment | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def cases(out: Path) -> list[dict[str, Any]]:
    """Those of a finished or unfinished run."""
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["cases"]
    return found


def verdict(case: dict[str, Any]) -> str:
    """The case's, but for the spread: this machine may be busy while tests run."""
    spread = ("the repeats' medians spread over", "the median is known to")
    disturbed = [r for r in case["reasons"] if not r.startswith(spread)]
    return "VALID" if case["verdict"] == "SUSPECT" and not disturbed else str(case["verdict"])
