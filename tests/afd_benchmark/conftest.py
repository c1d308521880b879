"""A small export folder with its manifest, and the command line, for the benchmark's tests."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_benchmark.cli import main
from afd_mobile import __version__
from afd_mobile.common.artifacts import SCHEMA_VERSION, sha256
from afd_mobile.tflite.litert import LiteRtModel
from tests.afd_export.tflite_graphs import Fed, Graph, Stored
from tests.commands import Outcome, exit_code_of
from tests.virtual_phone.apk import tools_missing
from tests.virtual_phone.fixtures import AdbServer, adb_server
from tests.virtual_phone.packages import HOST_JAR

__all__ = ["adb_server"]

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "tests" / "virtual_phone" / "benchmark_model"
SIZE, CLASSES = 32, 10
# Enough to go through every step; the cool-down, which nothing needs, is over at the first look.
BRIEF = ("--repeats", 1, "--runs", 3, "--min-secs", 0, "--cool-down", 0)
SHORT = (*BRIEF, "--repeats", 2)
LIMITS = {
    "max_error": 2e-5,
    "mean_error": 5e-6,
    "min_cosine": 0.999999,
    "min_snr_db": 90.0,
    "max_changed_beyond_error": 0.0,
}


def two_outputs() -> bytes:
    graph = Graph()
    given = graph.feed(Fed((1, 4)))
    results = [graph.tensor(Fed((1, 4))) for _ in range(2)]
    for operator, result in zip(("RELU", "TANH"), results, strict=True):
        graph.run(operator, [given], [result])
    return graph.finish(results)


def any_size() -> bytes:
    """Its height and width are known at run time only; the file says 1 x 1."""
    graph = Graph()
    given = graph.feed(Fed((1, 1, 1, 3)))
    result = graph.tensor(Fed((1, 1, 1, 3)))
    graph.run("TANH", [given], [result])
    for index in (given, result):
        graph.signature(index, (1, -1, -1, 3))
    return graph.finish([result])


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
        "schema_version": SCHEMA_VERSION,
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


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two export folders, corrected and plain, to be left as they are."""
    folder = tmp_path_factory.mktemp("exports")
    write_export(folder / "corrected", "corrected", small_graph(24))
    write_export(folder / "plain", "plain", small_graph(16))
    return folder


@pytest.fixture
def corrected(exports: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exports / "corrected", tmp_path / "corrected")


@pytest.fixture
def plain(exports: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exports / "plain", tmp_path / "plain")


@pytest.fixture
def picture() -> NDArray[np.float32]:
    return np.random.default_rng(2).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)


def afd_bench(*arguments: object, code: int = 0) -> Outcome:
    """`afd-bench ARGUMENTS` in this process; an error is one line."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        found = exit_code_of(main, "afd-bench", *arguments)
    done = Outcome(found, out.getvalue(), err.getvalue())
    assert done.code == code, done
    if code:
        assert "error: " in done.err.splitlines()[-1]
    return done


def harness_apk() -> Path:
    """What `make apk` builds; fails where that, or what the virtual phone reads it with, is not."""
    apk = REPOSITORY / f"android_app/target/afd-harness-{__version__}.apk"
    missing = [str(path) for path in (apk, HOST_JAR) if not path.is_file()] + tools_missing()
    if missing:
        pytest.fail(f"needs `make apk`; there is no {', no '.join(missing)}", pytrace=False)
    return apk


Bench = Callable[..., Outcome]


@pytest.fixture(scope="session")
def bench(adb_server: AdbServer) -> Iterator[Bench]:
    """`bench(ARGUMENT, ...)` is `afd-bench` with the tests' own adb server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in adb_server.variables.items():
            patch.setenv(name, value)
        yield afd_bench


def start_bench(*arguments: object, server: AdbServer | None = None) -> subprocess.Popen[str]:
    """`afd-bench ARGUMENTS` as a process, which goes on by itself."""
    environment = server.environment if server is not None else dict(os.environ)
    paths = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-m", "afd_benchmark.cli", *map(str, arguments)],
        env=environment | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it wrote to stderr, once it has ended with this exit code."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors
    return errors


def cases(out: Path) -> list[dict[str, Any]]:
    """Those of a finished or unfinished run."""
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["cases"]
    return found


def verdict(case: dict[str, Any]) -> str:
    """The case's, but for what few repeats on a busy machine do to it."""
    spread = (
        "the repeats' medians spread over",
        "the median is known to",
        "too few repeats",
    )
    disturbed = [r for r in case["reasons"] if not r.startswith(spread)]
    return "VALID" if case["verdict"] == "SUSPECT" and not disturbed else str(case["verdict"])
