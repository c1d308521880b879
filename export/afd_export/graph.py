"""One module for deployment: picture -> head + DCT front-end + AFD-Module -> tail."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from afd_mobile.afd_module import AfdModule
from afd_mobile.artifacts import InputRange, Scope
from afd_mobile.backbones import Backbone, Normalize
from afd_mobile.dct import DctFrontEnd


class DeployedGraph(nn.Module):
    """What a phone runs.

    Args:
        afd: the trained module, or None for the plain classifier.
        input_range: what the picture comes as; raw RGB is normalised inside the graph.
        scope: logits, or the corrected features at the tap.

    Shapes: picture (N, 3, S, S) -> logits (N, classes) or features (N, C, h, w).
    """

    def __init__(
        self, backbone: Backbone, afd: AfdModule | None, input_range: InputRange, scope: Scope
    ) -> None:
        super().__init__()
        self.afd: AfdModule | None = None
        self.normalize: nn.Module
        if input_range is InputRange.RGB255:
            self.normalize = Normalize(backbone.mean, backbone.std)
            self.afd = afd
        else:
            self.normalize = nn.Identity()
            if afd is not None:
                self.afd = copy.deepcopy(afd)
                self.afd.fde_net.dct = DctFrontEnd(backbone.mean, backbone.std)
        self.head = backbone.head
        self.tail: nn.Module = backbone.tail if scope is Scope.CLASSIFIER else nn.Identity()
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        features = self.head(self.normalize(image))
        if self.afd is not None:
            features = self.afd(features, image)
        output: Tensor = self.tail(features)
        return output
