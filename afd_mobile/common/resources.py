"""What comes with the project: trained models and ImageNet's classes.

In a checkout they lie at the top level; in an installed wheel, inside the packages.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT_CHECKPOINT = "afd-mobilenet_v2-mobile"

_HERE = Path(__file__).resolve().parent
_PACKAGE = _HERE.parent


def models_dir() -> Path:
    """The folder of shipped checkpoints and backbones."""
    installed = _PACKAGE / "models"
    return installed if installed.is_dir() else _PACKAGE.parent / "models"


def imagenet_classes() -> list[tuple[str, str]]:
    """(WordNet id, English name) of ImageNet's 1000 classes, in the order of the logits."""
    text = (_HERE / "imagenet_classes.tsv").read_text(encoding="utf-8")
    return [(wnid, name) for wnid, name in (line.split("\t") for line in text.splitlines())]
