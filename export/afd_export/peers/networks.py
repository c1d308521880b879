"""The paper's peers (Table VII): picture in, cleaner picture out, to be run before a classifier.

Architectures as published where they are; random weights, the same on every call, because only
their cost is compared (`train` trains two of them). Each maps (N, 3, S, S), RGB 0 to 1, to the
same shape, 8 divides S; figures are for S = 224, multiply-adds those of convolutions and matrix
products (the paper's seem to count biases as well). All of a network lies in its one module
`restore`, so an export taps that one:
`afd-export --backbone afd_export.peers.networks:NAME --taps restore --scope features`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def arcnn() -> nn.Module:
    """ARCNN: Dong, Deng, Loy, Tang, "Compression Artifacts Reduction by a Deep Convolutional
    Network", ICCV 2015.

    The published 9-7-1-5 kernels with 64, 32 and 16 channels, on three colours instead of luminance
    alone: 0.118 M parameters, 5.90 G multiply-adds (paper: 0.12 M, 5.91 G).
    """
    return _with_random_weights(
        lambda: _chain(
            *(_conv(3, 64, 9), nn.ReLU()),
            *(_conv(64, 32, 7), nn.ReLU()),
            *(_conv(32, 16, 1), nn.ReLU()),
            _conv(16, 3, 5),
        )
    )


def dncnn() -> nn.Module:
    """DnCNN: Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep
    CNN for Image Denoising", IEEE TIP 2017.

    The published 17 layers of 64 channels (DnCNN-S; their JPEG model has 20 and would be a fifth
    larger than the paper's figure), on three colours: 0.558 M parameters, 27.92 G multiply-adds
    (paper: 0.56 M, 28.07 G).
    """
    return _with_random_weights(lambda: _DnCnn(layers=17, channels=64))


def rdn() -> nn.Module:
    """RDN: Zhang, Tian, Kong, Zhong, Fu, "Residual Dense Network for Image Restoration", IEEE TPAMI
    2020.

    The published network (D = 16 blocks of C = 8 layers, G = 64 channels each) has some forty times
    the parameters that the paper states; which smaller one was run is not said. D = 4, C = 4,
    G = 32 and 48 channels between the blocks are chosen here to match that size: 0.530 M
    parameters, 26.57 G multiply-adds (paper: 0.53 M, 26.63 G).
    """
    return _with_random_weights(lambda: _Rdn(blocks=4, layers=4, growth=32, channels=48))


def fbcnn() -> nn.Module:
    """FBCNN: Jiang, Zhang, Timofte, "Towards Flexible Blind JPEG Artifacts Removal", ICCV 2021.

    The published colour network: 64, 128, 256 and 512 channels, four residual blocks each, the
    quality factor estimated from the deepest features and fed back as scale and shift of every
    decoder block; the estimate itself is no output here: 71.92 M parameters, 135.82 G multiply-adds
    (paper: 71.92 M, 134.74 G).
    """
    return _with_random_weights(lambda: _Fbcnn((64, 128, 256, 512), blocks=4))


def ddp() -> nn.Module:
    """DDP: Wang, Cao, Zha, Zhang, Xiong, "Deep Degradation Prior for Low-quality Image
    Classification", CVPR 2020.

    A stand-in, for cost alone: the published feature de-drifting module works on a classifier's
    first features, and the paper does not say how it was configured. This one has its stated size
    as a picture-to-picture network: residual blocks of 32 channels at half resolution (56 x 56 in
    the middle), 0.140 M parameters, 1.49 G multiply-adds (paper: 0.14 M, 1.48 G).
    """
    return _with_random_weights(lambda: _Ddp(32))


def _with_random_weights(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(restore=build())).eval()


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def _chain(*layers: nn.Module) -> nn.Sequential:
    """With He's initialisation: without skips, PyTorch's own would let the picture fade away."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """x + conv(relu(conv(x))); with `scale` and `shift` (N, C, 1, 1) of the second term."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.ReLU(), _conv(channels, channels))

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        change: Tensor = self.body(x)
        if scale is not None and shift is not None:
            change = change * scale + shift
        return x + change


def _residuals(channels: int, blocks: int) -> list[nn.Module]:
    return [_Residual(channels) for _ in range(blocks)]


class _DnCnn(nn.Module):
    """Estimates the artefacts and takes them off."""

    def __init__(self, layers: int, channels: int) -> None:
        super().__init__()
        inner: list[nn.Module] = []
        for _ in range(layers - 2):
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            inner += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.body = _chain(_conv(3, channels), nn.ReLU(), *inner, _conv(channels, 3))

    def forward(self, picture: Tensor) -> Tensor:
        artefacts: Tensor = self.body(picture)
        return picture - artefacts


class _DenseBlock(nn.Module):
    """Every layer sees all before it; a 1x1 convolution fuses them, added to the input."""

    def __init__(self, layers: int, growth: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(channels + i * growth, growth) for i in range(layers))
        self.fusion = _conv(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for layer in self.layers:
            features = torch.cat([features, torch.relu(layer(features))], 1)
        fused: Tensor = self.fusion(features)
        return x + fused


class _Rdn(nn.Module):
    """For restoration: without the up-sampling of its super-resolution form."""

    def __init__(self, blocks: int, layers: int, growth: int, channels: int) -> None:
        super().__init__()
        self.shallow = _conv(3, channels)
        self.first = _conv(channels, channels)
        self.blocks = nn.ModuleList(_DenseBlock(layers, growth, channels) for _ in range(blocks))
        self.fusion = nn.Sequential(
            _conv(blocks * channels, channels, 1), _conv(channels, channels)
        )
        self.last = _conv(channels, 3)

    def forward(self, picture: Tensor) -> Tensor:
        shallow = self.shallow(picture)
        x = self.first(shallow)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        residual: Tensor = self.last(self.fusion(torch.cat(found, 1)) + shallow)
        return picture + residual


class _Modulation(nn.Module):
    """Of one resolution: embedded quality factor (N, E) -> scale and shift (N, C, 1, 1)."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Sequential(nn.Linear(embedding, channels), nn.Sigmoid())
        self.beta = nn.Sequential(nn.Linear(embedding, channels), nn.Tanh())

    def forward(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        return self.gamma(embedded)[:, :, None, None], self.beta(embedded)[:, :, None, None]


class _Fbcnn(nn.Module):
    def __init__(self, widths: tuple[int, int, int, int], blocks: int) -> None:
        super().__init__()
        deep = widths[-1]
        steps = list(pairwise(widths))
        self.head = _conv(3, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(*_residuals(c, blocks), nn.Conv2d(c, wider, 2, stride=2))
            for c, wider in steps
        )
        self.encoder = nn.Sequential(*_residuals(deep, blocks))
        self.quality = nn.Sequential(
            *(*_residuals(deep, blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            *(nn.Linear(deep, deep), nn.ReLU(), nn.Linear(deep, deep), nn.ReLU()),
            *(nn.Linear(deep, 1), nn.Sigmoid()),
        )
        self.embedding = nn.Sequential(
            *(nn.Linear(1, deep), nn.ReLU(), nn.Linear(deep, deep), nn.ReLU()),
            *(nn.Linear(deep, deep), nn.ReLU()),
        )
        self.decoder = nn.Sequential(*_residuals(deep, blocks))
        steps.reverse()
        self.modulation = nn.ModuleList(_Modulation(deep, c) for c, _ in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(wider, c, 2, stride=2) for c, wider in steps)
        self.refine = nn.ModuleList(nn.ModuleList(_residuals(c, blocks)) for c, _ in steps)
        self.tail = _conv(widths[0], 3)

    def forward(self, picture: Tensor) -> Tensor:
        skips = [self.head(picture)]
        for down in self.down:
            skips.append(down(skips[-1]))
        deep = self.encoder(skips[-1])
        embedded = self.embedding(self.quality(deep))
        x = self.decoder(deep)
        for modulation, up, refine in zip(self.modulation, self.up, self.refine, strict=True):
            scale, shift = modulation(embedded)
            x = up(x + skips.pop())
            for block in refine:  # type: ignore[attr-defined]
                x = block(x, scale, shift)
        cleaner: Tensor = self.tail(x + skips.pop())
        return cleaner


class _Ddp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = _conv(3, channels, stride=2)
        self.encoder = nn.Sequential(*_residuals(channels, 3))
        self.middle = nn.Sequential(_conv(channels, channels, stride=2), *_residuals(channels, 1))
        self.decoder = nn.Sequential(*_residuals(channels, 3))
        self.tail = nn.ConvTranspose2d(channels, 3, 2, stride=2)

    def forward(self, picture: Tensor) -> Tensor:
        fine = self.encoder(self.head(picture))
        coarse = interpolate(
            self.middle(fine), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        residual: Tensor = self.tail(self.decoder(fine + coarse))
        return picture + residual
