from __future__ import annotations

import pytest
import torch
from torch import nn

from afd_mobile.network.cost import cost_of
from afd_mobile.network.fde_net import FdeNet, NoDriftMap
from afd_mobile.network.fusion import fuse

WIDTHS = (24, 16, 10)


@pytest.mark.parametrize("front_end", ["dct", "pixels"])
def test_fused_equals_unfused_in_float64(front_end: str) -> None:
    net = FdeNet(WIDTHS, front_end).double().eval()
    net.dct.kernel, net.dct.bias = net.dct.exact_kernel_and_bias()
    image = torch.rand(2, 3, 24, 40, dtype=torch.float64) * 255
    with torch.no_grad():
        expected = net(image)
        actual = fuse(net)(image)
    assert actual.shape == (2, 10, 3, 5)
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("front_end", ["dct", "pixels"])
def test_fused_equals_unfused_in_float32(front_end: str) -> None:
    # 192 products of pixels up to 255 are summed in another order; float32 leaves about 1e-6.
    net = FdeNet(WIDTHS, front_end).eval()
    image = torch.rand(2, 3, 24, 40) * 255
    with torch.no_grad():
        expected = net(image)
        difference = (fuse(net)(image) - expected).abs().max()
    assert difference <= 1e-5 * max(1.0, expected.abs().max().item())


def test_fusing_removes_the_192_channels_and_their_cost() -> None:
    net, image = FdeNet(WIDTHS).eval(), torch.zeros(1, 3, 64, 64)
    fused = fuse(net)
    assert isinstance(fused, nn.Sequential)
    convolutions = [m for m in fused if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == list(WIDTHS)
    assert convolutions[0].in_channels == 3
    saved = cost_of(net, image).multiply_adds - cost_of(fused, image).multiply_adds
    assert saved == 8 * 8 * 192 * 192  # the DCT at every block; the first stage costs the same


def test_shuffled_coefficients_cannot_be_fused_and_stay_as_they_are() -> None:
    net = FdeNet(WIDTHS, "shuffled-dct").eval()
    image = torch.rand(2, 3, 24, 40) * 255
    with torch.no_grad():
        expected = net(image)
        assert torch.equal(fuse(net)(image), expected)
        plain = FdeNet(WIDTHS).eval()
        plain.load_state_dict(net.state_dict())
        assert not torch.allclose(plain(image), expected, atol=1e-2)


def test_no_drift_map_is_zeros_of_the_same_shape() -> None:
    image = torch.rand(2, 3, 24, 40) * 255
    assert torch.equal(fuse(NoDriftMap(10).eval())(image), torch.zeros(2, 10, 3, 5))


def test_one_block_changes_one_position_of_the_map() -> None:
    net = FdeNet(WIDTHS).eval()
    image = torch.rand(1, 3, 32, 40) * 255
    changed = image.clone()
    changed[:, :, 8:16, 24:32] = 255 - changed[:, :, 8:16, 24:32]
    for network in (net, fuse(net)):
        with torch.no_grad():
            difference = (network(changed) - network(image)).abs().amax(dim=(0, 1))
        assert difference[1, 3] > 1e-3
        difference[1, 3] = 0
        assert torch.count_nonzero(difference) == 0
