"""One repeat on this host, in a process of its own: a request on stdin, an answer on stdout.

    python -m afd_benchmark.host.worker < request.json

What the runtime writes to stderr is kept as the raw log.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from ai_edge_litert.interpreter import load_delegate

from afd_mobile.tflite.litert import LiteRtModel, announce_xnnpack_unheard, replaced_by

# A float32 product of this size keeps a core at its peak: 2.1 GFLOP, 12 MB.
REFERENCE_SIZE = 1024
REFERENCE_PRODUCTS = 3


class HostRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes:
    images: a .npy, (N, 1, S, S, 3), real values; the first is what is timed.
    outputs: where to save the outputs of all images; None: time instead.
    cores: to pin the process to.
    delegate: an external delegate's library.
    input_shape: for an input of any size.
    """

    model: str
    input_shape: tuple[int, ...] | None
    images: str
    outputs: str | None
    threads: int
    cores: list[int]
    delegate: str | None
    delegate_options: dict[str, str]
    warmup_runs: int
    warmup_min_secs: float
    runs: int
    min_secs: float
    max_secs: float


class HostAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in ms; `reference_gflops` before and after, of one thread; `peak_memory_bytes`: how far
    loading and running raised the process's memory, None where that is unknown."""

    init_ms: float
    delegated: int
    nodes: int
    partitions: int
    first_ms: float = 0.0
    warmup_ms: float | None = None
    samples_ms: list[float] = []
    peak_memory_bytes: int | None = None
    reference_gflops: tuple[float, float] | None = None


def main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=HostRequest)
    os.sched_setaffinity(0, request.cores)
    images = np.load(request.images)
    before = None if request.outputs else reference_gflops()
    announce_xnnpack_unheard()  # here, so that it is no part of `init_ms`
    memory = _memory_from_now_on()

    path = Path(request.model)
    started = time.perf_counter_ns()
    model = LiteRtModel(
        path,
        threads=request.threads,
        delegate=_delegate(request),
        input_shape=request.input_shape,
    )
    init_ms = (time.perf_counter_ns() - started) / 1e6
    figures: dict[str, Any] = {}
    if request.outputs:
        np.save(request.outputs, np.stack([model.run(image) for image in images]))
    else:
        model.feed(images[0])
        gc.disable()
        first_ms = _timed(model)
        warmup = _series(model, request.warmup_runs, request.warmup_min_secs, request.max_secs)
        samples = _series(model, request.runs, request.min_secs, request.max_secs)
        figures = {
            "first_ms": first_ms,
            "warmup_ms": float(np.mean(warmup)) if warmup else None,
            "samples_ms": samples,
            "peak_memory_bytes": None if memory is None else _status_bytes("VmHWM") - memory,
            "reference_gflops": (before, reference_gflops()),
        }
    # XNNPACK takes what an external delegate leaves: what that one took shows only without it.
    asked = _delegate(request)
    replaced = replaced_by(path, asked) if asked is not None else model.replaced()
    answer = HostAnswer(init_ms, replaced.delegated, replaced.total, replaced.kernels, **figures)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _delegate(request: HostRequest) -> Any:
    """The external delegate, loaded anew; None where XNNPACK alone is asked for."""
    if request.delegate is None:
        return None
    try:
        return load_delegate(request.delegate, request.delegate_options)
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"{request.delegate} is no delegate that loads: {error}") from error


def reference_gflops() -> float:
    """The best of a few large float32 matrix products, by numpy's own library."""
    generator = np.random.default_rng(0)
    left, right = generator.random((2, REFERENCE_SIZE, REFERENCE_SIZE), np.float32)
    _ = left @ right
    seconds = []
    for _ in range(REFERENCE_PRODUCTS):
        started = time.perf_counter_ns()
        _ = left @ right
        seconds.append((time.perf_counter_ns() - started) / 1e9)
    return 2 * REFERENCE_SIZE**3 / min(seconds) / 1e9


def _timed(model: LiteRtModel) -> float:
    started = time.perf_counter_ns()
    model.invoke()
    return (time.perf_counter_ns() - started) / 1e6


def _series(model: LiteRtModel, runs: int, min_secs: float, max_secs: float) -> list[float]:
    """At least so many runs and so many seconds; no run begins after `max_secs`."""
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < runs or time.perf_counter() - started < min_secs:
        if samples and time.perf_counter() - started > max_secs:
            break
        samples.append(_timed(model))
    return samples


def _memory_from_now_on() -> int | None:
    """The memory in use, with the peak set back to it; None where the kernel does not do that."""
    with suppress(AttributeError):  # not in every C library
        # What was freed and kept would hold part of what comes, unseen.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
