"""Pretrained classifiers: where they come from, their weights, and the cut at the tap."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from afd_mobile.classifiers.cut import cut, default_tap, node_of, traced
from afd_mobile.classifiers.names import TIMM, BackboneName, in_timm
from afd_mobile.classifiers.places import Network, corrected_logits, tail_with
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.classifiers.sources import (
    NAMED_TAPS,
    check_holds_its_own,
    described,
    find_source_weights,
    onnx_normalization,
    source_of,
    with_classes_of,
)
from afd_mobile.classifiers.weights import load_strictly
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.corrections import AnyModule
from afd_mobile.network.dct import BLOCK
from afd_mobile.pictures.datasets import nchw


class Normalize(nn.Module):
    """RGB 0 to 255 -> (rgb / 255 - mean) / std, for (N, 3, H, W)."""

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        std_t, mean_t = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (std, mean))
        self.register_buffer("scale", (1 / (255 * std_t)).float(), persistent=False)
        self.register_buffer("offset", (-mean_t / std_t).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return image * self.scale + self.offset


@dataclass(frozen=True)
class Backbone:
    """A classifier cut in two at its tap: tail(head(x)) is the whole network, exactly.

    Attributes:
        name: as given: a torchvision or timm name, `package.module:factory`, or a module's class.
        tap: the tapped node, by torchvision's feature-extraction name.
        head: normalised picture (N, 3, S, S) -> features (N, channels, h, w).
        tail: features -> logits (N, classes).
        mean, std: normalisation of 0-to-1 RGB.
        input_size: S, pixels.
        stride: picture pixels per position of the features.
        activation: what was applied last before the tap: identity, relu or relu6.
        weights: where they come from, for people; `trained` is false for random ones.
        notices: what a person must know about them.
    """

    name: str
    tap: str
    head: fx.GraphModule
    tail: fx.GraphModule
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    classes: int
    channels: int
    feature_size: int
    stride: int
    activation: str
    weights: str
    trained: bool
    notices: tuple[str, ...]

    def weights_sha256(self) -> str:
        """Over all weights and buffers of both parts, by name."""
        digest = hashlib.sha256()
        for part in (self.head, self.tail):
            for key, value in part.state_dict().items():
                digest.update(key.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def load_backbone(
    name: BackboneName,
    *,
    tap: str | Callable[[Network], str] | None = None,
    before: Sequence[str] = (),
    weights: str = "auto",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    input_size: int | None = None,
    record: ClassifierRecord | None = None,
    seed: int = 0,
    features_only: bool = False,
) -> Backbone:
    """A classifier by name with its weights, cut at its tap.

    Args:
        name: of torchvision or timm, with or without `torchvision/` or `timm/` before it; a
            Factory, whose code is run; an OnnxFile; or a Module, which is copied. A name that
            comes from a file goes through `named_backbone` first.
        tap: a node's name or one of the backbone's own (D1 ...); default: the first in NAMED_TAPS,
            or one that `taps.RULE` chooses; or what finds it in the whole network.
        before: nodes that a chosen tap does not lie behind.
        weights: `auto`, `random` or a file.
        mean, std, input_size: override the network's own.
        record: of a checkpoint's classifier. Of one of this name its settings are the default; an
            ONNX file's own come first, and what it does not say is as in the record of any name.
        seed: of random weights.
        features_only: the tapped features are all that is wanted; what follows may give anything.

    Raises:
        InputError: an unknown network or tap, or weights that are missing or do not fit.
    """
    _check_normalization(mean, std)
    source = source_of(name, input_size, record)
    name = source.name
    if record is not None and record.name == name and source.onnx is None:
        mean, std = mean or record.mean, std or record.std
        input_size = input_size or record.input_size
    torch.default_generator.manual_seed(seed)
    model = source.build(None)
    trained, origin = weights != "random", "random"
    notices: tuple[str, ...] = ()
    if source.onnx is not None:
        mean, std, notices = onnx_normalization(source.onnx, mean, std, weights, record)
        origin = "onnx"
    elif source.is_module:
        check_holds_its_own(name, weights)
        origin = "module"
    elif trained:
        found, origin, source = find_source_weights(source, model, weights)
        if found is not None:
            what = described(name, origin)
            model = with_classes_of(found.state, source, model, what)
            load_strictly(model, found.state, what=what)
            notices = found.notices
    # timm is slow to import, and nothing is in doubt that is recorded, typed or comes with us.
    unknown = record is None and origin in ("random", "published")
    if source.unsaid_library and unknown and in_timm(name):
        doubt = f"{name} is torchvision's; timm has another of this name: {TIMM}{name}"
        notices = (*notices, doubt)
    model = _without_in_place(model.eval().requires_grad_(False))
    size = input_size or source.input_size
    if source.onnx is not None:
        source.onnx.check(Normalize(mean or source.mean, std or source.std), size)
    probe = _probe(size)
    logits = _logits(_answer(model, name, probe), name, features_only=features_only)
    nodes = traced(model, name)
    if tap is None:
        tap = default_tap(model, name, nodes, probe, before)
    elif not isinstance(tap, str):
        tap = tap(Network(fx.GraphModule(model, next(iter(nodes.values())).graph), probe))
    tap = NAMED_TAPS.get(name, {}).get(tap, tap)
    head, tail, activation = cut(model, name, tap, node_of(nodes, name, tap))
    with torch.no_grad():
        features = head(probe)
    if features.ndim != 4 or features.shape[2] != features.shape[3]:
        raise InputError(
            f"tap {tap} of {name} gives a tensor of shape {tuple(features.shape)}; a module "
            "corrects feature maps (N, C, h, w): choose an earlier tap"
        )
    return Backbone(
        name=name,
        tap=tap,
        head=head,
        tail=tail,
        mean=mean or source.mean,
        std=std or source.std,
        input_size=size,
        classes=logits.shape[1],
        channels=features.shape[1],
        feature_size=features.shape[2],
        stride=round(size / features.shape[2]),
        activation=activation,
        weights=origin,
        trained=trained,
        notices=notices,
    )


def whole_network(name: BackboneName, *, input_size: int | None = None) -> tuple[Network, int]:
    """A classifier of random weights, traced as it is; and its input size.

    Raises:
        InputError: an unknown network, or one that cannot be traced or takes no such pictures.
    """
    source = source_of(name, input_size)
    size = input_size or source.input_size
    probe = _probe(size)
    model = _without_in_place(source.build(None).eval().requires_grad_(False))
    _answer(model, source.name, probe)
    nodes = traced(model, source.name)
    return Network(fx.GraphModule(model, next(iter(nodes.values())).graph), probe), size


def check_size(backbone: Backbone, size: int, option: str) -> None:
    """That the classifier takes pictures of another size as well.

    Raises:
        InputError: it is made for its own alone.
    """
    try:
        with torch.no_grad():
            backbone.tail(backbone.head(_probe(size)))
    except Exception as error:  # whatever the network's forward raises
        raise InputError(
            f"{backbone.name} takes no pictures of {size} x {size}, as {option} has them; give "
            f"{option} {backbone.input_size}"
        ) from error


def _probe(size: int) -> Tensor:
    if size < 1 or size % BLOCK:
        near = sorted({max(size // BLOCK, 1) * BLOCK, max(-(-size // BLOCK), 1) * BLOCK})
        raise UsageError(
            f"input size {size} is not a multiple of {BLOCK}; use --input-size "
            f"{' or '.join(map(str, near))}"
        )
    return torch.zeros(1, 3, size, size)


def _answer(model: nn.Module, name: str, probe: Tensor) -> object:
    try:
        with torch.no_grad():
            return model(probe)
    except Exception as error:  # whatever the network's forward raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{name} takes no pictures of {probe.shape[-2]} x {probe.shape[-1]} ({why}); give the "
            "size that it was made for with --input-size; sizes that are not square are not taken"
        ) from error


def _logits(result: object, name: str, *, features_only: bool) -> Tensor:
    found = tuple(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
    if not isinstance(result, Tensor) or (result.ndim != 2 and not features_only):
        raise InputError(f"{name} returns {found}, expected logits of shape (N, classes)")
    return result


def _check_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Of what was typed."""
    for option, values, low in (("--mean", mean, -np.inf), ("--std", std, 0)):
        if values is None:
            continue
        if not (len(values) == 3 and np.isfinite(values).all() and min(values) > low):
            typed = " ".join(f"{value:g}" for value in values)
            raise UsageError(f"{option} {typed}: three numbers, and of std above 0, are needed")


def classifier(
    backbone: Backbone, module: AnyModule | None, device: torch.device
) -> Callable[[NDArray[np.uint8]], Tensor]:
    """The whole network: pictures (N, S, S, 3) RGB -> logits (N, classes), on the CPU.

    Args:
        module: corrects the features at the tap, or inside the tail; None leaves them.
    """
    normalize = Normalize(backbone.mean, backbone.std).to(device)
    correct = module.to(device) if module is not None else None
    head, tail = backbone.head.to(device), tail_with(backbone.tail.to(device), correct)

    @torch.no_grad()
    def logits(pictures: NDArray[np.uint8]) -> Tensor:
        image = nchw(torch.from_numpy(pictures).to(device))
        return corrected_logits(tail, correct, head(normalize(image)), image).float().cpu()

    return logits


def _without_in_place(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 - the tapped features must survive the tail
    return model
