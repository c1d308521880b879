"""Files of weights: what is in them, without running any code that they hold."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from afd_mobile.common.errors import InputError

_REMEDY = (
    "give weights alone, as torch.save(model.state_dict(), 'weights.pth') writes them, or the "
    "network as a factory: --backbone package.module:factory"
)
_SHOWN = 5  # of what a file holds instead


@dataclass(frozen=True)
class WeightsFile:
    """Attributes:
    states: every dictionary with tensors in it by where it lies, outermost first: "" is the file
        itself, `model.ema` lies in `model`.
    metadata: of a safetensors file.
    """

    path: Path
    states: Mapping[str, dict[str, Tensor]]
    metadata: Mapping[str, str]

    def largest(self) -> list[str]:
        """The names in the dictionary that has most of them, for people."""
        return max(map(list, self.states.values()), key=len)


def read_weights_file(path: Path) -> WeightsFile:
    """Reads safetensors and what torch.save writes, told apart by their content.

    Raises:
        InputError: unreadable, of another kind, or without named tensors.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    metadata: dict[str, str] = {}
    content: object
    try:
        with path.open("rb") as file:
            start = file.read(9)
        other = _other_kind(path, start)
        if other is not None:
            raise InputError(f"{path} is {other}; {_REMEDY}")
        if start[8:] == b"{":  # behind its header's length
            content, metadata = _safetensors(path)
        elif start.startswith((b"PK", b"\x80")):  # torch.save's archive, or the pickle before it
            content = _torch_content(path)
        else:
            raise InputError(
                f"{path} is no weights file, neither safetensors nor torch.save's; is it truncated?"
            )
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than weights and was not unpickled ({_reason(error)}); {_REMEDY}"
        ) from error
    except Exception as error:  # a corrupt file raises whatever the readers stumble over
        raise InputError(f"{path} cannot be read ({_reason(error)}); is it truncated?") from error
    states = _states(content)
    if not states:
        raise InputError(f"{path} holds no state dict but {_what(content)}; {_REMEDY}")
    return WeightsFile(path, states, metadata)


# --- other kinds of files -----------------------------------------------------------------------


def _other_kind(path: Path, start: bytes) -> str | None:
    """What it is, where people take it for weights."""
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        return _other_archive(path)
    # ONNX's ModelProto: field 1, a small version, and another field (2 to 8, as protobuf has them).
    first, version, second = (*start[:3], 0, 0, 0)[:3]
    if (first, second) in _ONNX and version < 0x20:
        return "an ONNX model, which goes to --backbone"
    return "a TFLite model" if start[4:8] == b"TFL3" else None


_ONNX = {(0x08, second) for second in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)}


def _other_archive(path: Path) -> str | None:
    """By the names inside; most archives have them below one folder."""
    with zipfile.ZipFile(path) as archive:
        listed = archive.namelist()
    names = {*listed, *(name.partition("/")[2] for name in listed)}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "a TorchScript archive"
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "an exported program (torch.export)"
    return None if "data.pkl" in names else "a zip archive, but not torch.save's"


# --- reading ------------------------------------------------------------------------------------


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


class _Unread:
    """Stands for an object of a class that is not loaded. Takes anything, and keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _torch_content(path: Path) -> object:
    """Tensors, numbers, texts and their containers; everything else is an _Unread.

    Training scripts save their options beside the weights, as an argparse.Namespace or numpy's
    numbers, which weights_only refuses. It gets an _Unread by these names instead.
    """
    names = []
    if zipfile.is_zipfile(path):  # of old files nobody lists them
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    unread: list[Callable[..., object] | tuple[Callable[..., object], str]]
    unread = [(type(name, (_Unread,), {}), name) for name in names]
    with (
        path.open("rb") as file,  # of a path torch.load looks at the suffix first
        warnings.catch_warnings(),
        torch.serialization.safe_globals(unread),
    ):
        warnings.simplefilter("ignore")  # about the pickle's protocol
        return torch.load(file, map_location="cpu", weights_only=True)


def _states(content: object) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    queue, seen = [("", content)], set()
    for where, value in queue:  # which grows on the way
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        named = {key: entry for key, entry in value.items() if isinstance(key, str)}
        tensors = {key: entry for key, entry in named.items() if isinstance(entry, Tensor)}
        if tensors:
            found[where] = tensors
        queue += [(f"{where}.{key}" if where else key, entry) for key, entry in named.items()]
    return found


# --- what a refusal says ------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    """PyTorch's own reason, out of its advice; else the first line."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    return line.partition(" was not an allowed")[0]


def _what(content: object) -> str:
    if not isinstance(content, dict):
        return f"a whole {type(content).__name__}"
    if not content:
        return "nothing"
    entries = [
        f"{key} (a whole {type(value).__name__})" if isinstance(value, _Unread) else str(key)
        for key, value in content.items()
    ]
    more = f" and {len(entries) - _SHOWN} more" * (len(entries) > _SHOWN)
    return f"entries {', '.join(entries[:_SHOWN])}{more}"
