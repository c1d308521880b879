"""A MobileNetV2 of four narrow blocks, for ten classes, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import MobileNetV2

from afd_mobile.classifiers.names import Factory
from tests.afd_mobile.tiny_classifier import normalized, random_picture

SIZE = 96
NAME = "tests.afd_mobile.tiny_blocks:make"
FACTORY = Factory(NAME)  # as if it had been typed


def make() -> nn.Module:
    """Seeded, with answers that are far apart, and that depend on the picture."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        settings = [[2, 32, 1, 2]] * 4  # expansion, C, blocks, stride
        model: nn.Module = MobileNetV2(10, width_mult=0.25, inverted_residual_setting=settings)
        last = model.get_submodule("classifier.1")
        for parameter in last.parameters():
            parameter.normal_()
        pictures = [normalized(np.asarray(random_picture(1000 + i, SIZE))) for i in range(8)]
        typical = torch.cat(pictures)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics are those of all that it has seen
        model.train()(typical)
        last.get_parameter("bias").sub_(model.eval()(typical).mean(0))  # else one class wins always
    return model


def write_pictures(folder: Path) -> Path:
    """Eight, of which the last is held out."""
    for number in range(8):
        random_picture(number, SIZE).save(folder / f"{number}.png")
    return folder
