"""ONNX's operators as PyTorch's layers: those that image classifiers are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

Array = NDArray[Any]


class UnknownOperatorError(Exception):
    """An operator, or a use of it, that is not known; says which."""


@dataclass(frozen=True)
class Call:
    """A node as it is in the graph.

    Attributes:
        inputs: constants as arrays; what is computed from the picture as a tensor, which is an
            example of it; None of what is left out.
        batch: of the examples.
    """

    operator: str
    attributes: dict[str, Any]
    inputs: Sequence[Array | Tensor | None]
    batch: int

    def constant(self, number: int, attribute: str = "", default: Any = None) -> Any:
        """An input that later versions have where earlier ones have an attribute."""
        value = self.inputs[number] if number < len(self.inputs) else None
        if isinstance(value, Tensor):
            raise UnknownOperatorError(
                f"{self.operator} with an input {number} that depends on the picture"
            )
        return self.attributes.get(attribute, default) if value is None else value

    @property
    def example(self) -> Tensor:
        """The first input."""
        value = self.inputs[0]
        if not isinstance(value, Tensor):
            raise UnknownOperatorError(f"{self.operator} of a constant")
        return value


class Operation(nn.Module):
    """A function as a layer, which is traced whole: its name stays that of the node.

    Args:
        constants: by position among its arguments; the others are what the layer is given.
    """

    def __init__(
        self, function: Callable[..., Any], constants: dict[int, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.function, self.positions = function, tuple(constants or {})
        for position, value in (constants or {}).items():
            self.register_buffer(f"constant_{position}", value)

    def forward(self, *inputs: Tensor) -> Any:
        arguments = list(inputs)
        for position in self.positions:
            arguments.insert(position, getattr(self, f"constant_{position}"))
        return self.function(*arguments)


def layer_of(call: Call) -> nn.Module:
    """The layer that computes this node from its inputs that are no constants.

    Raises:
        UnknownOperatorError: there is none.
    """
    if call.operator in _SIMPLE:
        return _SIMPLE[call.operator]()
    if call.operator in _ELEMENTWISE:
        return _elementwise(call, _ELEMENTWISE[call.operator])
    if call.operator in _MADE:
        return _MADE[call.operator](call)
    raise UnknownOperatorError(call.operator)


# --- layers with weights ------------------------------------------------------------------------


def _conv(call: Call) -> nn.Module:
    weight, bias = _tensor(call.constant(1)), call.constant(2)
    if weight.ndim != 4:
        raise UnknownOperatorError(f"Conv of {weight.ndim - 2} dimensions")
    groups = call.attributes.get("group", 1)
    window = _Window.of(call, tuple(weight.shape[2:]))
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        len(weight),
        window.kernel,
        window.stride,
        window.padding or 0,
        window.dilation,
        groups,
        bias is not None,
    )
    return window.padded(_with(layer, weight=weight, bias=bias), 0.0)


def _batch_norm(call: Call) -> nn.Module:
    if call.attributes.get("training_mode"):
        raise UnknownOperatorError("BatchNormalization in training mode")
    weight, bias, mean, var = (_tensor(call.constant(n)) for n in (1, 2, 3, 4))
    layer = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[call.example.ndim]
    norm = layer(len(weight), eps=call.attributes.get("epsilon", 1e-5))
    return _with(norm, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _gemm(call: Call) -> nn.Module:
    if call.attributes.get("transA"):
        raise UnknownOperatorError("Gemm with transA")
    weight, bias = _tensor(call.constant(1)), call.constant(2)
    weight = weight if call.attributes.get("transB") else weight.T
    weight = weight * call.attributes.get("alpha", 1.0)
    if bias is not None:
        bias = (_tensor(bias) * call.attributes.get("beta", 1.0)).expand(len(weight))
    layer = nn.Linear(weight.shape[1], len(weight), bias is not None)
    return _with(layer, weight=weight, bias=bias)


def _matmul(call: Call) -> nn.Module:
    second = call.inputs[1]
    if isinstance(second, Tensor) or isinstance(call.inputs[0], np.ndarray):
        return _elementwise(call, torch.matmul)
    weight = _tensor(second)
    if weight.ndim != 2:
        return _elementwise(call, torch.matmul)
    return _with(nn.Linear(len(weight), weight.shape[1], bias=False), weight=weight.T)


def _layer_norm(call: Call) -> nn.Module:
    axis = call.attributes.get("axis", -1)
    shape = call.example.shape[axis:]
    weight, bias = _tensor(call.constant(1)), call.constant(2)
    layer = nn.LayerNorm(shape, call.attributes.get("epsilon", 1e-5), bias=bias is not None)
    return _with(layer, weight=weight, bias=bias)


def _prelu(call: Call) -> nn.Module:
    slope = _tensor(call.constant(1)).flatten()
    return _with(nn.PReLU(len(slope)), weight=slope)


def _with(layer: nn.Module, **values: Any) -> nn.Module:
    own = layer.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                own[name].copy_(_tensor(value).reshape(own[name].shape))
    return layer


# --- windows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """Attributes:
    before, after: of padding, for height and width.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def of(cls, call: Call, kernel: tuple[int, ...] | None = None) -> _Window:
        get = call.attributes.get
        kernel = kernel or tuple(get("kernel_shape", ()))
        stride, dilation = (tuple(get(key, (1, 1))) for key in ("strides", "dilations"))
        if not len(kernel) == len(stride) == len(dilation) == 2:
            raise UnknownOperatorError(f"{call.operator} of {len(kernel)} dimensions")
        pads = tuple(get("pads", (0, 0, 0, 0)))
        automatic = get("auto_pad", b"NOTSET").decode()
        if automatic.startswith("SAME"):
            sizes = call.example.shape[2:]
            total = [
                max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
                for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
            ]
            half = [n // 2 for n in total]
            rest = [n - h for n, h in zip(total, half, strict=True)]
            pads = (*half, *rest) if automatic == "SAME_UPPER" else (*rest, *half)
        return cls(kernel, stride, dilation, pads[:2], pads[2:])

    @property
    def padding(self) -> tuple[int, int] | None:
        """None of what is padded more on one side than on the other."""
        return self.before if self.before == self.after else None

    def padded(self, layer: nn.Module, value: float) -> nn.Module:
        """With the padding that the layer does not do itself."""
        if self.padding is not None:
            return layer
        (top, left), (bottom, right) = self.before, self.after
        return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), value), layer)


def _max_pool(call: Call) -> nn.Module:
    w = _Window.of(call)
    ceil = bool(call.attributes.get("ceil_mode"))
    layer = nn.MaxPool2d(w.kernel, w.stride, w.padding or 0, w.dilation, ceil_mode=ceil)
    return w.padded(layer, -torch.inf)


def _average_pool(call: Call) -> nn.Module:
    w = _Window.of(call)
    with_pads, ceil = (bool(call.attributes.get(k)) for k in ("count_include_pad", "ceil_mode"))
    if w.dilation != (1, 1) or (w.padding is None and not with_pads):
        raise UnknownOperatorError("AveragePool that is dilated, or padded more on one side")
    layer = nn.AvgPool2d(w.kernel, w.stride, w.padding or 0, ceil, with_pads)
    return w.padded(layer, 0.0)


# --- activations and arithmetic -----------------------------------------------------------------


def _clip(call: Call) -> nn.Module:
    low = float(call.constant(1, "min", -torch.inf))
    high = float(call.constant(2, "max", torch.inf))
    if low == 0 and high in (6, torch.inf):
        return nn.ReLU6() if high == 6 else nn.ReLU()
    return nn.Hardtanh(low, high)


def _hard_sigmoid(call: Call) -> nn.Module:
    alpha, beta = (call.attributes.get(k, v) for k, v in (("alpha", 0.2), ("beta", 0.5)))
    if np.isclose(alpha, 1 / 6) and beta == 0.5:
        return nn.Hardsigmoid()
    return Operation(functools.partial(_hard_line, alpha, beta))


def _hard_line(alpha: float, beta: float, x: Tensor) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _softmax(call: Call) -> nn.Module:
    return nn.Softmax(call.attributes.get("axis", -1))


def _elementwise(call: Call, function: Callable[..., Any]) -> nn.Module:
    constants = {n: _tensor(v) for n, v in enumerate(call.inputs) if isinstance(v, np.ndarray)}
    return Operation(function, constants)


# --- shapes -------------------------------------------------------------------------------------


def _reduced(function: Callable[..., Tensor], call: Call) -> nn.Module:
    found = call.constant(1, "axes")
    if found is None and call.attributes.get("noop_with_empty_axes"):
        return nn.Identity()
    every = range(call.example.ndim) if found is None else found
    axes = tuple(sorted(int(a) % call.example.ndim for a in every))
    keep = bool(call.attributes.get("keepdims", 1))
    if function is torch.mean and keep and axes == (2, 3) and call.example.ndim == 4:
        return nn.AdaptiveAvgPool2d(1)
    return Operation(functools.partial(_over, function, axes, keep))


def _over(function: Callable[..., Tensor], axes: tuple[int, ...], keep: bool, x: Tensor) -> Tensor:
    return function(x, dim=axes, keepdim=keep)


def _flatten(call: Call) -> nn.Module:
    if call.attributes.get("axis", 1) != 1:
        raise UnknownOperatorError(f"Flatten at axis {call.attributes['axis']}")
    return nn.Flatten()


def _reshape(call: Call) -> nn.Module:
    """The batch may be of any size, whatever the graph says."""
    shape = [int(n) for n in call.constant(1, "shape")]
    if not call.attributes.get("allowzero"):
        shape = [call.example.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    whole = call.example.reshape(shape).shape
    if whole[0] != call.batch:
        raise UnknownOperatorError(f"Reshape to {tuple(whole)}, which mixes pictures")
    return nn.Flatten() if len(whole) == 2 else Operation(functools.partial(_reshaped, whole[1:]))


def _reshaped(shape: tuple[int, ...], x: Tensor) -> Tensor:
    return x.reshape(-1, *shape)


def _squeeze(call: Call) -> nn.Module:
    found = call.constant(1, "axes")
    axes = [n for n, size in enumerate(call.example.shape) if size == 1] if found is None else found
    axes = sorted((int(a) % call.example.ndim for a in axes), reverse=True)
    if 0 in axes:
        raise UnknownOperatorError("Squeeze of the batch")
    if axes == [3, 2] and call.example.ndim == 4:
        return nn.Flatten()
    return Operation(functools.partial(_squeezed, tuple(axes)))


def _squeezed(axes: tuple[int, ...], x: Tensor) -> Tensor:
    for axis in axes:
        x = x.squeeze(axis)
    return x


def _unsqueeze(call: Call) -> nn.Module:
    found = [int(axis) for axis in call.constant(1, "axes")]
    rank = call.example.ndim + len(found)
    return Operation(functools.partial(_unsqueezed, tuple(sorted(axis % rank for axis in found))))


def _unsqueezed(axes: tuple[int, ...], x: Tensor) -> Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def _transpose(call: Call) -> nn.Module:
    order = call.attributes.get("perm", range(call.example.ndim)[::-1])
    return Operation(functools.partial(_permuted, tuple(order)))


def _permuted(order: tuple[int, ...], x: Tensor) -> Tensor:
    return x.permute(order)


def _concat(call: Call) -> nn.Module:
    axis = call.attributes["axis"]
    if axis % call.example.ndim == 0 or any(not isinstance(x, Tensor) for x in call.inputs):
        raise UnknownOperatorError("Concat of the batch or of constants")
    return Operation(functools.partial(_joined, axis))


def _joined(axis: int, *parts: Tensor) -> Tensor:
    return torch.cat(parts, axis)


def _split(call: Call) -> nn.Module:
    axis, sizes = call.attributes.get("axis", 0), call.constant(1, "split")
    if sizes is None:
        count, whole = call.attributes["outputs"], call.example.shape[axis]
        each = -(-whole // count)
        sizes = [min(each, whole - start) for start in range(0, whole, each)]
    return Operation(functools.partial(_parts, [int(n) for n in sizes], axis))


def _parts(sizes: list[int], axis: int, x: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x, sizes, axis)


def _slice(call: Call) -> nn.Module:
    starts, ends = call.constant(1, "starts"), call.constant(2, "ends")
    axes = call.constant(3, "axes", range(len(starts)))
    steps = call.constant(4, "steps", [1] * len(starts))
    slices = [slice(None)] * call.example.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if int(axis) % call.example.ndim == 0 or step < 1:
            raise UnknownOperatorError("Slice of the batch, or backwards")
        slices[int(axis)] = slice(int(start), int(end), int(step))
    return Operation(functools.partial(_sliced, tuple(slices)))


def _sliced(slices: tuple[slice, ...], x: Tensor) -> Tensor:
    return x[slices]


def _gather(call: Call) -> nn.Module:
    axis, index = call.attributes.get("axis", 0), call.constant(1)
    if isinstance(call.inputs[0], np.ndarray) or np.ndim(index) > 1 or axis == 0:
        raise UnknownOperatorError("Gather other than of channels or positions")
    if np.ndim(index) == 0:
        return Operation(functools.partial(_selected, axis, int(index)))
    return Operation(functools.partial(_indexed, axis), {1: _tensor(index)})


def _selected(axis: int, index: int, x: Tensor) -> Tensor:
    return x.select(axis, index)


def _indexed(axis: int, x: Tensor, index: Tensor) -> Tensor:
    return x.index_select(axis, index)


def _pad(call: Call) -> nn.Module:
    if call.attributes.get("mode", b"constant") != b"constant" or call.constant(3) is not None:
        raise UnknownOperatorError("Pad by reflection, repetition, or along axes")
    pads = [int(n) for n in call.constant(1, "pads")]
    value = float(call.constant(2, "value", 0.0))
    rank = len(pads) // 2
    pairs = [n for axis in reversed(range(rank)) for n in (pads[axis], pads[axis + rank])]
    return Operation(functools.partial(_with_margin, tuple(pairs), value))


def _with_margin(pairs: tuple[int, ...], value: float, x: Tensor) -> Tensor:
    return pad(x, pairs, value=value)


def _cast(call: Call) -> nn.Module:
    if call.attributes["to"] != 1:  # onnx.TensorProto.FLOAT
        raise UnknownOperatorError("Cast to something else than float32")
    return nn.Identity()


def _local_response(call: Call) -> nn.Module:
    get = call.attributes.get
    return nn.LocalResponseNorm(
        get("size", 5), get("alpha", 1e-4), get("beta", 0.75), get("bias", 1.0)
    )


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


_SIMPLE: dict[str, Callable[[], nn.Module]] = {
    "Dropout": nn.Identity,
    "GlobalAveragePool": functools.partial(nn.AdaptiveAvgPool2d, 1),
    "GlobalMaxPool": functools.partial(nn.AdaptiveMaxPool2d, 1),
    "HardSwish": nn.Hardswish,
    "Identity": nn.Identity,
    "Mish": nn.Mish,
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "Tanh": nn.Tanh,
}
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Div": torch.div,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
}
_MADE: dict[str, Callable[[Call], nn.Module]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Elu": lambda call: nn.ELU(call.attributes.get("alpha", 1.0)),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda call: nn.GELU(call.attributes.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: nn.LeakyReLU(call.attributes.get("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMax": functools.partial(_reduced, torch.amax),
    "ReduceMean": functools.partial(_reduced, torch.mean),
    "ReduceSum": functools.partial(_reduced, torch.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
