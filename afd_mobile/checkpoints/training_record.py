"""What a checkpoint records of its training, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from afd_mobile.checkpoints import learning_curve
from afd_mobile.checkpoints.checkpoint import Checkpoint
from afd_mobile.checkpoints.held_out import held_out_line
from afd_mobile.checkpoints.learning_curve import Point
from afd_mobile.common.errors import InputError
from afd_mobile.common.terminal import aligned
from afd_mobile.network.corrections import InsideConfig


def curve_of(checkpoint: Checkpoint, name: str) -> list[Point]:
    """The learning curve; empty where there is none.

    Raises:
        InputError: what is recorded is none.
    """
    try:
        return learning_curve.checked(checkpoint.training.get("curve", []))
    except ValueError as error:
        raise InputError(f"checkpoint {name} holds a broken learning curve; train again") from error


def record_lines(checkpoint: Checkpoint, curve: Sequence[Point]) -> list[str]:
    """The classifier, the module, everything that `afd-train` recorded, the curve, the verdict."""
    training = checkpoint.training
    lines = [f"  {line}" for line in aligned(list(_facts(checkpoint)), left=2)]
    lines += learning_curve.text_table(curve) if curve else ["no learning curve"]
    if "held_out" in training:
        lines.append(held_out_line(checkpoint.held_out))
    return lines


def _facts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    config, record = checkpoint.module.config, checkpoint.classifier
    yield "classifier", checkpoint.backbone or "not recorded"
    if record is not None:
        yield "its weights", record.weights
        yield "its classes", str(record.classes)
        yield "its input", f"{record.input_size} pixels, mean {record.mean}, std {record.std}"
    yield "tap", checkpoint.tap or "not recorded"
    yield "architecture", config.architecture
    if isinstance(config, InsideConfig):
        yield "places", " ".join(f"{place.kind}:{place.node}" for place in config.places)
    yield "drift input", config.drift_input
    for key, value in checkpoint.training.items():
        if key not in ("curve", "held_out"):
            yield key.replace("_", " "), _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
