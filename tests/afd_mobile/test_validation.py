from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from afd_mobile.afd_module import AfdModule
from afd_mobile.backbones import Backbone, bundled_weights
from afd_mobile.datasets import centre_crop, spread_crops
from afd_mobile.degrade import QUALITIES, jpeg
from afd_mobile.picture_files import list_images, read_image
from afd_mobile.validation import Validation
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config

CPU = torch.device("cpu")
CONDITIONS = ["clean", *map(str, QUALITIES)]


@pytest.fixture(scope="module")
def images(photos: Path) -> list[Path]:
    return list_images(photos)


@pytest.fixture(scope="module")
def three(mobilenet: Backbone, images: list[Path]) -> Validation:
    return Validation(mobilenet, spread_crops(images, 3, 224)[0], CPU)


def new_module(backbone: Backbone) -> AfdModule:
    torch.manual_seed(0)
    return AfdModule(
        single_tap_config(
            "mobile",
            channels=backbone.channels,
            stride=backbone.stride,
            activation=backbone.activation,
        )
    ).eval()


def whole_classifier() -> nn.Module:
    network: nn.Module = models.mobilenet_v2(weights=None).eval()
    network.load_state_dict(load_file(bundled_weights("mobilenet_v2")))
    return network


def test_direct_agreement_is_the_whole_classifiers(
    three: Validation, mobilenet: Backbone, images: list[Path]
) -> None:
    network, top1 = whole_classifier(), np.empty((3, 6), dtype=np.int64)
    for i, path in enumerate(images):
        crop = centre_crop(read_image(path), 224)
        for j, quality in enumerate((None, *QUALITIES)):
            x = (jpeg(crop, quality) / 255 - np.array(mobilenet.mean)) / np.array(mobilenet.std)
            with torch.no_grad():
                logits = network(torch.from_numpy(x).permute(2, 0, 1)[None].float())
            top1[i, j] = logits.argmax()
    expected = (top1 == top1[:, :1]).mean(axis=0)
    assert three.direct == dict(zip(CONDITIONS, expected, strict=True))
    assert three.direct["clean"] == 1 and min(three.direct.values()) < 1


def test_no_correction_agrees_as_direct(three: Validation, mobilenet: Backbone) -> None:
    module = new_module(mobilenet)
    module.reset_to_identity()
    assert three.corrected(module) == three.direct
    assert three.recovered_share(three.direct) == 0


def test_the_correction_is_applied(three: Validation, mobilenet: Backbone) -> None:
    module = new_module(mobilenet)
    with torch.no_grad():  # whatever the picture, the classifier sees noise
        module.get_parameter("fe_net.out.weight").mul_(1e4)
    corrected = three.corrected(module)
    assert list(corrected) == CONDITIONS
    assert corrected["clean"] < 1


def test_corrections_inside_the_classifier_are_applied(
    three: Validation, mobilenet: Backbone
) -> None:
    module = inside_module(mobilenet, "residual:features.13")
    module.reset_to_identity()
    assert three.corrected(module) == three.direct
    with torch.no_grad():
        module.get_parameter("corrections.0.leave.weight").normal_(0, 1e4)
    assert three.corrected(module)["clean"] < 1


def test_the_recovered_share_by_hand(three: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = {"clean": 1.0, "25": 0.5, "18": 1.0, "15": 0.2, "10": 0.0, "7": 0.5}
    monkeypatch.setattr(three, "direct", direct)
    # QF 18 lost nothing, so nothing can be recovered there.
    corrected = {"clean": 0.9, "25": 0.75, "18": 0.9, "15": 0.2, "10": 0.25, "7": 0.25}
    assert three.recovered_share(corrected) == pytest.approx((0.5 + 0.0 + 0.25 - 0.5) / 4)
    assert three.recovered_share(dict.fromkeys(CONDITIONS, 1.0)) == 1
    monkeypatch.setattr(three, "direct", dict.fromkeys(CONDITIONS, 1.0))
    assert three.recovered_share(corrected) == 0
