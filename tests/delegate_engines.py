"""LiteRT's own engines, asked which operations they take."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import ai_edge_litert
import pytest
from ai_edge_litert.interpreter import Interpreter

from afd_mobile.tflite.litert import Replaced, replaced_operations
from tests.commands import python_of

GPU_DRIVER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


# --- XNNPACK ----------------------------------------------------------------------------------


def xnnpack_engine(content: bytes) -> Replaced:
    """What XNNPACK replaces in a graph; nothing where it takes operations and fails on them."""
    interpreter = Interpreter(model_content=content)
    try:
        interpreter.allocate_tensors()
    except RuntimeError:
        total = sum(d["op_name"] != "DELEGATE" for d in interpreter._get_ops_details())
        return Replaced(0, total, 0)
    return replaced_operations(interpreter)


_LIBRARY = Path(ai_edge_litert.__file__).parent / "libpywrap_litert_common.so"
_SEVERITY = b"_ZN6tflite16logging_internal13MinimalLogger21minimum_log_severity_E"
_REPLACING = re.compile(r"Replacing (\d+) out of (\d+) node\(s\).*yielding (\d+) partitions")


def xnnpack_log(path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, int, int]:
    """(replaced, of how many, node subsets): XNNPACK's own log line on a file."""
    with _verbose():
        Interpreter(model_path=str(path)).allocate_tensors()
    found = _REPLACING.search(capfd.readouterr().err)
    assert found is not None
    replaced, total, subsets = map(int, found.groups())
    return replaced, total, subsets


@contextmanager
def _verbose() -> Iterator[None]:
    """LiteRT's whole log: Python has no switch for it, so its variable is set in place."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    base = next(int(line.split("-")[0], 16) for line in maps if _LIBRARY.name in line)
    severity = ctypes.c_int.from_address(base + _address(_LIBRARY, _SEVERITY))
    before, severity.value = severity.value, 0
    try:
        yield
    finally:
        severity.value = before


def _address(library: Path, symbol: bytes) -> int:
    """Of a symbol in a 64-bit ELF file's own table, which dlsym does not see."""
    content = library.read_bytes()
    (offset,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    # name, type, flags, address, offset, size, link to the table of names
    sections = [struct.unpack_from("<IIQQQQI", content, offset + i * size) for i in range(count)]
    _, _, _, _, start, length, link = next(s for s in sections if s[1] == 2)
    for entry in range(start, start + length, 24):
        name, _, _, _, address, _ = struct.unpack_from("<IBBHQQ", content, entry)
        begin = sections[link][4] + name
        if content[begin : content.index(b"\0", begin)] == symbol:
            return int(address)
    raise AssertionError(f"{library} has no {symbol!r}")


# --- GPU --------------------------------------------------------------------------------------

_COMPILE = """
import sys
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import GpuOptions, Options

options = Options(
    hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True)
)
for path in sys.argv[1:]:
    print("GRAPH", path, file=sys.stderr, flush=True)
    try:
        model = CompiledModel.from_file(path, options=options)
        print("WHOLE", model.is_fully_accelerated(), file=sys.stderr, flush=True)
    except Exception as error:
        print("FAILED", error, file=sys.stderr, flush=True)
"""
_SOME_ON_GPU = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+)")


@dataclass(frozen=True)
class GpuVerdict:
    """What LiteRT's GPU engine makes of a file.

    Attributes:
        whole: whether it runs there altogether.
        delegated: how many operations run there; None where the engine does not say.
        log: the engine's words.
    """

    whole: bool
    delegated: int | None
    log: str


def run_on_gpu(
    program: str, *arguments: object, runtime_dir: Path
) -> subprocess.CompletedProcess[str]:
    """A Python program with the GPU engine's LiteRT over SwiftShader.

    In a process of its own: the engine reads its environment when it is loaded, and dies on some
    graphs.
    """
    if not (GPU_DRIVER.is_file() and find_library("vulkan")):
        pytest.fail("needs Debian's chromium (SwiftShader) and libvulkan1", pytrace=False)
    environment = os.environ | {
        "VK_ICD_FILENAMES": str(GPU_DRIVER),
        "XDG_RUNTIME_DIR": str(runtime_dir),
    }
    return subprocess.run(
        [str(python_of("gpu")), "-c", program, *map(str, arguments)],
        env=environment, capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip


def gpu_engine(paths: list[Path], runtime_dir: Path) -> dict[Path, GpuVerdict]:
    """Compiles every file with the desktop engine over SwiftShader, anew where one kills it."""
    verdicts: dict[Path, GpuVerdict] = {}
    while left := [p for p in paths if p not in verdicts]:
        done = run_on_gpu(_COMPILE, *left, runtime_dir=runtime_dir)
        _, *logs = done.stderr.split("GRAPH ")
        assert logs and "Selected adapter: SwiftShader" in done.stderr, done.stderr[-3000:]
        for path, log in zip(left, logs, strict=False):
            verdicts[path] = _verdict(log)
    return verdicts


def _verdict(log: str) -> GpuVerdict:
    some = _SOME_ON_GPU.search(log)
    delegated = 0 if "No operations will run on the GPU" in log else None
    return GpuVerdict("WHOLE True" in log, int(some[1]) if some else delegated, log)
