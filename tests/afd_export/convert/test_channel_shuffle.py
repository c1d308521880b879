"""Channel shuffles become convolutions, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from afd_export.convert.channel_shuffle import convolve_shuffled
from afd_export.convert.to_onnx import run_onnx

# What is left of a shuffle in two groups (of three) after simplification.
GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
graph (float[1, 6, 6, 6] image) => (float[1, 6, 6, 6] result)
<int64[5] split = {1, GROUPS, OTHERS, 6, 6}, int64[4] whole = {1, 6, 6, 6}>
{
    five = Reshape(image, split)
    swapped = Transpose<perm = [ORDER]>(five)
    result = Reshape(swapped, whole)
}"""


@pytest.mark.parametrize(
    ("groups", "order", "operators"),
    [
        (2, "0, 2, 1, 3, 4", ["Conv"]),
        (3, "0, 2, 1, 3, 4", ["Conv"]),
        (2, "0, 1, 2, 4, 3", ["Reshape", "Transpose", "Reshape"]),  # mirrors positions instead
        (2, "0, 1, 3, 2, 4", ["Reshape", "Transpose", "Reshape"]),  # mixes both
    ],
)
def test_a_shuffle_is_a_convolution(
    tmp_path: Path, groups: int, order: str, operators: list[str]
) -> None:
    text = GRAPH.replace("GROUPS", str(groups)).replace("OTHERS", str(6 // groups))
    before = onnx.parser.parse_model(text.replace("ORDER", order))
    after = convolve_shuffled(before)
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == operators
    for name, model in (("before", before), ("after", after)):
        onnx.save_model(model, tmp_path / name)
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 6), dtype=np.float32)
    expected = run_onnx(tmp_path / "before", images)
    np.testing.assert_array_equal(run_onnx(tmp_path / "after", images), expected)
