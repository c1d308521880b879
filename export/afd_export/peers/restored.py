"""A peer of the paper's Table V as preprocessing: it restores the picture, MobileNetV2 classifies.

A classifier like any other, picture 0 to 1 in, with the weights that `train` wrote:
`afd-export --checkpoint none --backbone afd_export.peers.restored:NAME --backbone-weights FILE
--mean 0 0 0 --std 1 1 1`. Untrained, it leaves the picture as it is: training starts from no
correction, as the module's does.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from afd_export.peers import networks
from afd_mobile.classifiers.backbones import Normalize
from afd_mobile.classifiers.sources import IMAGENET_MEAN, IMAGENET_STD, bundled_weights
from afd_mobile.classifiers.weights import load_strictly
from afd_mobile.classifiers.weights_file import read_weights_file

CLASSIFIER = "mobilenet_v2"


def arcnn() -> RestoredClassifier:
    """It has no skip: three of its channels carry the picture through."""
    peer = networks.arcnn()
    for convolution in _convolutions(peer):
        assert convolution.bias is not None
        nn.init.dirac_(convolution.weight[:3])
        nn.init.zeros_(convolution.bias[:3])
    return RestoredClassifier(peer)


def dncnn() -> RestoredClassifier:
    """It takes off what it estimates: nothing."""
    peer = networks.dncnn()
    last = _convolutions(peer)[-1]
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return RestoredClassifier(peer)


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


class RestoredClassifier(nn.Module):
    """classify(restore(picture)), with the bundled classifier as it is.

    Args:
        peer: of `networks`; its one module `restore` is taken.

    Shapes: picture (N, 3, S, S), RGB 0 to 1 -> logits (N, 1000).
    """

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.restore = peer.get_submodule("restore")
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.classify = mobilenet_v2()
        weights = read_weights_file(bundled_weights(CLASSIFIER)).states[""]
        load_strictly(self.classify, weights, what=f"weights of {CLASSIFIER}")
        self.eval()

    def forward(self, picture: Tensor) -> Tensor:
        restored = self.restore(picture).clamp(0, 1)  # a picture again
        logits: Tensor = self.classify(self.normalize(255 * restored))
        return logits
