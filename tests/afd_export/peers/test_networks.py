from __future__ import annotations

import pytest
import torch
from torch import nn

from afd_export.peers import networks
from afd_mobile.network.cost import cost_of

# Table VII: parameters in millions, multiply-adds in billions.
TABLE = {
    "arcnn": (0.12, 5.91),
    "dncnn": (0.56, 28.07),
    "rdn": (0.53, 26.63),
    "fbcnn": (71.92, 134.74),
    "ddp": (0.14, 1.48),
}
POSITIONS = 224 * 224
# Weights of each layer at full resolution.
ARCNN = [81 * 3 * 64, 49 * 64 * 32, 32 * 16, 25 * 16 * 3]
DNCNN = [9 * 3 * 64, *[9 * 64 * 64] * 15, 9 * 64 * 3]
DENSE = [*(9 * (48 + 32 * i) * 32 for i in range(4)), (48 + 4 * 32) * 48]
RDN = [9 * 3 * 48, 9 * 48 * 48, *DENSE * 4, 4 * 48 * 48, 9 * 48 * 48, 9 * 48 * 3]
# Weights at half resolution, the last by what they read, and at a quarter.
DDP = [9 * 3 * 32, *[9 * 32 * 32] * 12, 32 * 4 * 3]
DDP_MIDDLE = [9 * 32 * 32] * 3
# Parameters (with biases and normalisation) and multiply-adds.
BY_HAND = {
    "arcnn": (sum(ARCNN) + 64 + 32 + 16 + 3, sum(ARCNN) * POSITIONS),
    "dncnn": (sum(DNCNN) + 64 + 15 * 2 * 64 + 3, sum(DNCNN) * POSITIONS),
    "rdn": (sum(RDN) + 2 * 48 + 4 * (4 * 32 + 48) + 2 * 48 + 3, sum(RDN) * POSITIONS),
    "ddp": (
        sum(DDP) + sum(DDP_MIDDLE) + 16 * 32 + 3,
        sum(DDP) * POSITIONS // 4 + sum(DDP_MIDDLE) * POSITIONS // 16,
    ),
}


def peer(name: str) -> nn.Module:
    made: nn.Module = getattr(networks, name)()
    return made


@pytest.mark.parametrize("name", TABLE)
def test_the_cost_is_the_papers_within_5_percent(name: str) -> None:
    parameters, multiply_adds = TABLE[name]
    cost = cost_of(peer(name).to("meta"), torch.empty(1, 3, 224, 224, device="meta"))
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.05)
    assert cost.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.05)
    if name in BY_HAND:
        assert (cost.parameters, cost.multiply_adds) == BY_HAND[name]


@pytest.mark.parametrize("name", TABLE)
def test_a_picture_becomes_a_picture_and_every_weight_takes_part(name: str) -> None:
    network = peer(name)
    assert not network.training
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    result = network(picture)
    assert result.shape == picture.shape
    assert result.std() > 0.01
    result.square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", TABLE)
def test_it_can_be_traced_and_tapped_at_its_end(name: str) -> None:
    network = peer(name)
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        traced = torch.fx.symbolic_trace(network)
        assert torch.equal(traced(picture), network(picture))
    assert [child for child, _ in network.named_children()] == ["restore"]


@pytest.mark.parametrize("name", ["arcnn", "rdn"])
def test_weights_are_the_same_each_time_and_other_random_numbers_stay(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = peer(name).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = peer(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("name", "last"), [("dncnn", "body.47"), ("rdn", "last"), ("ddp", "tail")])
def test_residual_networks_leave_the_picture_if_they_find_nothing(name: str, last: str) -> None:
    network = peer(name)
    for parameter in network.get_submodule(f"restore.{last}").parameters():
        nn.init.zeros_(parameter)
    picture = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(picture), picture)


def test_fbcnn_is_modulated_by_the_quality_that_it_estimates() -> None:
    network = peer("fbcnn")
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = network(picture)
        linear(network, "quality.10").bias.add_(3.0)
        assert not torch.equal(network(picture), before)


def test_fbcnn_scales_and_shifts_what_each_decoder_block_adds() -> None:
    network = peer("fbcnn")
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        for i in range(3):
            for factor, bias in (("gamma", -200.0), ("beta", 0.0)):
                layer = linear(network, f"modulation.{i}.{factor}.0")
                layer.weight.zero_()
                layer.bias.fill_(bias)
        # A scale and shift of 0: what is inside the blocks no longer matters.
        closed = network(picture)
        for weights in network.get_submodule("restore.refine").parameters():
            weights.add_(1.0)
        assert torch.equal(network(picture), closed)


def linear(network: nn.Module, name: str) -> nn.Linear:
    layer = network.get_submodule(f"restore.{name}")
    assert isinstance(layer, nn.Linear)
    return layer
