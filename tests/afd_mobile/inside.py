"""A module inside a classifier, whose corrections are not zero."""

from __future__ import annotations

import torch

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.classifiers.choose import choose_places
from afd_mobile.network.corrections import InsideConfig, InsideModule
from afd_mobile.network.taps import AUTO

WIDTH = 8


def inside_config(backbone: Backbone, *wanted: str) -> InsideConfig:
    places = choose_places(backbone, wanted or [AUTO], WIDTH)
    return InsideConfig(places, fde_widths=(12, WIDTH), summary=6)


def inside_module(backbone: Backbone, *wanted: str, size: float = 0.05) -> InsideModule:
    """In eval mode, its last layers random, so that it changes the logits somewhat."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        module = InsideModule(inside_config(backbone, *wanted))
        module.reset_to_identity()
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)
