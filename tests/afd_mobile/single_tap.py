"""Configurations of modules with a single tap: the paper's, and those of older checkpoints."""

from __future__ import annotations

from afd_mobile.network.afd_module import AfdConfig

SINGLE_TAP = ("mobile", "paper")
# FE-Net's widths by the tap's stride, as they were trained.
MOBILE_WIDTHS = {1: (8, 16, 40), 2: (16, 40), 4: (44,), 8: (96,)}


def single_tap_config(
    architecture: str, *, channels: int, stride: int, activation: str, drift_input: str = "dct"
) -> AfdConfig:
    if architecture == "paper":
        return AfdConfig.paper(
            channels=channels, stride=stride, activation=activation, drift_input=drift_input
        )
    widths = MOBILE_WIDTHS[stride]
    fde_widths = (64, 64, widths[-1])
    return AfdConfig(architecture, channels, stride, activation, widths, fde_widths, drift_input)
