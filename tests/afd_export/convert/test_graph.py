from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from afd_export.convert.graph import DeployedGraph, SubtractMean, fold_normalization
from afd_export.convert.to_onnx import export_onnx, run_onnx
from afd_export.pipeline import _costs
from afd_export.source import ExportSource
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.names import Factory
from afd_mobile.common.artifacts import InputRange, Scope
from afd_mobile.network.afd_module import AfdConfig, AfdModule
from afd_mobile.network.cost import cost_of
from afd_mobile.network.fusion import fuse
from afd_mobile.network.repconv import RepConv
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config

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
        config = single_tap_config(architecture, channels=c, stride=s, activation=act)
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


# --- several places -----------------------------------------------------------------------------

PLACES = ("scale:act2", "residual:act2", "residual:act3")


@pytest.mark.parametrize(
    "input_range",
    [InputRange.RGB255, pytest.param(InputRange.NORMALIZED, marks=pytest.mark.long)],
)
def test_a_graph_with_several_places_fused_and_as_onnx(
    backbone: Backbone, image: Tensor, input_range: InputRange, tmp_path: Path
) -> None:
    """One result before and after fusing, from either input, and on onnxruntime."""
    afd = inside_module(backbone, *PLACES, size=0.1)
    trained = DeployedGraph(backbone, afd, InputRange.RGB255, Scope.CLASSIFIER)
    image = torch.cat([image, image.flip(3)])
    expected, plain = trained(image), backbone.tail(backbone.head(normalized(image, backbone)))
    scale = float(expected.max() - expected.min())
    assert float((expected - plain).abs().max()) > 0.05 * scale
    graph = DeployedGraph(backbone, afd, input_range, Scope.CLASSIFIER)
    deployed = fold_normalization(fuse(graph))
    assert not any(isinstance(module, RepConv) for module in deployed.modules())
    given = image if input_range is InputRange.RGB255 else normalized(image, backbone)
    assert float((deployed(given) - expected).abs().max()) <= 1e-4 * scale
    path = tmp_path / "graph.onnx"
    export_onnx(deployed, backbone.input_size, "logits", path)
    found = torch.from_numpy(run_onnx(path, given.numpy()))
    assert float((found - expected).abs().max()) <= 1e-4 * scale
    torch.testing.assert_close(trained(image), expected, rtol=0, atol=0)  # its weights stayed


def test_the_module_alone_is_what_the_classifier_costs_more(backbone: Backbone) -> None:
    """A 64x64 picture; by hand, fused: the map 64 x (192 x 12 + 12 x 8), the summary and
    context 8 x 6 + 6 x 8, the gate's filters on a quarter of the blocks, a scale 6 x 16, the map
    at strides 4 and 2 by transposed convolutions 64 x 64 x 4 and 256 x 64 x 4, residuals
    10 x 8 x C x positions."""
    afd = inside_module(backbone, *PLACES)
    trained = DeployedGraph(backbone, afd, InputRange.RGB255, Scope.CLASSIFIER)
    source = ExportSource("tiny", backbone, afd, None, None, "", False, [])
    cost = _costs(source, trained, fold_normalization(fuse(trained)))["afd"]["deployed"]
    by_hand = (
        64 * (192 * 12 + 12 * 8) + (8 * 6 + 6 * 8) + 6 * 16
        + 64 // 4 * 192 * 76 + 76 * 48 + 48
        + 64 * 64 * 4 + 256 * 64 * 4
        + 10 * 8 * (16 * 32**2 + 32 * 16**2)
    )  # fmt: skip
    assert cost.multiply_adds == by_hand
    own = cost_of(fuse(afd), torch.zeros(1, 3, 64, 64)).parameters
    assert cost.parameters == own
