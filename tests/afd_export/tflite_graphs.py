"""Small `.tflite` graphs, built operation by operation, without a converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "L2_POOL_2D": "Pool2D",
    "MEAN": "Reducer",
    "SUM": "Reducer",
    "REDUCE_MAX": "Reducer",
    "REDUCE_MIN": "Reducer",
    "REDUCE_PROD": "Reducer",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    "PADV2": "PadV2",
    "TOPK_V2": "TopKV2",
    "BATCH_MATMUL": "BatchMatMul",
    "L2_NORMALIZATION": "L2Norm",
}
_ZERO_POINTS = {"int8": 0, "uint8": 128}


@dataclass(frozen=True)
class Fed:
    """A tensor that is known at run time only; quantised where its type is int8 or uint8."""

    shape: tuple[int, ...]
    type: str = "float32"
    scale: float = 0.1
    zero_point: int | None = None


@dataclass(frozen=True)
class Stored:
    """A constant; `scale` may be one a channel, along `axis`. `unpacked`: a DEQUANTIZE follows."""

    values: NDArray[Any]
    scale: float | tuple[float, ...] | None = None
    axis: int = 0
    unpacked: bool = False


class Graph:
    """One subgraph under construction; what is fed becomes its inputs."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]
        self._codes: list[Any] = []
        self._operators: list[Any] = []
        self._inputs: list[int] = []

    def feed(self, tensor: Fed) -> int:
        self._inputs.append(self.tensor(tensor))
        return self._inputs[-1]

    def tensor(self, tensor: Fed) -> int:
        quantized = tensor.type in _ZERO_POINTS or tensor.type == "int16"
        zero_point = tensor.zero_point
        if zero_point is None:
            zero_point = _ZERO_POINTS.get(tensor.type, 0)
        scales = (tensor.scale,) if quantized else ()
        return self._add(tensor.shape, tensor.type, scales, zero_point, 0, None)

    def store(self, constant: Stored) -> int:
        kind = constant.values.dtype.name
        scales = () if constant.scale is None else tuple(np.atleast_1d(constant.scale))
        index = self._add(
            constant.values.shape,
            kind,
            scales,
            _ZERO_POINTS.get(kind, 0),
            constant.axis,
            constant.values,
        )
        if not constant.unpacked:
            return index
        unpacked = self.tensor(Fed(constant.values.shape))
        return self.run("DEQUANTIZE", [index], [unpacked], version=3)

    def run(
        self,
        operator: str,
        inputs: list[int],
        outputs: list[int],
        version: int = 1,
        **options: Any,
    ) -> int:
        """Adds an operation; options by the schema's names. Returns its first output."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, operator)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self._codes.append(code)
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = len(self._codes) - 1, inputs, outputs
        name = _OPTIONS.get(operator, operator.replace("_", " ").title().replace(" ", ""))
        if hasattr(schema.BuiltinOptions, f"{name}Options"):
            node.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
            node.builtinOptions = getattr(schema, f"{name}OptionsT")()
        for key, value in options.items():
            assert hasattr(node.builtinOptions, key), (operator, key)
            setattr(node.builtinOptions, key, value)
        self._operators.append(node)
        return outputs[0]

    def signature(self, index: int, shape: tuple[int, ...]) -> None:
        """What a tensor's shape may be; -1 for any."""
        self._tensors[index].shapeSignature = list(shape)

    def finish(self, outputs: list[int]) -> bytes:
        graph = schema.SubGraphT()
        graph.name = b"main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = self._inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs = 3, [graph]
        model.buffers, model.operatorCodes = self._buffers, self._codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(
        self,
        shape: tuple[int, ...],
        kind: str,
        scales: tuple[float, ...],
        zero_point: int,
        axis: int,
        values: NDArray[Any] | None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"tensor_{len(self._tensors)}".encode()
        tensor.shape, tensor.hasRank = list(shape), True
        tensor.type, tensor.buffer = getattr(schema.TensorType, kind.upper()), 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array(scales, np.float32)
            tensor.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
            tensor.quantization.quantizedDimension = axis
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def single(
    operator: str,
    inputs: list[Fed | Stored | None],
    *outputs: Fed,
    version: int = 1,
    **options: Any,
) -> bytes:
    """A graph of one operation, and of those that unpack its constants."""
    graph = Graph()
    indices = [
        -1 if i is None else graph.feed(i) if isinstance(i, Fed) else graph.store(i) for i in inputs
    ]
    results = [graph.tensor(o) for o in outputs]
    graph.run(operator, indices, results, version, **options)
    return graph.finish(results)
