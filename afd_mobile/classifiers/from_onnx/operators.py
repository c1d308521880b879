"""ONNX's operators as PyTorch's layers: those that image classifiers are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afd_mobile.classifiers.from_onnx.node import Call, Operation, UnknownOperatorError, as_tensor
from afd_mobile.classifiers.from_onnx.shapes import SHAPES


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
    weight, bias = as_tensor(call.constant(1)), call.constant(2)
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
    weight, bias, mean, var = (as_tensor(call.constant(n)) for n in (1, 2, 3, 4))
    layer = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[call.example.ndim]
    norm = layer(len(weight), eps=call.attributes.get("epsilon", 1e-5))
    return _with(norm, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _gemm(call: Call) -> nn.Module:
    if call.attributes.get("transA"):
        raise UnknownOperatorError("Gemm with transA")
    weight, bias = as_tensor(call.constant(1)), call.constant(2)
    weight = weight if call.attributes.get("transB") else weight.T
    weight = weight * call.attributes.get("alpha", 1.0)
    if bias is not None:
        bias = (as_tensor(bias) * call.attributes.get("beta", 1.0)).expand(len(weight))
    layer = nn.Linear(weight.shape[1], len(weight), bias is not None)
    return _with(layer, weight=weight, bias=bias)


def _matmul(call: Call) -> nn.Module:
    second = call.inputs[1]
    if isinstance(second, Tensor) or isinstance(call.inputs[0], np.ndarray):
        return _elementwise(call, torch.matmul)
    weight = as_tensor(second)
    if weight.ndim != 2:
        return _elementwise(call, torch.matmul)
    return _with(nn.Linear(len(weight), weight.shape[1], bias=False), weight=weight.T)


def _layer_norm(call: Call) -> nn.Module:
    axis = call.attributes.get("axis", -1)
    shape = call.example.shape[axis:]
    weight, bias = as_tensor(call.constant(1)), call.constant(2)
    layer = nn.LayerNorm(shape, call.attributes.get("epsilon", 1e-5), bias=bias is not None)
    return _with(layer, weight=weight, bias=bias)


def _prelu(call: Call) -> nn.Module:
    slope = as_tensor(call.constant(1)).flatten()
    return _with(nn.PReLU(len(slope)), weight=slope)


def _with(layer: nn.Module, **values: Any) -> nn.Module:
    own = layer.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                own[name].copy_(as_tensor(value).reshape(own[name].shape))
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
    constants = {n: as_tensor(v) for n, v in enumerate(call.inputs) if isinstance(v, np.ndarray)}
    return Operation(function, constants)


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


def _cast(call: Call) -> nn.Module:
    if call.attributes["to"] != 1:  # onnx.TensorProto.FLOAT
        raise UnknownOperatorError("Cast to something else than float32")
    return nn.Identity()


def _local_response(call: Call) -> nn.Module:
    get = call.attributes.get
    return nn.LocalResponseNorm(
        get("size", 5), get("alpha", 1e-4), get("beta", 0.75), get("bias", 1.0)
    )


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
    **SHAPES,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Elu": lambda call: nn.ELU(call.attributes.get("alpha", 1.0)),
    "Gelu": lambda call: nn.GELU(call.attributes.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: nn.LeakyReLU(call.attributes.get("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "PRelu": _prelu,
    "ReduceMax": functools.partial(_reduced, torch.amax),
    "ReduceMean": functools.partial(_reduced, torch.mean),
    "ReduceSum": functools.partial(_reduced, torch.sum),
    "Softmax": _softmax,
}
