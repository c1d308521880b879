from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from afd_mobile.network.fe_net import BlockRepeat, BlockScaleFeNet, UNetFeNet, crop

STRIDES = (1, 2, 4, 8)
MOBILE_WIDTHS = {1: (8, 16, 40), 2: (16, 40), 4: (40,), 8: (40,)}


@pytest.fixture
def block_scale() -> BlockScaleFeNet:
    return BlockScaleFeNet(12, 2, (16, 40)).requires_grad_(False).eval()


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_block_repeat_is_repeat_interleave_exactly(factor: int) -> None:
    x = torch.randn(2, 5, 3, 4)
    expected = x.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    assert torch.equal(BlockRepeat(5, factor)(x), expected)


def test_crop_keeps_the_top_left() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(crop(x, torch.zeros(1, 1, 3, 2)), x[:, :, :3, :2])
    assert crop(x, torch.zeros(1, 9, 4, 4)) is x


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("less", [0, 1])
def test_both_networks_keep_the_features_shape(stride: int, less: int) -> None:
    size = 64 // stride - (less if stride in (2, 4) else 0)
    features, drift_map = torch.randn(2, 12, size, size), torch.randn(2, 40, 8, 8)
    nets = (
        UNetFeNet(12, stride, (4, 6, 8), 40),
        BlockScaleFeNet(12, stride, MOBILE_WIDTHS[stride]),
    )
    for net in nets:
        with torch.no_grad():
            assert net.eval()(features, drift_map).shape == features.shape


def test_the_map_guides_both_networks() -> None:
    features, drift_map = torch.randn(1, 12, 16, 16), torch.randn(1, 40, 4, 4)
    for net in (UNetFeNet(12, 2, (4, 6, 8), 40), BlockScaleFeNet(12, 2, (16, 40))):
        with torch.no_grad():
            difference = net.eval()(features, drift_map) - net(features, -drift_map)
        assert difference.abs().max() > 1e-4


def test_the_strength_is_one_factor_a_channel_of_the_whole_correction(
    block_scale: BlockScaleFeNet,
) -> None:
    features, drift_map = torch.randn(2, 12, 16, 16), torch.randn(2, 40, 4, 4)
    logits = strength_logits(block_scale, drift_map)
    assert logits.shape == (2, 12) and logits.std() > 1e-3
    residual = block_scale(features, drift_map)
    assert block_scale.strength.bias is not None
    block_scale.strength.weight.zero_()
    block_scale.strength.bias.fill_(1e4)
    whole = block_scale(features, drift_map)
    expected = whole.numpy() / (1 + np.exp(-logits))[:, :, None, None]
    np.testing.assert_allclose(residual, expected, rtol=1e-5, atol=1e-7)
    block_scale.strength.bias.fill_(-1e4)
    assert torch.count_nonzero(block_scale(features, drift_map)) == 0


def strength_logits(net: BlockScaleFeNet, drift_map: torch.Tensor) -> NDArray[np.float64]:
    """By the definition: linear in the summary, which is linear in the mean of the positive map."""
    x = drift_map.clamp_min(0).mean((2, 3)).double().numpy()
    for layer, floor in ((net.summary, 0.0), (net.strength, -np.inf)):
        assert layer.bias is not None
        weight = layer.weight.flatten(1).double().numpy()
        x = np.maximum(x @ weight.T + layer.bias.double().numpy(), floor)
    return x
