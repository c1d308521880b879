"""Measuring on this machine: outputs, figures and evidence of real worker processes."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from afd_benchmark.host.runner import HostRunner
from afd_benchmark.measure import Settings
from afd_benchmark.plan import PlannedCase
from afd_benchmark.processor import processor_features
from afd_benchmark.results import Repeat
from afd_benchmark.targets import GoldenPicture, Target, read_target
from afd_mobile.common.errors import MeasurementError
from afd_mobile.tflite.litert import LiteRtModel
from tests.afd_benchmark.conftest import (
    CLASSES,
    SIZE,
    any_size,
    small_graph,
    two_outputs,
    write_export,
)
from tests.afd_export.tflite_graphs import Fed, Graph, Stored, single

QUICK = Settings(repeats=1, runs=3, min_secs=0, warmup_runs=2, warmup_min_secs=0)
LOG = "logs/some.log"
CORES = len(os.sched_getaffinity(0))
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

# A delegate that gets ready and takes no operation.
TAKES_NOTHING = """
#include <stdint.h>
#include <stdlib.h>
struct delegate {
  void *data;
  int (*prepare)(void *, struct delegate *);
  void *buffers[3];
  int64_t flags;
  void *builder;
};
static int prepare(void *context, struct delegate *self) { return 0; }
struct delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                               void (*report)(const char *)) {
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  return made;
}
void tflite_plugin_destroy_delegate(struct delegate *made) { free(made); }
"""


@pytest.fixture(scope="module")
def plain_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("host") / "plain", "plain", small_graph(16))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "nothing.c").write_text(TAKES_NOTHING)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", "libnothing.so", "nothing.c"],
        cwd=folder, check=True, timeout=60,
    )  # fmt: skip
    return folder / "libnothing.so"


def bare(content: bytes, folder: Path) -> Target:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return read_target(path)


def planned(target: Target, backend: str = "cpu", threads: int = 1) -> PlannedCase:
    return PlannedCase(target, "host", backend, threads, None, None)


def repeated(
    target: Target, out: Path, settings: Settings = QUICK, *, backend: str = "cpu", threads: int = 1
) -> Repeat:
    return HostRunner(settings, out).repeat(planned(target, backend, threads), target, LOG)


def failure(target: Target, out: Path, settings: Settings = QUICK, *, backend: str = "cpu") -> str:
    """Why it was not measured; what the worker said is kept all the same."""
    with pytest.raises(MeasurementError) as failed:
        repeated(target, out, settings, backend=backend)
    assert (out / LOG).is_file()
    return str(failed.value)


# --- outputs --------------------------------------------------------------------------------------


def test_outputs_are_litert_s_own(plain_export: Path, tmp_path: Path) -> None:
    target = read_target(plain_export / "plain_float32.tflite")
    outputs = HostRunner(QUICK, tmp_path).outputs(planned(target), target, LOG)
    model = LiteRtModel(target.local_path)
    assert len(outputs) == 2 and outputs[0].shape == (1, CLASSES)
    for picture, output in zip(target.golden, outputs, strict=True):
        assert np.array_equal(output, model.run(picture.image))
    assert not np.array_equal(outputs[0], outputs[1])
    assert (tmp_path / LOG).is_file()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantised_outputs_are_in_real_values(kind: str, tmp_path: Path) -> None:
    given, flat = (Fed(shape, kind, scale=0.5, zero_point=3) for shape in ((1, 4), (4,)))
    shape = Stored(np.array([4], np.int32))
    target = bare(single("RESHAPE", [given, shape], flat, newShape=[4]), tmp_path)
    values = np.array([[0.0, 0.6, 7.0, 1e6]], np.float32)
    target = replace(target, golden=(GoldenPicture("p", values, values[0]),))
    (output,) = HostRunner(QUICK, tmp_path).outputs(planned(target), target, LOG)
    # In steps of a half, up to the type's end: (127 or 255 - 3) x 0.5.
    assert output.dtype == np.float32
    assert output.tolist() == [0.0, 0.5, 7.0, 62.0 if kind == "int8" else 126.0]


# --- a repeat -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(plain_export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repeat, Path]:
    out = tmp_path_factory.mktemp("out")
    return repeated(read_target(plain_export / "plain_float32.tflite"), out), out


def test_a_repeat_s_figures_fit_together(measured: tuple[Repeat, Path]) -> None:
    repeat, _ = measured
    assert repeat.runs == len(repeat.samples_ms) == 3
    assert repeat.median_ms == np.median(repeat.samples_ms) and repeat.statistic == "median"
    assert min(repeat.samples_ms) > 0 and repeat.init_ms > 0 and repeat.first_ms > 0
    assert repeat.warmup_ms is not None and repeat.warmup_ms > 0
    assert repeat.runtime == f"LiteRT {version('ai-edge-litert')}"
    assert 0 <= repeat.before.at_s < repeat.after.at_s
    for condition in (repeat.before, repeat.after):
        assert condition.reference_gflops is not None and condition.reference_gflops > 0


def test_the_peak_memory_holds_the_activations_that_are_there_at_once(tmp_path: Path) -> None:
    """As much as the products before it used and gave back: that is no part of the baseline."""
    side = 512
    taken = side * side * 4  # bytes of one of the three; ABS cannot run in place
    graph = Graph()
    fed = graph.feed(Fed((1, side, side, 1)))
    middle = graph.run("ABS", [fed], [graph.tensor(Fed((1, side, side, 1)))])
    graph.run("ABS", [middle], [result := graph.tensor(Fed((1, side, side, 1)))])
    repeat = repeated(bare(graph.finish([result]), tmp_path), tmp_path)
    assert repeat.peak_memory_bytes is not None
    assert 2 * taken <= repeat.peak_memory_bytes < 20 * taken


def test_xnnpack_s_share_is_litert_s(measured: tuple[Repeat, Path], plain_export: Path) -> None:
    d = measured[0].delegation
    replaced = LiteRtModel(plain_export / "plain_float32.tflite").replaced()
    assert (d.delegated, d.nodes, d.partitions) == (4, 4, 1)
    assert (replaced.delegated, replaced.total, replaced.kernels) == (4, 4, 1)
    assert (d.asked, d.actual, d.delegate) == ("cpu", "cpu", "TfLiteXNNPackDelegate")


def test_the_raw_log_is_there_and_its_hash_is_right(measured: tuple[Repeat, Path]) -> None:
    repeat, out = measured
    raw = (out / repeat.log).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == repeat.log_sha256
    assert b'"samples_ms"' in raw


def test_more_threads_and_no_golden_pictures(tmp_path: Path) -> None:
    threads = min(2, CORES)
    repeat = repeated(bare(small_graph(8), tmp_path), tmp_path, threads=threads)
    assert repeat.runs == 3 and repeat.delegation.actual == "cpu"


def test_without_warm_up_and_with_the_longest_time_over_at_once(tmp_path: Path) -> None:
    settings = Settings(runs=10**9, min_secs=1e9, max_secs=0, warmup_runs=0, warmup_min_secs=0)
    repeat = repeated(bare(small_graph(8), tmp_path), tmp_path, settings)
    assert repeat.warmup_ms is None and repeat.runs == 1 and repeat.outliers == []


# --- what it is and what it cannot do -------------------------------------------------------------


def test_the_host_s_description(tmp_path: Path) -> None:
    device = HostRunner(QUICK, tmp_path).device
    assert (device.name, device.kind, device.abi) == ("host", "host", platform.machine())
    assert [core.index for core in device.cores] == sorted(os.sched_getaffinity(0))
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines()
                 if line.startswith("MemTotal"))  # fmt: skip
    assert device.memory_bytes == int(total.split()[1]) * 1024
    assert device.model and device.system.startswith(platform.system())
    assert device.features == processor_features(Path("/proc/cpuinfo").read_text())


@pytest.mark.parametrize(
    ("backend", "threads", "words"),
    [
        ("cpu", 1, None),
        ("cpu", CORES, None),
        ("cpu", CORES + 1, f"{CORES + 1} threads on {CORES} cores"),
        ("gpu", 1, "LiteRT has no gpu backend on a host"),
        ("nnapi", 1, "LiteRT has no nnapi backend on a host"),
        ("external:/nowhere/lib.so", 1, "there is no library /nowhere/lib.so"),
        ("external:/", 1, "there is no library /"),
        (f"external:{__file__}", 1, None),
        (f"external:{__file__}", CORES + 1, f"{CORES + 1} threads on {CORES} cores"),
    ],
)
def test_what_it_refuses(backend: str, threads: int, words: str | None, tmp_path: Path) -> None:
    found = HostRunner(QUICK, tmp_path).refuses(backend, threads)
    assert found is None if words is None else found is not None and words in found


# --- failures -------------------------------------------------------------------------------------


def test_a_model_that_was_damaged_meanwhile(tmp_path: Path) -> None:
    target = bare(small_graph(8), tmp_path)
    target.local_path.write_bytes(b"no model at all")
    assert "is no TFLite model" in failure(target, tmp_path)
    target.local_path.unlink()
    assert str(target.local_path) in failure(target, tmp_path)


def test_a_model_that_kills_its_process(tmp_path: Path) -> None:
    """LiteRT divides by the number of parts without a look at it."""
    axis = Stored(np.array(1, np.int32))
    target = bare(single("SPLIT", [axis, Fed((1, 8))], Fed((1, 8)), numSplits=0), tmp_path)
    assert failure(target, tmp_path).startswith("the process ended with signal ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (single("CONV_2D", [Fed((1, 8, 8, 3)), Stored(np.ones((4, 3, 3, 3), np.float32)),
                            Stored(np.ones(4, np.float32))], Fed((1, 8, 8, 4))),
         "stride_height > 0 was not true"),
        (single("ABS", [Fed((4,), "int32")], Fed((4,), "int32")), "expected type INT32"),
    ],
    ids=["does not prepare", "takes no floats"],
)  # fmt: skip
def test_a_model_that_does_not_run_says_why(content: bytes, words: str, tmp_path: Path) -> None:
    message = failure(bare(content, tmp_path), tmp_path)
    assert message.startswith("the process ended with exit code 1: ") and words in message


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    settings = Settings(min_secs=60, time_limit_secs=0.5)
    started = time.monotonic()
    message = failure(bare(small_graph(8), tmp_path), tmp_path, settings)
    assert "did not end within 0.5 s" in message
    assert time.monotonic() - started < 30
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [c for c in commands if b"host_worker" in c]


# --- external delegates ---------------------------------------------------------------------------


def test_a_library_that_is_none(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_text("no library")
    target = bare(small_graph(8), tmp_path)
    message = failure(target, tmp_path, backend=f"external:{library}")
    assert str(library) in message and len(message.splitlines()) == 1


@needs_compiler
def test_a_delegate_that_takes_nothing_did_not_run_it(library: Path, tmp_path: Path) -> None:
    """XNNPACK takes what it leaves: all of it."""
    repeat = repeated(bare(small_graph(8), tmp_path), tmp_path, backend=f"external:{library}")
    assert (repeat.delegation.asked, repeat.delegation.actual) == (f"external:{library}", "cpu")


@needs_compiler
def test_a_library_by_its_name_is_the_one_in_this_folder(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library.parent)
    target = bare(small_graph(8), tmp_path)
    assert HostRunner(QUICK, tmp_path).refuses(f"external:{library.name}", 1) is None
    assert repeated(target, tmp_path, backend=f"external:{library.name}").runs == 3


# --- the worker by itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [lambda text: "", lambda text: "{}", lambda text: text.replace('"runs"', '"rums"')],
    ids=["nothing", "no keys", "an unknown key"],
)
def test_the_worker_refuses_what_is_no_request(change: Callable[[str], str]) -> None:
    request = (
        '{"model":"m","images":"i","outputs":null,"threads":1,"cores":[],"delegate":null,'
        '"delegate_options":{},"warmup_runs":0,"warmup_min_secs":0,"runs":1,"min_secs":0,'
        '"max_secs":1}'
    )
    done = subprocess.run(
        [sys.executable, "-m", "afd_benchmark.host.worker"],
        input=change(request), capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""


def test_images_of_another_size_are_refused(plain_export: Path, tmp_path: Path) -> None:
    target = read_target(plain_export / "plain_float32.tflite")
    image = np.zeros((1, SIZE, SIZE // 2, 3), np.float32)
    wrong = replace(target, golden=(GoldenPicture("p", image, target.golden[0].expected),))
    assert "Dimension mismatch" in failure(wrong, tmp_path)


def test_several_outputs_are_timed(tmp_path: Path) -> None:
    repeat = repeated(bare(two_outputs(), tmp_path), tmp_path / "out")
    assert len(repeat.samples_ms) == 3 and repeat.delegation.nodes == 2


def test_an_input_of_any_size_gets_the_one_that_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(any_size())
    target = read_target(path, (1, 5, 7, 3))
    assert len(repeated(target, tmp_path / "out").samples_ms) == 3
    image = np.linspace(-1, 1, 105, dtype=np.float32).reshape(1, 5, 7, 3)
    target = replace(target, golden=(GoldenPicture("p", image, image),))
    (output,) = HostRunner(QUICK, tmp_path / "out").outputs(planned(target), target, LOG)
    np.testing.assert_allclose(output, np.tanh(image), atol=1e-6)
