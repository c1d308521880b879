from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn
from torchvision import models

from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.training.frozen_classifier import (
    _StridedDepthwise,
    fast_type,
    frozen,
    with_deeper_features,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that computes with bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ],
)
def test_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
    avx512_bf16: bool,
    amx: bool,
    expected: torch.dtype,
    mobilenet: Backbone,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_type(CPU) == expected
    assert fast_type(torch.device("cuda")) == torch.bfloat16
    assert {p.dtype for p in frozen(mobilenet.head, CPU).parameters()} == {expected}


def bfloat16_picture(size: int) -> Tensor:
    """A smooth random picture, normalised: (2, 3, size, size)."""
    coarse = torch.randn(2, 3, size // 8, size // 8)
    return nn.functional.interpolate(coarse, size=size, mode="bilinear").bfloat16()


def relative_error(x: Tensor, expected: Tensor) -> float:
    return float((x.float() - expected).norm() / expected.norm())


@pytest.fixture(params=["mobilenet_v2", "squeezenet1_1", "tf_efficientnet_lite0"])
def backbone(request: pytest.FixtureRequest, mobilenet: Backbone) -> Backbone:
    return mobilenet if request.param == "mobilenet_v2" else load_backbone(request.param)


def test_the_frozen_copy_computes_the_same(backbone: Backbone) -> None:
    x = bfloat16_picture(96)
    head, tail = frozen(backbone.head, CPU), frozen(backbone.tail, CPU)
    with torch.no_grad():
        features = backbone.head(x.float())
        assert head(x).dtype == torch.bfloat16
        # Measured 0.025 and 0.020, the largest, for MobileNetV2, where bfloat16's eps is 0.008.
        assert relative_error(head(x), features) < 0.04
        assert relative_error(tail(features.bfloat16()), backbone.tail(features)) < 0.04


def test_the_frozen_copys_gradient_is_the_originals(backbone: Backbone) -> None:
    with torch.no_grad():
        features = backbone.head(bfloat16_picture(96).float())
    gradients = []
    for tail, dtype in (
        (backbone.tail, torch.float32),
        (frozen(backbone.tail, CPU), torch.bfloat16),
    ):
        x = features.clone().to(dtype).requires_grad_()
        tail(x).float().square().mean().backward()
        assert x.grad is not None
        gradients.append(x.grad.float())
    # Measured 0.18: a ReLU lets other positions through where bfloat16 rounds across zero.
    assert relative_error(gradients[1], gradients[0]) < 0.3


def test_the_original_stays_as_it_is(mobilenet: Backbone) -> None:
    before = {k: v.clone() for k, v in mobilenet.tail.state_dict().items()}
    copy = frozen(mobilenet.tail, CPU)
    after = mobilenet.tail.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in after.items())
    assert any(isinstance(m, nn.BatchNorm2d) for m in mobilenet.tail.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in copy.modules())
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in copy.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v2", "tf_efficientnet_lite0"])
def test_all_four_strided_depthwise_convolutions_are_replaced(name: str) -> None:
    backbone = load_backbone(name, weights="random")
    counts = [
        sum(isinstance(m, _StridedDepthwise) for m in frozen(part, CPU).modules())
        for part in (backbone.head, backbone.tail)
    ]
    assert counts == [2, 2]
    modules = frozen(backbone.tail, CPU).modules()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in modules)


def test_a_convolution_with_two_uses_keeps_its_batchnorms() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.one(self.conv(x)), self.two(self.conv(x))])

    network = Shared().eval()
    network.two.running_mean = torch.ones(3)
    x = torch.randn(1, 3, 8, 8).bfloat16()
    with torch.no_grad():
        copy = frozen(fx.symbolic_trace(network), CPU)
        assert relative_error(copy(x), network(x.float())) < 0.01


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 12), (1, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_the_strided_depthwises_gradient_is_autograds(
    same: bool, kernel: int, size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    build, padding = (Conv2dSame, 0) if same else (nn.Conv2d, kernel // 2)
    conv = build(6, 6, kernel, stride=2, padding=padding, groups=6).to(dtype)
    x = torch.randn(2, 6, *size, dtype=dtype, requires_grad=True)
    expected, actual = conv(x), _StridedDepthwise(conv)(x)
    assert torch.equal(actual, expected)
    weights = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
    (found,) = torch.autograd.grad((actual * weights).sum(), x)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


STRIDED_DEPTHWISE = {
    "in_channels": 6,
    "out_channels": 6,
    "kernel_size": 3,
    "stride": 2,
    "padding": 1,
    "groups": 6,
}


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({}, True),
        ({"kernel_size": 5, "padding": 2}, True),
        ({"bias": False}, False),
        ({"padding": 0}, False),
        ({"padding": (1, 0)}, False),
        ({"dilation": 2}, False),
        ({"stride": 1}, False),
        ({"stride": (2, 1)}, False),
        ({"kernel_size": (3, 5)}, False),
        ({"kernel_size": 4, "padding": 2}, False),
        ({"groups": 3}, False),
        ({"out_channels": 12}, False),
        ({"padding_mode": "circular"}, False),
    ],
)
def test_other_convolutions_are_left_alone(change: dict[str, object], replaced: bool) -> None:
    conv = nn.Conv2d(**{**STRIDED_DEPTHWISE, **change})  # type: ignore[arg-type]
    copy = frozen(fx.symbolic_trace(nn.Sequential(conv)), CPU)
    kinds = [type(m) for m in copy.modules() if isinstance(m, nn.Conv2d | _StridedDepthwise)]
    assert kinds == [_StridedDepthwise if replaced else nn.Conv2d]
    x = torch.randn(1, 6, 9, 9).bfloat16()
    with torch.no_grad():
        assert relative_error(copy(x), conv(x.float())) < 0.01


# --- deeper features ----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "deeper_sizes"), [(64, [4, 2]), (160, [10, 5]), (72, [5, 3])])
def test_mobilenets_deeper_features_are_its_tails_own(
    mobilenet: Backbone, size: int, deeper_sizes: list[int]
) -> None:
    with torch.no_grad():
        features = mobilenet.head(torch.randn(1, 3, size, size))
        outputs: dict[int, Tensor] = {}

        def record(_: nn.Module, __: object, output: Tensor) -> None:
            if output.ndim == 4:
                outputs[output.shape[-1]] = output

        hooks = [
            m.register_forward_hook(record)
            for m in mobilenet.tail.modules()
            if not list(m.children())
        ]
        expected_logits = mobilenet.tail(features)
        for hook in hooks:
            hook.remove()
        logits, *deeper = with_deeper_features(mobilenet.tail, features, size // 16 + 1)(features)
    assert torch.equal(logits, expected_logits)
    assert [d.shape[-1] for d in deeper] == deeper_sizes
    assert all(torch.equal(d, outputs[d.shape[-1]]) for d in deeper)


@pytest.mark.parametrize(("size", "deeper_sizes"), [(224, [27, 13]), (160, [19, 9]), (32, [3])])
def test_squeezenets_deeper_features_of_odd_size(size: int, deeper_sizes: list[int]) -> None:
    backbone = load_backbone("squeezenet1_1", weights="random")
    torch.manual_seed(0)
    whole = models.squeezenet1_1(weights=None).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, size, size)
        features = backbone.head(x)
        half = (features.shape[-1] + 1) // 2
        logits, *deeper = with_deeper_features(backbone.tail, features, half)(features)
        assert torch.equal(logits, whole(x))
        expected = [whole.features[:8](x), whole.classifier[:3](whole.features(x))]
    assert features.shape[-1] % 2 == 1
    assert [d.shape[-1] for d in deeper] == deeper_sizes
    for found, wanted in zip(deeper, expected[: len(deeper)], strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("largest", "expected"), [(3, []), (4, [4]), (7, [7, 4])])
def test_maps_above_the_largest_are_left_out(largest: int, expected: list[int]) -> None:
    tail = fx.symbolic_trace(
        nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 5),
        )
    )
    network = with_deeper_features(tail, torch.zeros(1, 2, 7, 7), largest)
    logits, *deeper = network(torch.randn(4, 2, 7, 7))
    assert logits.shape == (4, 5)
    assert [d.shape[-1] for d in deeper] == expected
