"""A `.tflite` graph that can be changed: constants, ranges and operators of one subgraph."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from afd_mobile.common.errors import ConversionError
from afd_mobile.tflite.litert import builtin_code

Array = NDArray[np.float32]
OPERATOR = schema.BuiltinOperator
ACTIVATION = schema.ActivationFunctionType


class FlatModel:
    """The unpacked flatbuffer. Tensors and operations are the schema's own objects."""

    def __init__(self, content: bytes) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(content)
        if len(self.model.subgraphs) != 1:
            raise ConversionError(f"{len(self.model.subgraphs)} subgraphs, expected one")
        (self.graph,) = self.model.subgraphs
        self.operations: list[Any] = self.graph.operators
        self.tensors: list[Any] = self.graph.tensors
        for operation in self.operations:
            operation.inputs = list(operation.inputs)

    def content(self) -> bytes:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def code(self, operation: Any) -> int:
        return builtin_code(self.model.operatorCodes[operation.opcodeIndex])

    def activation(self, operation: Any) -> int:
        return int(getattr(operation.builtinOptions, "fusedActivationFunction", ACTIVATION.NONE))

    def name(self, operation: Any) -> str:
        """The name of the operation's first output."""
        name: bytes = self.tensors[operation.outputs[0]].name
        return name.decode()

    def producers(self) -> dict[int, Any]:
        return {op.outputs[0]: op for op in self.operations}

    def consumers(self) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for operation in self.operations:
            for tensor in operation.inputs:
                found.setdefault(tensor, []).append(operation)
        return found

    def constant(self, tensor: int) -> Array | None:
        """The values of a float32 constant; None for any other tensor."""
        record = self.tensors[tensor] if tensor >= 0 else None
        if record is None or record.type != schema.TensorType.FLOAT32:
            return None
        data = self.model.buffers[record.buffer].data
        if data is None or not len(data):
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(record.shape)

    def weights(self, operation: Any) -> Array:
        """Of a convolution or fully connected layer, in float32."""
        values = self.constant(operation.inputs[1])
        assert values is not None
        return values

    def set_constant(self, tensor: int, values: NDArray[Any]) -> None:
        buffer = self.model.buffers[self.tensors[tensor].buffer]
        buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)

    def set_range(self, tensor: int, low: float, high: float) -> None:
        """What the quantiser takes for the tensor's smallest and largest value."""
        quantization = self.tensors[tensor].quantization
        quantization.min, quantization.max = [min(low, 0.0)], [max(high, 0.0)]

    def become(self, operation: Any, code: int, version: int, options: str) -> None:
        """Makes the operation another one, with that operator's default options."""
        codes = self.model.operatorCodes
        found = (i for i, c in enumerate(codes) if (c.builtinCode, c.version) == (code, version))
        index = next(found, None)
        if index is None:
            index = len(codes)
            codes.append(
                schema.OperatorCodeT(
                    builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version
                )
            )
        operation.opcodeIndex = index
        operation.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operation.builtinOptions = getattr(schema, f"{options}T")()

    def replace_weights(self, operation: Any, values: NDArray[np.int8], steps: Array) -> None:
        """int8 weights with a step for each output channel, the first axis, for float ones."""
        old = self.tensors[operation.inputs[1]]
        self.model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        quantization = schema.QuantizationParametersT(
            scale=[float(s) for s in steps], zeroPoint=[0] * len(steps), quantizedDimension=0
        )
        self.tensors.append(
            schema.TensorT(
                shape=list(values.shape),
                type=schema.TensorType.INT8,
                buffer=len(self.model.buffers) - 1,
                name=old.name,
                quantization=quantization,
                hasRank=True,
            )
        )
        operation.inputs[1] = len(self.tensors) - 1
        used = {t for op in self.operations for t in op.inputs if t >= 0}
        if all(self.tensors[t].buffer != old.buffer for t in used):
            self.model.buffers[old.buffer].data = None
