"""One module for deployment: picture -> head + DCT front-end + AFD-Module -> tail."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from afd_mobile.classifiers.backbones import Backbone, Normalize
from afd_mobile.classifiers.places import corrected_logits, tail_with
from afd_mobile.common.artifacts import InputRange, Scope
from afd_mobile.network.corrections import AnyModule, InsideModule
from afd_mobile.network.dct import DctFrontEnd
from afd_mobile.network.fde_net import FdeNet
from afd_mobile.network.gate import BlockStatistics


class DeployedGraph(nn.Module):
    """What a phone runs.

    Args:
        afd: the trained module, or None for the plain classifier.
        input_range: what the picture comes as; raw RGB is normalised inside the graph.
        scope: logits, or the corrected features at the tap.

    Shapes: picture (N, 3, S, S) -> logits (N, classes) or features (N, C, h, w).
    """

    def __init__(
        self, backbone: Backbone, afd: AnyModule | None, input_range: InputRange, scope: Scope
    ) -> None:
        super().__init__()
        self.afd: AnyModule | None = None
        self.normalize: nn.Module
        if input_range is InputRange.RGB255:
            self.normalize = Normalize(backbone.mean, backbone.std)
            self.afd = afd
        else:
            self.normalize = nn.Identity()
            if afd is not None:
                self.afd = copy.deepcopy(afd)
                for part in self.afd.modules():
                    if isinstance(part, FdeNet | BlockStatistics):
                        part.dct = DctFrontEnd(backbone.mean, backbone.std)
        self.input_size = backbone.input_size
        self.head = backbone.head
        self.tail: nn.Module = nn.Identity()
        if scope is Scope.CLASSIFIER:
            self.tail = tail_with(backbone.tail, self.afd)
        else:
            assert not isinstance(self.afd, InsideModule)  # it corrects behind the tap
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        features = self.head(self.normalize(image))
        return corrected_logits(self.tail, self.afd, features, image)


class SubtractMean(nn.Module):
    """RGB 0 to 255 -> rgb - 255 mean, (N, 3, S, S).

    The mean is stored for every pixel: a delegate's addition of two equal shapes runs several
    times faster than one that repeats three numbers.
    """

    mean: Tensor

    def __init__(self, normalize: Normalize, size: int) -> None:
        super().__init__()
        negative_mean = (normalize.offset / normalize.scale)[None]
        self.register_buffer("mean", negative_mean.expand(1, 3, size, size).contiguous())

    def forward(self, image: Tensor) -> Tensor:
        return image + self.mean


def fold_normalization(graph: DeployedGraph) -> DeployedGraph:
    """Moves the normalisation's scale into the first convolution's weights, in place.

    The mean cannot move into its bias: the padding around the picture is zero after it has been
    subtracted. A classifier that does not begin with a convolution is left as it is.
    """
    normalize = graph.normalize
    (picture,) = (node for node in graph.head.graph.nodes if node.op == "placeholder")
    first = [
        graph.head.get_submodule(user.target) for user in picture.users if user.op == "call_module"
    ]
    if not isinstance(normalize, Normalize) or len(first) != len(picture.users):
        return graph
    if not all(isinstance(module, nn.Conv2d) and module.groups == 1 for module in first):
        return graph
    with torch.no_grad():
        for module in first:
            assert isinstance(module, nn.Conv2d)
            module.weight.mul_(normalize.scale)
    graph.normalize = SubtractMean(normalize, graph.input_size)
    return graph.eval()
