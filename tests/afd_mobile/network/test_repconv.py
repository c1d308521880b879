"""RepConv against a float64 oracle in numpy that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from afd_mobile.network.repconv import RepConv

Array = NDArray[np.float64]

CASES = [
    (c_in, c_out, stride, size)
    for c_in, c_out in ((3, 5), (6, 2))
    for stride in (1, 2)
    for size in ((7, 9), (8, 6), (7, 6))
]


def convolve(x: Array, kernel: Array, bias: Array, stride: int) -> Array:
    """Valid convolution: x (C, H, W), kernel (E, C, k, k) -> (E, h, w)."""
    k = kernel.shape[-1]
    h, w = ((n - k) // stride + 1 for n in x.shape[1:])
    out = np.empty((len(kernel), h, w))
    for i in range(h):
        for j in range(w):
            window = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = np.einsum("ecuv,cuv->e", kernel, window) + bias
    return out


def zero_pad(x: Array) -> Array:
    return np.pad(x, ((0, 0), (1, 1), (1, 1)))


def weights(module: nn.Module) -> tuple[Array, Array]:
    assert isinstance(module, nn.Conv2d) and module.bias is not None
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def oracle(block: RepConv, x: Array, *, pad_between: bool = False) -> Array:
    """The sum of the branches; `pad_between` puts the zeros between 1x1 and 3x3 instead."""
    first, second, s = block.branch_1x1_3x3, block.branch_3x3_1x1, block.stride
    if pad_between:
        inside = zero_pad(convolve(x, *weights(first[0]), 1))
    else:
        inside = convolve(zero_pad(x), *weights(first[0]), 1)
    a = convolve(inside, *weights(first[1]), s)
    b = convolve(convolve(zero_pad(x), *weights(second[0]), s), *weights(second[1]), 1)
    return a + b + convolve(x, *weights(block.branch_1x1), s)


def border(size: tuple[int, int], stride: int) -> NDArray[np.bool_]:
    """Which output positions' 3x3 windows reach outside a picture of this size."""
    rows, columns = (
        np.array([i == 0 or i + 1 >= n for i in range(0, n, stride)], dtype=bool) for n in size
    )
    return np.logical_or.outer(rows, columns)


def block_and_input(
    c_in: int, c_out: int, stride: int, size: tuple[int, int]
) -> tuple[RepConv, torch.Tensor]:
    block = RepConv(c_in, c_out, stride).double().eval()
    with torch.no_grad():
        for p in block.parameters():
            p.normal_()
    return block, torch.randn(1, c_in, *size, dtype=torch.float64)


@pytest.mark.parametrize(("c_in", "c_out", "stride", "size"), CASES)
def test_branches_fused_and_training_equal_the_oracle(
    c_in: int, c_out: int, stride: int, size: tuple[int, int]
) -> None:
    block, x = block_and_input(c_in, c_out, stride, size)
    expected, ring = oracle(block, x[0].numpy()), border(size, stride)
    assert ring.any() and not ring.all()
    with torch.no_grad():
        outputs = {
            "branches": block(x),
            "fused": block.fused()(x),
            "training": block.train()(x),
        }
    for name, output in outputs.items():
        difference = np.abs(output[0].numpy() - expected)
        assert difference.shape == (c_out, -(-size[0] // stride), -(-size[1] // stride)), name
        assert difference[:, ring].max() <= 1e-10, f"{name}, border"
        assert difference[:, ~ring].max() <= 1e-10, f"{name}, interior"


@pytest.mark.parametrize("stride", [1, 2])
def test_zeros_between_the_convolutions_differ_on_the_border_only(stride: int) -> None:
    block, x = block_and_input(3, 5, stride, (7, 9))
    wrong, ring = oracle(block, x[0].numpy(), pad_between=True), border((7, 9), stride)
    with torch.no_grad():
        difference = np.abs(block.fused()(x)[0].numpy() - wrong)
    assert difference[:, ring].min() > 1e-6
    assert difference[:, ring].max() > 0.1
    assert difference[:, ~ring].max() <= 1e-10


@pytest.mark.parametrize("stride", [1, 2])
def test_training_gradients_are_those_of_the_branches(stride: int) -> None:
    block, x = block_and_input(3, 5, stride, (7, 6))
    x.requires_grad_()
    names, leaves = zip(*block.named_parameters(), strict=True)
    direction = torch.randn_like(block(x))

    def gradients(*, training: bool) -> tuple[torch.Tensor, ...]:
        block.train(training)
        return torch.autograd.grad((block(x) * direction).sum(), (*leaves, x))

    pairs = zip(gradients(training=True), gradients(training=False), strict=True)
    for name, (fused, branches) in zip((*names, "input"), pairs, strict=True):
        assert fused.abs().max() > 1e-3, name
        torch.testing.assert_close(fused, branches, rtol=1e-10, atol=1e-10, msg=name)


def test_reset_to_zero_gives_zero_with_gradients_that_are_not() -> None:
    block, x = block_and_input(3, 5, 1, (6, 6))
    block.reset_to_zero()
    output = block.train()(x)
    assert torch.count_nonzero(output) == 0
    output.sum().backward()
    last = block.branch_1x1_3x3[1].weight
    assert isinstance(last, nn.Parameter) and last.grad is not None
    assert last.grad.abs().max() > 0


def test_the_fused_convolution_is_one_3x3_without_gradients() -> None:
    fused = RepConv(4, 6, 2).eval().fused()
    assert isinstance(fused, nn.Conv2d)
    assert (fused.kernel_size, fused.stride, fused.padding) == ((3, 3), (2, 2), (1, 1))
    assert not any(p.requires_grad for p in fused.parameters())
