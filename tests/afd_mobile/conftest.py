"""What several tests share: random weights, photographs, a classifier, afd-train, a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import nn

from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.cli import train
from afd_mobile.common import plotting
from tests.afd_mobile.tiny_blocks import FACTORY, SIZE
from tests.commands import Outcome, exit_code_of

Randomize = Callable[[nn.Module], None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """(512, 512, 3)."""
    return np.asarray(data.astronaut())


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, photograph: NDArray[np.uint8]) -> Path:
    """A folder of three small pictures, none of them square."""
    folder = tmp_path_factory.mktemp("photos")
    for i, top in enumerate((0, 100, 250)):
        crop = photograph[top : top + 96, 60 * i : 60 * i + 110 + i]
        Image.fromarray(crop).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def many_photos(tmp_path_factory: pytest.TempPathFactory, photograph: NDArray[np.uint8]) -> Path:
    """Twenty, so that two of them are held out: 07 and 15."""
    folder = tmp_path_factory.mktemp("many_photos")
    for i in range(20):
        crop = photograph[20 * i : 20 * i + 70, 15 * i : 15 * i + 80]
        Image.fromarray(crop).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def mobilenet() -> Backbone:
    """MobileNetV2 with its weights, cut at its default tap."""
    return load_backbone("mobilenet_v2")


@pytest.fixture(scope="session")
def tiny_blocks() -> Backbone:
    """A MobileNetV2 of four narrow blocks for small pictures, cut at its default tap."""
    return load_backbone(FACTORY, input_size=SIZE)


AfdTrain = Callable[..., Outcome]


@pytest.fixture
def afd_train(capfd: pytest.CaptureFixture[str]) -> AfdTrain:
    """The command line in this process."""

    def run(*arguments: object) -> Outcome:
        code = exit_code_of(train.main, "afd-train", *arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`figure_of(draw, WHAT)`: the figure that `draw(WHAT)` makes, in place of its PNG."""

    def drawn(draw: Callable[[Any], bytes], what: object) -> Any:
        figures: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(plotting, "png", figures.append)
            draw(what)
        (figure,) = figures
        return figure

    return drawn


@pytest.fixture
def randomize() -> Randomize:
    """Biases and batch-norm statistics, which start at 0 and 1, become random."""

    def fill(module: nn.Module) -> None:
        with torch.no_grad():
            for name, p in module.named_parameters():
                if name.endswith("bias"):
                    p.normal_(0, 0.3)
            for m in module.modules():
                if isinstance(m, nn.BatchNorm2d):
                    assert m.running_mean is not None and m.running_var is not None
                    m.running_mean.normal_(0, 0.2)
                    m.running_var.uniform_(0.5, 1.5)
                    m.weight.uniform_(0.5, 1.5)

    return fill
