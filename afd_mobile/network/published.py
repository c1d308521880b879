"""The authors' public baseline (2023), so that checkpoints made with it run as they were trained.

It differs from the paper in four ways: RepConv pads with zeros between its 1x1 and its 3x3, the
U-Net is wider than the paper's budget, it uses one PReLU and bilinear up-sampling with aligned
corners, and the drift map is pooled to one number a channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, relu

from afd_mobile.common.errors import InputError
from afd_mobile.network import dct
from afd_mobile.network.fde_net import FdeNet
from afd_mobile.network.repconv import RepConv, parameters_of

_BLOCKS = ("inc", "down1", "down2", "up1", "up2", "outc")
_BRANCHES = {
    "conv1.0": "branch_1x1_3x3.0",
    "conv1.1": "branch_1x1_3x3.1",
    "conv3.0": "branch_3x3_1x1.0",
    "conv3.1": "branch_3x3_1x1.1",
    "conv1_1": "branch_1x1",
}
_FE_NAMES = {
    f"fdm.{block}.{theirs}.{kind}": f"fe_net.{block}.{ours}.{kind}"
    for block in _BLOCKS
    for theirs, ours in _BRANCHES.items()
    for kind in ("weight", "bias")
} | {"fdm.relu.weight": "fe_net.prelu.weight"}
# Of every entry in their layout.
NAMES = {
    *_FE_NAMES,
    *("reverse.weight", "reverse.bias", "rgb2ycbcr.weight", "rgb2ycbcr.bias", "dct_conv.weight"),
    *(f"guide.{i}.{kind}" for i in (0, 2, 5) for kind in ("weight", "bias")),
}


class BaselineRepConv(RepConv):
    """RepConv with stride 1 that pads with zeros between the first branch's 1x1 and 3x3."""

    def forward(self, x: Tensor) -> Tensor:
        conv_1x1, conv_3x3 = self.branch_1x1_3x3
        first = conv2d(conv_1x1(x), *parameters_of(conv_3x3), padding=1)
        second: Tensor = self.branch_3x3_1x1(x) + self.branch_1x1(x)
        return first + second

    def fused(self) -> nn.Module:
        conv_1x1, conv_3x3 = self.branch_1x1_3x3
        outside = torch.einsum(
            "edhw,d->ehw", parameters_of(conv_3x3)[0], parameters_of(conv_1x1)[1]
        )
        return BorderCorrectedConv(super().fused(), outside.detach()[:, None])


class BorderCorrectedConv(nn.Module):
    """A fused convolution, less what its bias holds of taps that lie outside the picture.

    `outside`: (C_out, 1, 3, 3), each tap's part of the bias. At a fixed input size the
    correction is a constant, and converters fold it into one.
    """

    outside: Tensor

    def __init__(self, conv: nn.Module, outside: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("outside", outside)

    def forward(self, x: Tensor) -> Tensor:
        inside = conv2d(x.new_ones(1, 1, *x.shape[-2:]), self.outside, padding=1)
        corrected: Tensor = self.conv(x) + (inside - self.outside.sum(dim=(1, 2, 3))[:, None, None])
        return corrected


class BaselineFeNet(nn.Module):
    """features (N, C, h, w), guide (N, C, 1, 1) -> residual (N, C, h, w); h, w multiples of 4."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        outer, middle, inner = widths
        self.inc = BaselineRepConv(channels, outer)
        self.down1 = BaselineRepConv(outer, middle)
        self.down2 = BaselineRepConv(middle, inner)
        self.up1 = BaselineRepConv(inner, middle)
        self.up2 = BaselineRepConv(2 * middle, outer)
        self.outc = BaselineRepConv(2 * outer, channels)
        self.prelu = nn.PReLU()
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, features: Tensor, guide: Tensor) -> Tensor:
        x1 = self._activate(self.inc(features))
        d1 = self.pool(self._activate(self.down1(x1)))
        d2 = self.pool(self._activate(self.down2(d1)))
        y1 = self.upsample(self._activate(self.up1(d2)))
        y2 = self.upsample(self._activate(self.up2(torch.cat([y1, d1], dim=1))))
        residual: Tensor = self.outc(torch.cat([y2, x1], dim=1)) * guide
        return residual

    def reset_to_zero(self) -> None:
        self.outc.reset_to_zero()

    def _activate(self, x: Tensor) -> Tensor:
        # PReLU, spelled out: the TFLite runtime's own PReLU can give NaN.
        return relu(x) - self.prelu.weight * relu(-x)


class BaselineFdeNet(FdeNet):
    """picture (N, 3, H, W) -> guide (N, widths[-1], 1, 1): pooled before the last stage."""

    def forward(self, image: Tensor) -> Tensor:
        return _pooled_guide(self.dct(image), self.stages)

    def fused(self) -> nn.Module:
        return FusedBaselineFdeNet(super().fused())


class FusedBaselineFdeNet(nn.Module):
    def __init__(self, stages: nn.Module) -> None:
        assert isinstance(stages, nn.Sequential)
        super().__init__()
        self.stages = stages

    def forward(self, image: Tensor) -> Tensor:
        return _pooled_guide(image, self.stages)


def _pooled_guide(x: Tensor, stages: nn.Sequential) -> Tensor:
    guide: Tensor = stages[-1](adaptive_avg_pool2d(stages[:-1](x), 1))
    return guide.sigmoid()


def is_published_layout(keys: list[str]) -> bool:
    """Whether these are the keys of the authors' public code."""
    return any(k.startswith("fdm.") for k in keys) and any(k.startswith("guide.") for k in keys)


def from_published_layout(
    published: Mapping[str, Tensor],
) -> tuple[int, tuple[int, ...], tuple[int, ...], dict[str, Tensor]]:
    """The authors' keys as ours.

    Their first guide stage acts on their own DCT basis (zig-zag) of their own YCbCr of 0-to-1
    pixels; it is re-expressed on this project's coefficients, which is exact because both are
    invertible linear maps of the same 192 pixels.

    Returns:
        channels of the tap, FE-Net's widths, FDE-Net's widths, state dict for `AfdModule`.

    Raises:
        InputError: an entry is missing or has another shape than the layout says.
    """
    if set(published) != NAMES:
        missing, unexpected = sorted(NAMES - set(published)), sorted(set(published) - NAMES)
        raise InputError(
            "this is the authors' published key layout, but of another network: "
            f"missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}"
        )
    _check_shapes(published)
    state = {ours: published[theirs] for theirs, ours in _FE_NAMES.items()}
    first_weight, first_bias = _rebased_first_stage(published)
    state["fde_net.stages.0.weight"], state["fde_net.stages.0.bias"] = first_weight, first_bias
    for theirs_index, ours_index in ((2, 2), (5, 4)):
        for kind in ("weight", "bias"):
            state[f"fde_net.stages.{ours_index}.{kind}"] = published[f"guide.{theirs_index}.{kind}"]
    fe_widths = tuple(len(published[f"fdm.{b}.conv1_1.bias"]) for b in ("inc", "down1", "down2"))
    fde_widths = tuple(len(published[f"guide.{i}.bias"]) for i in (0, 2, 5))
    return len(published["fdm.outc.conv1_1.bias"]), fe_widths, fde_widths, state


def _check_shapes(published: Mapping[str, Tensor]) -> None:
    """Of what is computed with before the strict load sees it; None is any size."""
    expected: dict[str, tuple[int | None, ...]] = {
        "reverse.weight": (3, 3, 1, 1),
        "reverse.bias": (3,),
        "rgb2ycbcr.weight": (3, 3, 1, 1),
        "rgb2ycbcr.bias": (3,),
        "dct_conv.weight": (dct.BLOCK**2, 1, dct.BLOCK, dct.BLOCK),
        "guide.0.weight": (None, dct.CHANNELS, 1, 1),
        **{f"guide.{i}.bias": (None,) for i in (0, 2, 5)},
        **{f"fdm.{block}.conv1_1.bias": (None,) for block in _BLOCKS},
    }
    wrong = [
        f"{key} has shape {tuple(published[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if len(published[key].shape) != len(shape)
        or any(e not in (None, n) for e, n in zip(shape, published[key].shape, strict=True))
    ]
    if len(published["guide.0.weight"]) != len(published["guide.0.bias"]):
        wrong.append("guide.0.weight and guide.0.bias have different numbers of channels")
    if wrong:
        raise InputError(f"the authors' published key layout, but {'; '.join(wrong)}")


def _rebased_first_stage(published: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Their first guide stage (D, 192, 1, 1), (D,), on this project's DCT coefficients."""
    p = {k: v.double() for k, v in published.items()}
    block, components = dct.BLOCK**2, 3
    # Their pixels reach the DCT as colour @ rgb / 255 + shift; their network first undoes the
    # normalisation that it was fed with, so those two cancel.
    colour, shift = p["rgb2ycbcr.weight"][:, :, 0, 0], p["rgb2ycbcr.bias"]
    basis = p["dct_conv.weight"].reshape(block, block)
    kernel = torch.einsum("kp,cr->ckrp", basis, colour / 255).reshape(components * block, -1)
    offset = (shift[:, None] * basis.sum(dim=1)).reshape(-1)
    weight, bias = p["guide.0.weight"][:, :, 0, 0], p["guide.0.bias"]
    pixel_weight, pixel_bias = weight @ kernel, bias + weight @ offset

    our_kernel, our_bias = dct.DctFrontEnd().exact_kernel_and_bias()
    rebased = torch.linalg.solve(our_kernel.reshape(dct.CHANNELS, -1), pixel_weight, left=False)
    return rebased[:, :, None, None].float(), (pixel_bias - rebased @ our_bias).float()
