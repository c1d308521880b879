"""The AFD-Module and its configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from afd_mobile.common.errors import InputError
from afd_mobile.network.dct import BLOCK
from afd_mobile.network.fde_net import FRONT_ENDS, FdeNet, NoDriftMap
from afd_mobile.network.fe_net import BlockScaleFeNet, UNetFeNet
from afd_mobile.network.published import BaselineFdeNet, BaselineFeNet

ARCHITECTURES = ("mobile", "paper", "baseline")
CHECKPOINT_FORMAT = "afd-mobile/"  # and a number: in the metadata of checkpoints
DRIFT_INPUTS = (*FRONT_ENDS, "none")
# No classifier has as many. Products of two of them still count elements in 64 bits.
MAX_CHANNELS = 1 << 16
ACTIVATIONS = {"identity": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}


@dataclass(frozen=True)
class AfdConfig:
    """Everything that determines an AFD-Module's architecture; stored in its checkpoint.

    Attributes:
        architecture: `paper` (U-Net), `baseline` (the authors' code), or `mobile` (block scale),
            which is no longer trained.
        channels: C of the tapped features.
        stride: picture pixels per position of the tapped features: 1, 2, 4 or 8.
        activation: what the classifier applied last before the tap; applied again after the
            correction, so that corrected features stay in the range that clean ones have.
        fe_widths: channels of FE-Net, outermost first.
        fde_widths: channels after each stage of FDE-Net.
        drift_input: what FDE-Net sees: `dct`, or an ablation of tables II and III.
    """

    architecture: str
    channels: int
    stride: int
    activation: str
    fe_widths: tuple[int, ...]
    fde_widths: tuple[int, ...]
    drift_input: str = "dct"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"unknown AFD architecture {self.architecture!r}")
        widths = (self.channels, self.stride, *self.fe_widths, *self.fde_widths)
        possible = all(type(n) is int and 0 < n <= MAX_CHANNELS for n in widths)  # a bool is not
        if not possible or not self.fde_widths:
            raise InputError(
                "channels, stride and widths must be positive integers up to "
                f"{MAX_CHANNELS}: {self}"
            )
        if self.stride not in (1, 2, 4, 8):
            raise InputError(
                f"a tap with stride {self.stride} cannot be corrected: one position covers more "
                f"than an {BLOCK}x{BLOCK} block; choose a shallower one"
            )
        if self.drift_input not in DRIFT_INPUTS:
            raise InputError(f"unknown drift input {self.drift_input!r}")
        if self.drift_input != "dct" and self.architecture == "baseline":
            raise InputError("the authors' architecture has no ablations here")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {self.activation!r}")
        levels = _halvings(self.stride) or 1 if self.architecture == "mobile" else 3
        if len(self.fe_widths) != levels:
            raise InputError(f"FE-Net needs {levels} widths here: {self}")
        if self.architecture == "mobile" and self.fe_widths[-1] != self.fde_widths[-1]:
            raise InputError(f"the map must have as many channels as FE-Net's inside: {self}")

    @classmethod
    def paper(
        cls, *, channels: int, stride: int, activation: str, drift_input: str = "dct"
    ) -> AfdConfig:
        """The preset `paper` for a tap of this shape."""
        fe_widths, fde_widths = (16, 32, 64), (128, 64, 32)
        return cls("paper", channels, stride, activation, fe_widths, fde_widths, drift_input)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AfdConfig:
        """The inverse of `dataclasses.asdict` after JSON; unknown or missing keys are refused."""
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            raise InputError(
                f"AFD configuration with keys {sorted(values)}, expected {sorted(names)}"
            )
        unpacked: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**unpacked)


def _halvings(stride: int) -> int:
    """Strided convolutions from a tap to the block's scale; 0 where none fits."""
    return int(math.log2(BLOCK / stride)) if stride in (1, 2, 4, 8) else 0


class AfdModule(nn.Module):
    """Corrects tapped features: features + FE-Net(features, FDE-Net(picture)), then the activation.

    Shapes: features (N, C, h, w), picture (N, 3, H, W) -> (N, C, h, w), with H = stride * h or
    one position less, H and W multiples of 8. The picture is RGB, 0 to 255.
    """

    def __init__(self, config: AfdConfig) -> None:
        super().__init__()
        self.config = config
        c, s = config.channels, config.stride
        self.fde_net: nn.Module
        if config.architecture == "baseline":
            self.fde_net = BaselineFdeNet(config.fde_widths)
        elif config.drift_input == "none":
            self.fde_net = NoDriftMap(config.fde_widths[-1])
        else:
            self.fde_net = FdeNet(config.fde_widths, config.drift_input)
        self.fe_net: BaselineFeNet | UNetFeNet | BlockScaleFeNet
        if config.architecture == "baseline":
            self.fe_net = BaselineFeNet(c, config.fe_widths)
        elif config.architecture == "paper":
            self.fe_net = UNetFeNet(c, s, config.fe_widths, config.fde_widths[-1])
        else:
            self.fe_net = BlockScaleFeNet(c, s, config.fe_widths)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        corrected: Tensor = self.activation(features + self.fe_net(features, self.fde_net(image)))
        return corrected

    def reset_to_identity(self) -> None:
        """Makes the correction zero: where training starts."""
        self.fe_net.reset_to_zero()
