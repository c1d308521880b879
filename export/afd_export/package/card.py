"""What people read about an exported model: its name, what it is, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afd_export.source import ExportSource
from afd_mobile import __version__
from afd_mobile.common.artifacts import Scope
from afd_mobile.common.resources import models_dir
from afd_mobile.network.corrections import InsideModule


@dataclass(frozen=True)
class ModelCard:
    """Nothing in it changes how a model is fed.

    Attributes:
        figures: the file in `models/` that says how accurate this is; None where there is none.
    """

    name: str
    description: str
    version: str
    author: str
    licence: str
    figures: str | None


def model_card(source: ExportSource, scope: Scope) -> ModelCard:
    """The card of what `source` is exported as."""
    return ModelCard(
        name=source.name,
        description=_description(source, scope),
        version=__version__,
        author="exported by afd-mobile",
        licence=_licence(source),
        figures=_figures(source),
    )


def _description(source: ExportSource, scope: Scope) -> str:
    backbone = source.backbone
    what = (
        f"{backbone.name}, an image classifier"
        if scope is Scope.CLASSIFIER
        else f"{backbone.name} up to {backbone.tap}, a feature extractor"
    )
    if isinstance(source.afd, InsideModule):
        what += (
            f", with an AFD-Module at {len(source.afd.corrections)} places behind {backbone.tap} "
            "that corrects what compression does to the features"
        )
    elif source.afd is not None:
        what += (
            f", with an AFD-Module at {backbone.tap} that corrects what JPEG compression does to "
            "the features"
        )
    return "; ".join((what, *source.notices)) + "."


def _shipped(checkpoint: Path) -> bool:
    return checkpoint.resolve().parent == models_dir().resolve()


def _figures(source: ExportSource) -> str | None:
    """Those of a shipped module hold with the classifier that it was trained for."""
    checkpoint = source.checkpoint
    if checkpoint is None or not _shipped(checkpoint) or source.backbone.weights != "bundled":
        return None
    return f"{checkpoint.stem}.md"


def _licence(source: ExportSource) -> str:
    """One line. What the project does not know it leaves to the one who brought the weights."""
    backbone = source.backbone
    if not backbone.trained:
        classifier = "random, none needed"
    elif backbone.weights == "bundled":
        classifier = (
            "BSD 3-Clause, torchvision (https://github.com/pytorch/vision/blob/main/LICENSE)"
        )
    elif backbone.weights == "published":
        classifier = "their publisher's, see torchvision or timm"
    else:
        classifier = "their owner's"
    parts = [f"classifier's weights: {classifier}"]
    if source.afd is not None:
        if source.checkpoint is None:
            module = "random, none needed"
        elif _shipped(source.checkpoint):
            module = "Apache-2.0 (afd-mobile)"
        else:
            module = "their owner's"
        parts.append(f"AFD-Module's weights: {module}")
    return "; ".join(parts)
