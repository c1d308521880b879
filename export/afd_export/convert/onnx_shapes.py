"""Shapes of the values in an ONNX graph."""

from __future__ import annotations

import onnx


def with_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, list[int]]]:
    """A copy that says the shape of every value, and these by name; 0 for what is not static."""
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return inferred, shapes
