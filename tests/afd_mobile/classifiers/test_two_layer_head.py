"""A head of two layers where the library's network has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from afd_mobile.classifiers.backbones import load_backbone
from afd_mobile.common.errors import InputError

USUAL = (nn.Dropout(0.2), nn.Linear(1280, 24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 10))


def fine_tuned(*head: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    network: nn.Module = models.mobilenet_v2()
    network.classifier = nn.Sequential(*head)
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_it_is_taken_and_said(tmp_path: Path, prefix: str) -> None:
    network = fine_tuned(*USUAL)
    path = tmp_path / "my10.pth"
    torch.save({"model": {prefix + k: v for k, v in network.state_dict().items()}}, path)
    backbone = load_backbone("mobilenet_v2", weights=str(path))
    assert backbone.classes == 10
    assert backbone.notices == (
        "my10.pth: a head of two layers is taken, 1280 to 24 to 10, with a ReLU between them, as "
        "is usual; if yours computes otherwise, give the network as a factory",
    )
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), network(x))


@pytest.mark.parametrize(
    "head",
    [
        (nn.Linear(1280, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10)),
        (nn.Linear(1280, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)),
    ],
    ids=["with a norm", "three layers"],
)
def test_another_head_needs_a_factory(tmp_path: Path, head: tuple[nn.Module, ...]) -> None:
    torch.save(fine_tuned(*head).state_dict(), tmp_path / "my10.pth")
    with pytest.raises(InputError, match=r"your own as a factory: package\.module:factory"):
        load_backbone("mobilenet_v2", weights=str(tmp_path / "my10.pth"))
