"""ONNX's operators that move and cut tensors, as PyTorch's layers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from afd_mobile.classifiers.from_onnx.node import Call, Operation, UnknownOperatorError, as_tensor


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
    return Operation(functools.partial(_indexed, axis), {1: as_tensor(index)})


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


SHAPES: dict[str, Callable[[Call], nn.Module]] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
