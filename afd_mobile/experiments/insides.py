"""What may stand inside a residual in place of its RepConv: the networks of the paper's Table IV.

All take the features to the residual's width, (N, C, h, w) -> (N, W, h, w). `matched` chooses their
inner width, k, so that they have as many parameters as the RepConv once fused.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

HEADS = 2

Inside = Callable[[int, int], nn.Module]  # (C, W) -> the network


def plain(channels: int, width: int) -> nn.Module:
    """One 3x3 convolution: what a RepConv is once fused, trained as such."""
    return nn.Conv2d(channels, width, 3, padding=1)


class Residual(nn.Module):
    """1x1 to k, two 3x3 with a skip connection around them, 1x1."""

    def __init__(self, channels: int, width: int, k: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, k, 1)
        self.body = nn.Sequential(
            nn.Conv2d(k, k, 3, padding=1), nn.ReLU(), nn.Conv2d(k, k, 3, padding=1)
        )
        self.leave = nn.Conv2d(k, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.enter(x))
        result: Tensor = self.leave(relu(x + self.body(x)))
        return result


class Inception(nn.Module):
    """Four branches of k channels, 1x1, 3x3, two 3x3, and pooled, side by side; 1x1."""

    def __init__(self, channels: int, width: int, k: int) -> None:
        super().__init__()

        def branch(convolutions: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.Conv2d(channels, k, 1)]
            for _ in range(convolutions):
                layers += [nn.ReLU(), nn.Conv2d(k, k, 3, padding=1)]
            return nn.Sequential(*layers)

        pooled = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), nn.Conv2d(channels, k, 1))
        self.branches = nn.ModuleList([branch(0), branch(1), branch(2), pooled])
        self.leave = nn.Conv2d(4 * k, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.leave(relu(torch.cat([branch(x) for branch in self.branches], dim=1)))
        return result


class Dense(nn.Module):
    """1x1 to k, three 3x3 that each see all before them and add k channels, 1x1."""

    def __init__(self, channels: int, width: int, k: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, k, 1)
        self.layers = nn.ModuleList(nn.Conv2d(n * k, k, 3, padding=1) for n in (1, 2, 3))
        self.leave = nn.Conv2d(4 * k, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.enter(x))
        for layer in self.layers:
            x = torch.cat([x, relu(layer(x))], dim=1)
        result: Tensor = self.leave(x)
        return result


def depthwise(channels: int, width: int, k: int) -> nn.Module:
    """An inverted residual's: 1x1 to k, depthwise 3x3, 1x1."""
    return nn.Sequential(
        nn.Conv2d(channels, k, 1),
        nn.ReLU(),
        nn.Conv2d(k, k, 3, padding=1, groups=k),
        nn.ReLU(),
        nn.Conv2d(k, width, 1),
    )


class Attention(nn.Module):
    """A vision transformer's block on the map's positions, k channels to each of HEADS heads.

    A depthwise 3x3 convolution tells positions apart, so that pictures may have any size.
    """

    def __init__(self, channels: int, width: int, k: int) -> None:
        super().__init__()
        inner = HEADS * k
        self.enter = nn.Conv2d(channels, inner, 1)
        self.position = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.norm1, self.norm2 = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.qkv, self.mixed = nn.Linear(inner, 3 * inner), nn.Linear(inner, inner)
        self.body = nn.Sequential(
            nn.Linear(inner, 2 * inner), nn.GELU(), nn.Linear(2 * inner, inner)
        )
        self.leave = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.position(x)
        h, w = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # (N, h w, C)
        tokens = tokens + self._attended(self.norm1(tokens))
        tokens = tokens + self.body(self.norm2(tokens))
        result: Tensor = self.leave(tokens.transpose(1, 2).unflatten(2, (h, w)))
        return result

    def _attended(self, tokens: Tensor) -> Tensor:
        # Written out, because multiply-adds of the fused operation are not counted everywhere.
        parts = self.qkv(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind()
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        result: Tensor = self.mixed((weights @ v).transpose(1, 2).flatten(2))
        return result


def matched(network: Callable[[int, int, int], nn.Module]) -> Inside:
    """The same with the k that brings it nearest to a fused RepConv's number of parameters."""

    def build(channels: int, width: int) -> nn.Module:
        wanted = parameters(plain, channels, width)

        def of(k: int) -> int:
            return parameters(network, channels, width, k)

        # The least that has enough, or the one below; no k needs more than the whole kernel.
        enough = 1 + bisect_left(range(1, wanted), wanted, key=of)
        best = min((enough - 1 or 1, enough), key=lambda k: abs(of(k) - wanted))
        return network(channels, width, best)

    return build


def parameters(network: Callable[..., nn.Module], *arguments: int) -> int:
    with torch.device("meta"):  # nothing is allocated
        return sum(p.numel() for p in network(*arguments).parameters())


INSIDES: dict[str, Inside] = {
    "plain 3x3": plain,
    "residual block": matched(Residual),
    "Inception": matched(Inception),
    "dense": matched(Dense),
    "depthwise": matched(depthwise),
    "attention": matched(Attention),
}
