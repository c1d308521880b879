"""What FDE-Net sees of a picture: the 8x8 DCT of every block (eq. 3), or an ablation's instead."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

BLOCK = 8
CHANNELS = 3 * BLOCK * BLOCK

# JFIF's full-range BT.601: rows Y, Cb, Cr; Y is shifted by 128 before the DCT, Cb and Cr are
# centred already.
RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
Y_LEVEL_SHIFT = 128.0

# On photographs the coefficients' spread falls about as 1 / (1 + u + v). Dividing by these leaves
# standard deviations of 0.2 to 1.9 for Y and at most 2.3 for Cb and Cr.
Y_SPREAD = 256.0
C_SPREAD = 64.0


def dct_matrix(size: int = BLOCK) -> Tensor:
    """Orthonormal type-II DCT basis, row i = frequency i: (size, size), float64."""
    i = torch.arange(size, dtype=torch.float64)
    basis = torch.cos((2 * i[None, :] + 1) * i[:, None] * math.pi / (2 * size))
    basis *= math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def coefficient_scale() -> Tensor:
    """Every coefficient's fixed factor, (3, 8, 8): component, vertical, horizontal frequency."""
    u = torch.arange(BLOCK, dtype=torch.float64)
    rank = 1 + u[:, None] + u[None, :]
    return torch.stack([rank / Y_SPREAD, rank / C_SPREAD, rank / C_SPREAD])


class DctFrontEnd(nn.Module):
    """Picture to scaled DCT coefficients as one convolution, kernel 8, stride 8.

    Args:
        mean, std: given, the picture comes as (rgb / 255 - mean) / std instead of RGB 0 to 255,
            and the kernel undoes that as well.

    Shapes: (N, 3, H, W) -> (N, 192, H / 8, W / 8). Channel 64 c + 8 u + v holds component c
    (Y, Cb, Cr) at vertical frequency u and horizontal frequency v of every block.
    """

    kernel: Tensor
    bias: Tensor

    def __init__(
        self, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        kernel, bias = self.exact_kernel_and_bias()
        self.register_buffer("kernel", kernel.float(), persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)

    def exact_kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """kernel (192, 3, 8, 8) and bias (192,), float64."""
        basis = dct_matrix()
        colour = torch.tensor(RGB_TO_YCBCR, dtype=torch.float64)
        scale = coefficient_scale()
        kernel = torch.einsum("cuv,cr,uy,vx->cuvryx", scale, colour, basis, basis)
        bias = torch.zeros_like(scale)
        bias[0, 0, 0] = -Y_LEVEL_SHIFT * BLOCK * scale[0, 0, 0]
        if self.mean is not None and self.std is not None:
            offset = torch.tensor(self.mean, dtype=torch.float64) * 255
            bias = bias + torch.einsum("cuvryx,r->cuv", kernel, offset)
            kernel = kernel * (torch.tensor(self.std, dtype=torch.float64) * 255)[:, None, None]
        return kernel.reshape(CHANNELS, 3, BLOCK, BLOCK), bias.reshape(CHANNELS)

    def forward(self, image: Tensor) -> Tensor:
        return conv2d(image, self.kernel, self.bias, stride=BLOCK)


class PixelFrontEnd(DctFrontEnd):
    """Table II's "image block": the same 192 channels, holding a block's RGB pixels instead."""

    def exact_kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        kernel = torch.eye(CHANNELS, dtype=torch.float64) / C_SPREAD
        bias = torch.full((CHANNELS,), -Y_LEVEL_SHIFT / C_SPREAD, dtype=torch.float64)
        return kernel.reshape(CHANNELS, 3, BLOCK, BLOCK), bias


class ShuffledDctFrontEnd(DctFrontEnd):
    """Table III's "shuffled DCT": each block's coefficients in a random order of its own (seed 0).

    A channel then no longer holds one frequency, which is what the ablation is about. One order
    for all blocks would change nothing, because a 1x1 convolution does not mind.
    """

    def forward(self, image: Tensor) -> Tensor:
        coefficients = super().forward(image)
        generator = torch.Generator().manual_seed(0)
        order = torch.rand(coefficients.shape[1:], generator=generator).argsort(dim=0)
        return coefficients.gather(1, order.to(image.device).expand_as(coefficients))
