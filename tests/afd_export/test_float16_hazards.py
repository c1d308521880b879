from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from afd_export.convert.to_onnx import OPSET, run_onnx
from afd_export.float16_hazards import (
    LARGEST,
    Kind,
    Range,
    hazard_section,
    measure_ranges,
    run_float16,
)
from tests.afd_export.conftest import Exported

SIZE = 16


def write_graph(path: Path, nodes: list[Any], **constants: NDArray[Any]) -> Path:
    """A graph from `image`, (1, 3, 16, 16), to `out`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    onnx.save_model(inferred, path)
    return path


def node(operator: str, *inputs: str, out: str = "out", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [out], name=f"node_{out}", **attributes)


def constant(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.fixture
def images() -> NDArray[np.float32]:
    """Two pictures, one at the top of an 8-bit range, the other at a tenth of it."""
    return np.stack([np.full((3, SIZE, SIZE), v, np.float32) for v in (255.0, 25.5)])


def hazards(path: Path, images: NDArray[np.float32]) -> dict[tuple[str, str], str]:
    return {(r.kind.value, r.name): r.hazard for r in measure_ranges(path, images) if r.hazard}


def test_a_graph_that_float16_holds_is_not_named(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    nodes = [node("Mul", "image", "scale", out="scaled"), node("Add", "scaled", "offset")]
    path = write_graph(tmp_path / "g.onnx", nodes, scale=constant(0.02), offset=constant(-2.0))
    assert hazards(path, images) == {}
    ranges = {(r.kind, r.name): r for r in measure_ranges(path, images)}
    assert ranges[Kind.TENSOR, "image"].peak == 255
    assert ranges[Kind.TENSOR, "scaled"].peak == pytest.approx(5.1)
    assert ranges[Kind.TENSOR, "out"].peak == pytest.approx(3.1)
    assert ranges[Kind.CONSTANT, "offset"].peak == 2
    assert [r.operator for r in ranges.values()] == ["", "", "", "Mul", "Add"]
    np.testing.assert_allclose(run_float16(path, images), run_onnx(path, images), rtol=2e-3)


def test_a_tensor_that_overflows_is_named_with_its_figure_and_becomes_infinite(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    nodes = [node("Mul", "image", "large", out="energy"), node("Mul", "energy", "small")]
    path = write_graph(tmp_path / "g.onnx", nodes, large=constant(300.0), small=constant(0.001))
    # 255 * 300 = 76500; 25.5 * 300 = 7650 stays within.
    assert hazards(path, images) == {
        ("tensor", "energy"): "reaches 7.65e+04, float16 ends at 65504"
    }
    simulated = run_float16(path, images)
    assert np.isposinf(simulated[0]).all()
    np.testing.assert_allclose(simulated[1], 7.65, rtol=2e-3)


def test_a_constant_beyond_the_range_is_named(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = write_graph(tmp_path / "g.onnx", [node("Min", "image", "limit")], limit=constant(1e5))
    assert hazards(path, images) == {("constant", "limit"): "reaches 1e+05, float16 ends at 65504"}


def test_the_sum_before_a_means_division_is_named(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    axes = np.array([1, 2, 3], np.int64)
    nodes = [
        node("Mul", "image", "scale", out="scaled"),
        node("ReduceMean", "scaled", "axes", keepdims=1),
    ]
    path = write_graph(tmp_path / "g.onnx", nodes, scale=constant(1.0), axes=axes)
    # 3 * 16 * 16 * 255 = 195840, although the mean is 255.
    assert hazards(path, images) == {
        ("sum", "out"): "reaches up to 1.96e+05, float16 ends at 65504"
    }
    path = write_graph(tmp_path / "g.onnx", nodes, scale=constant(1 / 255), axes=axes)
    assert hazards(path, images) == {}


@pytest.mark.parametrize(
    ("operator", "attributes", "expected"),
    [
        ("GlobalAveragePool", {}, 256 * 255.0),
        ("AveragePool", {"kernel_shape": [4, 4], "strides": [4, 4]}, 16 * 255.0),
        ("ReduceSum", {}, 768 * 255.0),
    ],
)
def test_every_pool_and_reduction_has_its_sum(
    operator: str,
    attributes: dict[str, Any],
    expected: float,
    images: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    path = write_graph(tmp_path / "g.onnx", [node(operator, "image", **attributes)])
    (found,) = (r for r in measure_ranges(path, images) if r.kind is Kind.SUM)
    assert (found.name, found.operator) == ("out", operator)
    assert found.peak == pytest.approx(expected)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_convolutions_terms_are_bounded_although_they_cancel(
    operator: str, images: NDArray[np.float32], tmp_path: Path
) -> None:
    weights = np.array([100, -150, 50], np.float32).reshape(1, 3, 1, 1)
    bias = constant(-7.0)
    if operator == "ConvTranspose":
        weights = weights.transpose(1, 0, 2, 3)
    path = write_graph(
        tmp_path / "g.onnx",
        [node(operator, "image", "weights", "bias")],
        weights=weights,
        bias=bias,
    )
    ranges = {(r.kind, r.name): r for r in measure_ranges(path, images)}
    assert ranges[Kind.TENSOR, "out"].peak == 7
    # 255 * (100 + 150 + 50) + 7
    assert ranges[Kind.SUM, "out"].peak == 76507
    assert hazards(path, images) == {
        ("sum", "out"): "reaches up to 7.65e+04, float16 ends at 65504"
    }


def test_a_matrix_products_terms_are_bounded(images: NDArray[np.float32], tmp_path: Path) -> None:
    weights = np.where(np.arange(3 * SIZE * SIZE) % 2, 1, -1).astype(np.float32)
    nodes = [
        node("Flatten", "image", out="flat"),
        node("Gemm", "flat", "weights", "bias", transB=1),
    ]
    path = write_graph(tmp_path / "g.onnx", nodes, weights=weights[None], bias=constant(0.0))
    assert hazards(path, images) == {
        ("sum", "out"): "reaches up to 1.96e+05, float16 ends at 65504"
    }


def test_constants_and_tensors_below_the_range_are_named_and_become_zero(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    nodes = [node("Mul", "image", "tiny", out="lost"), node("Mul", "lost", "huge")]
    path = write_graph(tmp_path / "g.onnx", nodes, tiny=constant(2e-8), huge=constant(5e4))
    assert hazards(path, images) == {
        ("constant", "tiny"): "is at most 2e-08, float16 begins at 6e-08",
        ("tensor", "lost"): "has 100% of its energy below 6.1e-05, float16's precision",
    }
    # 2e-8 is nearer to 0 than to float16's smallest number, 6e-8.
    assert not run_float16(path, images).any()


def test_a_tensor_with_much_of_its_energy_in_subnormals_is_named(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    def graph(large: float) -> Path:
        values = np.array([large, 5e-5, 5e-5, 5e-5], np.float32)
        return write_graph(tmp_path / "g.onnx", [node("Mul", "image", "v", out="x"),
                                                 node("Add", "x", "x")],
                           v=np.resize(values, (SIZE,)))  # fmt: skip

    # Energy below 6.1e-5: 3 * 25e-10 of 75e-10 + 1e-8 (43 %), or of 75e-10 + 1e-4 (0.0075 %).
    found = hazards(graph(1e-4), images)
    assert found == {("constant", "v"): "has 43% of its energy below 6.1e-05, float16's precision"}
    assert hazards(graph(1e-2), images) == {}


def test_a_tensor_of_zeros_is_no_hazard(images: NDArray[np.float32], tmp_path: Path) -> None:
    nodes = [node("Mul", "image", "zero", out="x"), node("Add", "x", "one")]
    path = write_graph(tmp_path / "g.onnx", nodes, zero=constant(0.0), one=constant(1.0))
    assert hazards(path, images) == {}


def test_a_value_that_is_not_finite_is_a_hazard(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    path = write_graph(tmp_path / "g.onnx", [node("Log", "image")])
    found = hazards(path, -images)
    assert found[("tensor", "out")].startswith("reaches nan")


def test_every_tensor_is_rounded_where_it_is_made(
    images: NDArray[np.float32], tmp_path: Path
) -> None:
    # Between 2048 and 4096 float16 counts in steps of 2: 2048 + 0.9 is 2048 again.
    nodes = [
        node("Mul", "image", "small", out="x"),
        node("Add", "x", "far", out="moved"),
        node("Sub", "moved", "far"),
    ]
    path = write_graph(tmp_path / "g.onnx", nodes, small=constant(0.9 / 255), far=constant(2048.0))
    assert run_onnx(path, images).max() == pytest.approx(0.9, abs=1e-3)
    assert not run_float16(path, images).any()


def test_constants_and_the_input_are_rounded(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = write_graph(tmp_path / "g.onnx", [node("Mul", "image", "v")], v=constant(1 + 2**-12))
    exact = run_onnx(path, images / np.float32(255))[0]
    assert exact.max() == np.float32(1 + 2**-12)
    assert run_float16(path, images / np.float32(255))[0].max() == 1
    path = write_graph(tmp_path / "g.onnx", [node("Identity", "image")])
    assert run_float16(path, np.full_like(images, 1 + 2**-12)).max() == 1


def test_a_resizes_scales_are_no_arithmetic(images: NDArray[np.float32], tmp_path: Path) -> None:
    scales = constant(1, 1, 16.0625 / 16, 2)  # float16 would make 16.06 of it, and another shape
    nodes = [node("Resize", "image", "", "scales", mode="nearest")]
    path = write_graph(tmp_path / "g.onnx", nodes, scales=scales)
    assert run_float16(path, images).shape == run_onnx(path, images).shape
    assert Kind.CONSTANT not in {r.kind for r in measure_ranges(path, images)}


def test_the_section_names_hazards_or_says_how_far_they_are() -> None:
    fine = Range("x", Kind.TENSOR, "Mul", 12.0, 1.0, 0.0)
    broken = Range("y", Kind.SUM, "Conv", 7e4, 0.0, 0.0)
    lines = hazard_section([fine, broken])
    assert "- sum `y` (Conv) reaches up to 7e+04, float16 ends at 65504" in lines
    assert "Largest tensor within: 12, `x`." in lines
    assert not any("No constant" in line for line in lines)
    lines = hazard_section([fine])
    assert any(line.startswith("No constant, tensor or sum") for line in lines)
    assert json.loads(json.dumps(broken.as_dict()))["hazard"].startswith("reaches up to")


def test_the_limit_itself_is_held() -> None:
    assert Range("x", Kind.TENSOR, "Mul", LARGEST, 1.0, 0.0).hazard is None
    assert Range("x", Kind.TENSOR, "Mul", 65505.0, 1.0, 0.0).hazard is not None


def test_a_real_export_is_free_of_hazards_and_close_in_float16(exported: Exported) -> None:
    path = exported.folder / f"{exported.stem}.onnx"
    images = np.random.default_rng(0).uniform(0, 255, (6, 3, 64, 64)).astype(np.float32)
    ranges = measure_ranges(path, images)
    assert [r.name for r in ranges if r.hazard] == []
    operators = {r.operator for r in ranges if r.kind is Kind.SUM}
    assert {"Conv", "ReduceMean", "Gemm"} <= operators
    expected, simulated = run_onnx(path, images), run_float16(path, images)
    noise = np.square(simulated - expected).sum() / np.square(expected).sum()
    assert 0 < noise < 1e-4  # 40 dB
