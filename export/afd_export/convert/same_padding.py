"""Padding as TensorFlow says it: a pass over the ONNX graph on its way to TFLite.

Explicit padding of a strided convolution becomes a PAD of its own in the TFLite file: one more
operation, and a copy of its whole input. Networks that TensorFlow trained need none, because
their padding is the convolution's own SAME.
"""

from __future__ import annotations

import onnx
from onnx import helper

from afd_export.convert.onnx_shapes import with_shapes


def say_same(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every convolution that pads as SAME does says so; the values stay.

    Requires static shapes. Dilated convolutions are left: TensorFlow has no strided ones.
    """
    inferred, shapes = with_shapes(model)
    graph = inferred.graph
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        pads, size = given.get("pads", []), shapes.get(node.input[0], [])[2:]
        if not any(pads) or not all(size) or any(d != 1 for d in given.get("dilations", [])):
            continue
        strides = given.get("strides", [1] * len(size))
        kernel = given["kernel_shape"]
        ends = [_same_pads(*axis) for axis in zip(size, kernel, strides, strict=True)]
        if pads == [begin for begin, _ in ends] + [end for _, end in ends]:
            kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])
    return inferred


def _same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What SAME puts before and behind an axis; an odd one behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
