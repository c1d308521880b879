"""Convolutions that pad as TensorFlow does say so, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from timm.layers import Conv2dSame
from torch import nn

from afd_export.convert.same_padding import say_same
from afd_export.convert.to_onnx import export_onnx, run_onnx


def convolutions(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Their attributes, in order."""
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    return [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in found]


def test_timms_same_convolutions_say_so_and_keep_their_values(tmp_path: Path) -> None:
    network = nn.Sequential(
        Conv2dSame(3, 8, 3, stride=2), nn.ReLU6(), Conv2dSame(8, 8, 5, stride=2, groups=8)
    )
    explicit, said = tmp_path / "explicit.onnx", tmp_path / "said.onnx"
    export_onnx(network.eval(), 32, "features", explicit)
    model = onnx.load(explicit)
    # torch's exporter has merged the padding, a step of its own in timm, into the convolution.
    assert [node.op_type for node in model.graph.node] == ["Conv", "Clip", "Conv"]
    same = say_same(model)
    assert [c["pads"] for c in convolutions(model)] == [[0, 0, 1, 1], [1, 1, 2, 2]]
    assert [c["auto_pad"] for c in convolutions(same)] == [b"SAME_UPPER"] * 2
    onnx.save_model(same, said)
    images = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(run_onnx(said, images), run_onnx(explicit, images))


def one_convolution(size: int, kernel: int, **attributes: object) -> onnx.ModelProto:
    weight = helper.make_tensor(
        "weight", TensorProto.FLOAT, (1, 1, kernel, kernel), np.ones(kernel**2, np.float32)
    )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 1, size, size))
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, None)
    node = helper.make_node(
        "Conv", ["image", "weight"], ["result"], kernel_shape=[kernel] * 2, **attributes
    )
    graph = helper.make_graph([node], "one", [image], [result], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "same"),
    [
        (32, 3, 2, (0, 1), True),
        (32, 3, 2, (1, 0), False),
        (32, 3, 2, (1, 1), False),  # torch's padding=1
        (33, 3, 2, (1, 1), True),
        (33, 3, 2, (0, 1), False),
        (32, 5, 2, (1, 2), True),
        (28, 5, 2, (2, 2), False),
        (7, 5, 2, (2, 2), True),
        (32, 3, 1, (1, 1), True),
        (32, 3, 1, (2, 2), False),
        (32, 3, 1, (0, 0), False),
        (32, 8, 8, (0, 0), False),
    ],
)
def test_same_is_what_tensorflow_pads(
    size: int, kernel: int, stride: int, pads: tuple[int, int], same: bool
) -> None:
    all_pads = [pads[0], pads[0], pads[1], pads[1]]  # in ONNX's order: what begins, what ends
    model = one_convolution(size, kernel, strides=[stride] * 2, pads=all_pads)
    (before,), (after,) = convolutions(model), convolutions(say_same(model))
    if same:
        assert (after.pop("auto_pad"), before.pop("pads")) == (b"SAME_UPPER", all_pads)
    assert after == before


def test_a_dilated_convolution_is_left() -> None:
    model = one_convolution(32, 3, strides=[1, 1], dilations=[2, 2], pads=[2] * 4)
    assert convolutions(say_same(model)) == convolutions(model)
