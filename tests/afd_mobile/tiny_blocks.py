"""A MobileNetV2 of four narrow blocks, for ten classes, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import MobileNetV2

from afd_mobile.backbone_names import Factory
from tests.afd_mobile.tiny_classifier import random_picture

SIZE = 96
NAME = "tests.afd_mobile.tiny_blocks:make"
FACTORY = Factory(NAME)  # as if it had been typed


def make() -> nn.Module:
    """Seeded, with answers that are far apart."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        settings = [[2, 32, 1, 2]] * 4  # expansion, C, blocks, stride
        model: nn.Module = MobileNetV2(10, width_mult=0.25, inverted_residual_setting=settings)
        for parameter in model.get_submodule("classifier").parameters():
            parameter.normal_()
    return model.eval()


def write_pictures(folder: Path) -> Path:
    """Eight, of which the last is held out."""
    for number in range(8):
        random_picture(number, SIZE).save(folder / f"{number}.png")
    return folder
