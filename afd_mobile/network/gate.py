"""How far a picture has drifted: one number, read from what compression leaves in its blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from afd_mobile.network.dct import BLOCK, CHANNELS, DctFrontEnd, coefficient_scale, dct_matrix
from afd_mobile.network.fde_net import folded

# Statistics of a picture need not all of its blocks: every other one each way is looked at.
STRIDE = 2 * BLOCK
# Filters to start from: luma's coefficients, spread evenly over the frequencies, and steps.
COEFFICIENTS = 24
STEPS = BLOCK - 1  # between columns, and as many between rows
FILTERS = 2 * (COEFFICIENTS + 2 * STEPS)
# At so many grey levels a filter answers GAIN; 6 is the most it answers.
GAIN = 3.0
COEFFICIENT_LEVEL = 4.0
STEP_LEVEL = 0.35
HIDDEN = 48
CONTRAST = 2.0
CONTRAST_WEIGHT = 0.3


class SpatialMean(nn.Module):
    """(N, C, h, w) -> (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class BlockStatistics(nn.Module):
    """Picture -> means of how blocks answer to filters.

    An answer lies between 0 and 6. So its mean says how many blocks answer, and a few busy ones do
    not rule it. Training starts from filters that compression is known by: single DCT coefficients,
    which quantisation makes zero, and steps between neighbouring columns or rows, which show a grid
    of blocks wherever it begins. The second half are the first with the other sign.

    Shapes: (N, 3, H, W), RGB 0 to 255 -> (N, FILTERS, 1, 1).
    """

    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dct = DctFrontEnd()
        unit = 1 / (COEFFICIENT_LEVEL * coefficient_scale().flatten())
        self.register_buffer("unit", unit.float()[:, None, None], persistent=False)
        self.filters = nn.Conv2d(CHANNELS, FILTERS, 1)
        self.means = nn.Sequential(nn.ReLU6(), SpatialMean())
        known = torch.cat([_coefficients(), *_steps()])
        with torch.no_grad():
            self.filters.weight.copy_(GAIN * torch.cat([known, -known])[..., None, None])
            assert self.filters.bias is not None
            self.filters.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        coefficients = conv2d(image, self.dct.kernel, self.dct.bias, stride=STRIDE)
        weight = self.filters.weight * self.unit
        means: Tensor = self.means(conv2d(coefficients, weight, self.filters.bias))
        return means

    def fused(self) -> nn.Module:
        """The same with everything linear as one 8x8 convolution, stride 16."""
        assert self.filters.bias is not None
        weight = self.filters.weight.double() * self.unit.double()
        filters = folded(self.dct, weight, self.filters.bias, stride=STRIDE)
        return nn.Sequential(filters, *self.means)


class Gate(nn.Module):
    """The logit of a picture's drift, from its block statistics.

    The first hidden units start as contrasts: steps at one position of the blocks against those at
    all positions.

    Shapes: (N, FILTERS, 1, 1) -> (N, 1, 1, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(FILTERS, HIDDEN, 1)
        self.logit = nn.Conv2d(HIDDEN, 1, 1)
        contrasts = _contrasts()
        with torch.no_grad():
            self.hidden.weight[: len(contrasts)] = contrasts[..., None, None]
            assert self.hidden.bias is not None
            self.hidden.bias[: len(contrasts)] = 0
            self.logit.weight[:, : len(contrasts)] = CONTRAST_WEIGHT

    def forward(self, statistics: Tensor) -> Tensor:
        logit: Tensor = self.logit(relu(self.hidden(statistics)))
        return logit


def _coefficients() -> Tensor:
    """(COEFFICIENTS, CHANNELS), in units of COEFFICIENT_LEVEL."""
    chosen = torch.linspace(1, BLOCK**2 - 1, COEFFICIENTS).round().long()
    return torch.eye(CHANNELS)[chosen]


def _steps() -> tuple[Tensor, Tensor]:
    """Between columns and between rows, both (STEPS, CHANNELS), in the same units."""
    basis = dct_matrix().float()
    step = torch.diff(torch.eye(BLOCK), dim=0) * COEFFICIENT_LEVEL / STEP_LEVEL
    across = step[:, None, :].expand(-1, BLOCK, -1) / BLOCK  # position, row, column
    both = (basis @ way @ basis.T for way in (across, across.mT))
    columns, rows = (nn.functional.pad(way.flatten(1), (0, CHANNELS - BLOCK**2)) for way in both)
    return columns, rows


def _contrasts() -> Tensor:
    """(2 STEPS, FILTERS)."""
    among = CONTRAST * (torch.eye(STEPS) - 1 / STEPS)
    one_sign = torch.zeros(2 * STEPS, FILTERS // 2)
    one_sign[:, COEFFICIENTS:] = torch.kron(torch.eye(2), among)
    return one_sign.repeat(1, 2)
