"""Running and inspecting `.tflite` files with LiteRT."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from afd_mobile.common.errors import InputError

OPERATOR_NAMES: dict[int, str] = {
    v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)
}


@dataclass(frozen=True)
class TensorContract:
    """A graph's input or output as an app sees it; scale and zero point only where quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Replaced:
    """How many operations delegates took, of how many, in how many kernels."""

    delegated: int
    total: int
    kernels: int


class LiteRtModel:
    """One `.tflite` file with one input, on the CPU through XNNPACK.

    Several outputs are computed, and the first one is given.

    LiteRT may end the process on a damaged file: `check_model` first where it comes from a person.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        delegate: Any = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        """
        Args:
            delegate: one that `ai_edge_litert.interpreter.load_delegate` gave; XNNPACK takes what
                it leaves.
            input_shape: of a file that takes any.
        """
        with _refused(path):
            self._interpreter = _interpreter(
                model_path=str(path),
                num_threads=threads,
                experimental_delegates=[delegate] if delegate is not None else None,
            )
            if input_shape is not None:
                index = self._interpreter.get_input_details()[0]["index"]
                self._interpreter.resize_tensor_input(index, input_shape)
            self._interpreter.allocate_tensors()
        self.input, self.output = _contracts(path, self._interpreter)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """One batch-1 input in real values -> the output in real values."""
        self.feed(image)
        self.invoke()
        return dequantize(self._interpreter.get_tensor(self._output["index"]), self.output)

    def feed(self, image: NDArray[np.float32]) -> None:
        """Sets the input, in real values, and leaves it there."""
        self._interpreter.set_tensor(self._input["index"], quantize(image, self.input))

    def invoke(self) -> None:
        """One inference of what was fed."""
        self._interpreter.invoke()

    def replaced(self) -> Replaced:
        """What delegates took."""
        return replaced_operations(self._interpreter)


def contracts(path: Path) -> tuple[TensorContract, TensorContract]:
    """Input and (first) output of a file with one input, without getting it ready to run.

    Named as its signature says; by the tensors themselves where it has none. Sides of the input
    that may have any length are -1.

    Raises:
        InputError: it is no such file.
    """
    check_model(path)
    with _refused(path):
        interpreter = _interpreter(model_path=str(path))
    given, result = _contracts(path, interpreter)
    sides = interpreter.get_input_details()[0]["shape_signature"]
    if (sides[1:] < 0).any():
        given = replace(given, shape=tuple(int(side) for side in sides))
    return given, result


def _interpreter(**options: Any) -> Interpreter:
    announce_xnnpack_unheard()
    return Interpreter(**options)


@cache
def announce_xnnpack_unheard() -> None:
    """Has LiteRT say that it made an XNNPACK delegate while nobody listens.

    It says so on stderr, once a process, at any level of its log, and Python has no switch for it.
    It is made to on a graph of our own, so that whatever it says of a person's file is heard.
    """
    interpreter = Interpreter(model_content=_smallest_graph())
    try:
        heard = os.dup(2)
    except OSError:  # there is no stderr
        return
    unheard = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(unheard, 2)
        interpreter.allocate_tensors()
    finally:
        os.dup2(heard, 2)
        os.close(heard)
        os.close(unheard)


def _smallest_graph() -> bytes:
    """ReLU of one number: something for XNNPACK to take."""
    relu = schema.BuiltinOperator.RELU
    code = schema.OperatorCodeT(deprecatedBuiltinCode=relu, builtinCode=relu)
    tensors = [schema.TensorT(shape=[1], name=name) for name in ("x", "y")]
    operation = schema.OperatorT(inputs=[0], outputs=[1])
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operation])
    model = schema.ModelT(
        version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()]
    )
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# What reading a damaged flatbuffer with its own schema raises.
_BROKEN = (LookupError, TypeError, AttributeError, struct.error)


def check_model(path: Path) -> None:
    """Reads the whole file with its schema, on which LiteRT itself may die if it was cut off.

    Raises:
        InputError: it is no TFLite file, or a broken one.
    """
    try:
        schema.ModelT.InitFromPackedBuf(path.read_bytes())
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is no UTF-8, as LiteRT wants it; rename it") from error
    except (OSError, ValueError, *_BROKEN) as error:
        raise InputError(
            f"{path} is no TFLite model, or a broken one ({error}); export or copy it again"
        ) from error


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path} is no TFLite model that LiteRT runs: {error}") from error


def _contracts(path: Path, interpreter: Interpreter) -> tuple[TensorContract, TensorContract]:
    given, results = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) != 1 or not results:
        raise InputError(
            f"{path} has {len(given)} inputs and {len(results)} outputs, expected one input"
        )
    signatures = list(interpreter.get_signature_list().values())
    if len(signatures) > 1:
        raise InputError(f"{path} has {len(signatures)} signatures, expected at most one")
    names = signatures[0] if signatures else None
    return (
        _contract(names["inputs"][0] if names else given[0]["name"], given[0]),
        _contract(names["outputs"][0] if names else results[0]["name"], results[0]),
    )


def replaced_by(path: Path, delegate: Any) -> Replaced:
    """What one delegate takes of a file by itself, without XNNPACK."""
    interpreter = _interpreter(
        model_path=str(path),
        experimental_delegates=[delegate],
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return replaced_operations(interpreter)


def replaced_operations(interpreter: Interpreter) -> Replaced:
    """What delegates took of an interpreter with allocated tensors.

    The replaced operations of a kernel are those that its outputs need, back to its inputs.
    """
    details = interpreter._get_ops_details()
    kernels = [d for d in details if d["op_name"] == "DELEGATE"]
    nodes = [d for d in details if d["op_name"] != "DELEGATE"]
    producers = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    replaced: set[int] = set()
    for kernel in kernels:
        given, wanted = set(kernel["inputs"]), list(kernel["outputs"])
        while wanted:
            node = producers.get(int(tensor := wanted.pop()))
            if node is not None and tensor not in given and node["index"] not in replaced:
                replaced.add(node["index"])
                wanted += list(node["inputs"])
    return Replaced(len(replaced), len(nodes), len(kernels))


def run_operations(
    content: bytes, images: NDArray[np.float32]
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Every operation's first output by name, in real values, image by image.

    With the runtime's own kernels: XNNPACK keeps no values between operations.

    Args:
        images: (N, ...), each without its batch axis, as the file takes them.
    """
    interpreter = _interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (graph,) = schema.ModelT.InitFromPackedBuf(content).subgraphs
    outputs = {op.outputs[0] for op in graph.operators}
    records = [d for d in interpreter.get_tensor_details() if d["index"] in outputs]
    given = interpreter.get_input_details()[0]
    for image in images:
        interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
        interpreter.invoke()
        found = {}
        for record in records:
            values = interpreter.get_tensor(record["index"])
            scale, zero_point = record["quantization"]
            if scale:
                values = (values.astype(np.float64) - zero_point) * scale
            found[record["name"]] = values
        yield found


def builtin_code(code: Any) -> int:
    """Of an operator code; files from before 2020 hold it in another field."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def operator_name(code: Any) -> str:
    """An operator code's name in the schema; a custom one's own."""
    if builtin_code(code) == schema.BuiltinOperator.CUSTOM:
        custom: bytes = code.customCode or b""
        return custom.decode()
    return OPERATOR_NAMES[builtin_code(code)]


def operators(path: Path) -> Counter[str]:
    """How often each operator occurs in the file, by its schema name; custom ones by their own."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    names = [operator_name(code) for code in model.operatorCodes]
    return Counter(names[op.opcodeIndex] for graph in model.subgraphs for op in graph.operators)


def float_operations(path: Path) -> int:
    """How many operations of a quantised file give float32, (de)quantising aside."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (graph,) = model.subgraphs
    conversions = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)
    return sum(
        graph.tensors[op.outputs[0]].type == schema.TensorType.FLOAT32
        for op in graph.operators
        if builtin_code(model.operatorCodes[op.opcodeIndex]) not in conversions
    )


def _contract(name: str, details: dict[str, Any]) -> TensorContract:
    scale, zero_point = details["quantization"]
    quantized = details["dtype"] in (np.int8, np.uint8)
    return TensorContract(
        name=name,
        shape=tuple(int(n) for n in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )


def quantize(values: NDArray[np.float32], contract: TensorContract) -> NDArray[Any]:
    """Real values -> what the file takes."""
    if contract.scale is None or contract.zero_point is None:
        return values.astype(np.float32)
    limits = np.iinfo(contract.dtype)
    steps = np.round(values / contract.scale) + contract.zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(contract.dtype))


def dequantize(values: NDArray[Any], contract: TensorContract) -> NDArray[np.float32]:
    """What the file gives -> real values."""
    if contract.scale is None or contract.zero_point is None:
        return values.astype(np.float32)
    return (values.astype(np.float32) - contract.zero_point) * np.float32(contract.scale)
