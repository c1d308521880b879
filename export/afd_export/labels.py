"""The names of a classifier's outputs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from afd_mobile.errors import InputError
from afd_mobile.resources import imagenet_classes


def load_labels(path: Path, classes: int) -> list[str]:
    """One label a line, in the order of the logits.

    Raises:
        InputError: the file cannot be read or is not UTF-8, a line is empty, a label occurs twice,
            or there are not as many as `classes`.
    """
    try:
        # With or without the byte order mark that some editors write.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"labels {path} are not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"labels {path} cannot be read: {error.strerror}") from error
    # Readers on the phone split at line feeds only, so str.splitlines() would count otherwise.
    labels = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "" in labels:
        raise InputError(
            f"labels {path}: line {labels.index('') + 1} is empty; give one label a line"
        )
    if len(labels) != classes:
        raise InputError(
            f"labels {path}: found {len(labels)}, expected {classes}; give one line for every "
            "class, in the order of the logits"
        )
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        first, second = [i + 1 for i, label in enumerate(labels) if label == repeated[0]][:2]
        raise InputError(
            f"labels {path}: lines {first} and {second} are both {repeated[0]!r}; "
            "make every label unique, or apps cannot tell the classes apart"
        )
    return labels


def default_labels(classes: int) -> list[str] | None:
    """ImageNet's for a classifier of as many classes; None for any other."""
    imagenet = imagenet_classes()
    if classes != len(imagenet):
        return None
    count = Counter(name for _, name in imagenet)
    # Two cranes and two maillots: told apart by their WordNet ids.
    return [name if count[name] == 1 else f"{name} ({wnid})" for wnid, name in imagenet]
