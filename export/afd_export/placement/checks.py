"""What a rule can ask of an operation: each check gives a reason, or None where it passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from afd_export.placement.operations import Operation


def _max_version(operation: Operation, limit: int) -> str | None:
    if operation.version <= limit:
        return None
    return f"version {operation.version}, taken up to {limit}"


def _inputs(operation: Operation, limits: list[int]) -> str | None:
    return _count("inputs", len(operation.inputs), limits)


def _outputs(operation: Operation, limits: list[int]) -> str | None:
    return _count("outputs", len(operation.outputs), limits)


def _count(what: str, count: int, limits: list[int]) -> str | None:
    low, high = limits
    return None if low <= count <= high else f"{count} {what}, taken with {low} to {high}"


def _required(operation: Operation, indices: list[int]) -> str | None:
    missing = [i for i in indices if operation.input(i) is None]
    return f"has no input {missing[0]}" if missing else None


def _constant(operation: Operation, indices: list[int]) -> str | None:
    """Inputs that must be constants where they are given at all."""
    for index in indices:
        tensor = operation.input(index)
        if tensor is not None and not tensor.constant:
            return f"input {index} is no constant"
    return None


def _distinct_inputs(operation: Operation, _: bool) -> str | None:
    indices = [t.index for t in operation.runtime_inputs]
    return None if len(set(indices)) == len(indices) else "twice the same input"


def _types(operation: Operation, allowed: list[str]) -> str | None:
    """Of what is computed at run time: one type throughout, or as `float32 to int8`."""
    given = sorted({t.type for t in operation.runtime_inputs}) or [operation.data.type]
    made = operation.outputs[0].type
    if len(given) > 1:
        return f"inputs of types {_listed(given)}"
    found = made if given == [made] else f"{given[0]} to {made}"
    return None if found in allowed else f"{found} (takes: {'; '.join(allowed)})"


def _input_types(operation: Operation, allowed: dict[str, list[str]]) -> str | None:
    for index, types in allowed.items():
        tensor = operation.input(int(index))
        if tensor is not None and tensor.type not in types:
            return f"input {index} is {tensor.type} (takes {_listed(types)})"
    return None


def _weights(operation: Operation, allowed: dict[str, list[str]]) -> str | None:
    """Which types of constant weights go with which type of tensors."""
    weights, kind = operation.input(1), operation.data.type
    if weights is None or not weights.constant or weights.type in allowed.get(kind, []):
        return None
    return f"{weights.type} weights for {kind} tensors"


def _per_tensor_weights(operation: Operation, _: bool) -> str | None:
    weights = operation.input(1)
    return "weights quantised per channel" if weights and len(weights.scales) > 1 else None


def _constants_alike(operation: Operation, indices: list[int]) -> str | None:
    """Either all of these float constants are stored as float16, or none is."""
    tensors = [operation.input(i) for i in indices]
    floats = {t.type for t in tensors if t is not None and t.type.startswith("float")}
    return "constants partly in float16" if len(floats) > 1 else None


def _max_rank(operation: Operation, limit: int) -> str | None:
    ranks = [len(t.shape) for t in (*operation.inputs, *operation.outputs) if t is not None]
    return None if max(ranks) <= limit else f"{max(ranks)} dimensions, taken up to {limit}"


def _ranks(operation: Operation, limits: list[int]) -> str | None:
    rank, (low, high) = len(operation.data.shape), limits
    return None if low <= rank <= high else f"{rank} dimensions, taken with {low} to {high}"


def _activations(operation: Operation, allowed: list[str]) -> str | None:
    found = operation.options.get("fused_activation_function", "NONE")
    return None if found in allowed else f"fused {found}"


def _options(operation: Operation, allowed: dict[str, list[Any] | dict[str, Any]]) -> str | None:
    for name, values in allowed.items():
        found = operation.options.get(name, 0)
        if isinstance(values, dict):
            if found < values["min"]:
                return f"{name} {found}, taken from {values['min']}"
        elif found not in values:
            return f"{name} {found}"
    return None


def _not_both(operation: Operation, names: list[str]) -> str | None:
    return " and ".join(names) if all(operation.options.get(n) for n in names) else None


def _same_quantization(operation: Operation, _: bool) -> str | None:
    tensors = (*operation.runtime_inputs, *operation.outputs)
    found = {(t.scales, t.zero_points) for t in tensors}
    return None if len(found) == 1 else "inputs and outputs quantised differently"


def _scale_ratio(operation: Operation, limits: dict[str, Any]) -> str | None:
    """The inputs' scales over the output's: of each input, or of the product of the first two."""
    (output, *_) = operation.outputs
    scales = [max(t.scales) for t in operation.inputs if t is not None and t.scales]
    if not scales or not output.scales:
        return None
    if limits["of"] == "product":
        scales = [scales[0] * scales[1]]
    for ratio in (s / output.scales[0] for s in scales):
        if not limits.get("min", 0) <= ratio <= limits.get("max", np.inf) or ratio >= limits.get(
            "below", np.inf
        ):
            return f"scales in the ratio {ratio:.3g}"
    return None


def _slope_ratio(operation: Operation, limits: list[float]) -> str | None:
    """LEAKY_RELU's slope times the scales' ratio."""
    given, output = operation.data, operation.outputs[0]
    if not given.scales:
        return None
    slope = operation.options["alpha"] * given.scales[0] / output.scales[0]
    low, high = limits
    return None if low <= abs(slope) <= high else f"slope {slope:.3g} in quantised steps"


def _unit_stride_1x1(operation: Operation, _: bool) -> str | None:
    """Pooling over single elements that leaves some out."""
    o = operation.options
    single = o["filter_height"] == o["filter_width"] == 1
    strided = o["stride_h"] > 1 or o["stride_w"] > 1
    return "1x1 window with stride" if single and strided else None


def _strides(operation: Operation, kind: str) -> str | None:
    """Of STRIDED_SLICE: `unit`, or `positive`."""
    strides = _values(operation, 3)
    if kind == "unit":
        return None if (strides == 1).all() else "strides other than 1"
    return None if (strides > 0).all() else "negative strides"


def _explicit_sizes(operation: Operation, _: bool) -> str | None:
    """SLICE without -1 for "to the end"."""
    return None if (_values(operation, 2) >= 0).all() else "a size left open (-1)"


def _padding_rows(operation: Operation, allowed: list[int]) -> str | None:
    rows = len(_values(operation, 1))
    return (
        None if rows in allowed else f"paddings of {rows} dimensions, taken of {_listed(allowed)}"
    )


def _broadcast(operation: Operation, _: bool) -> str | None:
    """How OpenCL kernels spread one operand over the other.

    One of them has the output's shape. The other has as many dimensions, each of them equal or 1;
    or is one number, or constant channels; or, beside a batch of one, has no batch dimension; or
    has batch and channels only.
    """
    shapes = [t.shape for t in operation.inputs if t is not None]
    reason = f"broadcasts {' and '.join(_dimensions(s) for s in shapes)}"
    output = operation.outputs[0].shape
    if output not in shapes:
        return reason
    other = shapes[1] if shapes[0] == output else shapes[0]
    if len(other) == len(output) or np.prod(other) == 1:
        return None
    if len(other) == 1:
        constant = any(t.constant for t in operation.inputs if t is not None and t.shape == other)
        return None if constant and other == output[-1:] else reason
    without_batch = len(output) == 4 and output[0] == 1 and len(other) == 3
    batch_and_channels = len(output) == 4 and other == (output[0], output[-1])
    return None if without_batch or batch_and_channels else reason


def _keeps_layout(operation: Operation, _: bool) -> str | None:
    """MEAN without keep_dims, where dropping dimensions moves others to new places."""
    given, axes = operation.data, _values(operation, 1)
    rank = len(given.shape)
    if operation.options.get("keep_dims") or (
        rank == 4 and sorted(a % rank for a in axes.flat) == [1, 2]
    ):
        return None
    return "keep_dims false over other dimensions than height and width"


def _matching_channels(operation: Operation, _: bool) -> str | None:
    given, weights = operation.data, operation.input(1)
    assert weights is not None
    if given.shape[-1] == weights.shape[-1]:
        return None
    return f"flattens {_dimensions(given.shape)} on the way"


def _alpha_shape(operation: Operation, _: bool) -> str | None:
    """PRELU's slopes: one a channel, or one an element."""
    given, alpha = operation.data, operation.input(1)
    assert alpha is not None
    sizes = [n for n in alpha.shape if n > 1] or [1]
    if sizes == [given.shape[-1]] or alpha.shape == given.shape[1:]:
        return None
    return f"slopes of shape {_dimensions(alpha.shape)}"


CHECKS: dict[str, Callable[[Operation, Any], str | None]] = {
    "max_version": _max_version,
    "inputs": _inputs,
    "outputs": _outputs,
    "required": _required,
    "constant": _constant,
    "distinct_inputs": _distinct_inputs,
    "types": _types,
    "input_types": _input_types,
    "weights": _weights,
    "per_tensor_weights": _per_tensor_weights,
    "constants_alike": _constants_alike,
    "max_rank": _max_rank,
    "ranks": _ranks,
    "activations": _activations,
    "options": _options,
    "not_both": _not_both,
    "same_quantization": _same_quantization,
    "scale_ratio": _scale_ratio,
    "slope_ratio": _slope_ratio,
    "unit_stride_1x1": _unit_stride_1x1,
    "strides": _strides,
    "explicit_sizes": _explicit_sizes,
    "padding_rows": _padding_rows,
    "broadcast": _broadcast,
    "keeps_layout": _keeps_layout,
    "matching_channels": _matching_channels,
    "alpha_shape": _alpha_shape,
}


def _values(operation: Operation, index: int) -> Any:
    """Of an integer constant; `constant` comes before every check that asks."""
    tensor = operation.input(index)
    assert tensor is not None and tensor.values is not None, (operation, index)
    return tensor.values


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(v) for v in values)


def _dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
