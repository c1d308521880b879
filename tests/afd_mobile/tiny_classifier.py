"""A classifier of ten classes that runs in milliseconds, its checkpoint, and pictures for it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.classifiers.names import Factory
from afd_mobile.network.afd_module import AfdModule
from tests.afd_mobile.single_tap import single_tap_config

NAME, TAP = "tests.afd_mobile.tiny_classifier:make", "act"
FACTORY = Factory(NAME)  # as if it had been typed
CLASSES = [f"class {i}" for i in range(10)]


def make() -> nn.Sequential:
    """Seeded, and its last layer is wide enough apart that pictures get different classes."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        last = nn.Linear(16, len(CLASSES))
        model = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(3, 8, 3, stride=2, padding=1),
                act=nn.ReLU(),
                conv=nn.Conv2d(8, 16, 3, stride=4),
                act2=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classes=last,
            )
        )
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.normal_(last.weight, std=3.0)
        nn.init.zeros_(last.bias)
        typical = [model(normalized(np.asarray(random_picture(1000 + i)))) for i in range(8)]
        last.bias.sub_(torch.cat(typical).mean(0))  # else one class wins always
    return model.eval()


def make_module(seed: int = 0) -> AfdModule:
    """A random correction for it, small enough to leave most classes alone."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        module = AfdModule(single_tap_config("mobile", channels=8, stride=2, activation="relu"))
        module.reset_to_identity()
        for p in module.parameters():
            p.add_(0.03 * torch.randn_like(p))
    return module.eval().requires_grad_(False)


def write_checkpoint(path: Path, module: AfdModule | None = None) -> Path:
    save_checkpoint(path, Checkpoint(module or make_module(), NAME, TAP, {}))
    return path


def normalized(image: NDArray[np.uint8]) -> torch.Tensor:
    """(S, S, 3) -> (1, 3, S, S), as ImageNet's classifiers are fed."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(((image / 255 - mean) / std).transpose(2, 0, 1)[None]).float()


def random_picture(seed: int, size: int = 224) -> Image.Image:
    """Smooth blobs with some noise, which JPEG takes away."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=float)
    noisy = smooth + rng.normal(0, 18, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, count: int) -> Path:
    """Pictures in folders named by class: four of five by what the classifier says of them."""
    model = make()
    for number in range(count):
        picture = random_picture(number)
        with torch.no_grad():
            says = int(model(normalized(np.asarray(picture))).argmax())
        place = folder / CLASSES[says if number % 5 else number % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:03}.png")
    return folder


def write_labels(path: Path) -> Path:
    path.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return path
