"""What keeps an int8 graph close to its float32 one, pass by pass, on TensorFlow Lite's own graph.

`prepare` works on the float graph, before anything is quantised: it measures the range of every
tensor, and its passes leave the function as it is (but for rounding weights to the steps that int8
has anyhow) and make it easier to quantise. `finish` works on the quantised graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_export.int8.editable_model import ACTIVATION, OPERATOR, FlatModel
from afd_mobile.tflite.litert import run_operations

CONVOLUTIONS = (OPERATOR.CONV_2D, OPERATOR.DEPTHWISE_CONV_2D, OPERATOR.FULLY_CONNECTED)
STEPS = 127  # of a symmetric int8 weight
MAX_SCALE = 16.0  # a channel is stretched at most so far
# How far beyond the calibration pictures' maximum a stretched ReLU6 channel still reaches.
HEADROOM = 1.1
# Shares of the logarithm of a full equalisation. A depthwise convolution's weights have a scale
# for each channel, so full costs nothing; others pay with coarser weights.
DEPTHWISE_SHARE, POINTWISE_SHARE, TRUNK_SHARE = 1.0, 0.25, 0.5
MERGE_GROWTH = 1.5


@dataclass
class ChannelStatistics:
    """Over positions and calibration pictures, for each channel of a tensor: (C,) each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]

    def scaled(self, scale: NDArray[np.float64]) -> ChannelStatistics:
        return ChannelStatistics(self.low * scale, self.high * scale, self.mean * scale)


Statistics = dict[int, ChannelStatistics]


def prepare(graph: bytes, pictures: NDArray[np.float32]) -> bytes:
    """Merges, calibrates, equalises and rounds the float graph.

    TensorFlow's own calibration reads a tensor after all operations have run. An addition that
    wrote its sum over its input by then leaves the sum's range there: measured, up to 2.1 times
    the true one.

    Args:
        pictures: (N, S, S, 3), the calibration pictures.
    """
    model = FlatModel(graph)
    merge_linear_pairs(model)
    statistics = measure(model.content(), pictures)
    model.set_range(model.graph.inputs[0], float(pictures.min()), float(pictures.max()))
    for tensor, found in statistics.items():
        model.set_range(tensor, float(found.low.min()), float(found.high.max()))
    equalize_relu6(model, statistics)
    equalize_trunks(model, statistics)
    round_weights(model, statistics)
    return model.content()


def finish(quantized: bytes) -> bytes:
    """What the quantiser leaves to be desired: int8 ReLU, and float 1x1 convolutions."""
    model = FlatModel(quantized)
    requantize_for_relu(model)
    quantize_dynamically(model)
    return model.content()


def measure(content: bytes, pictures: NDArray[np.float32]) -> Statistics:
    """The statistics of every operation's first output, by tensor."""
    model = FlatModel(content)
    found: Statistics = {}
    for outputs in run_operations(content, pictures):
        for operation in model.operations:
            tensor, values = operation.outputs[0], outputs[model.name(operation)]
            now = ChannelStatistics(
                _by_channel(np.min, values),
                _by_channel(np.max, values),
                _by_channel(np.mean, values) / len(pictures),
            )
            if tensor in found:
                seen = found[tensor]
                now = ChannelStatistics(
                    np.minimum(seen.low, now.low),
                    np.maximum(seen.high, now.high),
                    seen.mean + now.mean,
                )
            found[tensor] = now
    return found


def _by_channel(reduce: Callable[..., Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """(..., C) -> (C,). Down the columns first: 3 to 6 times as fast as over all positions."""
    if values.ndim == 4:
        values = reduce(values, axis=1)
    result: NDArray[np.float64] = reduce(
        values.reshape(-1, values.shape[-1]).astype(np.float64), axis=0
    )
    return result


# --- merging ------------------------------------------------------------------------------------


def merge_linear_pairs(model: FlatModel) -> None:
    """One convolution for two 1x1 ones with nothing between: a tensor less to be quantised.

    Only where it costs at most MERGE_GROWTH times the multiply-adds. Exact in real numbers.
    """
    consumers = model.consumers()
    for first in list(model.operations):
        users = consumers.get(first.outputs[0], [])
        if len(users) != 1 or first.outputs[0] in model.graph.outputs:
            continue
        (second,) = users
        if not (_is_pointwise(model, first) and _is_pointwise(model, second)):
            continue
        if model.activation(first) != ACTIVATION.NONE:
            continue
        w1, w2 = (model.weights(op)[:, 0, 0].astype(np.float64) for op in (first, second))
        b1, b2 = (model.constant(op.inputs[2]) for op in (first, second))
        assert b1 is not None and b2 is not None
        merged = (w2 @ w1)[:, None, None]
        if merged.size > MERGE_GROWTH * (w1.size + w2.size):
            continue
        model.tensors[second.inputs[1]].shape = list(merged.shape)
        model.set_constant(second.inputs[1], merged)
        model.set_constant(second.inputs[2], w2 @ b1 + b2)
        second.inputs[0] = first.inputs[0]
        model.operations.remove(first)


def _is_pointwise(model: FlatModel, operation: Any) -> bool:
    if model.code(operation) != OPERATOR.CONV_2D:
        return False
    options = operation.builtinOptions
    shape = tuple(model.tensors[operation.inputs[1]].shape[1:3])
    return shape == (1, 1) and (options.strideH, options.strideW) == (1, 1)


# --- equalisation -------------------------------------------------------------------------------


def equalize_relu6(model: FlatModel, statistics: Statistics) -> None:
    """Stretches channels that never come near 6, so that each uses the tensor's whole range.

    The bound of ReLU6 does not stretch with them: beyond HEADROOM times the calibration pictures'
    maximum a stretched channel saturates, as it would with a range of its own.
    """
    consumers = model.consumers()
    for operation in model.operations:
        tensor = operation.outputs[0]
        if model.activation(operation) != ACTIVATION.RELU6 or not _is_convolution(model, operation):
            continue
        users, padded = _through_pads(model, consumers, tensor)
        if not users or not all(_is_convolution(model, user) for user in users):
            continue
        depthwise = all(model.code(user) == OPERATOR.DEPTHWISE_CONV_2D for user in users)
        highest = np.maximum(statistics[tensor].high * HEADROOM, 1e-3)
        share = DEPTHWISE_SHARE if depthwise else POINTWISE_SHARE
        scale = np.clip(6.0 / highest, 1.0, MAX_SCALE) ** share
        _scale_outputs(model, operation, scale)
        for user in users:
            _scale_inputs(model, user, 1 / scale)
        for scaled in (tensor, *padded):
            statistics[scaled] = statistics[scaled].scaled(scale)
            model.set_range(scaled, 0.0, min(6.0, float(statistics[scaled].high.max())))


def equalize_trunks(model: FlatModel, statistics: Statistics) -> None:
    """Scales the channels of linear tensors towards one range, all tied by additions together.

    Exact: what writes into the trunk is scaled by s, what reads from it by 1 / s.
    """
    producers, consumers = model.producers(), model.consumers()
    for trunk in _trunks(model):
        bounds = np.max([np.maximum(-statistics[t].low, statistics[t].high) for t in trunk], axis=0)
        bounds = np.maximum(bounds, 1e-3 * bounds.max())
        scale = np.clip(bounds.max() / bounds, 1.0, MAX_SCALE) ** TRUNK_SHARE
        for tensor in trunk:
            if model.code(producers[tensor]) != OPERATOR.ADD:
                _scale_outputs(model, producers[tensor], scale)
            for user in consumers[tensor]:
                if user.outputs[0] not in trunk:
                    _scale_inputs(model, user, 1 / scale)
            now = statistics[tensor] = statistics[tensor].scaled(scale)
            model.set_range(tensor, float(now.low.min()), float(now.high.max()))


def _trunks(model: FlatModel) -> list[set[int]]:
    """Groups of linear tensors that additions tie together and only convolutions read."""
    producers, consumers = model.producers(), model.consumers()

    def linear(operation: Any) -> bool:
        none = model.activation(operation) == ACTIVATION.NONE
        return none and _is_convolution(model, operation)

    def ties(operation: Any) -> bool:
        return (
            model.code(operation) == OPERATOR.ADD
            and model.activation(operation) == ACTIVATION.NONE
            and all(t in producers for t in operation.inputs)
            and len({tuple(model.tensors[t].shape) for t in operation.inputs}) == 1
        )

    groups: dict[int, set[int]] = {
        op.outputs[0]: {op.outputs[0]} for op in model.operations if linear(op) or ties(op)
    }
    for operation in filter(ties, model.operations):
        tied = set().union(*(groups.get(t, {t}) for t in (operation.outputs[0], *operation.inputs)))
        groups |= dict.fromkeys(tied, tied)

    def usable(group: set[int]) -> bool:
        return all(
            tensor in producers
            and (linear(producers[tensor]) or ties(producers[tensor]))
            and tensor not in model.graph.outputs
            and all(
                user.outputs[0] in group or _is_convolution(model, user)
                for user in consumers.get(tensor, [])
            )
            for tensor in group
        )

    found: list[set[int]] = []
    for group in groups.values():
        if group not in found and usable(group):
            found.append(group)
    return found


def _is_convolution(model: FlatModel, operation: Any) -> bool:
    """With float weights in the file, and channels that are the last axis on both sides."""
    if model.code(operation) not in CONVOLUTIONS or model.constant(operation.inputs[1]) is None:
        return False
    weights = model.weights(operation)
    if model.code(operation) == OPERATOR.DEPTHWISE_CONV_2D:
        return int(operation.builtinOptions.depthMultiplier) == 1
    return bool(weights.shape[-1] == model.tensors[operation.inputs[0]].shape[-1])


def _through_pads(
    model: FlatModel, consumers: dict[int, list[Any]], tensor: int
) -> tuple[list[Any], list[int]]:
    """What reads a tensor, zero padding between them skipped; and the padded tensors."""
    users: list[Any] = []
    padded: list[int] = []
    for user in consumers.get(tensor, []):
        if model.code(user) == OPERATOR.PAD:
            behind, more = _through_pads(model, consumers, user.outputs[0])
            users += behind
            padded += [user.outputs[0], *more]
        else:
            users.append(user)
    return users, padded


def _scale_outputs(model: FlatModel, operation: Any, scale: NDArray[np.float64]) -> None:
    weights = model.weights(operation)
    depthwise = model.code(operation) == OPERATOR.DEPTHWISE_CONV_2D
    shape = (1, 1, 1, -1) if depthwise else (-1, *[1] * (weights.ndim - 1))
    model.set_constant(operation.inputs[1], weights * scale.reshape(shape))
    bias = model.constant(operation.inputs[2])
    if bias is not None:
        model.set_constant(operation.inputs[2], bias * scale)


def _scale_inputs(model: FlatModel, operation: Any, scale: NDArray[np.float64]) -> None:
    model.set_constant(operation.inputs[1], model.weights(operation) * scale)


# --- rounding -----------------------------------------------------------------------------------


def round_weights(model: FlatModel, statistics: Statistics) -> None:
    """Rounds every kernel to int8 steps so that its sum is kept, and corrects the bias.

    Neighbouring pixels are alike, so what an output loses by rounding is mostly the kernel's sum;
    the rest of the mean error, known from the calibration pictures, goes into the bias.
    The quantiser finds the same steps again and changes nothing.
    """
    for operation in model.operations:
        if not _is_convolution(model, operation):
            continue
        weights = model.weights(operation)
        depthwise = model.code(operation) == OPERATOR.DEPTHWISE_CONV_2D
        # (outputs, inputs, taps); a depthwise convolution has one input for each output.
        kernels = (
            weights.reshape(-1, 1, weights.shape[-1]).transpose(2, 1, 0)
            if depthwise
            else weights.reshape(len(weights), -1, weights.shape[-1]).transpose(0, 2, 1)
        ).astype(np.float64)
        step = np.abs(kernels).max(axis=(1, 2), keepdims=True) / STEPS
        step[step == 0] = 1.0
        rounded = round_keeping_sums(kernels / step) * step
        back = rounded.transpose(2, 1, 0) if depthwise else rounded.transpose(0, 2, 1)
        model.set_constant(operation.inputs[1], back.reshape(weights.shape))
        bias = model.constant(operation.inputs[2])
        known = statistics.get(operation.inputs[0])
        if bias is not None and known is not None:
            lost = (kernels - rounded).sum(axis=2)
            mean_error = lost[:, 0] * known.mean if depthwise else lost @ known.mean
            model.set_constant(operation.inputs[2], bias + mean_error)


def round_keeping_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers near `values`, whose sum over the last axis is as near to theirs.

    Those are moved the other way whose rounding was nearest to a toss-up.
    """
    rounded = np.round(values)
    missing = np.round((values - rounded).sum(axis=-1, keepdims=True))
    rank = np.argsort(np.argsort(rounded - values, axis=-1), axis=-1)
    up = rank < missing
    down = rank >= values.shape[-1] + missing
    result: NDArray[np.float64] = np.clip(rounded + up - down, -STEPS, STEPS)
    return result


# --- after quantising ---------------------------------------------------------------------------


def requantize_for_relu(model: FlatModel) -> None:
    """int8 ReLU as a change of scale, which XNNPACK takes and ReLU it does not.

    ReLU's output has its smallest step at zero, so that negative values saturate there: the same
    function, step by step.
    """
    for operation in model.operations:
        output = model.tensors[operation.outputs[0]].quantization
        if model.code(operation) != OPERATOR.RELU or output.zeroPoint is None:
            continue
        if len(output.zeroPoint) and output.zeroPoint[0] == -128:
            model.become(operation, OPERATOR.QUANTIZE, 2, "QuantizeOptions")


def quantize_dynamically(model: FlatModel) -> None:
    """Float 1x1 convolutions get int8 weights; the runtime quantises what they read.

    With the range of the picture at hand, a spike in one picture costs all others nothing.
    """
    for operation in model.operations:
        if not _is_pointwise(model, operation) or not _is_convolution(model, operation):
            continue
        weights = model.weights(operation)
        step = np.abs(weights).max(axis=(1, 2, 3)) / STEPS
        step[step == 0] = 1.0
        options = operation.builtinOptions
        model.become(operation, OPERATOR.CONV_2D, 5, "Conv2DOptions")
        operation.builtinOptions = options
        values = np.round(weights / step[:, None, None, None]).astype(np.int8)
        model.replace_weights(operation, values, step)
