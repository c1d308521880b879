from __future__ import annotations

import torch
from torch import nn

from afd_mobile.network.cost import Cost, cost_of


def test_a_convolution() -> None:
    cost = cost_of(nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.zeros(1, 3, 16, 16))
    assert cost.parameters == 8 * 3 * 9 + 8
    assert cost.multiply_adds == 8 * 3 * 9 * 8 * 8


def test_a_depthwise_convolution_and_a_linear_layer() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    cost = cost_of(net, torch.zeros(1, 4, 8, 8))
    assert cost.multiply_adds == 4 * 9 * 6 * 6 + 4 * 6 * 6 * 10


def test_what_is_neither_costs_nothing() -> None:
    cost = cost_of(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), torch.zeros(1, 4, 8, 8))
    assert (cost.parameters, cost.multiply_adds) == (0, 0)


def test_what_one_network_costs_more_than_another() -> None:
    assert Cost(10, 300) - Cost(4, 100) == Cost(6, 200)
