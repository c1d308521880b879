"""Re-parameterisation: the kernel algebra, and the deep copy in which it has been applied.

The algebra (eq. 5 to 8 of the paper) is pure and differentiable, so training uses it too.
"""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from afd_mobile.common.errors import UsageError

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Fusible(Protocol):
    """A multi-branch module that knows its single-branch equivalent."""

    def fused(self) -> nn.Module: ...


@runtime_checkable
class Reparameterizable(Protocol):
    """timm's protocol: the block replaces its own branches."""

    def reparameterize(self) -> None: ...


def merge_1x1_3x3(w1: Tensor, b1: Tensor, w3: Tensor, b3: Tensor) -> tuple[Tensor, Tensor]:
    """One 3x3 kernel for a 1x1 convolution followed by a 3x3 one (eq. 5).

    w1: (D, C, 1, 1), b1: (D,), w3: (E, D, 3, 3), b3: (E,) -> (E, C, 3, 3), (E,).
    Exact on the border only if what the 3x3 sees outside the picture is `b1`, as in `RepConv`.
    """
    return torch.einsum("edhw,dc->echw", w3, w1[:, :, 0, 0]), b3 + w3.sum(dim=(2, 3)) @ b1


def merge_3x3_1x1(w3: Tensor, b3: Tensor, w1: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """One 3x3 kernel for a 3x3 convolution followed by a 1x1 one.

    w3: (D, C, 3, 3), b3: (D,), w1: (E, D, 1, 1), b1: (E,) -> (E, C, 3, 3), (E,).
    """
    w1 = w1[:, :, 0, 0]
    return torch.einsum("ed,dchw->echw", w1, w3), b1 + w1 @ b3


def pad_1x1(w1: Tensor) -> Tensor:
    """A 1x1 kernel as the centre of a 3x3 one (eq. 6): (E, C, 1, 1) -> (E, C, 3, 3)."""
    return nn.functional.pad(w1, (1, 1, 1, 1))


def compose_1x1(w1: Tensor, b1: Tensor, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One kernel for any unpadded convolution followed by a 1x1 one.

    w1: (E, D, 1, 1), b1: (E,), kernel: (D, C, k, k), bias: (D,) -> (E, C, k, k), (E,).
    """
    w1 = w1[:, :, 0, 0]
    return torch.einsum("ed,dchw->echw", w1, kernel), b1 + w1 @ bias


def convolution(kernel: Tensor, bias: Tensor, *, stride: int, padding: int) -> nn.Conv2d:
    """The one constructor of fused convolutions. kernel: (C_out, C_in, k, k), bias: (C_out,)."""
    c_out, c_in, k, _ = kernel.shape
    fused = nn.Conv2d(
        c_in, c_out, k, stride=stride, padding=padding, device=kernel.device, dtype=kernel.dtype
    )
    with torch.no_grad():
        fused.weight.copy_(kernel)
        assert fused.bias is not None
        fused.bias.copy_(bias)
    return fused.eval().requires_grad_(False)


def fuse(module: M) -> M:
    """A deep copy of `module` in which every multi-branch block is a single convolution.

    Whatever has a `fused()` method (RepConv, the DCT-fed FDE-Net) is replaced by what that
    returns; timm's RepVGG blocks are told to `reparameterize()` themselves. Fusing what is
    fused already changes nothing.

    Raises:
        UsageError: the module is in training mode, where its weights still move.
    """
    if any(m.training for m in module.modules()):
        raise UsageError("cannot fuse a module in training mode; call .eval() first")
    return cast(M, _fuse_in_place(copy.deepcopy(module)).eval())


def _fuse_in_place(module: nn.Module) -> nn.Module:
    if isinstance(module, Fusible):
        return module.fused()
    if isinstance(module, Reparameterizable):
        module.reparameterize()
        return module
    for name, child in module.named_children():
        replacement = _fuse_in_place(child)
        if replacement is not child:
            setattr(module, name, replacement)
    return module
