from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn

from afd_mobile.common.errors import InputError
from afd_mobile.network.corrections import (
    Factor,
    Guide,
    InsideConfig,
    InsideModule,
    Place,
    Residual,
    Scale,
    module_of,
)
from afd_mobile.network.fde_net import FdeNet
from afd_mobile.network.fusion import fuse
from afd_mobile.network.repconv import RepConv
from tests.afd_mobile.conftest import Randomize

SCALE = Place("scale", "a", channels=5, stride=16, width=0)
RESIDUALS = [Place("residual", f"r{s}", 5, s, width=4) for s in (2, 4, 8, 16, 32)]
CONFIG = InsideConfig((SCALE, *RESIDUALS), fde_widths=(6, 4), summary=3)


@pytest.fixture
def module(randomize: Randomize) -> InsideModule:
    module = InsideModule(CONFIG).eval()
    randomize(module)
    return module.requires_grad_(False)


@pytest.fixture
def picture() -> Tensor:
    return torch.randint(0, 256, (2, 3, 72, 40)).float()


@pytest.fixture
def guide(module: InsideModule, picture: Tensor) -> Guide:
    found: Guide = module(picture)
    return found


def test_the_guide_is_its_definition(module: InsideModule, picture: Tensor, guide: Guide) -> None:
    """In float64, from the DCT on; the gate is tested in test_gate.py."""
    assert isinstance(module.fde_net, FdeNet)
    first, second = module.fde_net.stages[0], module.fde_net.stages[2]
    hidden = linear(first, module.fde_net.dct(picture)).clamp_min(0)
    drift_map = linear(second, hidden).clamp_min(0)
    summary = linear(module.summary, drift_map.mean((2, 3), keepdim=True))
    assert summary.min() < 0
    gate = module.gate_logits(picture).double().sigmoid()
    assert module.context is not None
    maps = {8: gate * (drift_map + linear(module.context, summary)).clamp_min(0)}
    for stride, up in ((4, module.up[0]), (2, module.up[1])):
        maps[stride] = larger(up, maps[2 * stride])
    for stride, down in ((16, module.down[0]), (32, module.down[1])):
        maps[stride] = smaller(down, maps[stride // 2])
    assert guide.maps.keys() == maps.keys()
    for found, expected in (
        (guide.gate, gate),
        (guide.strength, gate * summary),
        *((guide.maps[stride], expected) for stride, expected in maps.items()),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert guide.gate.shape == (2, 1, 1, 1) and guide.gate.min() > 0 and guide.gate.max() < 1


def test_training_corrects_at_full_strength(module: InsideModule, picture: Tensor) -> None:
    """And the gate that is trained meanwhile is not asked."""
    guide: Guide = module.train()(picture)
    assert torch.equal(guide.gate, torch.ones(1, 1, 1, 1))
    gate = module.eval()(picture).gate
    torch.testing.assert_close(guide.strength * gate, module(picture).strength)


def linear(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution in float64."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    kernel, bias = conv.weight.double()[:, :, 0, 0], conv.bias.double()
    return torch.einsum("oi,nihw->nohw", kernel, x.double()) + bias[:, None, None]


def larger(up: nn.Module, x: Tensor) -> Tensor:
    """Every position becomes 2x2, in float64."""
    assert isinstance(up, nn.ConvTranspose2d)
    blocks = torch.einsum("iokl,nihw->nohkwl", up.weight.double(), x)
    return blocks.flatten(4, 5).flatten(2, 3)


def smaller(down: nn.Module, x: Tensor) -> Tensor:
    """Every 2x2 positions become one, in float64; zeros follow an odd side."""
    assert isinstance(down, nn.Conv2d)
    x = nn.functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    blocks = torch.stack([x[..., k::2, m::2] for k in (0, 1) for m in (0, 1)], dim=-1)
    return torch.einsum("oik,nihwk->nohw", down.weight.double().flatten(2), blocks)


def test_the_map_comes_at_every_residuals_scale(guide: Guide) -> None:
    """72x40 pixels are 9x5 blocks; odd sizes are rounded up."""
    assert {stride: tuple(m.shape[1:]) for stride, m in guide.maps.items()} == {
        2: (4, 36, 20), 4: (4, 18, 10), 8: (4, 9, 5), 16: (4, 5, 3), 32: (4, 3, 2),
    }  # fmt: skip


def test_without_a_drift_map_the_guide_is_the_same_for_all_pictures() -> None:
    """Table II's "FE-Net alone"; the gate has eyes of its own."""
    module = InsideModule(dataclasses.replace(CONFIG, drift_input="none"))
    first, second = (module(torch.rand(1, 3, 32, 32)) for _ in range(2))
    assert torch.equal(first.strength / first.gate, second.strength / second.gate)
    assert torch.equal(first.maps[16] / first.gate, second.maps[16] / second.gate)
    assert not any(name.startswith("fde_net") for name in module.state_dict())


def test_a_scale_is_one_plus_the_gate_times_a_linear_map(guide: Guide) -> None:
    scale, x = Scale(SCALE, summary=3), torch.randn(2, 5, 4, 3)
    weight = scale.factor.linear.weight.double()[:, :, 0, 0]
    factor = 1 + (guide.strength.double()[:, :, 0, 0] @ weight.T)[..., None, None]
    torch.testing.assert_close(scale(x, guide).double(), x.double() * factor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("size", [(5, 3), (4, 2)])
def test_a_residual_is_its_definition(
    guide: Guide, activation: str, size: tuple[int, int], randomize: Randomize
) -> None:
    """Features may be one position short of the map."""
    residual = Residual(dataclasses.replace(RESIDUALS[3], activation=activation)).eval()
    randomize(residual)
    x = torch.randn(2, 5, *size)
    kernel, bias = (t.double() for t in residual.enter.kernel_and_bias())
    entered = nn.functional.conv2d(x.double(), kernel, bias, padding=1)
    assert (entered < 0).any()  # nothing is cut off
    inside = guide.maps[16].double()[..., : size[0], : size[1]] * entered
    back = residual.leave.weight.double()[:, :, 0, 0]
    expected = x.double() + torch.einsum("oi,nihw->nohw", back, inside)
    expected = expected.clamp_min(0) if activation == "relu" else expected
    assert (expected < 0).any() == (activation == "identity")
    torch.testing.assert_close(residual(x, guide).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", range(len(CONFIG.places)))
def test_a_closed_gate_or_the_start_changes_nothing(
    module: InsideModule, picture: Tensor, guide: Guide, number: int
) -> None:
    """Not by a bit, at any scale, trained or fused."""
    place = CONFIG.places[number]
    sizes = {2: (36, 20), 4: (18, 10), 8: (9, 5), 16: (5, 3), 32: (3, 2)}
    x = torch.randn(2, place.channels, *sizes[place.stride])
    correct = module.corrections[number]
    assert not torch.equal(correct(x, guide), x)
    assert module.gate.logit.bias is not None
    module.gate.logit.bias.fill_(-1e9)
    for closed in (module, fuse(module)):
        shut = closed(picture)
        assert not shut.gate.any()
        assert torch.equal(closed.corrections[number](x, shut), x)
    module.reset_to_identity()
    assert torch.equal(correct(x, guide), x)


def test_fusing_leaves_one_convolution_of_each_and_the_same_result(
    module: InsideModule, picture: Tensor, guide: Guide
) -> None:
    fused = fuse(module)
    assert not any(isinstance(m, RepConv | Factor) for m in fused.modules())
    torch.testing.assert_close(fused(picture), guide, rtol=1e-4, atol=1e-5)
    for number, size in ((0, (4, 4)), (4, (5, 3))):
        x = torch.randn(2, 5, *size)
        expected = module.corrections[number](x, guide)
        torch.testing.assert_close(fused.corrections[number](x, guide), expected)


def test_without_residuals_no_map_is_brought_anywhere(picture: Tensor) -> None:
    module = InsideModule(dataclasses.replace(CONFIG, places=(SCALE,)))
    assert module(picture).maps == {}
    assert not any(name.startswith(("context", "up", "down")) for name in module.state_dict())


# --- the gate -----------------------------------------------------------------------------------


def test_sharpening_closes_the_gate_for_clean_pictures_and_for_no_others() -> None:
    module = InsideModule(CONFIG)
    clean, compressed = torch.linspace(-3.0, 1.0, 101), torch.linspace(-1.0, 5.0, 101)
    hidden = torch.rand(7, 48, 1, 1)
    with torch.no_grad():
        before = module.gate.logit(hidden)
        module.sharpen_gate(clean, compressed)
        after = module.gate.logit(hidden)
    most, middle = 0.6, -1.0  # of nine in ten, and of half
    steepness = (most + math.log(99)) / (most - middle)
    torch.testing.assert_close(after, steepness * (before - most) + most, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("clean", "compressed"),
    [
        (-6.0, 1.0),  # closed enough already
        (2.0, 1.0),  # clean pictures look the more compressed
        (-5.0, -7.0),  # as good as shut for all
    ],
)
def test_where_sharpening_would_do_harm_the_gate_stays(clean: float, compressed: float) -> None:
    module = InsideModule(CONFIG)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    module.sharpen_gate(clean + torch.linspace(-0.5, 0.5, 9), torch.full((9,), compressed))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_the_gate_is_never_sharpened_more_than_twenty_times() -> None:
    module = InsideModule(CONFIG)
    before = module.gate.logit.weight.clone()
    module.sharpen_gate(torch.linspace(-0.01, 0.01, 9), torch.ones(9))
    torch.testing.assert_close(module.gate.logit.weight, 20 * before)


# --- configuration ------------------------------------------------------------------------------


def test_the_configuration_survives_json() -> None:
    values = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert InsideConfig.from_dict(values) == CONFIG
    assert isinstance(module_of(CONFIG), InsideModule)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "pooled"}, "unknown kind of correction 'pooled'; kinds: scale, residual"),
        ({"node": ""}, "name of a node"),
        ({"channels": 0}, "channels must be an integer of 1"),
        ({"channels": True}, "channels must be"),
        ({"width": 0}, "width must be an integer of 1"),
        ({"stride": 64}, "stride 64"),
        ({"stride": 0}, "stride must be an integer of 1"),
        ({"activation": "tanh"}, "'tanh'"),
    ],
)
def test_a_place_that_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(RESIDUALS[0], **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"places": ()}, "at least one place"),
        ({"summary": 0}, "positive integers"),
        ({"fde_widths": ()}, "positive integers"),
        ({"fde_widths": (6, 5)}, "as many channels as a residual's inside"),
        ({"architecture": "mobile"}, "'mobile'"),
        ({"drift_input": "wavelets"}, "'wavelets'"),
    ],
)
def test_a_configuration_that_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


def test_unknown_keys_are_refused() -> None:
    values = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    with pytest.raises(InputError, match="place of correction with keys"):
        InsideConfig.from_dict({**values, "places": [{**values["places"][0], "more": 1}]})
    with pytest.raises(InputError, match="AFD configuration with keys"):
        InsideConfig.from_dict({k: v for k, v in values.items() if k != "summary"})
