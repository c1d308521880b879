"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Attributes: `parameters`, and `multiply_adds` of convolutions and matrix products."""

    parameters: int
    multiply_adds: int

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.parameters - other.parameters, self.multiply_adds - other.multiply_adds)


def cost_of(module: nn.Module, *inputs: Tensor) -> Cost:
    """The cost of one forward pass with these inputs (batch 1)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return Cost(sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2)
