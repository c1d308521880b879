"""Products of flattened feature maps become convolutions, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from afd_export.convert.flattened_features import convolve_flattened
from afd_export.convert.to_onnx import run_onnx

GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
graph (float[1, C, H, H] image) => (float[1, 5] result)
<int64[2] size = {1, -1}>
{
    BODY
}"""


@pytest.mark.parametrize(
    ("shape", "body", "convolution"),
    [
        # As many channels as rows and columns, and others.
        ((4, 4), "f = Reshape(image, size) result = Gemm<transB = 1>(f, rows, bias)", True),
        ((6, 2), "f = Flatten(image) result = Gemm(f, columns, bias)", True),
        ((6, 2), "f = Flatten(image) result = Gemm<transB = 1>(f, rows)", True),
        ((6, 2), "f = Flatten(image) a = MatMul(f, columns) result = Add(a, bias)", True),
        # The product of a sum, twice the product, a bias of another shape; and one position.
        ((6, 2), "f = Flatten(image) a = Relu(f) result = Gemm(a, columns, bias)", False),
        ((6, 2), "f = Flatten(image) result = Gemm<alpha = 2.0>(f, columns, bias)", False),
        ((6, 2), "f = Flatten(image) result = Gemm(f, columns, scalar)", False),
        ((6, 1), "f = Flatten(image) result = Gemm(f, columns, bias)", False),
    ],
)
def test_a_product_is_a_convolution(
    tmp_path: Path, shape: tuple[int, int], body: str, convolution: bool
) -> None:
    channels, side = shape
    text = GRAPH.replace("[1, C, H, H]", f"[1, {channels}, {side}, {side}]")
    before = onnx.parser.parse_model(text.replace("BODY", body))
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5, channels * side**2), dtype=np.float32)
    values = {
        "rows": matrix,
        "columns": np.ascontiguousarray(matrix.T),
        "bias": rng.standard_normal(5, dtype=np.float32),
        "scalar": np.ones((1, 1), np.float32),
    }
    before.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items()
    )
    after = convolve_flattened(before)
    onnx.checker.check_model(after, full_check=True)
    found = [node.op_type for node in after.graph.node]
    assert found[:2] == ["Conv", "Reshape"] if convolution else "Conv" not in found
    for name, model in (("before", before), ("after", after)):
        onnx.save_model(model, tmp_path / name)
    images = rng.standard_normal((2, channels, side, side), dtype=np.float32)
    expected = run_onnx(tmp_path / "before", images)
    np.testing.assert_allclose(run_onnx(tmp_path / "after", images), expected, atol=1e-5)
