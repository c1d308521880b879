"""Reading and writing AFD checkpoints: safetensors with the configuration."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save

from afd_mobile.checkpoints.held_out import HeldOut, Verdict
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.classifiers.weights import check_entries, load_strictly, most_of
from afd_mobile.classifiers.weights_file import WeightsFile, read_weights_file
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import write_whole
from afd_mobile.common.resources import models_dir
from afd_mobile.network import published
from afd_mobile.network.afd_module import CHECKPOINT_FORMAT, AfdConfig
from afd_mobile.network.corrections import AnyConfig, AnyModule, InsideConfig, module_of

# One tap, and several places inside the classifier.
FORMAT = f"{CHECKPOINT_FORMAT}1"
INSIDE_FORMAT = f"{CHECKPOINT_FORMAT}2"
CONFIGS: Mapping[str | None, type[AfdConfig] | type[InsideConfig]] = {
    FORMAT: AfdConfig,
    INSIDE_FORMAT: InsideConfig,
}

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A trained module and what it was trained for.

    Attributes:
        backbone, tap: the classifier and the node that its features are taken from; None in
            checkpoints that do not record them.
        training: how it was trained, as recorded by `afd-train`.
        classifier: what `classifier_record` remembers of it; None in checkpoints from before.
    """

    module: AnyModule
    backbone: str | None
    tap: str | None
    training: Mapping[str, Any]
    classifier: ClassifierRecord | None = None

    @property
    def held_out(self) -> HeldOut | None:
        """What the training found; None where no picture was held out, and in earlier ones."""
        recorded = self.training.get("held_out")
        return None if recorded is None else HeldOut.from_dict(recorded)

    def notices(self, path: Path) -> list[str]:
        """What whoever uses it must know of its training.

        Args:
            path: its file.
        """
        found = self.held_out
        if found is None or found.verdict is not Verdict.WORSE:
            return []
        return [f"checkpoint {path.stem}, when it was trained: {found.text()}"]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint, whole or not at all."""
    config = checkpoint.module.config
    metadata = {
        "format": INSIDE_FORMAT if isinstance(config, InsideConfig) else FORMAT,
        "config": json.dumps(dataclasses.asdict(config)),
        "backbone": json.dumps(checkpoint.backbone),
        "tap": json.dumps(checkpoint.tap),
        "training": json.dumps(dict(checkpoint.training)),
    }
    if checkpoint.classifier is not None:
        metadata["classifier"] = json.dumps(dataclasses.asdict(checkpoint.classifier))
    state = {k: v.detach().cpu().contiguous() for k, v in checkpoint.module.state_dict().items()}
    write_whole(path, _in_order(save(state, metadata)))


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with its metadata in alphabetical order.

    The library writes them in another order every time. Layout: the header's length in 8 bytes,
    little-endian; the header, JSON padded with spaces to a multiple of 8; the tensors.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[start:]


def find_checkpoint(name: str) -> Path:
    """The file of a shipped checkpoint's name, or of a path."""
    shipped = models_dir() / f"{name}.safetensors"
    if shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    raise InputError(
        f"no checkpoint {name!r}: neither a file nor shipped; shipped: "
        f"{', '.join(shipped_names()) or 'none'}"
    )


def shipped_names() -> list[str]:
    """Of the checkpoints that come with the project, sorted."""
    return sorted(path.stem for path in models_dir().glob("*.safetensors"))


def load(checkpoint: str | os.PathLike[str]) -> Checkpoint:
    """A trained module in eval mode, and what it was trained for.

    Args:
        checkpoint: a shipped one's name, or a file.

    Raises:
        InputError: there is none, or as `load_checkpoint`.
    """
    return load_checkpoint(find_checkpoint(os.fspath(checkpoint)))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads an AFD checkpoint, or one in the layout of the authors' public code, in eval mode.

    Raises:
        InputError: unreadable, not an AFD checkpoint, or not matching its own configuration.
    """
    file = read_weights_file(path)
    metadata = file.metadata
    if metadata.get("format") in CONFIGS:
        state = file.states[""]
        config: AnyConfig = _parsed(path, "configuration", lambda: _config(metadata))
    else:
        state = most_of(file, published.NAMES)
        if not published.is_published_layout(list(state)):
            raise InputError(_no_checkpoint(file))
        channels, fe_widths, fde_widths, state = published.from_published_layout(state)
        config = AfdConfig("baseline", channels, 2, "relu", fe_widths, fde_widths)
        metadata = {}
    what = f"checkpoint {path}"
    with torch.device("meta"):  # shapes alone: what the file does not hold is not allocated
        check_entries(module_of(config), state, what)
    module = module_of(config)
    load_strictly(module, state, what=what)
    checkpoint = Checkpoint(
        module=module.eval().requires_grad_(False),
        backbone=_parsed(path, "backbone", lambda: _text(metadata.get("backbone", "null"))),
        tap=_parsed(path, "tap", lambda: _text(metadata.get("tap", "null"))),
        training=_parsed(
            path, "training", lambda: dict(json.loads(metadata.get("training", "{}")))
        ),
        classifier=_parsed(path, "classifier", lambda: _record(metadata.get("classifier"))),
    )
    _parsed(path, "training", lambda: checkpoint.held_out)
    return checkpoint


def _record(encoded: str | None) -> ClassifierRecord | None:
    return None if encoded is None else ClassifierRecord.from_dict(json.loads(encoded))


def _no_checkpoint(file: WeightsFile) -> str:
    entries = file.largest()
    return (
        f"{file.path} is no AFD checkpoint: looked for metadata of "
        f"{' or '.join(map(str, CONFIGS))} or the authors' key layout, found {len(entries)} other "
        f"entries, such as {entries[0]}; a classifier's weights go to --backbone-weights, and "
        "afd-train makes checkpoints"
    )


def _text(encoded: str) -> str | None:
    value = json.loads(encoded)
    if not (value is None or isinstance(value, str)):
        raise ValueError(f"{value!r} is no text")
    return value


def _config(metadata: Mapping[str, str]) -> AnyConfig:
    return CONFIGS[metadata["format"]].from_dict(json.loads(metadata["config"]))


def _parsed(path: Path, what: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (InputError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: broken {what} in the metadata: {error}") from error
