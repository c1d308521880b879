"""Pretrained classifiers: where they come from, their weights, and the cut at the tap."""

from __future__ import annotations

import copy
import hashlib
import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from afd_mobile.classifiers.names import (
    TIMM,
    BackboneName,
    Factory,
    Module,
    OnnxFile,
    in_timm,
    in_torchvision,
    spelling,
)
from afd_mobile.classifiers.onnx_operators import Operation
from afd_mobile.classifiers.places import (
    QUALNAME,
    Network,
    activation_of,
    corrected_logits,
    stride_of,
    tail_with,
)
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.classifiers.two_layer_head import take_two_layer_head
from afd_mobile.classifiers.weights import Weights, find_weights, load_strictly
from afd_mobile.classifiers.weights_file import read_weights_file
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.resources import models_dir
from afd_mobile.network.afd_module import CHECKPOINT_FORMAT
from afd_mobile.network.corrections import AnyModule
from afd_mobile.network.dct import BLOCK
from afd_mobile.network.fusion import Reparameterizable
from afd_mobile.network.taps import nearest
from afd_mobile.pictures.datasets import nchw

if TYPE_CHECKING:
    from afd_mobile.classifiers.onnx_network import OnnxNetwork

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Where weights come from that nobody typed; the library's own, of ImageNet's classes if of 1000.
PUBLISHED = ("bundled", "published")
WITHIN = ("onnx", "module")  # the classifier holds its own
AUTOMATIC = (*PUBLISHED, "factory", *WITHIN)

# The default tap comes first. D1 to D4 are the paper's (section IV-C1).
NAMED_TAPS: Mapping[str, Mapping[str, str]] = {
    "mobilenet_v2": {"D4": "features.6", "D1": "features.0"},
    "squeezenet1_1": {"D2": "features.2", "D1": "features.1"},
    "tf_efficientnet_lite0": {"D4": "blocks.2", "D1": "bn1", "D2": "blocks.0", "D3": "blocks.1"},
    "resnet50": {"D2": "relu", "D1": "conv1", "D3": "layer1.0", "D4": "layer1"},
    "repvgg_a2": {"D1": "stem", "D2": "stages.0.0", "D3": "stages.0", "D4": "stages.1"},
}


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
    source = _source_of(name, input_size, record)
    name = source.name
    if record is not None and record.name == name and source.onnx is None:
        mean, std = mean or record.mean, std or record.std
        input_size = input_size or record.input_size
    torch.default_generator.manual_seed(seed)
    model = source.build(None)
    trained, origin = weights != "random", "random"
    notices: tuple[str, ...] = ()
    if source.onnx is not None:
        mean, std, notices = _onnx_normalization(source.onnx, mean, std, weights, record)
        origin = "onnx"
    elif source.is_module:
        _check_holds_its_own(name, weights)
        origin = "module"
    elif trained:
        found, origin, source = _find_weights(source, model, weights)
        if found is not None:
            what = _described(name, origin)
            model = _with_classes_of(found.state, source, model, what)
            load_strictly(model, found.state, what=what)
            notices = found.notices
    if source.doubt is not None and record is None and origin in ("random", *PUBLISHED):
        notices = (*notices, source.doubt)
    model = _without_in_place(model.eval().requires_grad_(False))
    size = input_size or source.input_size
    if source.onnx is not None:
        source.onnx.check(Normalize(mean or source.mean, std or source.std), size)
    probe = _probe(size)
    logits = _logits(_answer(model, name, probe), name, features_only=features_only)
    nodes = _traced(model, name)
    if tap is None:
        tap = _default_tap(model, name, nodes, probe, before)
    elif not isinstance(tap, str):
        tap = tap(Network(fx.GraphModule(model, next(iter(nodes.values())).graph), probe))
    tap = NAMED_TAPS.get(name, {}).get(tap, tap)
    head, tail, activation = _cut(model, name, tap, _node(nodes, name, tap))
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
    source = _source_of(name, input_size)
    size = input_size or source.input_size
    probe = _probe(size)
    model = _without_in_place(source.build(None).eval().requires_grad_(False))
    _answer(model, source.name, probe)
    nodes = _traced(model, source.name)
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


# --- where a network comes from -----------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    name: str
    build: Callable[[int | None], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    download: Callable[[], dict[str, Tensor]] | None
    onnx: OnnxNetwork | None = None
    is_module: bool = False
    doubt: str | None = None  # whether this network was meant


def _source_of(
    name: BackboneName, input_size: int | None, record: ClassifierRecord | None = None
) -> _Source:
    if isinstance(name, OnnxFile):
        return _onnx_source(name, input_size, record)
    if isinstance(name, Factory):
        return _factory_source(name.name)
    if isinstance(name, Module):
        return _module_source(name)
    return _library_source(name)


def _library_source(typed: str) -> _Source:
    name = spelling(typed)
    if in_torchvision(name):
        source = _torchvision_source(name)
        if typed == name and in_timm(name):
            doubt = f"{name} is torchvision's; timm has another of this name: {TIMM}{name}"
            return replace(source, doubt=doubt)
        return source
    in_library = name.removeprefix(TIMM)
    if in_timm(in_library):
        return replace(_timm_source(in_library), name=name)
    import timm
    from torchvision import models

    known = [*NAMED_TAPS, *models.list_models(module=models), *timm.list_models()]
    raise InputError(f"unknown backbone {typed!r}{nearest(name.rpartition('/')[2], known)}")


def _torchvision_source(name: str) -> _Source:
    from torchvision import models

    record = next(iter(models.get_model_weights(name)))  # the oldest: the paper's for ResNet-50
    transforms = record.transforms()

    def build(classes: int | None) -> nn.Module:
        model: nn.Module = models.get_model(name, weights=None, **_num_classes(classes))
        return model

    def download() -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            record.url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
        return state

    return _Source(
        name,
        build,
        tuple(transforms.mean),
        tuple(transforms.std),
        transforms.crop_size[0],
        download,
    )


def _timm_source(name: str) -> _Source:
    import timm

    record = timm.get_pretrained_cfg(name)

    def build(classes: int | None) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, **_num_classes(classes))
        return model

    def download() -> dict[str, Tensor]:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        return state

    mean, std, size = (IMAGENET_MEAN, IMAGENET_STD, 224)
    if record is not None:
        mean, std, size = record.mean, record.std, _square(record.input_size[-2:], name)
    return _Source(name, build, tuple(mean), tuple(std), size, download)


def _factory_source(name: str) -> _Source:
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # console scripts do not look there by themselves
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        model = factory()
    except Exception as error:
        raise InputError(f"backbone factory {name} failed: {error!r}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"backbone factory {name} returned {type(model).__name__}, no nn.Module in Python; "
            "return the network itself, with its weights loaded"
        )
    return _source_with_attributes(name, model)


def _module_source(given: Module) -> _Source:
    """Of a copy, on the CPU and in float32; of what `torch.compile` or a parallel wrapper holds."""
    name, network = str(given), given.unwrapped
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError(f"{name} is TorchScript; give the nn.Module that it was made from")
    try:
        network = copy.deepcopy(network).to("cpu", torch.float32)
    except Exception as error:  # whatever a person's own module or tensor raises
        raise InputError(f"{name} cannot be copied: {error!r}") from error
    return replace(_source_with_attributes(name, network), is_module=True)


def _source_with_attributes(name: str, model: nn.Module) -> _Source:
    """Of a network as it is, whose mean, std and input_size, if it has them, hold."""
    size = getattr(model, "input_size", 224)
    mean, std = (
        _of_three(getattr(model, key, None), f"{key} of {name}") or usual
        for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    if min(std) <= 0:
        raise InputError(f"std of {name} is {std}; numbers above 0 are needed")
    return _Source(name, lambda _: model, mean, std, _square(size, name), None)


def _onnx_source(
    file: OnnxFile, input_size: int | None, record: ClassifierRecord | None
) -> _Source:
    from afd_mobile.classifiers.onnx_network import (
        read_onnx,  # onnx and its runtime are slow to import
    )

    usual_size = 224 if record is None else record.input_size
    found = read_onnx(file.path, input_size or usual_size)
    if found.input_size is not None and input_size not in (None, found.input_size):
        raise InputError(
            f"{file.path} takes pictures of {found.input_size} x {found.input_size}, not of "
            f"{input_size}; leave out --input-size"
        )
    known = found.scaling or record
    mean, std = (known.mean, known.std) if known else (IMAGENET_MEAN, IMAGENET_STD)
    size = found.input_size or usual_size
    return _Source(str(file), lambda _: found.network, mean, std, size, None, found)


def _onnx_normalization(
    onnx: OnnxNetwork,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    weights: str,
    record: ClassifierRecord | None,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[str, ...]]:
    """What stays of mean and std as they are given, and what a person must know."""
    name, scaling = onnx.path.name, onnx.scaling
    _check_holds_its_own(name, weights)
    softmax = (f"{name} ends in a Softmax, which is left out",) * onnx.softmax
    if scaling is None:
        known = record is not None and record.name == name
        assumed = (
            f"{name} does not say how its pictures are normalised: taken as "
            f"{record.name if record else 'ImageNet'}'s; if it was trained otherwise, give --mean "
            "and --std"
        )
        said = known or (mean is not None and std is not None)
        return mean, std, softmax if said else (*softmax, assumed)
    for option, given, own in (("--mean", mean, scaling.mean), ("--std", std, scaling.std)):
        if given is not None and not np.allclose(given, own, rtol=1e-3):
            raise UsageError(f"{option}: {name} normalises its pictures itself; leave it out")
    return None, None, softmax


def _check_holds_its_own(name: str, weights: str) -> None:
    if weights != "auto":
        raise UsageError(f"--backbone-weights {weights}: {name} holds its own; leave it out")


def _of_three(values: object, what: str) -> tuple[float, ...] | None:
    """None of what is no list of numbers: a buffer or a method of the network's own."""
    if not isinstance(values, list | tuple):
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise InputError(f"{what} is {values!r}; three numbers are needed, of RGB from 0 to 1")
    return numbers


def _square(size: object, name: str) -> int:
    """A side in pixels of S, (S, S) or (C, S, S)."""
    sides: list[Any] = list(size[-2:]) if isinstance(size, list | tuple) else [size]
    if not sides or any(type(n) is not int or n < 1 or n != sides[0] for n in sides):
        raise InputError(
            f"input_size of {name} is {size!r}; only square pictures are taken, of one side"
        )
    side: int = sides[0]
    return side


def _num_classes(classes: int | None) -> dict[str, int]:
    return {} if classes is None else {"num_classes": classes}


def _with_classes_of(
    state: Mapping[str, Tensor], source: _Source, model: nn.Module, what: str
) -> nn.Module:
    """The network with as many classes as the weights have.

    A factory builds one number of them; that only the last layer differs is worth its own words.
    """
    last = [key for key in model.state_dict() if key.endswith(".weight")][-1]
    classes = state[last].shape[0]
    model = source.build(classes)
    wanted, given = model.state_dict()[last].shape, state[last].shape
    if wanted[1:] == given[1:] and wanted != given:
        raise InputError(
            f"{what} are of {classes} classes, but it is built with {wanted[0]}: {last} has shape "
            f"{tuple(given)}, expected {tuple(wanted)}; build it with {classes}"
        )
    return model


# --- weights ------------------------------------------------------------------------------------


def bundled_weights(name: str) -> Path:
    return models_dir() / "backbones" / f"{name}.safetensors"


def _described(name: str, origin: str) -> str:
    return f"weights {origin} for backbone {name}"


def _find_weights(
    source: _Source, model: nn.Module, weights: str
) -> tuple[Weights | None, str, _Source]:
    """Weights for the model, origin, and the source with the record of these weights.

    They are None where a person's own factory has loaded its weights itself.
    """

    def read(path: Path, origin: str) -> tuple[Weights, _Source]:
        file = read_weights_file(path)
        if (file.metadata.get("format") or "").startswith(CHECKPOINT_FORMAT):
            raise InputError(
                f"{path} is an AFD checkpoint, not a classifier's weights: it goes to --checkpoint"
            )
        head = take_two_layer_head(file, model)
        found = find_weights(file, model, _described(source.name, origin))
        if head is None:
            return found, source
        found = replace(found, notices=(*found.notices, head))
        return found, replace(source, build=lambda _: model)  # which has this head now

    if weights != "auto":
        found, source = read(Path(weights), weights)
        return found, weights, source
    bundled = bundled_weights(source.name)
    if bundled.is_file():
        found, source = read(bundled, "bundled")
        return found, "bundled", _with_own_record(source, bundled)
    folder = os.environ.get("AFD_WEIGHTS_DIR")
    own = Path(folder) / f"{source.name}.pth" if folder else None
    if own and own.is_file():
        found, source = read(own, str(own))
        return found, str(own), source
    if source.download is None:
        return None, "factory", source
    try:
        return Weights(source.download(), ()), "published", source
    except Exception as error:  # whatever the hub's client raises
        raise InputError(
            f"no weights for backbone {source.name}: none come with this project, "
            + (f"{own} does not exist" if own else "$AFD_WEIGHTS_DIR is not set")
            + f", and downloading failed ({type(error).__name__}); give --backbone-weights FILE, "
            f"put {source.name}.pth into $AFD_WEIGHTS_DIR, go online, or use "
            "--backbone-weights random to see the graph and its cost without accuracy"
        ) from error


def _with_own_record(source: _Source, weights: Path) -> _Source:
    """With what the file beside the weights says; without one, the library's record holds."""
    path = weights.with_suffix(".toml")
    if not path.is_file():
        return source
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    mean, std = (tuple(v / 255 for v in record[key]) for key in ("mean", "std"))
    return replace(source, mean=mean, std=std, input_size=record["input_size"])


def _without_in_place(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 - the tapped features must survive the tail
    return model


# --- the cut ------------------------------------------------------------------------------------


def _tracer() -> Any:
    from torchvision.models.feature_extraction import NodePathTracer

    class Tracer(NodePathTracer):  # type: ignore[misc]
        """torchvision's node names; layers and re-parameterisable blocks stay whole."""

        def is_leaf_module(self, m: nn.Module, qualname: str) -> bool:
            whole = isinstance(m, Reparameterizable | Operation)
            whole = whole or type(m).__module__.startswith("timm.layers")
            return whole or bool(super().is_leaf_module(m, qualname))

    return Tracer(leaf_modules=[])


# Every node of the traced network by its name, in the order of computation.
_Nodes = dict[str, fx.Node]


def _traced(model: nn.Module, name: str) -> _Nodes:
    tracer = _tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # torch.fx raises whatever the network's forward does
        raise InputError(f"{name} cannot be traced symbolically: {error!r}") from error
    nodes = {tracer.node_to_qualname[n]: n for n in graph.nodes if n in tracer.node_to_qualname}
    for qualname, node in nodes.items():
        node.meta[QUALNAME] = qualname
    return nodes


def _node(nodes: _Nodes, name: str, wanted: str) -> fx.Node:
    """The node of this name, or the last one of the module of this name."""
    inside = [node for q, node in nodes.items() if q == wanted or q.startswith(wanted + ".")]
    if not inside or inside[-1].op == "placeholder":
        modules = {q.rsplit(".", k)[0] for q in nodes for k in range(1, q.count(".") + 1)}
        known = [*NAMED_TAPS.get(name, {}), *nodes, *sorted(modules)]
        raise InputError(
            f"backbone {name} has no node {wanted!r}{nearest(wanted, known)}; --taps list "
            "shows those that can be corrected"
        )
    return inside[-1]


def _default_tap(
    model: nn.Module, name: str, nodes: _Nodes, probe: Tensor, before: Sequence[str]
) -> str:
    """The cut that `taps.RULE` states."""
    order = {node: number for number, node in enumerate(nodes.values())}
    first = min((order[_node(nodes, name, wanted)] for wanted in before), default=len(order))
    own = next(iter(NAMED_TAPS.get(name, {}).values()), None)
    if own is not None and order[_node(nodes, name, own)] <= first:
        return own
    network = Network(fx.GraphModule(model, next(iter(nodes.values())).graph), probe)
    if before:
        maps = [s for s in network.steps if s.size > 1 and s.node.op != "placeholder"]
        taps = [s for s in maps if order[s.node] <= first and _leads_alone(s.node)]
    else:
        blocks = [block for block in network.blocks() if _leads_alone(block.node)]
        taps = [b for b in blocks if stride_of(b.shape, probe.shape[-1]) <= BLOCK] or blocks[:1]
    if not taps:
        what = f"before {', '.join(before)} " if before else ""
        raise InputError(
            f"backbone {name} has no feature map {what}from which alone the rest is computed, so "
            "it cannot be cut; choose other --taps"
        )
    return taps[-1].qualname


def _cut(
    model: nn.Module, name: str, tap: str, node: fx.Node
) -> tuple[fx.GraphModule, fx.GraphModule, str]:
    """Head, tail, and the activation before the tap."""
    if not _leads_alone(node):
        raise InputError(
            f"tap {tap} of {name} lies beside another path (a skip connection), so the rest of "
            "the network cannot be computed from it alone; choose another tap"
        )
    return (
        fx.GraphModule(model, _part(node, start=None), "Head").eval(),
        fx.GraphModule(model, _part(_result(node.graph), start=node), "Tail").eval(),
        activation_of(model, node),
    )


def _leads_alone(node: fx.Node) -> bool:
    """Whether the network's result is computed from this node's alone."""
    needed = _needed(_result(node.graph), start=node)
    return not any(other.op == "placeholder" for other in needed)


def _part(result: fx.Node, start: fx.Node | None) -> fx.Graph:
    """What computes `result`, with `start` (if given) as its input."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("features")
        copies[start].meta.update(start.meta)
    needed = _needed(result, start)
    for node in result.graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[result])
    return part


def _needed(result: fx.Node, start: fx.Node | None) -> set[fx.Node]:
    """What computes `result`, given what `start` gives."""
    needed: set[fx.Node] = set()
    queue = [result]
    while queue:
        node = queue.pop()
        if node is not start and node not in needed:
            needed.add(node)
            queue.extend(node.all_input_nodes)
    return needed


def _result(graph: fx.Graph) -> fx.Node:
    (output,) = (node for node in graph.nodes if node.op == "output")
    result: fx.Node = output.args[0]
    return result
