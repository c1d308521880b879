from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import InputError
from afd_mobile.network.afd_module import DRIFT_INPUTS, AfdConfig, AfdModule
from afd_mobile.network.cost import cost_of
from afd_mobile.network.fusion import fuse
from tests.afd_mobile.single_tap import SINGLE_TAP, single_tap_config

BASELINE = AfdConfig("baseline", 64, 2, "relu", (16, 32, 64), (128, 64, 64))


def config_of(
    architecture: str, channels: int = 12, stride: int = 2, activation: str = "relu"
) -> AfdConfig:
    return single_tap_config(architecture, channels=channels, stride=stride, activation=activation)


def inputs(channels: int, size: int, picture: int) -> tuple[Tensor, Tensor]:
    return torch.randn(1, channels, size, size), torch.rand(1, 3, picture, picture) * 255


@pytest.mark.parametrize("name", SINGLE_TAP)
@pytest.mark.parametrize(
    ("stride", "size", "picture"),
    [(1, 64, 64), (2, 32, 64), (4, 16, 64), (8, 8, 64), (2, 111, 224)],
)
def test_output_has_the_features_shape(name: str, stride: int, size: int, picture: int) -> None:
    module = AfdModule(config_of(name, stride=stride)).eval()
    features, image = inputs(12, size, picture)
    with torch.no_grad():
        expected = module(features, image)
        assert expected.shape == features.shape
        assert fuse(module)(features, image).shape == features.shape


def test_the_paper_preset_keeps_the_papers_budget() -> None:
    fused = fuse(AfdModule(config_of("paper", 64)).eval())
    cost = cost_of(fused, *inputs(64, 112, 224))
    assert cost.parameters <= 120_000
    assert cost.multiply_adds <= 360_000_000


def test_the_block_scale_network_keeps_its_budget_at_mobilenets_tap(mobilenet: Backbone) -> None:
    module = AfdModule(config_of("mobile", mobilenet.channels, mobilenet.stride))
    cost = cost_of(fuse(module.eval()), *inputs(mobilenet.channels, mobilenet.feature_size, 224))
    assert cost.parameters <= 120_000
    assert cost.multiply_adds <= 60_000_000


@pytest.mark.parametrize("config", [config_of("paper"), config_of("mobile"), BASELINE])
@pytest.mark.parametrize("activation", ["identity", "relu", "relu6"])
def test_reset_to_identity_leaves_the_activation_alone(config: AfdConfig, activation: str) -> None:
    config = dataclasses.replace(config, activation=activation)
    module = AfdModule(config).eval()
    features, image = inputs(config.channels, 16, 32)
    features *= 5
    apply = {"identity": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}[activation]
    with torch.no_grad():
        assert not torch.equal(module(features, image), apply(features))
        module.reset_to_identity()
        assert torch.equal(module(features, image), apply(features))


ABLATIONS = [
    dataclasses.replace(config_of("mobile"), drift_input=drift_input)
    for drift_input in DRIFT_INPUTS
]


@pytest.mark.parametrize("config", [config_of("paper"), BASELINE, *ABLATIONS])
def test_multi_branch_and_fused_agree(
    config: AfdConfig, randomize: Callable[[nn.Module], None]
) -> None:
    module = AfdModule(config).eval()
    randomize(module)
    features, image = inputs(config.channels, 32, 64)
    with torch.no_grad():
        expected, actual = module(features, image), fuse(module)(features, image)
    assert (expected - features.relu()).abs().max() > 1e-2
    assert (actual - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("config", [config_of("paper"), config_of("mobile", 7, 8), BASELINE])
def test_configuration_survives_json(config: AfdConfig) -> None:
    text = json.dumps(dataclasses.asdict(config))
    assert AfdConfig.from_dict(json.loads(text)) == config


def test_unknown_and_missing_keys_are_refused() -> None:
    values = dataclasses.asdict(config_of("paper"))
    with pytest.raises(InputError, match="depth"):
        AfdConfig.from_dict({**values, "depth": 3})
    del values["stride"]
    with pytest.raises(InputError, match="stride"):
        AfdConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 16}, "stride 16"),
        ({"stride": 3}, "stride 3"),
        ({"activation": "gelu"}, "gelu"),
        ({"architecture": "vit"}, "vit"),
        ({"drift_input": "audio"}, "audio"),
        ({"channels": 0}, "positive"),
        ({"fe_widths": (16, -1)}, "positive"),
        ({"fe_widths": (16, 32)}, "as many channels"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(config_of("mobile"), **change)


def test_the_authors_architecture_has_no_ablations() -> None:
    with pytest.raises(InputError, match="no ablations"):
        dataclasses.replace(BASELINE, drift_input="pixels")


def test_no_drift_input_leaves_the_features_alone_to_decide() -> None:
    module = AfdModule(dataclasses.replace(config_of("mobile"), drift_input="none")).eval()
    features, image = inputs(12, 16, 32)
    with torch.no_grad():
        corrected = module(features, image)
        assert torch.equal(corrected, module(features, 255 - image))
        assert not torch.equal(corrected, features.relu())
