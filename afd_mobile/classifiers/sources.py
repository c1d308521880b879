"""Where a classifier comes from, how it is fed, and its weights."""

from __future__ import annotations

import copy
import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

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
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.classifiers.two_layer_head import take_two_layer_head
from afd_mobile.classifiers.weights import Weights, find_weights
from afd_mobile.classifiers.weights_file import read_weights_file
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.resources import models_dir
from afd_mobile.network.afd_module import CHECKPOINT_FORMAT
from afd_mobile.network.taps import nearest

if TYPE_CHECKING:
    from afd_mobile.classifiers.from_onnx.network import OnnxNetwork


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


@dataclass(frozen=True)
class Source:
    name: str
    build: Callable[[int | None], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    download: Callable[[], dict[str, Tensor]] | None
    onnx: OnnxNetwork | None = None
    is_module: bool = False
    unsaid_library: bool = False  # torchvision's, and timm may have another of this name


def source_of(
    name: BackboneName, input_size: int | None, record: ClassifierRecord | None = None
) -> Source:
    if isinstance(name, OnnxFile):
        return _onnx_source(name, input_size, record)
    if isinstance(name, Factory):
        return _factory_source(name.name)
    if isinstance(name, Module):
        return _module_source(name)
    return _library_source(name)


def _library_source(typed: str) -> Source:
    name = spelling(typed)
    if in_torchvision(name):
        return replace(_torchvision_source(name), unsaid_library=typed == name)
    in_library = name.removeprefix(TIMM)
    if in_timm(in_library):
        return replace(_timm_source(in_library), name=name)
    import timm
    from torchvision import models

    known = [*NAMED_TAPS, *models.list_models(module=models), *timm.list_models()]
    raise InputError(f"unknown backbone {typed!r}{nearest(name.rpartition('/')[2], known)}")


def _torchvision_source(name: str) -> Source:
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

    return Source(
        name,
        build,
        tuple(transforms.mean),
        tuple(transforms.std),
        transforms.crop_size[0],
        download,
    )


def _timm_source(name: str) -> Source:
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
    return Source(name, build, tuple(mean), tuple(std), size, download)


def _factory_source(name: str) -> Source:
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


def _module_source(given: Module) -> Source:
    """Of a copy, on the CPU and in float32; of what `torch.compile` or a parallel wrapper holds."""
    name, network = str(given), given.unwrapped
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError(f"{name} is TorchScript; give the nn.Module that it was made from")
    try:
        network = copy.deepcopy(network).to("cpu", torch.float32)
    except Exception as error:  # whatever a person's own module or tensor raises
        raise InputError(f"{name} cannot be copied: {error!r}") from error
    return replace(_source_with_attributes(name, network), is_module=True)


def _source_with_attributes(name: str, model: nn.Module) -> Source:
    """Of a network as it is, whose mean, std and input_size, if it has them, hold."""
    size = getattr(model, "input_size", 224)
    mean, std = (
        _of_three(getattr(model, key, None), f"{key} of {name}") or usual
        for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    if min(std) <= 0:
        raise InputError(f"std of {name} is {std}; numbers above 0 are needed")
    return Source(name, lambda _: model, mean, std, _square(size, name), None)


def _onnx_source(file: OnnxFile, input_size: int | None, record: ClassifierRecord | None) -> Source:
    from afd_mobile.classifiers.from_onnx.network import (
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
    return Source(str(file), lambda _: found.network, mean, std, size, None, found)


def onnx_normalization(
    onnx: OnnxNetwork,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    weights: str,
    record: ClassifierRecord | None,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[str, ...]]:
    """What stays of mean and std as they are given, and what a person must know."""
    name, scaling = onnx.path.name, onnx.scaling
    check_holds_its_own(name, weights)
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


def check_holds_its_own(name: str, weights: str) -> None:
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


def with_classes_of(
    state: Mapping[str, Tensor], source: Source, model: nn.Module, what: str
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


def bundled_weights(name: str) -> Path:
    return models_dir() / "backbones" / f"{name}.safetensors"


def described(name: str, origin: str) -> str:
    return f"weights {origin} for backbone {name}"


def find_source_weights(
    source: Source, model: nn.Module, weights: str
) -> tuple[Weights | None, str, Source]:
    """Weights for the model, origin, and the source with the record of these weights.

    They are None where a person's own factory has loaded its weights itself.
    """

    def read(path: Path, origin: str) -> tuple[Weights, Source]:
        file = read_weights_file(path)
        if (file.metadata.get("format") or "").startswith(CHECKPOINT_FORMAT):
            raise InputError(
                f"{path} is an AFD checkpoint, not a classifier's weights: it goes to --checkpoint"
            )
        head = take_two_layer_head(file, model)
        found = find_weights(file, model, described(source.name, origin))
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


def _with_own_record(source: Source, weights: Path) -> Source:
    """With what the file beside the weights says; without one, the library's record holds."""
    path = weights.with_suffix(".toml")
    if not path.is_file():
        return source
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    mean, std = (tuple(v / 255 for v in record[key]) for key in ("mean", "std"))
    return replace(source, mean=mean, std=std, input_size=record["input_size"])
