"""TFLite's benchmark_model, run by a virtual phone: the model really runs, on the host's CPU.

After `tensorflow/lite/tools/benchmark/benchmark_{model,tflite_model}.cc`, with the flags of
`native_flags`. Delegates other than XNNPACK are a log only. LiteRT's Python interface has no
profiler, so the operation profile shares a run's measured time evenly among the executed nodes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from afd_export.placement.rules import Delegate
from tests.virtual_phone.native_delegates import Cut, accelerator_cut, xnnpack_cut
from tests.virtual_phone.native_flags import Flags, parse_flags
from tests.virtual_phone.native_inputs import input_values, resize_inputs
from tests.virtual_phone.native_log import BenchmarkError, Log, average
from tests.virtual_phone.native_profile import Node, profile

_MIB_KB = 1024.0


def main() -> NoReturn:
    host, _, port = os.environ["VIRTUAL_PHONE"].rpartition(":")
    phone = socket.create_connection((host, int(port)))
    request = {"arguments": sys.argv[1:], "pid": os.getpid()}
    phone.sendall(json.dumps(request).encode() + b"\n")
    plan = json.loads(phone.makefile("rb").readline())
    threading.Thread(target=_die_with, args=(phone,), daemon=True).start()
    # The real tool aborts on FATAL; nobody wants the cores of that.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = Log(old=plan["log"] == "old", faults=plan["faults"])
    log.tool("STARTING!")
    try:
        flags = parse_flags(sys.argv[1:], late="old-tool" not in plan["faults"])
        if flags.unconsumed:
            log.tool(f"Unconsumed cmdline flags: {' '.join(flags.unconsumed)}", "WARN")
        _Benchmark(flags, plan, log).run()
        if "error-after-timings" in plan["faults"]:
            raise BenchmarkError
    except (BenchmarkError, ValueError) as error:
        for line in (*map(str, error.args), "Benchmarking failed."):
            log.runtime(line, "ERROR")
        os._exit(1)
    os._exit(0)


def _die_with(phone: socket.socket) -> None:
    """Nothing outlives the phone that it runs on."""
    phone.recv(1)
    os._exit(137)


class _Benchmark:
    def __init__(self, flags: Flags, plan: dict[str, Any], log: Log) -> None:
        self._flags, self._plan, self._log = flags, plan, log
        self._faults: list[str] = plan["faults"]
        # With the fault `spread`, how much longer every second start takes.
        self._slowdown = 2.0 * (plan["start"] % 2) if "spread" in self._faults else 0.0

    def run(self) -> None:
        flags, log = self._flags, self._log
        if not flags["graph"]:
            raise BenchmarkError("Please specify the name of your TF Lite input file with --graph")
        for line in flags.log_lines(self._plan["nnapi"], signature=not log.old):
            log.tool(line)
        rss_kb = _rss_kb()
        began_us = _now_us()
        self._load()
        init_us = _now_us() - began_us
        init_kb = _rss_kb() - rss_kb
        log.tool(f"The input model file size (MB): {self._path.stat().st_size / 1e6:g}")
        log.tool(f"Initialized session in {init_us / 1e3:g}ms.")
        if "out-of-memory" in self._faults:
            os.kill(os.getpid(), signal.SIGKILL)
        while "hang" in self._faults:
            time.sleep(3600)
        self._inputs = list(input_values(self._interpreter, flags, log))
        limit_s = flags["max_secs"]
        warmup = self._series(flags["warmup_runs"], flags["warmup_min_secs"], limit_s)
        inference = self._series(flags["num_runs"], flags["min_secs"], limit_s)
        log.tool(
            f"Inference timings in us: Init: {init_us}, First inference: {warmup[0]}, "
            f"Warmup (avg): {average(warmup)}, Inference (avg): {average(inference)}"
        )
        self._memory(init_kb, _rss_kb() - rss_kb)
        if flags["enable_op_profiling"]:
            self._profile(init_us, inference)
        if flags["output_filepath"]:
            self._save_outputs(Path(flags["output_filepath"]))

    # --- initialisation ---------------------------------------------------------------------------

    def _load(self) -> None:
        flags, log = self._flags, self._log
        self._path = Path(flags["graph"])
        if not self._path.is_file():
            log.runtime(f"Could not open '{self._path}'.", "ERROR")
            raise BenchmarkError(f"Failed to load model {self._path}")
        elsewhere = flags["use_gpu"] or flags["use_nnapi"] or flags["external_delegate_path"]
        # Builds of 2021 apply XNNPACK only where it is asked for.
        plain = not flags["use_xnnpack"] and ("use_xnnpack" in flags.given or log.old)
        plain = plain and not elsewhere
        kind = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if plain else "AUTO"
        try:
            with _own_log_off():
                self._interpreter = Interpreter(
                    model_path=str(self._path),
                    num_threads=max(1, flags["num_threads"]),
                    experimental_op_resolver_type=OpResolverType[kind],
                )
        except ValueError as error:
            log.runtime("The model is not a valid Flatbuffer buffer", "ERROR")
            raise BenchmarkError(f"Failed to load model {self._path}") from error
        log.tool(f"Loaded model {self._path}")
        log.runtime("Initialized TensorFlow Lite runtime.")
        resize_inputs(self._interpreter, flags, log)
        with _own_log_off():
            self._allocate()
        self._kernels = ""  # their type in the operation profile
        applied = self._apply_accelerators()
        if flags["use_xnnpack"]:
            self._apply("XNNPACK", "TfLiteXNNPackDelegate", self._xnnpack)
        elif not applied and flags["require_full_delegation"]:
            raise BenchmarkError("Disallowed CPU fallback detected.")
        elif not (applied or plain):
            # The runtime applies it by itself, which the tool does not mention.
            log.runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
            cut = self._xnnpack()
            self._kernels = "TfLiteXNNPackDelegate"
            log.replacing("TfLiteXNNPackDelegate", cut.delegated, cut.total, cut.subsets)

    def _allocate(self) -> None:
        try:
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise BenchmarkError(
                *str(error).splitlines()[:1], "Failed to allocate tensors!"
            ) from error

    # --- delegates --------------------------------------------------------------------------------

    def _apply_accelerators(self) -> bool:
        """Whether any was asked for and created."""
        flags, plan, log = self._flags, self._plan, self._log
        applied = False
        limit = flags["max_delegated_partitions"]
        if flags["use_gpu"]:
            applied = True
            self._apply("GPU", "TfLiteGpuDelegateV2", lambda: self._gpu(max(1, limit)))
        if flags["use_nnapi"]:
            name = flags["nnapi_accelerator_name"]
            if name and plan["nnapi"] and name not in plan["nnapi"]:
                available = ",".join(plan["nnapi"])
                log.runtime(
                    f"Could not find the specified NNAPI accelerator: {name}. Must be one of: "
                    f"{{{available}}}.",
                    "ERROR",
                )
            else:
                applied = True
                self._apply("NNAPI", "TfLiteNnapiDelegate", lambda: self._nnapi(limit or 3))
        if path := flags["external_delegate_path"]:
            if Path(path).is_file():
                applied = True
                self._apply("EXTERNAL", "TfLiteQnnDelegate", self._external)
            else:
                # As it is: the tool goes on without the delegate.
                log.runtime(f"Unable to load external delegate from : {path}")
        return applied

    def _apply(self, name: str, kernel: str, cut: Callable[[], Cut]) -> None:
        log = self._log
        if name != "EXTERNAL":
            what = "XNNPACK delegate for CPU" if name == "XNNPACK" else f"delegate for {name}"
            log.runtime(f"Created TensorFlow Lite {what}.")
        log.tool(f"{name} delegate created.")
        found = cut()
        log.replacing(kernel, found.delegated, found.total, found.subsets)
        if name == "GPU" and found.delegated:
            log.runtime("Initialized OpenCL-based API.")
            log.runtime(f"Created {found.kernels} GPU delegate kernels.")
        if self._flags["require_full_delegation"] and not found.whole:
            raise BenchmarkError("Disallowed CPU fallback detected.")
        self._kernels = kernel
        if not found.delegated:
            log.tool(
                f"Though {name} delegate is explicitly applied, the model graph will not be "
                "executed by the delegate."
            )
            return
        how = "completely executed by the delegate."
        if not found.whole:
            how = f"partially executed by the delegate w/ {found.kernels} delegate kernels."
        log.tool(f"Explicitly applied {name} delegate, and the model graph will be {how}")

    def _xnnpack(self) -> Cut:
        return xnnpack_cut(self._path, self._interpreter)

    def _gpu(self, limit: int) -> Cut:
        if not self._plan["gpu"]:
            raise BenchmarkError(
                "Can not open OpenCL library on this device - dlopen failed: library "
                '"libOpenCL.so" not found',
                "Falling back to OpenGL",
                "TfLiteGpuDelegate Init: OpenGL-based API disabled",
                "TfLiteGpuDelegate Prepare: delegate is not initialized",
                "Node number 0 (TfLiteGpuDelegateV2) failed to prepare.",
                "Restored original execution plan after delegate application failure.",
                "Failed to apply GPU delegate.",
            )
        return accelerator_cut(self._path, Delegate.GPU, limit, self._faults, self._log)

    def _nnapi(self, limit: int) -> Cut:
        if not self._plan["nnapi"]:
            raise BenchmarkError("NN API returned error ANEURALNETWORKS_BAD_DATA at line 1220.",
                                 "Failed to apply NNAPI delegate.")  # fmt: skip
        return accelerator_cut(self._path, Delegate.NNAPI, limit, self._faults, self._log)

    def _external(self) -> Cut:
        if not self._plan["external"]:
            raise BenchmarkError("Failed to apply EXTERNAL delegate.")
        return accelerator_cut(self._path, None, None, self._faults, self._log)

    # --- runs -------------------------------------------------------------------------------------

    def _series(self, runs: int, min_s: float, max_s: float) -> list[int]:
        """Duration of each run, in microseconds."""
        self._log.tool(
            f"Running benchmark for at least {runs} iterations and at least {min_s:g} seconds but "
            f"terminate if exceeding {max_s:g} seconds."
        )
        durations_us: list[int] = []
        began_us = now_us = _now_us()
        while (len(durations_us) < runs or now_us < began_us + min_s * 1e6) and (
            now_us <= began_us + max_s * 1e6
        ):
            for index, values in self._inputs:
                self._interpreter.set_tensor(index, values)
            started_ns = time.monotonic_ns()
            self._interpreter.invoke()
            if self._slowdown:
                spent_ns = time.monotonic_ns() - started_ns
                while time.monotonic_ns() < started_ns + (1 + self._slowdown) * spent_ns:
                    pass
            durations_us.append((time.monotonic_ns() - started_ns) // 1000)
            time.sleep(max(0.0, self._flags["run_delay"]))
            now_us = _now_us()
        self._log.statistics(durations_us)
        return durations_us

    # --- afterwards -------------------------------------------------------------------------------

    def _memory(self, init_kb: int, overall_kb: int) -> None:
        log = self._log
        log.tool(
            "Note: as the benchmark tool itself affects memory footprint, the following is only "
            "APPROXIMATE to the actual memory footprint of the model at runtime. Take the "
            "information at your discretion."
        )
        title = "Peak memory footprint (MB)" if log.old else (
            "Memory footprint delta from the start of the tool (MB)"
        )  # fmt: skip
        log.tool(f"{title}: init={init_kb / _MIB_KB:g} overall={overall_kb / _MIB_KB:g}")
        if self._flags["report_peak_memory_footprint"]:
            peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            log.tool(
                f"Overall peak memory footprint (MB) via periodic monitoring: {peak_kb / _MIB_KB:g}"
            )
            rss = _rss_kb() // 1024
            log.tool("Memory status at the end of exeution:")  # spelt like this
            log.tool(f"- VmRSS              : {rss} MB")
            log.tool(f"+ RssAnnon           : {rss * 3 // 4} MB")
            log.tool(f"+ RssFile + RssShmem : {rss - rss * 3 // 4} MB")

    def _profile(self, init_us: int, durations_us: list[int]) -> None:
        plan = self._interpreter._get_ops_details()
        whole = [d for d in plan if d["op_name"] == "DELEGATE"] or plan
        nodes = [
            Node(
                self._kernels if d["op_name"] == "DELEGATE" else d["op_name"],
                f"[]:{d['index']}",
                tuple(t / len(whole) for t in durations_us),
            )
            for d in whole
        ]
        start = [Node("AllocateTensors", "AllocateTensors/0", (float(init_us),))]
        text = profile(start, nodes)
        path = self._flags["op_profiling_output_file"]
        if path:
            Path(path).write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _save_outputs(self, path: Path) -> None:
        """All outputs' bytes, one after another."""
        outputs = [
            self._interpreter.get_tensor(d["index"]) for d in self._interpreter.get_output_details()
        ]
        if "wrong-output" in self._faults:
            outputs = [np.roll(o.ravel(), 1) for o in outputs]
        path.write_bytes(b"".join(o.tobytes() for o in outputs))


@contextmanager
def _own_log_off() -> Iterator[None]:
    """Without what LiteRT writes to stderr by itself, in this build's form."""
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _rss_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024
