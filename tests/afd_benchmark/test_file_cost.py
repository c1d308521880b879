from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from afd_benchmark.file_cost import FileCost, cost_of_file
from afd_mobile.common.errors import InputError
from tests.afd_export.tflite_graphs import Fed, Graph, Stored, single

VALID = 1  # padding, in the schema
Counted = Callable[[bytes], FileCost]


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    def count(content: bytes) -> FileCost:
        path = tmp_path / "graph.tflite"
        path.write_bytes(content)
        return cost_of_file(path)

    return count


def unpacked(content: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(content)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ones(*shape: int) -> Stored:
    return Stored(np.ones(shape, np.float32))


def integers(*values: int) -> Stored:
    return Stored(np.array(values, np.int32))


# --- multiply-adds, against what the runtime really adds up ---------------------------------------

# Over ones, with weights of ones and no padding, each output is the number of products in it.
STRIDED: dict[str, Any] = {"padding": VALID, "strideH": 2, "strideW": 1}
PRODUCTS = {
    "CONV_2D": single(
        "CONV_2D",
        [Fed((1, 9, 8, 3)), ones(5, 3, 2, 3), Stored(np.zeros(5, np.float32))],
        Fed((1, 4, 7, 5)),
        **STRIDED,
        dilationHFactor=1,
        dilationWFactor=1,
    ),
    "grouped CONV_2D": single(
        "CONV_2D",
        [Fed((1, 9, 8, 6)), ones(4, 3, 2, 3), Stored(np.zeros(4, np.float32))],
        Fed((1, 4, 7, 4)),
        **STRIDED,
        dilationHFactor=1,
        dilationWFactor=1,
    ),
    "DEPTHWISE_CONV_2D": single(
        "DEPTHWISE_CONV_2D",
        [Fed((1, 9, 8, 3)), ones(1, 3, 2, 6), Stored(np.zeros(6, np.float32))],
        Fed((1, 4, 7, 6)),
        **STRIDED,
        depthMultiplier=2,
        dilationHFactor=1,
        dilationWFactor=1,
    ),
    "TRANSPOSE_CONV": single(
        "TRANSPOSE_CONV",
        [integers(1, 9, 6, 5), ones(5, 3, 2, 3), Fed((1, 4, 5, 3))],
        Fed((1, 9, 6, 5)),
        **STRIDED,
    ),
    "FULLY_CONNECTED": single(
        "FULLY_CONNECTED", [Fed((4, 6)), ones(5, 6), Stored(np.zeros(5, np.float32))], Fed((4, 5))
    ),
    "BATCH_MATMUL": single(
        "BATCH_MATMUL", [Fed((2, 4, 6)), Fed((2, 6, 5))], Fed((2, 4, 5)), adjX=False, adjY=False
    ),
    "BATCH_MATMUL of transposed": single(
        "BATCH_MATMUL", [Fed((2, 6, 4)), Fed((2, 5, 6))], Fed((2, 4, 5)), adjX=True, adjY=True
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiply_adds_are_the_products_that_the_runtime_sums(name: str, counted: Counted) -> None:
    content = PRODUCTS[name]
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for given in interpreter.get_input_details():
        interpreter.set_tensor(given["index"], np.ones(given["shape"], np.float32))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert counted(content).multiply_adds == output.sum()


# --- a small network, by hand ---------------------------------------------------------------------


def network(kind: str = "float32") -> bytes:
    """Mean of every pixel off, 3x3 convolution, depthwise convolution, scale, pool, classes."""

    def stored(*shape: int) -> Stored:
        return Stored(np.ones(shape, kind), unpacked=kind == "float16")

    graph = Graph()
    picture = graph.feed(Fed((1, 8, 8, 3)))
    centred, a, b, c = (
        graph.tensor(Fed(s)) for s in ((1, 8, 8, 3), (1, 8, 8, 4), (1, 4, 4, 4), (1, 4, 4, 4))
    )
    pooled, logits = graph.tensor(Fed((1, 4))), graph.tensor(Fed((1, 5)))
    graph.run("ADD", [picture, graph.store(stored(1, 8, 8, 3))], [centred])
    weights, bias = graph.store(stored(4, 3, 3, 3)), graph.store(stored(4))
    graph.run("CONV_2D", [centred, weights, bias], [a], strideH=1, strideW=1)
    weights = graph.store(stored(1, 3, 3, 4))
    graph.run("DEPTHWISE_CONV_2D", [a, weights, bias], [b], strideH=2, strideW=2)
    graph.run("MUL", [b, graph.store(stored(1, 1, 1, 4))], [c])
    graph.run("MEAN", [c, graph.store(integers(1, 2))], [pooled])
    graph.run("FULLY_CONNECTED", [pooled, graph.store(stored(5, 4)), -1], [logits])
    return graph.finish([logits])


def test_a_network_counted_by_hand(counted: Counted) -> None:
    content = network()
    cost = counted(content)
    # The depthwise convolution shares the first one's bias: 3*3*3*4 + 4, 3*3*4, 4, 4*5.
    assert [o.parameters for o in cost.operations] == [0, 112, 36, 4, 0, 20]
    assert cost.parameters == 172
    assert cost.other_constants == 8 * 8 * 3
    # 8*8*4 outputs of 27 products, 4*4*4 of 9, 5 of 4.
    assert [o.multiply_adds for o in cost.operations] == [0, 6912, 576, 0, 0, 20]
    assert cost.multiply_adds == 7508
    assert cost.file_bytes == len(content)
    assert cost.weight_bytes == 4 * (172 + 192)
    # Elements: 192 192 256 64 64 4 5; the largest neighbours are the centred picture and `a`.
    assert cost.peak_activation_bytes == 4 * (192 + 256)
    assert cost.activation_traffic_bytes == 4 * (384 + 448 + 320 + 128 + 68 + 9)
    # The shared bias is read twice.
    assert cost.bytes_moved == cost.activation_traffic_bytes + cost.weight_bytes + 4 * 4
    assert cost.arithmetic_intensity == 2 * 7508 / cost.bytes_moved
    convolution = cost.operations[1]
    assert (convolution.index, convolution.operator) == (1, "CONV_2D")
    assert convolution.shape == (1, 8, 8, 4)
    assert convolution.name == "tensor_2"
    assert convolution.bytes_moved == 4 * (448 + 112)
    assert convolution.arithmetic_intensity == 2 * 6912 / (4 * 560)


def test_unpacked_float16_constants_count_once_and_are_no_activations(counted: Counted) -> None:
    full, half = counted(network()), counted(network("float16"))
    assert half.weight_bytes == full.weight_bytes / 2
    for name in ("parameters", "other_constants", "multiply_adds", "peak_activation_bytes"):
        assert getattr(half, name) == getattr(full, name)
    assert half.activation_traffic_bytes == full.activation_traffic_bytes
    assert [o.operator for o in half.operations] == [o.operator for o in full.operations]
    assert [o.index for o in half.operations][-1] == 11  # six constants are unpacked before


def test_a_constant_that_is_unpacked_twice_counts_once(counted: Counted) -> None:
    graph = Graph()
    given = graph.feed(Fed((1, 4)))
    stored = graph.store(Stored(np.ones((4, 4), np.float16)))
    for _ in range(2):
        unpacked, made = graph.tensor(Fed((4, 4))), graph.tensor(Fed((1, 4)))
        graph.run("DEQUANTIZE", [stored], [unpacked])
        given = graph.run("FULLY_CONNECTED", [given, unpacked, -1], [made])
    cost = counted(graph.finish([given]))
    assert [o.parameters for o in cost.operations] == [16, 0]
    assert (cost.weight_bytes, cost.bytes_moved) == (32, 2 * 32 + 2 * 32)


def test_int8_weighs_a_byte_and_its_bias_four(counted: Counted) -> None:
    weights = Stored(np.ones((5, 6), np.int8), scale=0.1)
    cost = counted(
        single(
            "FULLY_CONNECTED",
            [Fed((1, 6), "int8"), weights, integers(1, 2, 3, 4, 5)],
            Fed((1, 5), "int8"),
        )
    )
    assert (cost.parameters, cost.weight_bytes) == (35, 30 + 5 * 4)
    assert (cost.peak_activation_bytes, cost.activation_traffic_bytes) == (11, 11)


def test_int4_weights_are_packed_by_twos(counted: Counted) -> None:
    weights = Stored(np.ones(15, np.int8), scale=0.1)
    model = unpacked(single("FULLY_CONNECTED", [Fed((1, 6)), weights, None], Fed((1, 5))))
    stored = next(t for t in model.subgraphs[0].tensors if t.buffer)
    stored.type, stored.shape = schema.TensorType.INT4, [5, 6]
    cost = counted(packed(model))
    assert (cost.parameters, cost.weight_bytes, cost.multiply_adds) == (30, 15, 30)


@pytest.mark.parametrize(
    ("operator", "constant", "parameters", "others"),
    [
        ("ADD", ones(4), 4, 0),
        ("MUL", ones(1, 1, 1, 4), 4, 0),
        ("MUL", ones(1), 0, 1),
        ("ADD", ones(1, 3, 3, 4), 0, 36),
        ("ADD", Stored(np.ones(4, np.int32)), 0, 0),
        ("MAXIMUM", ones(4), 0, 4),
        ("PRELU", ones(1, 1, 4), 4, 0),
        ("RESHAPE", integers(1, 3, 3, 4), 0, 0),
    ],
)
def test_which_constants_are_parameters(
    operator: str, constant: Stored, parameters: int, others: int, counted: Counted
) -> None:
    given = Fed((1, 3, 3, 4))
    cost = counted(single(operator, [given, constant], given))
    assert (cost.parameters, cost.other_constants) == (parameters, others)


def test_an_operand_that_is_read_twice_is_moved_once(counted: Counted) -> None:
    cost = counted(single("MUL", [Fed((1, 4)), Fed((1, 4))], Fed((1, 4))))
    assert cost.bytes_moved == 3 * 16
    graph = Graph()
    given, made = graph.feed(Fed((1, 4))), graph.tensor(Fed((1, 4)))
    graph.run("MUL", [given, given], [made])
    cost = counted(graph.finish([made]))
    assert (cost.bytes_moved, cost.arithmetic_intensity) == (2 * 16, 0)


# --- peak memory, against a simulation of random graphs -------------------------------------------


def random_graph(seed: int) -> tuple[bytes, int]:
    """Operations over random earlier tensors, and the peak from stepping through them."""
    draw = random.Random(seed)
    graph = Graph()
    sizes: dict[int, int] = {}
    for _ in range(draw.randint(1, 3)):
        n = draw.randint(1, 99)
        sizes[graph.feed(Fed((1, n)))] = 4 * n
    inputs = list(sizes)
    steps: list[tuple[list[int], list[int]]] = []
    for _ in range(draw.randint(1, 12)):
        read = draw.choices(list(sizes), k=draw.randint(1, 3))
        made = []
        for _ in range(draw.randint(1, 2)):
            n = draw.randint(1, 99)
            made.append(graph.tensor(Fed((1, n))))
            sizes[made[-1]] = 4 * n
        graph.run("CONCATENATION" if len(made) == 1 else "SPLIT", read, made)
        steps.append((read, made))
    outputs = draw.sample(list(sizes), k=draw.randint(1, 2))
    content = graph.finish(outputs)

    peak = sum(sizes[t] for t in inputs)
    existing = set(inputs)
    for step, (read, made) in enumerate(steps):
        later = {t for after, _ in steps[step:] for t in after} | set(outputs)
        existing = {t for t in existing if t in later} | set(made)
        assert existing >= set(read)
        peak = max(peak, sum(sizes[t] for t in existing))
    return content, peak


def test_peak_memory_of_random_graphs(counted: Counted) -> None:
    for seed in range(200):
        content, peak = random_graph(seed)
        assert counted(content).peak_activation_bytes == peak, seed


def test_a_skip_connection_stays_alive(counted: Counted) -> None:
    graph = Graph()
    given = graph.feed(Fed((1, 10)))
    small, big, same = (graph.tensor(Fed((1, n))) for n in (1, 100, 10))
    graph.run("SLICE", [given], [small])
    graph.run("TILE", [small], [big])
    graph.run("SUM", [big], [same])
    result = graph.run("ADD", [given, same], [graph.tensor(Fed((1, 10)))])
    assert counted(graph.finish([result])).peak_activation_bytes == 4 * (10 + 100 + 10)


# --- what cannot be counted -----------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        cost_of_file(path)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    return line


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    def read(content: bytes) -> str:
        path = tmp_path / "graph.tflite"
        path.write_bytes(content)
        return refusal(path)

    return read


Refused = Callable[[bytes], str]


def test_operators_off_the_table_are_named(refused: Refused) -> None:
    model = unpacked(network())
    model.operatorCodes[2].builtinCode = schema.BuiltinOperator.CONV_3D
    model.operatorCodes[2].deprecatedBuiltinCode = 127
    assert "operator 'CONV_3D' (operation 2) is not known" in refused(packed(model))
    model.operatorCodes[2].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[2].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[2].customCode = b"MaxUnpooling2D"
    assert "operator 'MaxUnpooling2D' (operation 2)" in refused(packed(model))


def test_sizes_known_at_run_time_only_are_refused(refused: Refused) -> None:
    model = unpacked(network())
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 3]
    assert "the shape of 'tensor_0' is known at run time only" in refused(packed(model))
    model = unpacked(network())
    model.subgraphs[0].tensors[2].shape, model.subgraphs[0].tensors[2].hasRank = [], False
    assert "the shape of 'tensor_2' is known at run time only" in refused(packed(model))


def test_types_without_a_size_are_refused(refused: Refused) -> None:
    model = unpacked(network())
    model.subgraphs[0].tensors[0].type = schema.TensorType.STRING
    assert "'tensor_0' is of type STRING" in refused(packed(model))


def test_several_subgraphs_are_refused(refused: Refused) -> None:
    model = unpacked(network())
    model.subgraphs *= 2
    assert "has 2 subgraphs" in refused(packed(model))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.tflite")
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 64, b"PK\3\4TFL3" * 9, network()[:200]])
def test_broken_files_are_refused_in_one_line(content: bytes, refused: Refused) -> None:
    assert "no TFLite file, or a broken one" in refused(content)


def test_damaged_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    sound: NDArray[np.uint8] = np.frombuffer(network("float16"), np.uint8)
    draw = np.random.default_rng(0)
    path, messages = tmp_path / "graph.tflite", []
    for _ in range(300):
        damaged = sound.copy()
        places = draw.integers(8, len(damaged), 6)
        damaged[places] = draw.integers(0, 256, 6)
        path.write_bytes(damaged[: draw.integers(len(damaged) // 2, len(damaged) + 1)].tobytes())
        try:
            cost_of_file(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(len(message.splitlines()) == 1 for message in messages)
