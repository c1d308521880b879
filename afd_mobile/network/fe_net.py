"""FE-Net: the correction of the tapped features, guided by the Feature Drifting Map.

Both networks return the residual that `AfdModule` adds to the features; a map of zeros through
the final gate means no correction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, relu

from afd_mobile.network.dct import BLOCK
from afd_mobile.network.repconv import RepConv

BODY_CHANNELS = 40
SUMMARY_CHANNELS = 32


class BlockRepeat(nn.Module):
    """Repeats each block's value over its area: (N, C, h, w) -> (N, C, factor h, factor w).

    As a transposed convolution with a kernel of ones, because that is what XNNPACK and GPU
    delegates both take; nearest-neighbour resizing is not. Exact: it multiplies by 1 and adds 0.
    """

    kernel: Tensor

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        kernel = torch.eye(channels)[:, :, None, None].repeat(1, 1, factor, factor)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return conv_transpose2d(x, self.kernel, stride=self.factor) if self.factor > 1 else x


class UNetFeNet(nn.Module):
    """The paper's network: U-Net style, two down, two up, every convolution a RepConv.

    It fits the paper's budget (0.11 M parameters, 0.36 G multiply-adds at 64x112x112), which the
    authors' public code does not, by pooling before the convolutions, by adding the outermost
    skip instead of concatenating it, and by letting the map act on the last narrow features.

    Shapes: features (N, C, h, w), map (N, M, H / 8, W / 8) -> residual (N, C, h, w).
    """

    def __init__(self, channels: int, stride: int, widths: tuple[int, ...], map_channels: int):
        super().__init__()
        outer, middle, inner = widths
        self.inc = RepConv(channels, outer)
        self.down1 = RepConv(outer, middle)
        self.down2 = RepConv(middle, inner)
        self.up1 = RepConv(inner, middle)
        self.up2 = RepConv(2 * middle, outer)
        self.outc = RepConv(outer, channels)
        self.gate = nn.Conv2d(map_channels, outer, 1)
        self.repeat = BlockRepeat(outer, BLOCK // stride)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, features: Tensor, drift_map: Tensor) -> Tensor:
        x0 = relu(self.inc(features))
        x1 = relu(self.down1(self.pool(x0)))
        x2 = relu(self.down2(self.pool(x1)))
        y1 = crop(self.upsample(relu(self.up1(x2))), x1)
        y0 = crop(self.upsample(relu(self.up2(torch.cat([y1, x1], dim=1)))), x0) + x0
        gate = crop(self.repeat(self.gate(drift_map).sigmoid()), x0)
        residual: Tensor = self.outc(y0 * gate)
        return residual

    def reset_to_zero(self) -> None:
        self.outc.reset_to_zero()


class BlockScaleFeNet(nn.Module):
    """The network of older checkpoints for phones: nearly all runs at the 8x8 block's own scale.

    Strided RepConvs bring the features down to one position a block, where the map joins them;
    a residual bottleneck with a RepConv looks around; transposed convolutions, kernel = stride,
    bring the result back. The map acts twice: added at the block's scale, and, averaged over the
    picture, as the strength of the whole correction, which leaves clean pictures alone.

    Args:
        widths: one for each strided RepConv; the last is the width at the block's scale.

    Shapes: features (N, C, h, w), map (N, widths[-1], H / 8, W / 8) -> residual (N, C, h, w).
    """

    def __init__(self, channels: int, stride: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        step = 2 if stride < BLOCK else 1
        ins, width, outer = (channels, *widths[:-1]), widths[-1], widths[0]
        self.down = nn.ModuleList(RepConv(i, o, step) for i, o in zip(ins, widths, strict=True))
        self.body = nn.Sequential(
            nn.Conv2d(width, BODY_CHANNELS, 1),
            nn.ReLU(),
            RepConv(BODY_CHANNELS, BODY_CHANNELS),
            nn.ReLU(),
            nn.Conv2d(BODY_CHANNELS, width, 1),
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(o, i, step, step)
            for i, o in zip(ins[:0:-1], widths[:0:-1], strict=True)
        )
        self.out: nn.Conv2d | nn.ConvTranspose2d
        if step == 1:
            self.out = nn.Conv2d(outer, channels, 1, bias=False)
        else:
            self.out = nn.ConvTranspose2d(outer, channels, step, step, bias=False)
        self.summary = nn.Conv2d(width, SUMMARY_CHANNELS, 1)
        self.context = nn.Conv2d(SUMMARY_CHANNELS, width, 1)
        self.strength = nn.Conv2d(SUMMARY_CHANNELS, channels, 1)

    def forward(self, features: Tensor, drift_map: Tensor) -> Tensor:
        summary = relu(self.summary(relu(drift_map).mean((2, 3), keepdim=True)))
        skips: list[Tensor] = []
        x = features
        for down in self.down[:-1]:
            x = relu(down(x))
            skips.append(x)
        x = self.down[-1](x)
        x = relu(x + crop(drift_map, x) + self.context(summary))
        x = relu(x + self.body(x))
        for up in self.up:
            skip = skips.pop()
            x = relu(crop(up(x), skip) + skip)
        residual: Tensor = crop(self.out(x), features) * self.strength(summary).sigmoid()
        return residual

    def reset_to_zero(self) -> None:
        nn.init.zeros_(self.out.weight)


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The top left of `x`, as large as `like`; taps of odd size come up one row too large."""
    h, w = like.shape[-2:]
    return x if x.shape[-2:] == (h, w) else x[..., :h, :w]
