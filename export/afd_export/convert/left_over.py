"""Operations that a converter leaves in a `.tflite` file, and phones do not take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from afd_export.convert.onnx_shapes import with_shapes
from afd_export.placement.operations import read_operations
from afd_export.placement.rules import Delegate, load_rules
from afd_mobile.common.errors import ConversionError


def check_operators(path: Path, *, reorders: bool) -> None:
    """That a float file holds no operation that phones do not take.

    Args:
        reorders: the network itself changes the order of its dimensions. In any other, a TRANSPOSE
            is a mistake in the layout, which costs a copy and often fusions as well.

    Raises:
        ConversionError: there are custom or Flex operations, or a TRANSPOSE by mistake or of a kind
            that no delegate takes.
    """
    rules = [load_rules(delegate) for delegate in Delegate]
    refused = {}
    for operation in read_operations(path):
        if not operation.operator.isupper():
            refused[operation.operator] = "only runtimes with operators of their own take it"
        elif operation.operator == "TRANSPOSE":
            reasons = [refusal.reason for r in rules if (refusal := r.refusal(operation))]
            if not reorders:
                refused["TRANSPOSE"] = "the graph's layout changed on the way"
            elif len(reasons) == len(rules):
                refused["TRANSPOSE"] = f"no delegate takes it: {reasons[0]}"
    if refused:
        listed = "; ".join(f"{operator} ({reason})" for operator, reason in refused.items())
        raise ConversionError(f"{path.name} holds {listed}")


def reorders(model: onnx.ModelProto) -> bool:
    """Whether the network transposes, or mixes channels with positions in a new shape.

    Requires static shapes.
    """
    inferred, shapes = with_shapes(model)
    return any(
        node.op_type == "Transpose"
        or (
            node.op_type in ("Flatten", "Reshape")
            and np.prod(shapes.get(node.input[0], [])[2:]) > 1
        )
        for node in inferred.graph.node
    )
