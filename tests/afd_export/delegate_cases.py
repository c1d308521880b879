"""A small graph for every rule of `export/delegates`, with the check that refuses it.

The expectations are the delegates' published rules, written down a second time; the engines that
run here are asked about the same graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.afd_export.tflite_graphs import Fed, Graph, Stored, single

Checks = tuple[str | None, str | None, str | None]

S = (1, 4, 4, 8)
IMAGE = (1, 8, 8, 8)
F32, I8, U8 = Fed(S), Fed(S, "int8"), Fed(S, "uint8")
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


@dataclass(frozen=True)
class Case:
    """One graph, and which check refuses its operation; None where the delegate takes it."""

    content: bytes
    xnnpack: str | None
    gpu: str | None
    nnapi: str | None


def floats(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def halves(*shape: int) -> Stored:
    """A float16 constant and the DEQUANTIZE that every float16 file puts behind it."""
    return Stored(floats(*shape).astype(np.float16), unpacked=True)


def integers(*values: Any) -> Stored:
    return Stored(np.array(values, np.int32))


def scalar(value: int) -> Stored:
    return Stored(np.array(value, np.int32))


def _unary() -> Iterator[tuple[str, Case]]:
    refused: dict[str, Checks] = {
        "ABS": (None, None, None),
        "CEIL": (None, "operator", "operator"),
        "COS": (None, None, "operator"),
        "ELU": (None, None, None),
        "EXP": (None, None, None),
        "FLOOR": (None, None, None),
        "GELU": (None, None, "operator"),
        "HARD_SWISH": (None, None, None),
        "LOG": ("operator", None, None),
        "LOGISTIC": (None, None, None),
        "NEG": (None, None, None),
        "RELU": (None, None, None),
        "RELU6": (None, None, None),
        "RELU_N1_TO_1": (None, None, None),
        "ROUND": (None, "operator", "operator"),
        "RSQRT": (None, None, None),
        "SIGN": ("operator", None, "operator"),
        "SIN": (None, None, None),
        "SQRT": (None, None, None),
        "SQUARE": (None, None, "operator"),
        "TANH": (None, None, None),
        "LOG_SOFTMAX": ("operator", "operator", None),
        "L2_NORMALIZATION": ("operator", "operator", None),
        "LOCAL_RESPONSE_NORMALIZATION": ("operator", "operator", None),
    }
    for operator, checks in refused.items():
        yield operator, Case(single(operator, [F32], F32), *checks)
    # Those that TFLite itself computes in 8 bits, but no more than these.
    quantised: dict[str, Checks] = {
        "ABS int8": ("types", None, "types"),
        "ELU int8": (None, None, "types"),
        "ELU uint8": ("types", None, "types"),
        "EXP int8": ("types", None, "types"),
        "GELU int8": ("types", None, "operator"),
        "GELU uint8": ("types", None, "operator"),
        "HARD_SWISH int8": ("types", None, None),
        "NEG int8": ("types", None, "types"),
        "RELU int8": ("types", None, None),
        "RELU uint8": ("types", None, None),
        "RELU6 int8": ("types", None, None),
        "RELU_N1_TO_1 int8": ("types", None, None),
        "RSQRT int8": ("types", None, "types"),
        "SQRT int8": ("types", None, "types"),
    }
    for name, checks in quantised.items():
        operator, kind = name.split()
        version = 2 if operator == "GELU" else 1
        fed = Fed(S, kind)
        yield name, Case(single(operator, [fed], fed, version=version), *checks)
    logistic = Fed(S, "int8", 1 / 256, -128)
    yield "LOGISTIC int8", Case(single("LOGISTIC", [I8], logistic), None, None, None)
    tanh = Fed(S, "uint8", 1 / 128, 128)
    yield "TANH uint8", Case(single("TANH", [U8], tanh), None, None, None)
    yield (
        "RELU version 3",
        Case(single("RELU", [F32], F32, version=3), None, "max_version", "max_version"),
    )
    for rank in (1, 2, 5, 7):
        fed = Fed((1, 1, 2, 1, 4, 4, 8)[-rank:])
        over = "max_rank" if rank > 4 else None
        yield (
            f"RELU of {rank} dimensions",
            Case(single("RELU", [fed], fed), "max_rank" if rank > 6 else None, over, over),
        )
    yield (
        "RELU of batch 2",
        Case(single("RELU", [Fed((2, *S[1:]))], Fed((2, *S[1:]))), None, None, None),
    )
    for kind, out, alpha, check in (
        ("float32", 0.1, 0.1, None),
        ("int8", 0.1, 0.1, None),
        ("int8", 1e-4, 0.1, "scale_ratio"),
        ("int8", 0.1, 1e-4, "slope_ratio"),
    ):
        yield (
            f"LEAKY_RELU {kind}, scale {out}, slope {alpha}",
            Case(
                single("LEAKY_RELU", [Fed(S, kind)], Fed(S, kind, out), alpha=alpha),
                check, None, None,
            ),
        )  # fmt: skip
    yield "SOFTMAX", Case(single("SOFTMAX", [F32], F32, beta=1.0), None, None, None)
    yield (
        "SOFTMAX of beta 2",
        Case(single("SOFTMAX", [F32], F32, beta=2.0), "options", "options", None),
    )
    softmax = Fed(S, "int8", 1 / 256, -128)
    yield "SOFTMAX int8", Case(single("SOFTMAX", [I8], softmax, beta=1.0), "types", None, None)


def _elementwise() -> Iterator[tuple[str, Case]]:
    refused: dict[str, Checks] = {
        "ADD": (None, None, None),
        "MUL": (None, None, None),
        "SUB": (None, None, None),
        "DIV": (None, None, None),
        "MAXIMUM": (None, None, None),
        "MINIMUM": (None, None, None),
        "SQUARED_DIFFERENCE": (None, None, "operator"),
        "POW": ("operator", None, None),
        "FLOOR_DIV": ("operator", None, "operator"),
        "FLOOR_MOD": ("operator", None, "operator"),
        "ADD_N": ("operator", None, "operator"),
    }
    for operator, checks in refused.items():
        yield operator, Case(single(operator, [F32, F32], F32), *checks)
    channels, scalar_value = Stored(floats(8)), Stored(floats())
    for operator in ("ADD", "MUL", "SUB"):
        for name, constant in {
            "channels": channels,
            "a scalar": scalar_value,
            "1x1x1x8": Stored(floats(1, 1, 1, 8)),
            "float16 channels": halves(8),
        }.items():
            yield (
                f"{operator} constant {name}",
                Case(single(operator, [F32, constant], F32), None, None, None),
            )
    # Of two operands computed at run time.
    for shape, check in {
        (1, 1, 1, 8): None,
        (1, 4, 4, 1): None,
        (1, 4, 1, 8): None,
        (1, 1, 1, 1): None,
        (4, 4, 8): None,
        (1, 8): None,
        (1, 1): None,
        (8,): "broadcast",
        (4, 8): "broadcast",
    }.items():
        yield (
            f"MUL with {'x'.join(map(str, shape))}",
            Case(single("MUL", [F32, Fed(shape)], F32), None, check, None),
        )
    both = single("ADD", [Fed((1, 4, 1, 8)), Fed((1, 1, 4, 8))], F32)
    yield "ADD, both spread", Case(both, None, "broadcast", None)
    yield (
        "ADD, the first spread",
        Case(single("ADD", [Fed((1, 1, 1, 8)), F32], F32), None, None, None),
    )
    batch = single("ADD", [Fed((2, 4, 4, 8)), Fed((4, 4, 8))], Fed((2, 4, 4, 8)))
    yield "ADD 4x4x8 to a batch of 2", Case(batch, None, "broadcast", None)
    for number, activation in enumerate(ACTIVATIONS):
        checks = (
            None if number < 4 else "activations",
            None if number < 5 else "activations",
            None if number < 4 else "activations",
        )
        yield (
            f"ADD fused {activation}",
            Case(single("ADD", [F32, F32], F32, fusedActivationFunction=number), *checks),
        )
    # Inputs of scale 1/8: the ratio is 1/8 (ADD) or 1/64 (MUL) over the output's scale.
    bounds: tuple[tuple[str, float, dict[int, str | None]], ...] = (
        ("ADD", 1 / 8, {-11: "scale_ratio", -10: None, 7: None, 8: "scale_ratio"}),
        ("MUL", 1 / 64, {-17: "scale_ratio", -16: None, 7: None, 8: "scale_ratio"}),
    )
    for operator, numerator, ratios in bounds:
        given = Fed(S, "int8", 1 / 8)
        for exponent, check in ratios.items():
            made = Fed(S, "int8", numerator / 2**exponent)
            yield (
                f"{operator} int8, scales in the ratio 2^{exponent}",
                Case(single(operator, [given, given], made, version=2), check, None, None),
            )
    int8: dict[str, Checks] = {
        "DIV": ("types", None, "max_version"),
        "MAXIMUM": ("types", None, None),
        "MINIMUM": ("types", None, None),
        "SQUARED_DIFFERENCE": ("types", None, "operator"),
    }
    for operator, checks in int8.items():
        yield f"{operator} int8", Case(single(operator, [I8, I8], I8, version=2), *checks)
    yield "SUB uint8", Case(single("SUB", [U8, U8], U8, version=2), None, None, None)
    i32 = Fed(S, "int32")
    yield "ADD int32", Case(single("ADD", [i32, i32], i32), "types", "types", None)
    yield (
        "ADD version 3",
        Case(single("ADD", [F32, F32], F32, version=3), None, "max_version", "max_version"),
    )
    yield (
        "MUL version 4",
        Case(single("MUL", [F32, F32], F32, version=4), None, "max_version", "max_version"),
    )
    yield (
        "SUB version 3",
        Case(single("SUB", [F32, F32], F32, version=3), None, "max_version", None),
    )
    for operator, check in (("ADD", None), ("SUB", "distinct_inputs")):
        graph = Graph()
        fed, result = graph.feed(F32), graph.tensor(F32)
        graph.run(operator, [fed, fed], [result])
        yield f"{operator} to itself", Case(graph.finish([result]), None, check, None)
    yield (
        "ADD_N of three",
        Case(single("ADD_N", [F32, F32, F32], F32), "operator", "inputs", "operator"),
    )


def _weighted(
    operator: str,
    given: Fed,
    weights: Stored | Fed,
    bias: Stored | Fed | None,
    made: Fed,
    version: int = 1,
    **options: Any,
) -> bytes:
    """A convolution; `bias` None leaves it out."""
    strided = {} if operator == "FULLY_CONNECTED" else {"strideW": 1, "strideH": 1}
    if operator == "DEPTHWISE_CONV_2D":
        strided["depthMultiplier"] = 1
    inputs: list[Fed | Stored | None] = [given, weights]
    if operator == "TRANSPOSE_CONV":
        inputs = [integers(*made.shape), weights, given]
    if bias is not None:
        inputs.append(bias)
    return single(operator, inputs, made, version=version, **strided | options)


def quantized(kind: str, *shape: int, channels: int | None = None, axis: int = 0) -> Stored:
    """Weights of small steps about zero, per tensor or per channel."""
    zero = 128 if kind == "uint8" else 0
    steps = np.random.default_rng(0).integers(zero - 7, zero + 8, shape).astype(kind)
    return Stored(steps, 0.05 if channels is None else (0.05,) * channels, axis)


def zeros(channels: int, scales: int | None = None) -> Stored:
    """A quantised bias; its scale is the input's times the weights'."""
    scale = 0.005 if scales is None else (0.005,) * scales
    return Stored(np.zeros(channels, np.int32), scale)


def _convolutions() -> Iterator[tuple[str, Case]]:
    given, made = Fed(IMAGE), Fed((1, 8, 8, 16))
    weights, bias = Stored(floats(16, 3, 3, 8)), Stored(floats(16))

    def conv(
        kernel: Stored | Fed = weights,
        offset: Stored | Fed | None = bias,
        output: Fed = made,
        image: Fed = given,
        version: int = 1,
        **options: Any,
    ) -> bytes:
        return _weighted("CONV_2D", image, kernel, offset, output, version, **options)

    yield "CONV_2D", Case(conv(), None, None, None)
    yield "CONV_2D strided", Case(conv(output=Fed((1, 4, 4, 16)), strideW=2, strideH=2),
                                  None, None, None)  # fmt: skip
    yield "CONV_2D dilated", Case(conv(dilationWFactor=2, dilationHFactor=2), None, None, None)
    yield "CONV_2D grouped", Case(conv(Stored(floats(16, 3, 3, 4))), None, None, None)
    yield "CONV_2D without bias", Case(conv(offset=None), "required", "required", "required")
    yield "CONV_2D float16", Case(conv(halves(16, 3, 3, 8), halves(16)), None, None, None)
    yield (
        "CONV_2D float32 weights, float16 bias",
        Case(conv(offset=halves(16)), "constants_alike", None, None),
    )
    fed = conv(Fed((16, 3, 3, 8)))
    yield "CONV_2D, weights fed", Case(fed, "constant", None, None)
    yield "CONV_2D, bias fed", Case(conv(offset=Fed((16,))), "constant", "constant", None)
    for number, activation in enumerate(ACTIVATIONS):
        yield (
            f"CONV_2D fused {activation}",
            Case(
                conv(fusedActivationFunction=number),
                None if number < 4 else "activations",
                None if number < 5 else "activations",
                None if number < 4 else "activations",
            ),
        )
    image, output = Fed(IMAGE, "int8"), Fed((1, 8, 8, 16), "int8", 0.2)
    per_channel = quantized("int8", 16, 3, 3, 8, channels=16)
    int8 = conv(per_channel, zeros(16, 16), output, image, version=3)
    yield "CONV_2D int8 per channel", Case(int8, None, None, None)
    per_tensor = conv(quantized("int8", 16, 3, 3, 8), zeros(16), output, image, version=3)
    yield "CONV_2D int8 per tensor", Case(per_tensor, None, None, None)
    # 0.1 * 0.05 over the output's scale.
    limits: dict[int, str | None] = {255: None, 257: "scale_ratio"}
    for ratio, check in limits.items():
        output = Fed((1, 8, 8, 16), "int8", 0.005 / ratio)
        far = conv(per_channel, zeros(16, 16), output, image, version=3)
        yield f"CONV_2D int8, scales in the ratio {ratio}", Case(far, check, None, None)
    image, output = Fed(IMAGE, "uint8"), Fed((1, 8, 8, 16), "uint8", 0.2)
    uint8 = conv(quantized("uint8", 16, 3, 3, 8), zeros(16), output, image)
    yield "CONV_2D uint8", Case(uint8, None, None, None)
    hybrid = conv(per_channel, version=5)
    yield "CONV_2D int8 weights alone", Case(hybrid, None, None, "max_version")
    yield "CONV_2D version 7", Case(conv(version=7), None, "max_version", "max_version")

    made = Fed(IMAGE)
    weights, bias = Stored(floats(1, 3, 3, 8)), Stored(floats(8))

    def depthwise(
        kernel: Stored | Fed = weights,
        offset: Stored | Fed | None = bias,
        output: Fed = made,
        image: Fed = given,
        version: int = 1,
        **options: Any,
    ) -> bytes:
        return _weighted("DEPTHWISE_CONV_2D", image, kernel, offset, output, version, **options)

    yield "DEPTHWISE_CONV_2D", Case(depthwise(), None, None, None)
    yield "DEPTHWISE_CONV_2D without bias", Case(depthwise(offset=None), "required", None, None)
    yield (
        "DEPTHWISE_CONV_2D float16",
        Case(depthwise(halves(1, 3, 3, 8), halves(8)), None, None, None),
    )
    yield (
        "DEPTHWISE_CONV_2D float32 weights, float16 bias",
        Case(depthwise(offset=halves(8)), "constants_alike", None, None),
    )
    wide = depthwise(
        Stored(floats(1, 3, 3, 16)), Stored(floats(16)), Fed((1, 8, 8, 16)), depthMultiplier=2
    )
    yield "DEPTHWISE_CONV_2D multiplying", Case(wide, None, None, None)
    yield (
        "DEPTHWISE_CONV_2D fused TANH",
        Case(depthwise(fusedActivationFunction=4), "activations", None, "activations"),
    )
    image, output = Fed(IMAGE, "int8"), Fed(IMAGE, "int8", 0.2)
    per_channel = quantized("int8", 1, 3, 3, 8, channels=8, axis=3)
    yield (
        "DEPTHWISE_CONV_2D int8",
        Case(depthwise(per_channel, zeros(8, 8), output, image, version=3), None, None, None),
    )
    image, output = Fed(IMAGE, "uint8"), Fed(IMAGE, "uint8", 0.2)
    yield (
        "DEPTHWISE_CONV_2D uint8",
        Case(depthwise(quantized("uint8", 1, 3, 3, 8), zeros(8), output, image), None, None, None),
    )
    yield (
        "DEPTHWISE_CONV_2D int8 weights alone",
        Case(depthwise(per_channel, version=3), "weights", None, "weights"),
    )
    yield (
        "DEPTHWISE_CONV_2D, weights fed",
        Case(depthwise(Fed((1, 3, 3, 8))), "constant", None, None),
    )
    yield (
        "DEPTHWISE_CONV_2D version 7",
        Case(depthwise(version=7), None, "max_version", "max_version"),
    )
    tiny = Fed(IMAGE, "int8", 1e-5)
    yield "DEPTHWISE_CONV_2D int8, output scale too small", Case(
        depthwise(per_channel, zeros(8, 8), tiny, Fed(IMAGE, "int8"), version=3),
        "scale_ratio", None, None,
    )  # fmt: skip

    made = Fed((1, 16, 16, 16))
    weights, bias = Stored(floats(16, 2, 2, 8)), Stored(floats(16))

    def transposed(
        kernel: Stored | Fed = weights,
        offset: Stored | Fed | None = bias,
        output: Fed = made,
        image: Fed = given,
        version: int = 3,
        **options: Any,
    ) -> bytes:
        strides = {"strideW": 2, "strideH": 2}
        return _weighted(
            "TRANSPOSE_CONV", image, kernel, offset, output, version, **strides | options
        )

    yield "TRANSPOSE_CONV", Case(transposed(), None, None, None)
    yield "TRANSPOSE_CONV without bias", Case(transposed(offset=None), None, None, None)
    yield "TRANSPOSE_CONV of 3x3", Case(transposed(Stored(floats(16, 3, 3, 8))), None, None, None)
    yield (
        "TRANSPOSE_CONV float16",
        Case(transposed(halves(16, 2, 2, 8), halves(16)), None, None, None),
    )
    yield (
        "TRANSPOSE_CONV float32 weights, float16 bias",
        Case(transposed(offset=halves(16)), None, None, None),
    )
    yield (
        "TRANSPOSE_CONV fused RELU",
        Case(transposed(version=4, fusedActivationFunction=1), None, "max_version", "max_version"),
    )
    yield (
        "TRANSPOSE_CONV, weights fed",
        Case(transposed(Fed((16, 2, 2, 8))), "constant", None, "constant"),
    )
    image, output = Fed(IMAGE, "int8"), Fed((1, 16, 16, 16), "int8", 0.2)
    per_channel = quantized("int8", 16, 2, 2, 8, channels=16)
    yield (
        "TRANSPOSE_CONV int8",
        Case(transposed(per_channel, zeros(16, 16), output, image), None, None, None),
    )
    yield (
        "TRANSPOSE_CONV int8 weights alone",
        Case(transposed(per_channel, None), None, None, "weights"),
    )
    strides = {"strideW": 2, "strideH": 2}
    yield "TRANSPOSE_CONV, shape fed", Case(
        single("TRANSPOSE_CONV", [Fed((4,), "int32"), weights, given], made, **strides),
        "constant", "constant", "constant",
    )  # fmt: skip

    def dense(
        kernel: Stored | Fed,
        offset: Stored | Fed | None,
        image: Fed,
        output: Fed,
        version: int = 1,
        **options: Any,
    ) -> bytes:
        return _weighted("FULLY_CONNECTED", image, kernel, offset, output, version, **options)

    given, made = Fed((1, 8)), Fed((1, 5))
    weights, bias = Stored(floats(5, 8)), Stored(floats(5))
    yield "FULLY_CONNECTED", Case(dense(weights, bias, given, made), None, None, None)
    yield "FULLY_CONNECTED without bias", Case(dense(weights, None, given, made), None, None, None)
    pooled = Fed((1, 1, 1, 8))
    yield "FULLY_CONNECTED after a pool", Case(dense(weights, bias, pooled, made), None, None, None)
    flattening = dense(weights, bias, Fed((1, 2, 2, 2)), made)
    yield "FULLY_CONNECTED that flattens", Case(flattening, None, "matching_channels", None)
    kept = dense(weights, bias, F32, Fed((1, 4, 4, 5)), keepNumDims=True)
    yield "FULLY_CONNECTED of every pixel", Case(kept, None, None, None)
    yield (
        "FULLY_CONNECTED float16",
        Case(dense(halves(5, 8), halves(5), given, made), None, None, None),
    )
    yield (
        "FULLY_CONNECTED float32 weights, float16 bias",
        Case(dense(weights, halves(5), given, made), "constants_alike", None, None),
    )
    yield (
        "FULLY_CONNECTED fused RELU6",
        Case(dense(weights, bias, given, made, fusedActivationFunction=3), None, None, None),
    )
    given, output = Fed((1, 8), "int8"), Fed((1, 5), "int8", 0.2)
    yield (
        "FULLY_CONNECTED int8",
        Case(dense(quantized("int8", 5, 8), zeros(5), given, output, version=4), None, None, None),
    )
    channelwise = dense(quantized("int8", 5, 8, channels=5), zeros(5, 5), given, output, version=4)
    yield "FULLY_CONNECTED int8 per channel", Case(channelwise, None, None, "per_tensor_weights")
    given, output = Fed((1, 8), "uint8"), Fed((1, 5), "uint8", 0.2)
    yield (
        "FULLY_CONNECTED uint8",
        Case(dense(quantized("uint8", 5, 8), zeros(5), given, output), None, "weights", None),
    )
    given = Fed((1, 8))
    yield (
        "FULLY_CONNECTED int8 weights alone",
        Case(dense(quantized("int8", 5, 8), bias, given, made, version=3), None, None, None),
    )
    yield (
        "FULLY_CONNECTED, weights fed",
        Case(dense(Fed((5, 8)), bias, given, made), "constant", None, None),
    )
    yield (
        "FULLY_CONNECTED, bias fed",
        Case(dense(weights, Fed((5,)), given, made), "constant", "constant", None),
    )
    yield (
        "FULLY_CONNECTED version 10",
        Case(dense(weights, bias, given, made, version=10), None, "max_version", "max_version"),
    )
    left, right = Fed((1, 4, 8)), Fed((1, 8, 5))
    yield (
        "BATCH_MATMUL",
        Case(single("BATCH_MATMUL", [left, right], Fed((1, 4, 5))), None, None, "operator"),
    )


def _pools_and_means() -> Iterator[tuple[str, Case]]:
    window = {"padding": 1, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
    given, made = Fed(IMAGE), Fed(S)
    for operator, int8 in (("AVERAGE_POOL_2D", "types"), ("MAX_POOL_2D", None)):
        yield operator, Case(single(operator, [given], made, **window), None, None, None)
        pixel = window | {"filterWidth": 1, "filterHeight": 1}
        yield (
            f"{operator} of strided pixels",
            Case(single(operator, [given], made, **pixel), "unit_stride_1x1", None, None),
        )
        yield (
            f"{operator} int8",
            Case(single(operator, [Fed(IMAGE, "int8")], I8, version=2, **window), int8, None, None),
        )
        fused = single(operator, [given], made, fusedActivationFunction=4, **window)
        yield f"{operator} fused TANH", Case(fused, "activations", None, "activations")
        yield (
            f"{operator} version 3",
            Case(single(operator, [given], made, version=3, **window),
                 None, "max_version", "max_version"),
        )  # fmt: skip
    yield "MAX_POOL_2D int8 of another scale", Case(
        single("MAX_POOL_2D", [Fed(IMAGE, "int8")], Fed(S, "int8", 0.2), version=2, **window),
        "same_quantization", None, None,
    )  # fmt: skip
    yield (
        "L2_POOL_2D",
        Case(single("L2_POOL_2D", [given], made, **window), "operator", "operator", None),
    )

    refused: dict[str, Checks] = {
        "MEAN": (None, None, None),
        "SUM": (None, None, None),
        "REDUCE_MAX": (None, None, None),
        "REDUCE_MIN": (None, None, None),
        "REDUCE_PROD": ("operator", None, None),
    }
    pooled = Fed((1, 1, 1, 8))
    for operator, checks in refused.items():
        yield (
            operator,
            Case(single(operator, [F32, integers(1, 2)], pooled, keepDims=True), *checks),
        )
    yield (
        "MEAN, height and width dropped",
        Case(single("MEAN", [F32, integers(1, 2)], Fed((1, 8))), None, None, None),
    )
    yield (
        "MEAN over channels",
        Case(
            single("MEAN", [F32, integers(3)], Fed((1, 4, 4, 1)), keepDims=True), None, None, None
        ),
    )
    yield (
        "MEAN, channels dropped",
        Case(single("MEAN", [F32, integers(3)], Fed((1, 4, 4))), None, "keeps_layout", None),
    )
    yield "MEAN, axes fed", Case(
        single("MEAN", [F32, Fed((2,), "int32")], pooled, keepDims=True),
        "constant", "constant", "types",
    )  # fmt: skip
    yield "MEAN int8", Case(
        single("MEAN", [I8, integers(1, 2)], Fed((1, 1, 1, 8), "int8"), version=2, keepDims=True),
        None, None, None,
    )  # fmt: skip
    other = Fed((1, 1, 1, 8), "int8", 0.2)
    yield "MEAN int8 of another scale", Case(
        single("MEAN", [I8, integers(1, 2)], other, version=2, keepDims=True),
        None, None, "same_quantization",
    )  # fmt: skip
    yield "SUM, axes fed", Case(
        single("SUM", [F32, Fed((2,), "int32")], pooled, keepDims=True),
        "constant", "constant", "types",
    )  # fmt: skip


def _shapes() -> Iterator[tuple[str, Case]]:
    padded, around = Fed((1, 6, 6, 8)), integers([0, 0], [1, 1], [1, 1], [0, 0])
    yield "PAD", Case(single("PAD", [F32, around], padded), None, None, None)
    yield "PAD of channels", Case(
        single("PAD", [F32, integers([0, 0], [0, 0], [0, 0], [0, 4])], Fed((1, 4, 4, 12))),
        None, None, None,
    )  # fmt: skip
    yield "PAD of two dimensions", Case(
        single("PAD", [Fed((1, 8)), integers([0, 0], [1, 1])], Fed((1, 10))),
        None, "padding_rows", None,
    )  # fmt: skip
    yield (
        "PAD int8",
        Case(single("PAD", [I8, around], Fed((1, 6, 6, 8), "int8"), version=2), None, None, None),
    )
    yield "PAD int8 of another scale", Case(
        single("PAD", [I8, around], Fed((1, 6, 6, 8), "int8", 0.2), version=2),
        "same_quantization", None, None,
    )  # fmt: skip
    yield (
        "PAD, paddings fed",
        Case(single("PAD", [F32, Fed((4, 2), "int32")], padded), "constant", "constant", "types"),
    )
    wide = Stored(around.values.astype(np.int64))
    yield (
        "PAD by int64",
        Case(single("PAD", [F32, wide], padded), "input_types", "input_types", None),
    )
    yield (
        "PAD version 3",
        Case(single("PAD", [F32, around], padded, version=3), None, "max_version", "max_version"),
    )
    value = Stored(np.float32(1.5).reshape(()))
    yield "PADV2", Case(single("PADV2", [F32, around, value], padded), "operator", None, None)
    for name, mode, check in (("reflect", 0, None), ("symmetric", 1, "options")):
        yield (
            f"MIRROR_PAD {name}",
            Case(single("MIRROR_PAD", [F32, around], padded, mode=mode),
                 "operator", check, "operator"),
        )  # fmt: skip

    larger = Fed((1, 8, 8, 8))
    for operator, xnnpack in (
        ("RESIZE_BILINEAR", None),
        ("RESIZE_NEAREST_NEIGHBOR", "operator"),
    ):
        for flags in ({}, {"alignCorners": True}, {"halfPixelCenters": True}):
            yield (
                f"{operator} {' '.join(flags) or 'plain'}",
                Case(single(operator, [F32, integers(8, 8)], larger, version=3, **flags),
                     xnnpack, None, None),
            )  # fmt: skip
        yield (
            f"{operator}, size fed",
            Case(single(operator, [F32, Fed((2,), "int32")], larger),
                 xnnpack or "constant", "constant", "constant"),
        )  # fmt: skip
        yield (
            f"{operator} version 4",
            Case(single(operator, [F32, integers(8, 8)], larger, version=4),
                 xnnpack, "max_version", "max_version"),
        )  # fmt: skip
        yield (
            f"{operator} int8",
            Case(single(operator, [I8, integers(8, 8)], Fed((1, 8, 8, 8), "int8"), version=3),
                 xnnpack, None, None),
        )  # fmt: skip
    both = {"alignCorners": True, "halfPixelCenters": True}
    yield "RESIZE_BILINEAR with both flags", Case(
        single("RESIZE_BILINEAR", [F32, integers(8, 8)], larger, version=3, **both),
        None, "not_both", None,
    )  # fmt: skip
    yield "RESIZE_BILINEAR int8 of another scale", Case(
        single("RESIZE_BILINEAR", [I8, integers(8, 8)], Fed((1, 8, 8, 8), "int8", 0.2), version=3),
        "same_quantization", None, None,
    )  # fmt: skip

    deep, shallow = Fed(S), Fed((1, 8, 8, 2))
    for operator, given, made in (
        ("DEPTH_TO_SPACE", deep, shallow),
        ("SPACE_TO_DEPTH", shallow, deep),
    ):
        yield operator, Case(single(operator, [given], made, blockSize=2), None, None, None)
        yield (
            f"{operator} int8",
            Case(single(operator, [Fed(given.shape, "int8")], Fed(made.shape, "int8"), blockSize=2),
                 None, None, None),
        )  # fmt: skip
        yield (
            f"{operator} of block 1",
            Case(single(operator, [given], given, blockSize=1), "options", "options", None),
        )

    for shape, check in (((1, 16, 8), None), ((1, 4, 4, 2, 4), "max_rank")):
        yield (
            f"RESHAPE to {len(shape)} dimensions",
            Case(single("RESHAPE", [F32, integers(*shape)], Fed(shape), newShape=list(shape)),
                 None, check, check),
        )  # fmt: skip
    yield "RESHAPE, shape fed", Case(
        single("RESHAPE", [F32, Fed((2,), "int32")], Fed((1, 128)), newShape=[1, 128]),
        "constant", "constant", "constant",
    )  # fmt: skip
    # A pixel shuffle as PyTorch writes it.
    six, swapped = Fed((1, 4, 4, 2, 2, 2)), Fed((1, 4, 2, 4, 2, 2))
    yield "TRANSPOSE of 6 dimensions", Case(
        single("TRANSPOSE", [six, integers(0, 1, 3, 2, 4, 5)], swapped),
        None, "max_rank", "max_rank",
    )  # fmt: skip
    nchw = Fed((1, 8, 4, 4))
    yield (
        "TRANSPOSE",
        Case(single("TRANSPOSE", [F32, integers(0, 3, 1, 2)], nchw), None, None, None),
    )
    yield (
        "TRANSPOSE, order fed",
        Case(
            single("TRANSPOSE", [F32, Fed((4,), "int32")], nchw), "constant", "constant", "constant"
        ),
    )
    yield "TRANSPOSE version 5", Case(
        single("TRANSPOSE", [F32, integers(0, 3, 1, 2)], nchw, version=5),
        None, "max_version", "max_version",
    )  # fmt: skip
    yield "TRANSPOSE int8 of another scale", Case(
        single("TRANSPOSE", [I8, integers(0, 3, 1, 2)], Fed((1, 8, 4, 4), "int8", 0.2), version=2),
        "same_quantization", None, None,
    )  # fmt: skip
    yield "SQUEEZE", Case(
        single("SQUEEZE", [Fed((1, 1, 1, 8))], Fed((1, 8)), squeezeDims=[1, 2]),
        "operator", "operator", None,
    )  # fmt: skip
    yield "EXPAND_DIMS", Case(
        single("EXPAND_DIMS", [Fed((1, 4, 8)), scalar(1)], Fed((1, 1, 4, 8))),
        "operator", "operator", None,
    )  # fmt: skip


def _slices() -> Iterator[tuple[str, Case]]:
    given, made, ones = Fed(IMAGE), Fed(S), integers(1, 1, 1, 1)
    start, end = integers(0, 0, 0, 0), integers(1, 4, 4, 8)
    yield "SLICE", Case(single("SLICE", [given, start, end], made), None, None, None)
    rest = single("SLICE", [given, integers(0, 4, 4, 0), integers(-1, -1, -1, -1)], made)
    yield "SLICE to the end", Case(rest, "explicit_sizes", None, None)
    yield "SLICE of 2 dimensions", Case(
        single("SLICE", [Fed((1, 8)), integers(0, 0), integers(1, 4)], Fed((1, 4))),
        None, "ranks", None,
    )  # fmt: skip
    yield (
        "SLICE, begin fed",
        Case(
            single("SLICE", [given, Fed((4,), "int32"), end], made), "constant", "constant", "types"
        ),
    )
    yield (
        "SLICE int8",
        Case(single("SLICE", [Fed(IMAGE, "int8"), start, end], I8, version=2), None, None, None),
    )
    yield "SLICE int8 of another scale", Case(
        single("SLICE", [Fed(IMAGE, "int8"), start, end], Fed(S, "int8", 0.2), version=2),
        "same_quantization", None, None,
    )  # fmt: skip
    yield (
        "STRIDED_SLICE",
        Case(single("STRIDED_SLICE", [given, start, end, ones], made), None, None, None),
    )
    masked = single("STRIDED_SLICE", [given, start, end, ones], made, beginMask=9, endMask=9)
    yield "STRIDED_SLICE with masks", Case(masked, None, None, None)
    whole, steps = integers(1, 8, 8, 8), integers(1, 2, 2, 1)
    yield (
        "STRIDED_SLICE of every second",
        Case(single("STRIDED_SLICE", [given, start, whole, steps], made), "strides", None, None),
    )
    back = single(
        "STRIDED_SLICE",
        [given, integers(0, 7, 0, 0), integers(1, -9, 8, 8), integers(1, -1, 1, 1)],
        given,
    )
    yield "STRIDED_SLICE backwards", Case(back, "strides", "strides", None)
    dropped = single("STRIDED_SLICE", [given, start, whole, ones], Fed((8, 8, 8)), shrinkAxisMask=1)
    yield "STRIDED_SLICE that drops a dimension", Case(dropped, "options", "options", None)
    yield "STRIDED_SLICE of 2 dimensions", Case(
        single("STRIDED_SLICE", [Fed((1, 8)), integers(0, 0), integers(1, 4), integers(1, 1)],
               Fed((1, 4))),
        None, "ranks", None,
    )  # fmt: skip
    yield "STRIDED_SLICE version 4", Case(
        single("STRIDED_SLICE", [given, start, end, ones], made, version=4),
        None, "max_version", "max_version",
    )  # fmt: skip
    for count, xnnpack in ((2, None), (4, None), (5, "outputs")):
        parts = [Fed((1, 4, 4, 120 // count))] * count
        split = single("SPLIT", [scalar(3), Fed((1, 4, 4, 120))], *parts, numSplits=count)
        yield f"SPLIT in {count}", Case(split, xnnpack, None, None)
    parts = [Fed((1, 4, 4, 4))] * 2
    yield "SPLIT, axis fed", Case(
        single("SPLIT", [Fed((), "int32"), F32], *parts, numSplits=2),
        "constant", "constant", "constant",
    )  # fmt: skip
    yield "SPLIT_V", Case(
        single("SPLIT_V", [F32, integers(4, 4), scalar(3)], *parts, numSplits=2),
        "operator", None, "operator",
    )  # fmt: skip
    for count, xnnpack in ((1, "inputs"), (2, None), (5, None), (6, "inputs")):
        joined = single("CONCATENATION", [F32] * count, Fed((1, 4, 4, 8 * count)), axis=3)
        yield f"CONCATENATION of {count}", Case(joined, xnnpack, None, None)
    pair = Fed((1, 4, 4, 16), "int8")
    yield (
        "CONCATENATION int8",
        Case(single("CONCATENATION", [I8, I8], pair, version=2, axis=3), None, None, None),
    )
    yield "CONCATENATION version 3", Case(
        single("CONCATENATION", [F32, F32], Fed((1, 4, 4, 16)), version=3, axis=3),
        None, "max_version", "max_version",
    )  # fmt: skip
    yield "CONCATENATION with a constant", Case(
        single("CONCATENATION", [F32, Stored(floats(*S))], Fed((1, 4, 4, 16)), axis=3),
        None, None, None,
    )  # fmt: skip
    pair = Fed((1, 2, 4, 8))
    three = Fed((1, 4, 8))
    yield (
        "PACK",
        Case(single("PACK", [three, three], pair, valuesCount=2, axis=1), "operator", None, None),
    )
    yield (
        "UNPACK",
        Case(single("UNPACK", [pair], three, three, num=2, axis=1), "operator", None, "operator"),
    )
    yield (
        "TILE",
        Case(single("TILE", [F32, integers(1, 2, 2, 1)], Fed(IMAGE)), "operator", None, None),
    )
    some = Fed((1, 4, 4, 2))
    yield (
        "GATHER",
        Case(single("GATHER", [F32, integers(0, 2)], some, axis=3), "operator", None, None),
    )
    by_int64 = single("GATHER", [F32, Stored(np.array([0, 2], np.int64))], some, axis=3)
    yield "GATHER by int64", Case(by_int64, "operator", "input_types", "input_types")
    yield "GATHER version 2", Case(
        single("GATHER", [F32, integers(0, 2)], some, version=2, axis=3),
        "operator", "max_version", None,
    )  # fmt: skip
    yield "TOPK_V2", Case(
        single("TOPK_V2", [Fed((1, 8)), scalar(3)], Fed((1, 3)), Fed((1, 3), "int32")),
        "operator", "operator", "operator",
    )  # fmt: skip


def _slopes_and_types() -> Iterator[tuple[str, Case]]:
    for shape, check in (
        ((1, 1, 8), None),
        ((8,), None),
        ((4, 4, 8), None),
        ((1, 1, 1), "alpha_shape"),
        ((1, 4, 8), "alpha_shape"),
    ):
        yield (
            f"PRELU of {'x'.join(map(str, shape))}",
            Case(single("PRELU", [F32, Stored(floats(*shape))], F32), None, check, None),
        )
    yield (
        "PRELU, slopes fed",
        Case(single("PRELU", [F32, Fed((1, 1, 8))], F32), "constant", "constant", None),
    )
    yield "QUANTIZE to int8", Case(single("QUANTIZE", [F32], I8), None, None, None)
    yield "QUANTIZE to uint8", Case(single("QUANTIZE", [F32], U8), None, None, None)
    yield "QUANTIZE uint8 to int8", Case(single("QUANTIZE", [U8], I8), "types", None, None)
    ratios: dict[int, str | None] = {-9: "scale_ratio", -8: None, 7: None, 8: "scale_ratio"}
    for exponent, check in ratios.items():
        coarser = Fed(S, "int8", 0.125 / 2**exponent)
        again = single("QUANTIZE", [Fed(S, "int8", 0.125)], coarser)
        yield f"QUANTIZE int8, scales in the ratio 2^{exponent}", Case(again, check, None, None)
    yield (
        "QUANTIZE to int16",
        Case(single("QUANTIZE", [F32], Fed(S, "int16")), "types", "types", "types"),
    )
    yield "DEQUANTIZE int8", Case(single("DEQUANTIZE", [I8], F32, version=2), None, None, None)
    yield (
        "DEQUANTIZE float16",
        Case(
            single("DEQUANTIZE", [Fed(S, "float16")], F32, version=3),
            "types",
            "types",
            "max_version",
        ),
    )
    for kind, made, checks in (
        ("float32", "int32", ("operator", None, None)),
        ("int32", "float32", ("operator", None, None)),
        ("uint8", "float32", ("operator", "types", None)),
    ):
        yield (
            f"CAST {kind} to {made}",
            Case(single("CAST", [Fed(S, kind)], Fed(S, made)), *checks),
        )


CASES: dict[str, Case] = {
    name: case
    for group in (
        _unary,
        _elementwise,
        _convolutions,
        _pools_and_means,
        _shapes,
        _slices,
        _slopes_and_types,
    )
    for name, case in group()
}
