from __future__ import annotations

import numpy as np
import pytest
import torch

from afd_mobile.fe_net import (
    STRENGTH_LOGIT,
    BlockRepeat,
    BlockScaleFeNet,
    UNetFeNet,
    crop,
)

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
    logits = block_scale.compression_logits(drift_map)
    assert logits.shape == (2, 12) and logits.std() > 1e-3
    residual = block_scale(features, drift_map)
    assert block_scale.strength.bias is not None
    block_scale.strength.weight.zero_()
    block_scale.strength.bias.fill_(1e4)
    whole = block_scale(features, drift_map)
    expected = whole.numpy() / (1 + np.exp(-logits.numpy()))[:, :, None, None]
    np.testing.assert_allclose(residual, expected, rtol=1e-5, atol=1e-7)
    block_scale.strength.bias.fill_(-1e4)
    assert torch.count_nonzero(block_scale(features, drift_map)) == 0


def test_the_strength_does_not_depend_on_where_a_block_lies(block_scale: BlockScaleFeNet) -> None:
    drift_map = torch.randn(1, 40, 4, 4)
    moved = drift_map.flatten(2)[..., torch.randperm(16)].reshape(1, 40, 4, 4)
    expected = block_scale.compression_logits(drift_map)
    torch.testing.assert_close(block_scale.compression_logits(moved), expected)
    changed = drift_map.clone()
    changed[:, :, 0, 0] += 1
    assert not torch.allclose(block_scale.compression_logits(changed), expected)


def test_sharpening_separates_the_channels_that_can_be_told_apart(
    block_scale: BlockScaleFeNet,
) -> None:
    clean = torch.randn(60, 40, 4, 4)
    compressed = torch.randn(60, 40, 4, 4) + 2
    before = [block_scale.compression_logits(maps).numpy() for maps in (clean, compressed)]
    low, high = np.quantile(before[0], 0.95, axis=0), np.quantile(before[1], 0.05, axis=0)
    apart = high > low
    assert 0 < apart.sum() < 12
    block_scale.sharpen_strength(clean, compressed)
    after = [block_scale.compression_logits(maps).numpy() for maps in (clean, compressed)]
    scale = np.where(apart, np.clip(2 * STRENGTH_LOGIT / (high - low), 1, 20), 1)
    middle = np.where(apart, (high + low) / 2, 0)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, scale * (old - middle), rtol=0, atol=1e-4)


def test_sharpening_is_bounded(block_scale: BlockScaleFeNet) -> None:
    clean, compressed = torch.zeros(4, 40, 4, 4), torch.full((4, 40, 4, 4), 1e-3)
    gap = block_scale.compression_logits(compressed) - block_scale.compression_logits(clean)
    block_scale.sharpen_strength(clean, compressed)
    after = block_scale.compression_logits(compressed) - block_scale.compression_logits(clean)
    assert (after.abs() <= 20.1 * gap.abs() + 1e-5).all()


def test_sharpening_never_softens(block_scale: BlockScaleFeNet) -> None:
    clean, compressed = torch.zeros(4, 40, 4, 4), torch.ones(4, 40, 4, 4)
    block_scale.strength.weight.mul_(1e4)  # 95 % are further apart than sharpening would put them
    gap = block_scale.compression_logits(compressed) - block_scale.compression_logits(clean)
    assert gap.abs().min() > 2 * STRENGTH_LOGIT
    block_scale.sharpen_strength(clean, compressed)
    after = block_scale.compression_logits(compressed) - block_scale.compression_logits(clean)
    torch.testing.assert_close(after, gap, rtol=1e-4, atol=0)
