"""benchmark_model's inputs: `--input_layer`, `--input_layer_shape`, `--input_layer_value_files`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from tests.virtual_phone.native_flags import Flags
from tests.virtual_phone.native_log import BenchmarkError, Log


def resize_inputs(interpreter: Interpreter, flags: Flags, log: Log) -> None:
    """As `--input_layer_shape` says; names only warn.

    Raises:
        BenchmarkError: numbers of inputs or of dimensions do not fit the graph.
    """
    details = interpreter.get_input_details()
    names = [n for n in flags["input_layer"].split(",") if n]
    shapes = [s for s in flags["input_layer_shape"].split(":") if s]
    if len(names) != len(shapes):
        raise BenchmarkError(
            f"The number of items in --input_layer_shape ({flags['input_layer_shape']}, with "
            f"{len(shapes)} items) must match the number of items in --input_layer "
            f"({flags['input_layer']}, with {len(names)} items). For example "
            "--input_layer=input1,input2 --input_layer_shape=1,224,224,4:1,20"
        )
    if names and len(names) != len(details):
        log.fatal(f"Inputs mismatch: Model inputs #:{len(names)} expected: {len(details)}")
    for name, shape, detail in zip(names, shapes, details, strict=False):
        if name != detail["name"]:
            known = f"Tensor # {detail['index']} is named {detail['name']}"
            log.tool(f"{known} but flags call it {name}", "WARN")
        sizes = [int(n) for n in shape.split(",")]
        if len(sizes) != len(detail["shape"]):
            raise BenchmarkError(
                f"Input tensor #{detail['index']} should have {len(detail['shape'])} dimensions!"
            )
        if sizes != list(detail["shape"]):
            interpreter.resize_tensor_input(detail["index"], sizes)


def input_values(
    interpreter: Interpreter, flags: Flags, log: Log
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(tensor index, values): from `--input_layer_value_files`, or random."""
    items = [i for i in flags["input_layer_value_files"].split(",") if i]
    files = dict(_name_and_file(item) for item in items)
    names = flags["input_layer"].split(",")
    unknown = [n for n in files if n not in names]
    if unknown:
        log.fatal(
            f"Cannot find the corresponding input_layer name({unknown[0]}) in --input_layer "
            f"as {flags['input_layer']}"
        )
    for number, detail in enumerate(interpreter.get_input_details()):
        file = files.get(names[number]) if number < len(names) else None
        shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
        if file is not None:
            yield detail["index"], _from_file(Path(file), shape, dtype, log)
        elif dtype.kind == "f":
            generator = np.random.default_rng()
            yield detail["index"], generator.uniform(-0.5, 0.5, shape).astype(dtype)
        else:
            low, high = (-127, 127) if dtype == np.int8 else (0, 99)
            values = np.random.default_rng().integers(low, high, shape, endpoint=True)
            yield detail["index"], values.astype(dtype)


def _name_and_file(item: str) -> tuple[str, str]:
    """Of `name:file`, where a colon of the name or the file's is written twice."""
    parts = [p.replace("\0", ":") for p in item.replace("::", "\0").split(":")]
    if len(parts) != 2:
        how = "contains more than one" if len(parts) > 2 else "doesn't contain any"
        raise BenchmarkError(f"{item} {how} delimiter.")
    return parts[0], parts[1]


def _from_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], log: Log) -> NDArray[Any]:
    if not path.is_file():
        log.fatal(f"Failed to read the input_layer_value_file:{path}")
    expected = int(np.prod(shape)) * dtype.itemsize
    if path.stat().st_size != expected:
        log.fatal(
            f"The size of {path} is {path.stat().st_size} bytes. It should be {expected} bytes."
        )
    return np.frombuffer(path.read_bytes(), dtype).reshape(shape)
