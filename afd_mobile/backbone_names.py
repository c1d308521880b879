"""Whose word a classifier's name is: a person may name code to run, a file may not.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from afd_mobile.errors import InputError


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


# A string is a torchvision or timm name, and never runs anybody's code.
BackboneName = str | Factory


def typed_backbone(text: str) -> BackboneName:
    """An argparse type: what a person typed after `--backbone`."""
    return Factory(text) if ":" in text else text


def recorded_backbone(recorded: str, typed: BackboneName | None, *, what: str) -> BackboneName:
    """The classifier that a file names, as far as its word is to be taken.

    Args:
        recorded: what the file says.
        typed: what the person typed on this command line, if anything.
        what: the file, for messages.

    Raises:
        InputError: they differ, or the file names a factory and the person typed none.
    """
    if typed is not None and str(typed) != recorded:
        raise InputError(f"{what} is for backbone {recorded}, not {typed}; leave out --backbone")
    if typed is None and ":" in recorded:
        raise InputError(
            f"{what} names code to run, {recorded}, as its classifier; if you trust that code, "
            f"add --backbone {shlex.quote(recorded)}"
        )
    return recorded if typed is None else typed
