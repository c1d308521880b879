"""Channels that are shuffled: a pass over the ONNX graph on its way to TFLite.

ShuffleNet's reshaping to five dimensions, transposing and reshaping back mixes channels with
positions, and the converter, which moves channels to the end, loses its way. A convolution of 1x1
with a permutation as its kernel moves the same channels, exactly, and every delegate takes it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from afd_export.convert.onnx_shapes import with_shapes


def convolve_shuffled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every channel shuffle is a convolution; the values stay.

    Requires static shapes.
    """
    inferred, shapes = with_shapes(model)
    graph = inferred.graph
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, int] = {}
    for name in (name for node in graph.node for name in node.input):
        users[name] = users.get(name, 0) + 1
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        swap = makers.get(node.input[0]) if node.op_type == "Reshape" else None
        split = makers.get(swap.input[0]) if swap and swap.op_type == "Transpose" else None
        if swap is None or split is None or split.op_type != "Reshape":
            continue
        maps, groups = shapes.get(split.input[0], []), shapes.get(swap.input[0], [])
        (order,) = (helper.get_attribute_value(a) for a in swap.attribute)
        one_use = users[swap.output[0]] == users[split.output[0]] == 1
        if len(maps) != 4 or len(groups) != 5 or groups[3:] != maps[2:] or not one_use:
            continue
        if order != [0, 2, 1, 3, 4] or shapes[node.output[0]] != maps:
            continue
        channels = np.arange(maps[1]).reshape(groups[1], -1).T.reshape(-1)
        kernel = np.eye(maps[1], dtype=np.float32)[channels][:, :, None, None]
        name = f"{node.output[0]}_shuffle"
        graph.initializer.append(numpy_helper.from_array(kernel, name))
        inputs = [split.input[0], name]
        nodes = [n for n in nodes if n not in (node, swap, split)]
        nodes.append(helper.make_node("Conv", inputs, node.output, name=name, kernel_shape=[1, 1]))
    del graph.node[:]
    graph.node.extend(nodes)
    return inferred
