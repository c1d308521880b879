"""Checkpoints of the authors' public code, against their network written out here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import Tensor, nn

from afd_mobile.checkpoints.checkpoint import load_checkpoint
from afd_mobile.common.errors import InputError
from afd_mobile.network.afd_module import AfdConfig
from afd_mobile.network.fusion import fuse
from afd_mobile.network.published import BaselineRepConv
from afd_mobile.network.repconv import RepConv

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TheirRepConv(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(i, o, 1), nn.Conv2d(o, o, 3, padding=1))
        self.conv3 = nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(o, o, 1))
        self.conv1_1 = nn.Conv2d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(x) + self.conv3(x) + self.conv1_1(x)
        return out


class TheirUNet(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inc, self.down1 = TheirRepConv(channels, 16), TheirRepConv(16, 32)
        self.down2, self.up1 = TheirRepConv(32, 64), TheirRepConv(64, 32)
        self.up2, self.outc = TheirRepConv(64, 16), TheirRepConv(32, channels)
        self.relu = nn.PReLU()
        self.pool = nn.MaxPool2d(2)
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.relu(self.inc(x))
        d1 = self.pool(self.relu(self.down1(x1)))
        d2 = self.pool(self.relu(self.down2(d1)))
        u1 = self.up(self.relu(self.up1(d2)))
        u2 = self.up(self.relu(self.up2(torch.cat([u1, d1], 1))))
        out: Tensor = self.outc(torch.cat([u2, x1], 1))
        return out


class TheirModule(nn.Module):
    """Fed with the tapped features and the *normalised* picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fdm = TheirUNet(channels)
        self.reverse, self.rgb2ycbcr = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.dct_conv = nn.Conv2d(1, 64, 8, stride=8, bias=False)
        self.guide = nn.Sequential(
            nn.Conv2d(192, 128, 1),
            nn.ReLU(),
            nn.Conv2d(128, channels, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1),
            nn.Sigmoid(),
        )
        colour = [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]]
        with torch.no_grad():
            self.reverse.weight.copy_(torch.diag(torch.tensor(STD))[:, :, None, None])
            self.rgb2ycbcr.weight.copy_(torch.tensor(colour)[:, :, None, None])
            self.dct_conv.weight.copy_(zigzag_basis()[:, None])
            assert self.reverse.bias is not None and self.rgb2ycbcr.bias is not None
            self.reverse.bias.copy_(torch.tensor(MEAN))
            self.rgb2ycbcr.bias.copy_(torch.tensor([-0.1, 0.5, 0.45]))

    def forward(self, features: Tensor, normalised: Tensor) -> Tensor:
        ycbcr = self.rgb2ycbcr(self.reverse(normalised))
        n, _, h, w = ycbcr.shape
        coefficients = self.dct_conv(ycbcr.reshape(n * 3, 1, h, w)).reshape(n, 192, h // 8, w // 8)
        return torch.relu(self.fdm(features) * self.guide(coefficients) + features)


def zigzag_basis() -> Tensor:
    """(64, 8, 8), orthonormal, in JPEG's order."""
    rows = dct(np.eye(8), type=2, norm="ortho", axis=0)
    order = sorted(
        ((u, v) for u in range(8) for v in range(8)),
        key=lambda p: (p[0] + p[1], p[0] if (p[0] + p[1]) % 2 else p[1]),
    )
    return torch.from_numpy(np.stack([np.outer(rows[u], rows[v]) for u, v in order])).float()


def their_module(channels: int = 64) -> TheirModule:
    module = TheirModule(channels).eval()
    fixed = ("reverse", "rgb2ycbcr", "dct_conv")
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("bias") and not name.startswith(fixed):
                p.normal_(0, 0.3)
        module.fdm.relu.weight.fill_(0.17)
    return module


def save(path: Path, module: TheirModule, **extra: Tensor) -> Path:
    torch.save({**module.state_dict(), **extra}, path)
    return path


@pytest.mark.parametrize("channels", [64, 24])
def test_a_published_checkpoint_computes_what_its_own_network_does(
    tmp_path: Path, channels: int
) -> None:
    theirs = their_module(channels)
    checkpoint = load_checkpoint(save(tmp_path / "theirs.pth", theirs))
    assert (checkpoint.backbone, checkpoint.tap) == (None, None)
    config = checkpoint.module.config
    assert isinstance(config, AfdConfig) and config.channels == channels
    features, image = torch.randn(2, channels, 16, 24), torch.rand(2, 3, 32, 48) * 255
    image[1] = image[1] / 8  # another guide
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    with torch.no_grad():
        expected = theirs(features, (image / 255 - mean) / std)
        outputs = {
            "multi-branch": checkpoint.module(features, image),
            "fused": fuse(checkpoint.module)(features, image),
        }
    assert (expected - features.relu()).abs().max() > 0.1
    ring = torch.ones(16, 24, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    limit = 1e-4 * expected.abs().max()
    for name, output in outputs.items():
        difference = (output - expected).abs()
        assert difference[..., ring].max() <= limit, f"{name}, border"
        assert difference[..., ~ring].max() <= limit, f"{name}, interior"


def test_a_published_checkpoint_is_found_inside_a_training_scripts(tmp_path: Path) -> None:
    theirs = their_module().state_dict()
    content = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in theirs.items()}}
    torch.save(content, tmp_path / "wrapped.pth")
    wrapped = load_checkpoint(tmp_path / "wrapped.pth").module.state_dict()
    torch.save(theirs, tmp_path / "plain.pth")
    plain = load_checkpoint(tmp_path / "plain.pth").module.state_dict()
    assert all(torch.equal(value, wrapped[key]) for key, value in plain.items())


def test_the_guide_of_the_picture_reaches_the_output(tmp_path: Path) -> None:
    module = load_checkpoint(save(tmp_path / "theirs.pth", their_module())).module
    features = torch.randn(1, 64, 16, 16)
    with torch.no_grad():
        dark, bright = (module(features, torch.full((1, 3, 32, 32), v)) for v in (10.0, 240.0))
    assert (dark - bright).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(7, 9), (8, 6), (1, 1), (2, 5)])
def test_fused_block_is_right_up_to_the_border(size: tuple[int, int]) -> None:
    block = BaselineRepConv(3, 5).double().eval()
    with torch.no_grad():
        for p in block.parameters():
            p.normal_()
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(block.fused()(x), block(x), rtol=0, atol=1e-10)
        plain = RepConv.fused(block)(x)
    assert (plain - block(x)).abs().max() > 0.1  # without the correction the border is wrong


def test_wrong_keys_are_all_listed_in_one_error(tmp_path: Path) -> None:
    state = their_module().state_dict()
    del state["fdm.up1.conv3.1.bias"], state["guide.5.weight"]
    state["fdm.extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "wrong.pth")
    message = str(caught.value)
    assert "\n" not in message
    missing, unexpected = message.split("unexpected")
    assert "fdm.up1.conv3.1.bias" in missing and "guide.5.weight" in missing
    assert "fdm.extra.weight" in unexpected


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("fdm.down1.conv1.1.weight", (32, 32, 5, 5)),
        ("dct_conv.weight", (64, 1, 4, 4)),
        ("guide.0.weight", (128, 192)),
        ("guide.0.bias", (127,)),
        ("rgb2ycbcr.weight", (3, 1, 1, 1)),
        ("fdm.inc.conv1_1.bias", ()),
    ],
)
def test_a_wrong_shape_is_an_input_error(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "shape.pth", their_module(), **{key: torch.zeros(shape)})
    with pytest.raises(InputError):
        load_checkpoint(path)
