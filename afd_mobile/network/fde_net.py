"""FDE-Net: the Feature Drifting Map from the picture's DCT coefficients (section III-B)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from afd_mobile.network import dct, fusion

FRONT_ENDS = {
    "dct": dct.DctFrontEnd,
    "pixels": dct.PixelFrontEnd,
    "shuffled-dct": dct.ShuffledDctFrontEnd,
}


class NoDriftMap(nn.Module):
    """Table II's "FE-Net alone": a map of zeros.

    Shapes: picture (N, 3, H, W) -> (N, channels, H / 8, W / 8).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        n, _, h, w = image.shape
        return image.new_zeros(n, self.channels, h // dct.BLOCK, w // dct.BLOCK)


class FdeNet(nn.Module):
    """Three stages of 1x1 convolutions, so that a block's estimate depends on that block alone.

    Args:
        widths: channels after each stage; the last is the map's.
        front_end: what of the picture it sees, by FRONT_ENDS.

    Shapes: picture (N, 3, H, W) -> Feature Drifting Map (N, widths[-1], H / 8, W / 8).
    """

    def __init__(self, widths: tuple[int, ...], front_end: str = "dct") -> None:
        super().__init__()
        self.dct = FRONT_ENDS[front_end]()
        self.stages = nn.Sequential()
        for i, (c_in, c_out) in enumerate(pairwise((dct.CHANNELS, *widths))):
            if i:
                self.stages.append(nn.ReLU())
            self.stages.append(nn.Conv2d(c_in, c_out, 1))

    def forward(self, image: Tensor) -> Tensor:
        drift_map: Tensor = self.stages(self.dct(image))
        return drift_map

    def fused(self) -> nn.Module:
        """The same with everything linear before the first ReLU as one 8x8 convolution, stride 8.

        192 coefficients times the first stage's width is 3 x 64 pixels times the same width, so
        the DCT itself, and with it colour, level shift and scaling, costs nothing any more.
        Shuffled coefficients cannot be folded: that ablation stays as it is.
        """
        if isinstance(self.dct, dct.ShuffledDctFrontEnd):
            return self
        first, *rest = self.stages
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        return nn.Sequential(folded(self.dct, first.weight, first.bias, stride=dct.BLOCK), *rest)


def folded(front_end: dct.DctFrontEnd, weight: Tensor, bias: Tensor, *, stride: int) -> nn.Conv2d:
    """The front end and a 1x1 convolution behind it as one 8x8 convolution of the picture.

    weight: (E, 192, 1, 1), bias: (E,). Composed in float64 from the exact basis: one rounding, to
    the bias's precision, at the end.
    """
    exact = front_end.exact_kernel_and_bias()
    kernel, shift = fusion.compose_1x1(weight.double(), bias.double(), *exact)
    return fusion.convolution(kernel.to(bias), shift.to(bias), stride=stride, padding=0)
