from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from afd_export.graph import DeployedGraph, SubtractMean, fold_normalization
from afd_mobile.afd_module import AfdConfig, AfdModule
from afd_mobile.artifacts import InputRange, Scope
from afd_mobile.backbone_names import Factory
from afd_mobile.backbones import Backbone, load_backbone
from afd_mobile.fusion import fuse

ARCHITECTURES = ("mobile", "paper", "baseline")


@pytest.fixture
def image() -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (2, 3, 64, 64)).astype(np.float32))


def make_afd(backbone: Backbone, architecture: str = "mobile") -> AfdModule:
    c, s, act = backbone.channels, backbone.stride, backbone.activation
    if architecture == "baseline":
        config = AfdConfig("baseline", c, s, act, (16, 32, 64), (64, 32, c))
    else:
        config = AfdConfig.preset(architecture, channels=c, stride=s, activation=act)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AfdModule(config).eval().requires_grad_(False)


def normalized(image: Tensor, backbone: Backbone) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.mean, backbone.std))
    return (image / 255 - mean) / std


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scope", list(Scope))
def test_both_input_ranges_give_the_same_output(
    backbone: Backbone, image: Tensor, architecture: str, fused: bool, scope: Scope
) -> None:
    afd = make_afd(backbone, architecture)
    raw = DeployedGraph(backbone, afd, InputRange.RGB255, scope)
    other = DeployedGraph(backbone, afd, InputRange.NORMALIZED, scope)
    if fused:
        raw, other = fuse(raw), fuse(other)
    expected, actual = raw(image), other(normalized(image, backbone))
    scale = float(expected.max() - expected.min())
    assert scale > 0
    assert float((actual - expected).abs().max()) <= 1e-4 * scale


def test_the_normalized_graph_leaves_the_trained_module_as_it_was(
    backbone: Backbone, image: Tensor
) -> None:
    afd = make_afd(backbone)
    raw = DeployedGraph(backbone, afd, InputRange.RGB255, Scope.FEATURES)
    before = raw(image)
    DeployedGraph(backbone, afd, InputRange.NORMALIZED, Scope.FEATURES)
    assert torch.equal(raw(image), before)


def test_without_a_module_it_is_the_classifier_itself(backbone: Backbone, image: Tensor) -> None:
    graph = DeployedGraph(backbone, None, InputRange.NORMALIZED, Scope.CLASSIFIER)
    assert torch.equal(graph(image), backbone.tail(backbone.head(image)))


def test_the_module_changes_the_output(backbone: Backbone, image: Tensor) -> None:
    plain = DeployedGraph(backbone, None, InputRange.RGB255, Scope.CLASSIFIER)
    corrected = DeployedGraph(backbone, make_afd(backbone), InputRange.RGB255, Scope.CLASSIFIER)
    assert not torch.allclose(plain(image), corrected(image))


def test_features_are_what_the_tail_takes(backbone: Backbone, image: Tensor) -> None:
    afd = make_afd(backbone)
    features = DeployedGraph(backbone, afd, InputRange.RGB255, Scope.FEATURES)(image)
    logits = DeployedGraph(backbone, afd, InputRange.RGB255, Scope.CLASSIFIER)(image)
    assert features.shape == (2, backbone.channels, 32, 32)
    assert torch.equal(backbone.tail(features), logits)
    assert float(features.min()) >= 0  # the tap's ReLU comes after the correction as well


def test_the_graph_is_in_eval_mode(backbone: Backbone) -> None:
    graph = DeployedGraph(backbone, make_afd(backbone).train(), InputRange.RGB255, Scope.CLASSIFIER)
    assert not any(module.training for module in graph.modules())


@pytest.mark.parametrize("tap", ["stem", "act1"])
def test_folding_the_normalisation_changes_nothing(
    in_tiny_dir: Path, image: Tensor, tap: str
) -> None:
    backbone = load_backbone(Factory("tinynet:make"), tap=tap, weights="random", input_size=64)
    graph = DeployedGraph(backbone, make_afd(backbone), InputRange.RGB255, Scope.CLASSIFIER)
    expected = graph(image)
    folded = fold_normalization(fuse(graph))
    assert isinstance(folded.normalize, SubtractMean)
    actual = folded(image)
    assert float((actual - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())
    # The trained graph keeps its weights.
    torch.testing.assert_close(graph(image), expected, rtol=0, atol=0)


def test_a_normalised_input_has_nothing_to_fold(backbone: Backbone, image: Tensor) -> None:
    graph = DeployedGraph(backbone, make_afd(backbone), InputRange.NORMALIZED, Scope.CLASSIFIER)
    expected = graph(image)
    torch.testing.assert_close(fold_normalization(fuse(graph))(image), fuse(graph)(image))
    assert expected.shape == (2, 10)
