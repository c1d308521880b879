"""Features that are flattened before a matrix product: a pass over the ONNX graph.

PyTorch flattens (C, h, w), TensorFlow (h, w, C). The converter therefore transposes first, and in
the wrong order where C, h and w are equal. The product as a convolution with a kernel as large as
its input has no order that could be mistaken: the same matrix, its columns reordered.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from afd_export.convert.onnx_shapes import with_shapes


def convolve_flattened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which products of flattened feature maps are convolutions; the values stay.

    Requires static shapes. Where anything else takes the flattened features, they are left.
    """
    inferred, shapes = with_shapes(model)
    graph = inferred.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    results = {value.name for value in graph.output}
    replaced: dict[str, list[onnx.NodeProto]] = {}  # by the name of what a node gives
    for node in graph.node:
        given, flat = node.input[0] if node.input else "", node.output[0]
        maps = shapes.get(given, [])
        if node.op_type not in ("Flatten", "Reshape") or len(maps) != 4 or flat in results:
            continue
        if maps[2] * maps[3] <= 1 or shapes.get(flat) != [1, int(np.prod(maps))]:
            continue
        products = [other for other in graph.node if flat in other.input]
        matrices = [_matrix(product, flat, constants) for product in products]
        if not products or any(matrix is None for matrix in matrices):
            continue
        replaced[flat] = []
        for product, matrix in zip(products, matrices, strict=True):
            assert matrix is not None
            replaced[product.output[0]] = _convolution(product, given, maps[1:], matrix, graph)
    nodes = [n for node in graph.node for n in replaced.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    return inferred


def _matrix(
    product: onnx.NodeProto, flat: str, constants: dict[str, onnx.TensorProto]
) -> NDArray[np.float32] | None:
    """(C_out, C_in) of a plain product of `flat` with a constant; None of anything else."""
    given = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    scaled = any(given.get(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    known = all(name in constants for name in product.input[1:])
    if product.op_type not in ("Gemm", "MatMul") or product.input[0] != flat or not known:
        return None
    if scaled or given.get("transA") or any(len(constants[b].dims) != 1 for b in product.input[2:]):
        return None
    matrix: NDArray[np.float32] = numpy_helper.to_array(constants[product.input[1]])
    return matrix if given.get("transB") else matrix.T


def _convolution(
    product: onnx.NodeProto,
    features: str,
    shape: list[int],
    matrix: NDArray[np.float32],
    graph: onnx.GraphProto,
) -> list[onnx.NodeProto]:
    """What gives the product of the features, (C, h, w), before they are flattened."""
    result = product.output[0]
    names = kernel, whole, size = [f"{result}_{part}" for part in ("kernel", "whole", "size")]
    values = np.ascontiguousarray(matrix.reshape(-1, *shape)), np.array([1, len(matrix)], np.int64)
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for value, name in zip(values, (kernel, size), strict=True)
    )
    inputs = [features, kernel, *product.input[2:]]
    return [
        helper.make_node("Conv", inputs, [whole], name=names[1], kernel_shape=shape[1:]),
        helper.make_node("Reshape", [whole, size], [result], name=names[2]),
    ]
