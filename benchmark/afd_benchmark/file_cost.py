"""What a `.tflite` file costs, read from the file itself: sizes, multiply-adds, memory traffic.

Multiply-adds are counted as in the field: of convolutions and matrix products, without biases;
pooling, reductions, resizing and elementwise operations count none.

Parameters are the weights and biases of those operations, the slopes of PRELU, and constants of
one number a channel that an elementwise operation adds, subtracts, multiplies with or divides by
(biases and scales that a converter left beside their layer). Each stored constant counts once,
however many operations use it and whether or not a DEQUANTIZE unpacks it first. Float and quantised
constants in any other place (a mean stored for every pixel, say) are counted apart as
`other_constants`; integer ones (shapes, axes, paddings) not at all. A file does not say what was
learned: batch normalisation that was folded leaves one number a channel of its two, a bias that the
converter filled with zeros counts, and so does a fixed kernel such as the DCT's.

A DEQUANTIZE of a constant is part of storing it: not listed, its output no activation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from afd_mobile.common.errors import InputError
from afd_mobile.tflite.litert import operator_name

_TYPES = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
_BITS = {
    "INT2": 2,
    "INT4": 4,
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64"), 64),
}
# What reading a flatbuffer that is none raises.
_BROKEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)
_FLOATS = ("FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64")
# The inputs of an operator that hold its weights and biases.
_WEIGHTS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "FULLY_CONNECTED": (1, 2),
    "BATCH_MATMUL": (0, 1),
    "PRELU": (1,),
}
_CHANNELWISE = ("ADD", "SUB", "MUL", "DIV")
# Convolutions and matrix products are in `_MULTIPLY_ADDS`; any other operator is refused.
_ELEMENTWISE = """
    ADD SUB MUL DIV MAXIMUM MINIMUM POW FLOOR_DIV FLOOR_MOD SQUARED_DIFFERENCE ADD_N
    ABS NEG SIGN SQUARE SQRT RSQRT EXP LOG SIN COS FLOOR CEIL ROUND CAST QUANTIZE DEQUANTIZE
    RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 PRELU LEAKY_RELU ELU GELU HARD_SWISH LOGISTIC TANH
    EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL
    LOGICAL_AND LOGICAL_OR LOGICAL_NOT SELECT SELECT_V2
"""
_POOLING = """
    AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD
    REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN TOPK_V2 CUMSUM SOFTMAX LOG_SOFTMAX L2_NORMALIZATION
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
"""
_MOVEMENT = """
    RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE PACK UNPACK CONCATENATION SPLIT SPLIT_V
    SLICE STRIDED_SLICE GATHER GATHER_ND PAD PADV2 MIRROR_PAD TILE BROADCAST_TO REVERSE_V2
    SPACE_TO_DEPTH DEPTH_TO_SPACE SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND SHAPE FILL ZEROS_LIKE
"""
_WITHOUT_MULTIPLY_ADDS = frozenset(f"{_ELEMENTWISE} {_POOLING} {_MOVEMENT}".split())


@dataclass(frozen=True)
class OperationCost:
    """One operation, in the file's order.

    Attributes:
        index: in the file; unpacked constants leave gaps.
        name, shape: of the first output.
        parameters: of constants that no operation before it uses.
        weight_bytes: of all constants it reads, as stored; integer ones left out.
        activation_bytes: of its other inputs and its outputs.
    """

    index: int
    operator: str
    name: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    weight_bytes: int
    activation_bytes: int

    @property
    def bytes_moved(self) -> int:
        """Weights + inputs + outputs, each read or written once."""
        return self.weight_bytes + self.activation_bytes

    @property
    def arithmetic_intensity(self) -> float:
        """2 x multiply-adds / bytes moved, floating-point operations a byte."""
        return _intensity(self.multiply_adds, self.bytes_moved)


@dataclass(frozen=True)
class FileCost:
    """A whole file, batch as stored.

    Attributes:
        other_constants: elements of float and quantised constants that are no parameters.
        weight_bytes: of parameters and other constants, as stored, each once.
        peak_activation_bytes: largest sum of activations alive at once, in the file's order: each
            from the operation that makes it (the graph's inputs: from the start) to the last that
            reads it (the graph's outputs: to the end). Nothing is computed in place.
        activation_traffic_bytes: activations read and written, summed over the operations.
        bytes_moved: that, and the weights that each operation reads.
    """

    parameters: int
    other_constants: int
    multiply_adds: int
    file_bytes: int
    weight_bytes: int
    peak_activation_bytes: int
    activation_traffic_bytes: int
    bytes_moved: int
    operations: tuple[OperationCost, ...]

    @property
    def arithmetic_intensity(self) -> float:
        """2 x multiply-adds / bytes moved, floating-point operations a byte."""
        return _intensity(self.multiply_adds, self.bytes_moved)


def cost_of_file(path: Path) -> FileCost:
    """The cost of one inference.

    Raises:
        InputError: the file is missing or broken, has several subgraphs, a tensor whose size is
            known at run time only, or an operator whose cost is not known.
    """
    try:
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise ValueError("the identifier TFL3 is missing")
        return _cost(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a .tflite file") from error
    except _BROKEN as error:
        raise InputError(
            f"{path} is no TFLite file, or a broken one ({error}); export or copy it again"
        ) from error


def _cost(path: Path, content: bytes) -> FileCost:
    nodes, ends = _read(path, content)
    stored: dict[int, _Tensor] = {}
    parameters: dict[int, int] = {}  # elements by buffer
    operations = []
    for node in nodes:
        stored |= {t.buffer: t for t in node.constants}
        own = {t.buffer: t.elements for t in node.constants if node.is_parameter(t)}
        added = sum(n for buffer, n in own.items() if buffer not in parameters)
        parameters |= own
        operations.append(_operation_cost(path, node, added))
    traffic = sum(o.activation_bytes for o in operations)
    return FileCost(
        parameters=sum(o.parameters for o in operations),
        other_constants=sum(t.elements for b, t in stored.items() if b not in parameters),
        multiply_adds=sum(o.multiply_adds for o in operations),
        file_bytes=len(content),
        weight_bytes=sum(t.bytes for t in stored.values()),
        peak_activation_bytes=_peak_bytes(nodes, *ends),
        activation_traffic_bytes=traffic,
        bytes_moved=traffic + sum(o.weight_bytes for o in operations),
        operations=tuple(operations),
    )


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """An operand; of an unpacked constant, the stored one."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    quantized: bool
    buffer: int
    stored_bytes: int  # 0 for what is known at run time only

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.stored_bytes or -(-self.elements * _BITS[self.type] // 8)


@dataclass(frozen=True)
class _Node:
    index: int
    operator: str
    inputs: tuple[_Tensor | None, ...]
    outputs: tuple[_Tensor, ...]
    first_transposed: bool  # of BATCH_MATMUL

    def shape(self, position: int) -> tuple[int, ...]:
        tensor = self.inputs[position]
        if tensor is None:
            raise ValueError(f"operation {self.index} lacks input {position}")
        return tensor.shape

    @property
    def constants(self) -> list[_Tensor]:
        """Those that hold numbers to compute with, each once."""
        weights = _WEIGHTS.get(self.operator, ())
        found = {
            t.buffer: t
            for position, t in enumerate(self.inputs)
            if t is not None and t.stored_bytes
            if position in weights or t.quantized or t.type in _FLOATS
        }
        return list(found.values())

    @property
    def activations(self) -> list[_Tensor]:
        found = {t.index: t for t in (*self.inputs, *self.outputs) if t is not None}
        return [t for t in found.values() if not t.stored_bytes]

    def is_parameter(self, constant: _Tensor) -> bool:
        if self.operator in _CHANNELWISE:
            channels = self.outputs[0].shape[-1:]
            return constant.elements > 1 and (constant.elements,) == constant.shape[-1:] == channels
        return any(self.inputs[i] == constant for i in _WEIGHTS.get(self.operator, ()))


def _read(path: Path, content: bytes) -> tuple[list[_Node], list[list[_Tensor]]]:
    """The operations of the file's one subgraph; its inputs and its outputs."""
    model = schema.ModelT.InitFromPackedBuf(content)
    if len(model.subgraphs) != 1:
        raise InputError(
            f"{path} has {len(model.subgraphs)} subgraphs, expected one; export it without "
            "control flow"
        )
    (graph,) = model.subgraphs
    tensors = {i: _tensor(i, t, model.buffers) for i, t in enumerate(graph.tensors)}
    nodes = []
    for index, operator in enumerate(graph.operators):
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        inputs = tuple(tensors[i] if i != -1 else None for i in operator.inputs)
        source = inputs[0] if name == "DEQUANTIZE" else None
        if source is not None and source.stored_bytes:
            tensors[operator.outputs[0]] = source
            continue
        outputs = tuple(tensors[i] for i in operator.outputs)
        transposed = bool(getattr(operator.builtinOptions, "adjX", False))
        nodes.append(_Node(index, name, inputs, outputs, transposed))
    ends = [[tensors[i] for i in found] for found in (graph.inputs, graph.outputs)]
    ends = [[t for t in found if not t.stored_bytes] for found in ends]
    for tensor in (*(t for n in nodes for t in n.activations), *ends[0], *ends[1]):
        _check_size(path, tensor, graph.tensors[tensor.index])
    return nodes, ends


def _tensor(index: int, record: Any, buffers: list[Any]) -> _Tensor:
    data = buffers[record.buffer].data
    quantization = record.quantization
    return _Tensor(
        index=index,
        name=record.name.decode(),
        shape=() if record.shape is None else tuple(int(n) for n in record.shape),
        type=_TYPES[record.type],
        quantized=quantization is not None and quantization.scale is not None,
        buffer=record.buffer,
        stored_bytes=0 if data is None else len(data),
    )


def _check_size(path: Path, tensor: _Tensor, record: Any) -> None:
    signature = () if record.shapeSignature is None else tuple(record.shapeSignature)
    if min((*tensor.shape, *signature, 0)) < 0 or not (tensor.shape or record.hasRank):
        raise InputError(
            f"{path}: the shape of {tensor.name!r} is known at run time only; export the file with "
            "a fixed input size"
        )
    if tensor.type not in _BITS:
        raise InputError(
            f"{path}: {tensor.name!r} is of type {tensor.type}, which has no fixed size; export "
            "the network without it"
        )


# --- counting -------------------------------------------------------------------------------------


def _operation_cost(path: Path, node: _Node, parameters: int) -> OperationCost:
    count = _MULTIPLY_ADDS.get(node.operator)
    if count is None and node.operator not in _WITHOUT_MULTIPLY_ADDS:
        raise InputError(
            f"{path}: the cost of operator {node.operator!r} (operation {node.index}) is not known;"
            " export the network without it"
        )
    return OperationCost(
        index=node.index,
        operator=node.operator,
        name=node.outputs[0].name,
        shape=node.outputs[0].shape,
        parameters=parameters,
        multiply_adds=count(node) if count else 0,
        weight_bytes=sum(t.bytes for t in node.constants),
        activation_bytes=sum(t.bytes for t in node.activations),
    )


def _convolution(node: _Node) -> int:
    """Weights (C_out, k, k, C_in / groups)."""
    return node.outputs[0].elements * math.prod(node.shape(1)[1:])


def _depthwise(node: _Node) -> int:
    """Weights (1, k, k, C_out)."""
    return node.outputs[0].elements * math.prod(node.shape(1)[1:3])


def _transposed_convolution(node: _Node) -> int:
    """Weights (C_out, k, k, C_in): every input element meets each once, cropped results too."""
    return math.prod(node.shape(2)) * math.prod(node.shape(1)[:3])


def _fully_connected(node: _Node) -> int:
    """Weights (C_out, C_in)."""
    return node.outputs[0].elements * node.shape(1)[-1]


def _matrix_product(node: _Node) -> int:
    """(..., M, K) times (..., K, N)."""
    return node.outputs[0].elements * node.shape(0)[-2 if node.first_transposed else -1]


_MULTIPLY_ADDS: dict[str, Callable[[_Node], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed_convolution,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _matrix_product,
}


def _peak_bytes(nodes: list[_Node], inputs: list[_Tensor], outputs: list[_Tensor]) -> int:
    # Every operation is a moment, with one before the first and one after the last.
    moments = [inputs, *(n.activations for n in nodes), outputs]
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, tensors in enumerate(moments):
        for tensor in tensors:
            sizes[tensor.index] = tensor.bytes
            first.setdefault(tensor.index, moment)
            last[tensor.index] = moment
    changes = [0] * (len(moments) + 1)
    for index, size in sizes.items():
        changes[first[index]] += size
        changes[last[index] + 1] -= size
    return max(accumulate(changes))


def _intensity(multiply_adds: int, moved: int) -> float:
    return 2 * multiply_adds / moved if moved else 0.0
