from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.choose import check_places, choose_places
from afd_mobile.classifiers.places import corrected, corrected_tail, marked
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.corrections import Place
from afd_mobile.network.cost import cost_of
from afd_mobile.network.taps import AUTO
from afd_mobile.training.frozen_classifier import frozen
from afd_mobile.training.objectives import InsideDistill
from tests.afd_mobile.inside import WIDTH, inside_config, inside_module

CPU = torch.device("cpu")
NAMES = ("mobilenet_v2", "squeezenet1_1", "resnet50", "repvgg_a2", "tf_efficientnet_lite0")
TAPS = {"tf_efficientnet_lite0": "blocks.2"}


@pytest.fixture(scope="module", params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(
        request.param, tap=TAPS.get(request.param), weights="random", input_size=96
    )


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64)).float()


def kinds(places: tuple[Place, ...], kind: str) -> list[str]:
    return [place.node for place in places if place.kind == kind]


# --- surgery ------------------------------------------------------------------------------------


def test_corrections_of_zero_leave_the_logits_and_others_do_not(
    backbone: Backbone, pictures: Tensor
) -> None:
    """Whatever the network is made of; odd feature sizes, blocks that are one leaf."""
    module = inside_module(backbone)
    with torch.no_grad():
        features = backbone.head(pictures / 255)
        plain = backbone.tail(features)
        tail = corrected_tail(backbone.tail, module)
        assert not torch.allclose(tail(features, module(pictures)), plain, rtol=0.01)
        module.reset_to_identity()
        assert torch.equal(tail(features, module(pictures)), plain)
        assert torch.equal(marked(backbone.tail, module.config.places)(features), plain)


def test_every_network_is_distilled_inside(backbone: Backbone) -> None:
    """Frozen, with the corrections in its graph: each of them learns."""
    module = inside_module(backbone).train().requires_grad_(True)
    module.reset_to_identity()
    clean = torch.randint(0, 256, (2, 3, 64, 64)).float()
    degraded = (clean + 40 * torch.randn_like(clean)).clamp(0, 255)
    InsideDistill(module, backbone, 64, CPU)(clean, degraded).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or not name.endswith(("linear.weight", "leave.weight")), name


def test_the_corrected_tail_is_the_hooked_network(mobilenet: Backbone, pictures: Tensor) -> None:
    """Against torchvision's own network with the corrections as hooks on its modules."""
    module = inside_module(mobilenet, "scale:features.8.conv.1", "residual:features.9")
    with torch.no_grad():
        features, guide = mobilenet.head(pictures / 255), module(pictures)
        found = corrected_tail(mobilenet.tail, module)(features, guide)
        x = features
        scale, residual = module.corrections
        parts = mobilenet.tail.get_submodule("features")
        x = block(parts, 7, x)
        hidden = scale(run(parts, 8, 1, run(parts, 8, 0, x)), guide)
        x = x + run(parts, 8, 3, run(parts, 8, 2, hidden))
        x = residual(block(parts, 9, x, skip=True), guide)
        for number in range(10, 18):
            x = block(parts, number, x, skip=number not in (11, 14, 17))
        x = run(parts, 18, None, x).mean((2, 3))
        expected = mobilenet.tail.get_submodule("classifier.1")(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def run(parts: nn.Module, number: int, inner: int | None, x: Tensor) -> Tensor:
    """One convolution with what belongs to it, or a bare layer, of a torchvision block."""
    module = parts.get_submodule(str(number))
    if inner is not None:
        module = module.get_submodule(f"conv.{inner}")
    for child in list(module.children()) or [module]:
        x = child(x)
    return x


def block(parts: nn.Module, number: int, x: Tensor, *, skip: bool = False) -> Tensor:
    hidden = x
    for inner in range(4):
        hidden = run(parts, number, inner, hidden)
    return x + hidden if skip else hidden


def test_the_classifiers_own_weights_stay(mobilenet: Backbone, pictures: Tensor) -> None:
    before = {k: v.clone() for k, v in mobilenet.tail.state_dict().items()}
    own = {id(p) for p in mobilenet.tail.parameters()}
    module = inside_module(mobilenet).requires_grad_(True)
    tail = corrected_tail(mobilenet.tail, module)
    tail(mobilenet.head(pictures / 255), module(pictures)).square().mean().backward()
    torch.optim.SGD([p for p in tail.parameters() if p.requires_grad], 0.1).step()
    after = mobilenet.tail.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in after.items())
    trained = {id(p) for p in tail.parameters() if p.grad is not None}
    assert trained and trained <= {id(p) for p in module.parameters()}
    assert own <= {id(p) for p in tail.parameters()}  # no copies


def test_marks_outlive_freezing(mobilenet: Backbone, pictures: Tensor) -> None:
    """Folded and cast, the tail takes the corrections where they belong, and they learn."""
    module = inside_module(mobilenet).requires_grad_(True)
    with torch.no_grad():
        features, guide = mobilenet.head(pictures / 255), module(pictures)
        expected = corrected_tail(mobilenet.tail, module)(features, guide)
    fast = frozen(marked(mobilenet.tail, module.config.places), CPU).float()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    found = corrected(fast, module)(features, module(pictures))
    assert (found - expected).norm() < 0.1 * expected.norm()
    found.square().mean().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert all(p.grad is None for p in fast.parameters())


def test_two_corrections_of_one_node_follow_each_other(
    mobilenet: Backbone, pictures: Tensor
) -> None:
    module = inside_module(mobilenet, "residual:features.9", "scale:features.9")
    assert [place.kind for place in module.config.places] == ["scale", "residual"]
    graph = corrected_tail(mobilenet.tail, module).graph
    calls = [node for node in graph.nodes if str(node.target).startswith("correction_")]
    assert [node.target for node in calls] == ["correction_0", "correction_1"]
    assert calls[1].args[0] is calls[0] and len(calls[0].users) == 1


def test_the_tap_itself_can_be_corrected(mobilenet: Backbone, pictures: Tensor) -> None:
    module = inside_module(mobilenet, "residual:features.6")
    with torch.no_grad():
        features, guide = mobilenet.head(pictures / 255), module(pictures)
        found = corrected_tail(mobilenet.tail, module)(features, guide)
        assert torch.equal(found, mobilenet.tail(module.corrections[0](features, guide)))


# --- the rule -----------------------------------------------------------------------------------


def test_the_rule_on_mobilenet(mobilenet: Backbone) -> None:
    places = choose_places(mobilenet, [AUTO], 32)
    assert kinds(places, "scale") == [f"features.{n}.conv.1.2" for n in range(7, 18)]
    residuals = ["features.9.add", "features.11.conv.3", "features.13.add", "features.17.conv.3"]
    assert kinds(places, "residual") == residuals
    shapes = [(p.channels, p.stride, p.width) for p in places if p.kind == "residual"]
    assert shapes == [(64, 16, 32), (96, 16, 32), (96, 16, 32), (320, 32, 32)]
    assert places[-2:] == (
        Place("scale", "features.17.conv.1.2", 960, 32, 0),
        Place("residual", "features.17.conv.3", 320, 32, 32),
    )


RULE = {
    "mobilenet_v2": (11, ["features.9.add", "features.11.conv.3"]),
    "squeezenet1_1": (8, ["features.7.squeeze_activation", "features.10.squeeze_activation"]),
    "resnet50": (16, ["layer3.1.relu_2", "layer3.3.relu_2"]),
    "repvgg_a2": (21, ["stages.0.1", "stages.1.3"]),
    "tf_efficientnet_lite0": (11, ["blocks.3.1.add", "blocks.4.0.bn3"]),
}


def test_the_rule_on_every_network(backbone: Backbone) -> None:
    places = choose_places(backbone, [AUTO], 32)
    counts = Counter(place.kind for place in places)
    scales, first_residuals = RULE[backbone.name]
    assert counts.keys() == {"scale", "residual"}
    assert counts["scale"] == scales and counts["residual"] <= 4
    assert kinds(places, "residual")[:2] == first_residuals
    relu = {place.activation for place in places if place.kind == "residual"}
    linear = backbone.name in ("mobilenet_v2", "tf_efficientnet_lite0")
    assert relu == ({"identity"} if linear else {"relu"})
    check_places(backbone, places, "this")


def test_the_rule_on_a_network_without_named_taps() -> None:
    """It is cut behind its last block at stride 8; 4 + 3 + 3 + 1 blocks follow."""
    backbone = load_backbone("mobilenetv2_050", weights="random", input_size=64)
    places = choose_places(backbone, [AUTO], 32)
    blocks = [f"blocks.{stage}.{n}" for stage, depth in ((3, 4), (4, 3), (5, 3), (6, 1))
              for n in range(depth)]  # fmt: skip
    assert kinds(places, "scale") == [f"{block}.bn2" for block in blocks]
    assert 0 < len(kinds(places, "residual")) <= 4


def test_maps_of_one_position_are_left_alone() -> None:
    """Of 32 pixels, MobileNetV2's last blocks leave one."""
    backbone = load_backbone("mobilenet_v2", weights="random", input_size=32)
    places = choose_places(backbone, [AUTO], 32)
    assert kinds(places, "scale") == [f"features.{n}.conv.1.2" for n in range(7, 14)]
    assert max(place.stride for place in places) == 16


def test_a_residuals_price_is_its_fused_convolutions(mobilenet: Backbone) -> None:
    """features.13 at 14x14: 10 x 96 x 32 x 196 = 6.0 M, below a 40th of 301 M; 64 wide is above."""
    plain = cost_of(mobilenet.head, torch.zeros(1, 3, 224, 224)).multiply_adds
    plain += cost_of(mobilenet.tail, torch.zeros(1, 32, 28, 28)).multiply_adds
    assert 10 * 96 * 32 * 196 < plain / 40 < 10 * 96 * 64 * 196
    assert "features.13.add" not in kinds(choose_places(mobilenet, [AUTO], 64), "residual")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("features.8", "KIND:NODE"),
        ("pooled:features.8", "KIND of scale, residual; a plain NODE"),
        ("scale:features.2", "no node features.2 behind its tap features.6"),
        ("residual:adaptive_avg_pool2d", r"shape \(1, 1280, 1, 1\) is no feature map; choose a n"),
        ("scale:flatten", r"shape \(1, 1280\) is no feature map"),
        ("auto:features.8", "KIND:NODE"),
    ],
)
def test_what_is_typed_wrongly(mobilenet: Backbone, wanted: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_places(mobilenet, [wanted], WIDTH)


def test_a_place_that_the_classifier_does_not_have(mobilenet: Backbone) -> None:
    (place,) = inside_config(mobilenet, "residual:features.9").places
    with pytest.raises(InputError, match=r"no node 'features\.99'"):
        check_places(mobilenet, [dataclasses.replace(place, node="features.99")], "this")
    for other in (dataclasses.replace(place, channels=63), dataclasses.replace(place, stride=8)):
        with pytest.raises(InputError, match=r"this corrects .* mobilenet_v2 has 64, 16 there"):
            check_places(mobilenet, [other], "this")
