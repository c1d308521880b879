"""Whose word a classifier's name is: a person may name code to run or a file, a file may not.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afd_mobile.errors import InputError

if TYPE_CHECKING:
    from torch import nn


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

    def __str__(self) -> str:
        """Its class's name, which finds nothing again."""
        return type(self.network).__name__


# A string is a torchvision or timm name, and never runs anybody's code.
BackboneName = str | Factory | OnnxFile | Module


def typed_backbone(text: str) -> BackboneName:
    """An argparse type: what a person typed after `--backbone`."""
    if text.lower().endswith(".onnx"):
        return OnnxFile(Path(text))
    return Factory(text) if ":" in text else text


def recorded_backbone(recorded: str, typed: BackboneName | None, *, what: str) -> BackboneName:
    """The classifier that a file names and that must be no other one.

    Raises:
        InputError: as `named_backbone`; or another one was typed.
    """
    if typed is not None and str(typed) != recorded:
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
