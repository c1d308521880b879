"""RepConv: the training-time block of the paper (section III-C)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from afd_mobile.network import fusion


class RepConv(nn.Module):
    """Three branches, summed: 1x1 then 3x3; 3x3 then 1x1; 1x1. Every convolution has a bias.

    The zero padding is put around the block's *input*, before the first branch's 1x1. Its 3x3
    then sees the 1x1's bias outside the picture, and one 3x3 convolution with zero padding
    equals the sum everywhere; padding between the two would be wrong on the border ring.

    Args:
        in_channels, out_channels: C_in, C_out.
        stride: 1 or 2, of the whole block.

    Shapes: (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.branch_1x1_3x3 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1),
            nn.Conv2d(out_channels, out_channels, 3, stride=stride),
        )
        self.branch_3x3_1x1 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
            nn.Conv2d(out_channels, out_channels, 1),
        )
        self.branch_1x1 = nn.Conv2d(in_channels, out_channels, 1, stride=stride)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The equivalent single kernel (C_out, C_in, 3, 3) and bias (C_out,), eq. 7 and 8."""
        (first_1x1, first_3x3), (second_3x3, second_1x1) = self.branch_1x1_3x3, self.branch_3x3_1x1
        k1, b1 = fusion.merge_1x1_3x3(*parameters_of(first_1x1), *parameters_of(first_3x3))
        k2, b2 = fusion.merge_3x3_1x1(*parameters_of(second_3x3), *parameters_of(second_1x1))
        w3, b3 = parameters_of(self.branch_1x1)
        return k1 + k2 + fusion.pad_1x1(w3), b1 + b2 + b3

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            # The same function and the same gradients for every branch, at the cost of one 3x3.
            kernel, bias = self.kernel_and_bias()
            return conv2d(x, kernel, bias, stride=self.stride, padding=1)
        first: Tensor = self.branch_1x1_3x3(pad(x, (1, 1, 1, 1)))
        others: Tensor = self.branch_3x3_1x1(x) + self.branch_1x1(x)
        return first + others

    def reset_to_zero(self) -> None:
        """Makes the output zero, with gradients that are not: where a residual starts."""
        for last in (self.branch_1x1_3x3[1], self.branch_3x3_1x1[1], self.branch_1x1):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def fused(self) -> nn.Module:
        """The single 3x3 convolution for deployment."""
        return fusion.convolution(*self.kernel_and_bias(), stride=self.stride, padding=1)


def parameters_of(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.weight, conv.bias
