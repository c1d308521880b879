"""Every pass that readies a graph for int8 keeps its function, and does what it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from afd_export.int8 import passes
from afd_export.int8.editable_model import OPERATOR, FlatModel
from tests.afd_export.tflite_graphs import Fed, Graph, Stored, single

SIZE = 12
RELU6, SAME = schema.ActivationFunctionType.RELU6, schema.Padding.SAME


class FloatGraph(Graph):
    """Convolutions with uneven channels, as trained ones have."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def convolution(
        self, given: int, inputs: int, outputs: int, kernel: int = 1, activation: int = 0
    ) -> int:
        shape = (outputs, kernel, kernel, inputs)
        uneven = np.geomspace(0.05, 1.0, outputs).reshape(-1, 1, 1, 1)
        weights = self.rng.normal(size=shape) * uneven / np.sqrt(inputs * kernel**2)
        return self._run("CONV_2D", given, weights, outputs, activation)

    def depthwise(self, given: int, channels: int) -> int:
        weights = self.rng.normal(size=(1, 3, 3, channels)) / 3
        return self._run("DEPTHWISE_CONV_2D", given, weights, channels, RELU6, depthMultiplier=1)

    def add(self, first: int, second: int, channels: int) -> int:
        output = self.tensor(Fed((1, SIZE, SIZE, channels)))
        return self.run("ADD", [first, second], [output])

    def _run(
        self, operator: str, given: int, weights: Any, outputs: int, activation: int, **more: Any
    ) -> int:
        constants = [weights, self.rng.normal(size=outputs) * 0.1]
        stored = [self.store(Stored(c.astype(np.float32))) for c in constants]
        output = self.tensor(Fed((1, SIZE, SIZE, outputs)))
        options = {"strideH": 1, "strideW": 1, "padding": SAME} | more
        options["fusedActivationFunction"] = activation
        return self.run(operator, [given, *stored], [output], **options)

    def done(self, output: int) -> bytes:
        """As the converter leaves it: no tensor has a range yet."""
        for tensor in self._tensors:
            tensor.quantization = schema.QuantizationParametersT()
        return self.finish([output])


def run(content: bytes, pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for picture in pictures:
        interpreter.set_tensor(given["index"], picture[None].astype(given["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result["index"])[0].astype(np.float64))
    return np.stack(outputs)


@pytest.fixture
def pictures() -> NDArray[np.float32]:
    # Neighbours are alike, as in pictures.
    coarse = np.random.default_rng(1).normal(2.0, 1.0, (6, SIZE // 4, SIZE // 4, 4))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


@pytest.fixture
def mobile() -> bytes:
    """Expand, depthwise, project, a residual addition around another such block, and a reader."""
    graph = FloatGraph()
    x = graph.feed(Fed((1, SIZE, SIZE, 4)))
    trunk = graph.convolution(graph.depthwise(graph.convolution(x, 4, 16, 3, RELU6), 16), 16, 8)
    block = graph.convolution(graph.depthwise(graph.convolution(trunk, 8, 24, 1, RELU6), 24), 24, 8)
    return graph.done(graph.convolution(graph.add(trunk, block, 8), 8, 6, 1, RELU6))


def relative_error(actual: Any, expected: Any) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def spread(model: FlatModel, operator: int, pictures: NDArray[np.float32]) -> float:
    """How uneven the channels of such an operation's output are: largest over smallest bound."""
    statistics = passes.measure(model.content(), pictures)
    (tensor, *_) = (op.outputs[0] for op in model.operations if model.code(op) == operator)
    found = statistics[tensor]
    bounds = np.maximum(-found.low, found.high)
    return float(bounds.max() / bounds[bounds > 0].min())


def test_measuring_gives_the_channels_bounds_and_means(
    mobile: bytes, pictures: NDArray[np.float32]
) -> None:
    model = FlatModel(mobile)
    last = passes.measure(mobile, pictures)[model.graph.outputs[0]]
    outputs = run(mobile, pictures).reshape(-1, 6)
    np.testing.assert_allclose(last.low, outputs.min(0), atol=1e-5)
    np.testing.assert_allclose(last.high, outputs.max(0), atol=1e-5)
    np.testing.assert_allclose(last.mean, outputs.mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("equalize", "operator", "factor"),
    [
        (passes.equalize_relu6, OPERATOR.CONV_2D, 3),
        (passes.equalize_trunks, OPERATOR.ADD, 2),
    ],
)
def test_equalising_keeps_the_function_and_evens_the_channels(
    mobile: bytes,
    pictures: NDArray[np.float32],
    equalize: Callable[[FlatModel, passes.Statistics], None],
    operator: int,
    factor: float,
) -> None:
    model = FlatModel(mobile)
    before = spread(model, operator, pictures)
    equalize(model, passes.measure(mobile, pictures))
    assert relative_error(run(model.content(), pictures), run(mobile, pictures)) < 1e-5
    assert spread(model, operator, pictures) < before / factor


def test_a_trunk_that_is_the_graphs_output_is_left_alone(pictures: NDArray[np.float32]) -> None:
    graph = FloatGraph()
    content = graph.done(graph.convolution(graph.feed(Fed((1, SIZE, SIZE, 4))), 4, 8))
    model = FlatModel(content)
    passes.equalize_trunks(model, passes.measure(content, pictures))
    np.testing.assert_array_equal(run(model.content(), pictures), run(content, pictures))


def test_the_equalised_ranges_are_those_of_the_tensors(
    mobile: bytes, pictures: NDArray[np.float32]
) -> None:
    model = FlatModel(mobile)
    statistics = passes.measure(mobile, pictures)
    passes.equalize_trunks(model, statistics)
    measured = passes.measure(model.content(), pictures)
    (added,) = (op.outputs[0] for op in model.operations if model.code(op) == OPERATOR.ADD)
    quantization = model.tensors[added].quantization
    assert quantization.max[0] == pytest.approx(measured[added].high.max(), rel=1e-5)
    assert quantization.min[0] == pytest.approx(min(0, measured[added].low.min()), rel=1e-5)


# Merged, the pair has 4 x 8 weights: 0.67 or 2.67 times as many as 4 x middle + middle x 8.
@pytest.mark.parametrize(("middle", "merged"), [(4, True), (1, False)])
def test_linear_pairs_are_merged_where_that_is_cheap(
    pictures: NDArray[np.float32], middle: int, merged: bool
) -> None:
    graph = FloatGraph()
    x = graph.feed(Fed((1, SIZE, SIZE, 4)))
    content = graph.done(graph.convolution(graph.convolution(x, 4, middle), middle, 8, 1, RELU6))
    model = FlatModel(content)
    passes.merge_linear_pairs(model)
    assert len(model.operations) == (1 if merged else 2)
    assert relative_error(run(model.content(), pictures), run(content, pictures)) < 1e-5


def test_a_pair_with_an_activation_between_is_not_merged(pictures: NDArray[np.float32]) -> None:
    graph = FloatGraph()
    x = graph.feed(Fed((1, SIZE, SIZE, 4)))
    model = FlatModel(graph.done(graph.convolution(graph.convolution(x, 4, 8, 1, RELU6), 8, 4)))
    passes.merge_linear_pairs(model)
    assert len(model.operations) == 2


def test_rounding_keeps_the_sums() -> None:
    # 0.4 three times rounds to 0; the sum 1.2 asks for one step up. 0.6 three times: 1.8 for 2.
    values = np.array([[0.4, 0.4, 0.4], [0.6, 0.6, 0.6], [1.3, -2.4, 0.2]])
    rounded = passes.round_keeping_sums(values)
    np.testing.assert_array_equal(rounded.sum(axis=1), [1, 2, -1])
    assert np.abs(rounded - values).max() < 1
    np.testing.assert_array_equal(rounded[2], [1, -2, 0])


def test_rounding_never_leaves_the_range_of_int8() -> None:
    rounded = passes.round_keeping_sums(np.array([[127.0, 126.6, 126.6, 126.6]]))
    assert np.abs(rounded).max() == passes.STEPS


def plainly_rounded(content: bytes) -> FlatModel:
    model = FlatModel(content)
    for operation in (op for op in model.operations if model.code(op) != OPERATOR.ADD):
        step = step_of(model, operation)
        model.set_constant(operation.inputs[1], np.round(model.weights(operation) / step) * step)
    return model


def step_of(model: FlatModel, operation: Any) -> NDArray[np.float32]:
    depthwise = model.code(operation) == OPERATOR.DEPTHWISE_CONV_2D
    axes = (0, 1, 2) if depthwise else (1, 2, 3)
    bound: NDArray[np.float32] = np.abs(model.weights(operation)).max(axis=axes, keepdims=True)
    return bound / 127


def test_rounded_weights_lie_on_int8_steps(mobile: bytes, pictures: NDArray[np.float32]) -> None:
    model = FlatModel(mobile)
    passes.round_weights(model, passes.measure(mobile, pictures))
    for operation in (op for op in model.operations if model.code(op) != OPERATOR.ADD):
        steps = model.weights(operation) / step_of(model, operation)
        assert np.abs(steps - np.round(steps)).max() < 1e-3
    assert 1e-6 < relative_error(run(model.content(), pictures), run(mobile, pictures)) < 0.02


def test_on_smooth_pictures_keeping_sums_costs_less_than_plain_rounding(
    pictures: NDArray[np.float32],
) -> None:
    graph = FloatGraph()
    x = graph.feed(Fed((1, SIZE, SIZE, 4)))
    content = graph.done(graph.depthwise(graph.convolution(x, 4, 32, 1, RELU6), 32))
    model = FlatModel(content)
    passes.round_weights(model, passes.measure(content, pictures))
    expected = run(content, pictures)
    ours, plain = (
        float(np.square(run(m.content(), pictures) - expected).mean())
        for m in (model, plainly_rounded(content))
    )
    assert 0 < ours < plain / 2


def test_an_int8_relu_becomes_a_change_of_scale_with_the_same_values() -> None:
    given = Fed((1, 4, 4, 8), "int8", scale=0.07, zero_point=11)
    content = single("RELU", [given], Fed((1, 4, 4, 8), "int8", scale=0.05, zero_point=-128),
                     version=2)  # fmt: skip
    model = FlatModel(content)
    passes.requantize_for_relu(model)
    assert [model.code(op) for op in model.operations] == [OPERATOR.QUANTIZE]
    pictures = np.random.default_rng(0).integers(-128, 128, (4, 4, 4, 8)).astype(np.float32)
    actual, expected = run(model.content(), pictures), run(content, pictures)
    assert len(np.unique(expected)) > 20
    assert np.abs(actual - expected).max() <= 1  # the two kernels' rounding of halves


def test_a_relu_whose_range_reaches_below_zero_stays() -> None:
    given = Fed((1, 4, 4, 8), "int8", scale=0.07, zero_point=11)
    model = FlatModel(single("RELU", [given], given, version=2))
    passes.requantize_for_relu(model)
    assert [model.code(op) for op in model.operations] == [OPERATOR.RELU]


def test_float_pointwise_convolutions_get_int8_weights(
    mobile: bytes, pictures: NDArray[np.float32]
) -> None:
    model = FlatModel(mobile)
    passes.quantize_dynamically(model)
    types = [
        model.tensors[op.inputs[1]].type
        for op in model.operations
        if model.code(op) != OPERATOR.ADD
    ]
    # the 3x3 convolution and both depthwise ones stay
    assert types.count(schema.TensorType.INT8) == 4
    assert types.count(schema.TensorType.FLOAT32) == 3
    assert len(model.content()) < len(mobile)
    error = relative_error(run(model.content(), pictures), run(mobile, pictures))
    assert 1e-6 < error < 0.05


def test_preparing_twice_gives_the_same_bytes(mobile: bytes, pictures: NDArray[np.float32]) -> None:
    assert passes.prepare(mobile, pictures) == passes.prepare(mobile, pictures)


def test_preparing_gives_every_tensor_its_own_range(
    mobile: bytes, pictures: NDArray[np.float32]
) -> None:
    """Also what an addition reads, which the runtime overwrites with the sum where it can."""
    model = FlatModel(passes.prepare(mobile, pictures))
    measured = passes.measure(model.content(), pictures)
    ranges = {t: model.tensors[t].quantization for t in (*measured, *model.graph.inputs)}
    (added,) = (op for op in model.operations if model.code(op) == OPERATOR.ADD)
    assert {*added.inputs} < ranges.keys()
    for tensor, found in measured.items():
        low, high = ranges[tensor].min[0], ranges[tensor].max[0]
        expected = min(0, found.low.min()), max(0, found.high.max())
        assert (low, high) == pytest.approx(expected, abs=0.02 * (high - low)), tensor
    (given,) = model.graph.inputs
    assert ranges[given].min[0] == min(0, pictures.min())
    assert ranges[given].max[0] == pictures.max()
