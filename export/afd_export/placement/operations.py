"""The operations of a `.tflite` file, as a delegate looks at them before it takes them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from afd_mobile.common.errors import ConversionError
from afd_mobile.tflite.litert import operator_name

_TYPES = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
_ACTIVATIONS = {v: k for k, v in vars(schema.ActivationFunctionType).items() if isinstance(v, int)}


@dataclass(frozen=True)
class Tensor:
    """An operand.

    Attributes:
        type: in the file: float32, float16, int8 ...
        constant: whether the file holds its values.
        unpacked_from: type of the constant that a DEQUANTIZE makes this tensor of, or None.
        values: of integer constants (shapes, axes, paddings); None for all others.
        scales, zero_points: one per tensor or one a channel; none where not quantised.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    constant: bool
    unpacked_from: str | None
    values: NDArray[Any] | None
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One node of the graph, in the file's execution order.

    Attributes:
        inputs: None where an optional one is left out.
        options: by the schema's names, as `stride_w`; empty where the file gives none.
    """

    index: int
    operator: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any]

    @property
    def runtime_inputs(self) -> list[Tensor]:
        return [t for t in self.inputs if t is not None and not t.constant]

    @property
    def data(self) -> Tensor:
        """The first input that is computed at run time; the first of all where none is."""
        return (self.runtime_inputs or [t for t in self.inputs if t is not None])[0]

    @property
    def unpacks(self) -> str | None:
        """The type of the constant that this DEQUANTIZE unpacks; None for any other operation."""
        return self.outputs[0].unpacked_from

    def input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def folded(self, types: tuple[str, ...]) -> Operation:
        """The same, with what is unpacked from constants of these types seen as such constants."""
        inputs = tuple(
            dataclasses.replace(t, constant=True, type=t.unpacked_from)
            if t is not None and t.unpacked_from in types
            else t
            for t in self.inputs
        )
        return dataclasses.replace(self, inputs=inputs)


def read_operations(path: Path) -> list[Operation]:
    """The operations of a file's one subgraph.

    Raises:
        ConversionError: it has several, as control flow makes them.
    """
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    if len(model.subgraphs) != 1:
        raise ConversionError(f"{path.name} has {len(model.subgraphs)} subgraphs, expected one")
    (graph,) = model.subgraphs
    tensors = [_tensor(i, t, model.buffers[t.buffer].data) for i, t in enumerate(graph.tensors)]
    operations = []
    for index, node in enumerate(graph.operators):
        code = model.operatorCodes[node.opcodeIndex]
        operator = operator_name(code)
        inputs = tuple(tensors[i] if i >= 0 else None for i in node.inputs)
        if operator == "DEQUANTIZE" and inputs[0] is not None and inputs[0].constant:
            output = tensors[node.outputs[0]]
            tensors[output.index] = dataclasses.replace(output, unpacked_from=inputs[0].type)
        outputs = tuple(tensors[i] for i in node.outputs)
        options = _options(node.builtinOptions)
        operations.append(Operation(index, operator, code.version, inputs, outputs, options))
    return operations


def _tensor(index: int, tensor: Any, data: NDArray[np.uint8] | None) -> Tensor:
    kind = _TYPES[tensor.type]
    constant = data is not None and len(data) > 0
    shape = () if tensor.shape is None else tuple(int(n) for n in tensor.shape)
    values = None
    if data is not None and constant and kind in ("int32", "int64"):
        values = np.frombuffer(data.tobytes(), kind).reshape(shape)
    quantization = tensor.quantization
    quantized = quantization is not None and quantization.scale is not None
    return Tensor(
        index=index,
        name=tensor.name.decode(),
        shape=shape,
        type=kind,
        constant=constant,
        unpacked_from=None,
        values=values,
        scales=tuple(float(s) for s in quantization.scale) if quantized else (),
        zero_points=tuple(int(z) for z in quantization.zeroPoint) if quantized else (),
    )


def _options(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    values = {re.sub(r"(?<!^)(?=[A-Z])", "_", k).lower(): v for k, v in vars(options).items()}
    if "fused_activation_function" in values:
        values["fused_activation_function"] = _ACTIVATIONS[values["fused_activation_function"]]
    return values
