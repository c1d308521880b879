"""Which classifier a person means, and how it is fed: the same options in all commands.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afd_mobile.classifiers.names import BackboneName, Module, OnnxFile, typed_backbone
from afd_mobile.common.command import positive


@dataclass(frozen=True)
class ClassifierOptions:
    """What was typed. None where nothing was.

    Attributes:
        weights: `auto`, `random` or a file.
        mean, std: of RGB from 0 to 1.
        input_size: pixels.
    """

    backbone: BackboneName | None = None
    weights: str = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What `load_backbone` takes of it beside the name."""
        keys = ("weights", "mean", "std", "input_size")
        return {key: getattr(self, key) for key in keys}

    @property
    def own_file(self) -> Path | None:
        """Where a person's own weights lie, if in a file; an ONNX file holds its own."""
        if isinstance(self.backbone, OnnxFile):
            return self.backbone.path
        return None if self.weights in ("auto", "random") else Path(self.weights)

    @property
    def own_name(self) -> str | None:
        """What a person's own weights are called: their file, or the class of the module."""
        if isinstance(self.backbone, Module):
            return str(self.backbone)
        return None if self.own_file is None else self.own_file.stem


AS_RECORDED = ClassifierOptions()  # nothing was typed


def add_classifier(
    parser: argparse.ArgumentParser,
    *,
    when: str = "default: as recorded; a factory or an .onnx file that a checkpoint or an export "
    "names must be typed",
) -> None:
    """--backbone, --backbone-weights, --mean, --std and --input-size.

    Args:
        when: where --backbone comes from, or whether it is needed.
    """
    add = parser.add_argument
    add(
        "--backbone",
        type=typed_backbone,
        metavar="NAME",
        help="torchvision or timm classifier, an .onnx file, or package.module:factory, which is "
        f"run ({when})",
    )
    add(
        "--backbone-weights",
        default="auto",
        metavar="auto|random|PATH",
        help="auto: shipped, else $AFD_WEIGHTS_DIR/NAME.pth, else published; an .onnx file has its "
        "own (default: %(default)s)",
    )
    for option, metavar, what in (("--mean", "M", "mean"), ("--std", "S", "standard deviation")):
        add(
            option,
            type=float,
            nargs=3,
            metavar=metavar,
            help=f"{what} of RGB from 0 to 1 (default: the checkpoint's, else the network's own)",
        )
    add(
        "--input-size",
        type=positive,
        metavar="PIXELS",
        help="8 divides it (default: the checkpoint's, else the network's own)",
    )


def classifier_options(arguments: argparse.Namespace) -> ClassifierOptions:
    """What `add_classifier` parsed."""
    return ClassifierOptions(
        arguments.backbone,
        arguments.backbone_weights,
        arguments.mean and tuple(arguments.mean),
        arguments.std and tuple(arguments.std),
        arguments.input_size,
    )
