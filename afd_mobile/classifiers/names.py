"""Whose word a classifier's name is: a person may name code to run or a file, a file may not.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afd_mobile.common.errors import InputError

if TYPE_CHECKING:
    from torch import nn


# By name, because this file knows nothing of torch.
_WRAPPERS = (
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parallel.distributed.DistributedDataParallel",
)


@dataclass(frozen=True)
class Factory:
    """Code that makes a classifier; `load_backbone` imports and calls it.

    So only what a person typed may become one (`typed_backbone`), nothing that a file says.

    Attributes:
        name: `package.module:factory`.
    """

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that a person typed."""

    path: Path

    def __str__(self) -> str:
        """As checkpoints and exports have it, which are the same wherever the file lies."""
        return self.path.name


@dataclass(frozen=True)
class Module:
    """A network that a person handed over in Python, with its weights. It stays as it is."""

    network: nn.Module

    @property
    def unwrapped(self) -> nn.Module:
        """What `torch.compile` or a parallel wrapper holds, if it is in one."""
        network = self.network
        while f"{type(network).__module__}.{type(network).__name__}" in _WRAPPERS:
            (network,) = network.children()
        return network

    def __str__(self) -> str:
        """Its class's name, which finds nothing again."""
        return type(self.unwrapped).__name__


# A string is a torchvision or timm name, and never runs anybody's code.
BackboneName = str | Factory | OnnxFile | Module

TORCHVISION, TIMM = "torchvision/", "timm/"
_HUBS = ("hf-hub:", "hf_hub:")  # as timm spells it


def typed_backbone(text: str) -> BackboneName:
    """An argparse type: what a person typed after `--backbone`."""
    for hub in _HUBS:
        if text.startswith(hub + TIMM):
            return text.removeprefix(hub)
        if text.startswith(hub):
            raise argparse.ArgumentTypeError(f"{text}: of the hub, only {hub}{TIMM}NAME is taken")
    if text.lower().endswith(".onnx"):
        return OnnxFile(Path(text))
    return Factory(text) if ":" in text else text


def in_torchvision(name: str) -> bool:
    """Whether torchvision has a classifier of this name, without a library before it."""
    from torchvision import models  # slow to import, as timm is: an own factory needs neither

    return name in models.list_models(module=models)


def in_timm(name: str) -> bool:
    """The same of timm, with or without a tag."""
    import timm

    # Its own is_model() takes any text after a dot.
    return name in timm.list_models(include_tags=True) or name in timm.list_models()


def spelling(name: BackboneName) -> str:
    """The name as files have it: `timm/NAME` only where torchvision has a NAME as well."""
    if not isinstance(name, str) or "/" not in name:
        return str(name)
    if name.startswith(TORCHVISION) and in_torchvision(name.removeprefix(TORCHVISION)):
        return name.removeprefix(TORCHVISION)
    if name.startswith(TIMM) and not in_torchvision(name.removeprefix(TIMM)):
        return name.removeprefix(TIMM)
    return name


def recorded_backbone(recorded: str, typed: BackboneName | None, *, what: str) -> BackboneName:
    """The classifier that a file names and that must be no other one.

    Raises:
        InputError: as `named_backbone`; or another one was typed.
    """
    if typed is not None and spelling(typed) != recorded:
        raise InputError(f"{what} is for backbone {recorded}, not {typed}; leave out --backbone")
    return named_backbone(recorded, typed, what=what)


def named_backbone(recorded: str, typed: BackboneName | None, *, what: str) -> BackboneName:
    """What was typed, or else the classifier that a file names, as far as its word is to be taken.

    Args:
        recorded: what the file says.
        typed: what the person typed on this command line, if anything.
        what: the file, for messages.

    Raises:
        InputError: nothing was typed, and the file names a factory or an ONNX file.
    """
    if typed is None and recorded.lower().endswith(".onnx"):
        raise InputError(
            f"{what} is for the ONNX file {recorded}; say where it lies: --backbone FILE"
        )
    if typed is None and ":" in recorded:
        raise InputError(
            f"{what} names code to run, {recorded}, as its classifier; if you trust that code, "
            f"add --backbone {shlex.quote(recorded)}"
        )
    return recorded if typed is None else typed
