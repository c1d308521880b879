"""The names of a classifier's classes."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from afd_mobile.common.errors import InputError
from afd_mobile.common.resources import imagenet_classes

LABELS = "labels.txt"  # in the zip archive behind a .tflite
_MOST_BYTES = 1 << 24  # of that file; a small archive may hold a large one


def load_labels(given: Path | Sequence[str], classes: int | None = None) -> list[str]:
    """One label a line, in the order of the logits.

    Args:
        given: a file, or its lines.
        classes: how many there must be; None takes any number.

    Raises:
        InputError: the file cannot be read or is not UTF-8, a line is empty or none, a label occurs
            twice, or there are not as many as `classes`.
    """
    if isinstance(given, Path):
        what = f"labels {given}"
        try:
            content = given.read_bytes()
        except OSError as error:
            raise InputError(f"{what} cannot be read: {error.strerror}") from error
        labels = _lines(_text(content, what), what)
    else:
        what = "labels"
        wrong = [label for label in given if not isinstance(label, str) or "\n" in label]
        if wrong:
            raise InputError(f"{what}: {wrong[0]!r} is no text of one line")
        labels = _lines("\n".join(given), what)
    if classes is not None and len(labels) != classes:
        raise InputError(
            f"{what}: found {len(labels)}, expected {classes}; give one line for every "
            "class, in the order of the logits"
        )
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        first, second = [i + 1 for i, label in enumerate(labels) if label == repeated[0]][:2]
        raise InputError(
            f"{what}: lines {first} and {second} are both {repeated[0]!r}; "
            "make every label unique, or apps cannot tell the classes apart"
        )
    return labels


def labels_inside(tflite: Path) -> list[str] | None:
    """Those that a TFLite file has in its metadata, in the order of the logits; None without any.

    Raises:
        InputError: they are no labels.
    """
    try:
        with zipfile.ZipFile(tflite) as archive, archive.open(LABELS) as file:
            content = file.read(_MOST_BYTES)
    # No such file in it, or no archive at all. What else is wrong with it, its opening will tell.
    except (KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    what = f"{LABELS} in {tflite}"
    return _lines(_text(content, what), what)


def _text(content: bytes, what: str) -> str:
    try:
        # With or without the byte order mark that some editors write.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} are not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error


def _lines(text: str, what: str) -> list[str]:
    # Readers on the phone split at line feeds only, so str.splitlines() would count otherwise.
    labels = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "" in labels:
        raise InputError(f"{what}: line {labels.index('') + 1} is empty; give one label a line")
    return labels


def imagenet_labels() -> list[str]:
    """ImageNet's, in the order of the logits, all different."""
    imagenet = imagenet_classes()
    count = Counter(name for _, name in imagenet)
    # Two cranes and two maillots: told apart by their WordNet ids.
    return [name if count[name] == 1 else f"{name} ({wnid})" for wnid, name in imagenet]


def class_index(labels: Sequence[str]) -> dict[str, int]:
    """The class that a folder's name stands for: its label, of ImageNet's also its WordNet id."""
    index = {label: i for i, label in enumerate(labels)}
    if list(labels) == imagenet_labels():
        index |= {wnid: i for i, (wnid, _) in enumerate(imagenet_classes())}
    return index
