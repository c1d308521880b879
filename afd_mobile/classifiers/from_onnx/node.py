"""A node of an ONNX graph as an importer looks at it, and a function as a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]


class UnknownOperatorError(Exception):
    """An operator, or a use of it, that is not known; says which."""


@dataclass(frozen=True)
class Call:
    """A node as it is in the graph.

    Attributes:
        inputs: constants as arrays; what is computed from the picture as a tensor, which is an
            example of it; None of what is left out.
        batch: of the examples.
    """

    operator: str
    attributes: dict[str, Any]
    inputs: Sequence[Array | Tensor | None]
    batch: int

    def constant(self, number: int, attribute: str = "", default: Any = None) -> Any:
        """An input that later versions have where earlier ones have an attribute."""
        value = self.inputs[number] if number < len(self.inputs) else None
        if isinstance(value, Tensor):
            raise UnknownOperatorError(
                f"{self.operator} with an input {number} that depends on the picture"
            )
        return self.attributes.get(attribute, default) if value is None else value

    @property
    def example(self) -> Tensor:
        """The first input."""
        value = self.inputs[0]
        if not isinstance(value, Tensor):
            raise UnknownOperatorError(f"{self.operator} of a constant")
        return value


class Operation(nn.Module):
    """A function as a layer, which is traced whole: its name stays that of the node.

    Args:
        constants: by position among its arguments; the others are what the layer is given.
    """

    def __init__(
        self, function: Callable[..., Any], constants: dict[int, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.function, self.positions = function, tuple(constants or {})
        for position, value in (constants or {}).items():
            self.register_buffer(f"constant_{position}", value)

    def forward(self, *inputs: Tensor) -> Any:
        arguments = list(inputs)
        for position in self.positions:
            arguments.insert(position, getattr(self, f"constant_{position}"))
        return self.function(*arguments)


def as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
