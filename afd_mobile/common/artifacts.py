"""The vocabulary of stages, precisions and inputs, and the manifest that goes with every export."""

from __future__ import annotations

import hashlib
import json
import platform
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from afd_mobile.common.errors import InputError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2


class Stage(str, Enum):
    """What the trained module becomes on its way to a phone, in order.

    Without a module nothing has branches: the plain classifier is folded, its normalisation into
    the first convolution.
    """

    MULTI_BRANCH = "multi-branch"
    PLAIN = "plain"
    FUSED = "fused"
    FOLDED = "folded"
    ONNX = "onnx"
    SIMPLIFIED = "simplified"
    FLOAT16_ARITHMETIC = "float16 arithmetic"
    TFLITE = "tflite"


class Precision(str, Enum):
    """How a `.tflite` file stores and computes."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"


class Scope(str, Enum):
    """What a graph computes: a classifier's logits, or the corrected features at the tap."""

    CLASSIFIER = "classifier"
    FEATURES = "features"

    @property
    def output_name(self) -> str:
        return "logits" if self is Scope.CLASSIFIER else "features"


class InputRange(str, Enum):
    """What a graph is fed with: raw RGB, 0 to 255, or (rgb / 255 - mean) / std."""

    RGB255 = "rgb255"
    NORMALIZED = "normalized"


INPUT_NAME = "image"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: Any) -> bytes:
    """For people and programs. Bytes of file names that are no UTF-8 become JSON's own escapes."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def versions_of(*packages: str) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def read_versioned(path: Path, schema_version: int, remedy: str) -> dict[str, Any]:
    """A JSON object with this `schema_version`.

    Raises:
        InputError: it is missing, broken, or of another version.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no regular file")  # a pipe would wait for ever
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}; {remedy}") from error
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != schema_version:
        raise InputError(f"{path} has schema version {found}, expected {schema_version}; {remedy}")
    result: dict[str, Any] = content
    return result


def file_of(folder: Path, recorded: str) -> Path:
    """The file that the manifest of `folder` names, which may only lie in it.

    Every reader of such a path uses this. Links are followed first: one that leads out of the
    folder is refused as well, since whoever made the manifest may have made the link.

    Args:
        recorded: as the manifest has it, relative to `folder`.

    Raises:
        InputError: an absolute path, one with `..`, a link out of the folder, or a folder, a pipe
            or a device instead of a file. One that is missing is not refused here.
    """
    try:
        relative = Path(recorded)
        plain = not relative.is_absolute() and ".." not in relative.parts
        path = (folder / relative).resolve()
        inside = plain and path.is_relative_to(folder.resolve())
        inside = inside and (path.is_file() or not path.exists())
    except (OSError, TypeError, ValueError, RuntimeError):  # no text, a NUL byte, a loop of links
        inside = False
    if not inside:
        raise InputError(
            f"{folder / MANIFEST} names {recorded!r}, which is no file of its folder; "
            "export again with afd-export"
        )
    return folder / relative


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an export folder.

    Raises:
        InputError: there is none, it is broken, or of another schema version.
    """
    return read_versioned(folder / MANIFEST, SCHEMA_VERSION, "export again with afd-export")
