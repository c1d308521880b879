"""Whether a module fits a classifier: by what the layers answer, not by names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afd_mobile.backbones import AUTOMATIC, Backbone, bundled_weights, load_backbone
from afd_mobile.checkpoint import Checkpoint
from afd_mobile.classifier_record import ClassifierRecord
from afd_mobile.corrections import AnyModule, InsideModule
from afd_mobile.errors import InputError
from afd_mobile.places import place_outputs

LOGITS = "logits"
CHANNELS = 32
# Differences are relative. The bundled weights, rounded, answer as the published ones to less than
# 0.0005. 2 % of noise on all weights before the tap makes 0.01 to 0.11 there, 10 % 0.05 to 0.7.
SAME = 0.005
OTHER = 0.12


def record_of(backbone: Backbone, module: AnyModule) -> ClassifierRecord:
    """What the module's checkpoint is to remember of the classifier."""
    return ClassifierRecord(
        backbone.name,
        backbone.weights if backbone.weights in AUTOMATIC else Path(backbone.weights).name,
        tuple(backbone.mean),
        tuple(backbone.std),
        backbone.input_size,
        backbone.classes,
        {
            node: _rounded(answer)
            for node, answer in _answers(backbone, module, backbone.input_size)
        },
    )


def notices_of_fit(checkpoint: Checkpoint, backbone: Backbone, path: Path) -> list[str]:
    """What a person must know where the classifier is not the one that the module was trained on.

    Args:
        path: the checkpoint's file.

    Raises:
        InputError: its layers are others, or it is another classifier while nobody said which.
    """
    record = checkpoint.classifier or _of_bundled(checkpoint)
    if record is None or not backbone.trained:
        return []
    origin = f"was trained on {record.name} with {_said(record.weights)}"
    # Notices become part of an export, which is the same wherever the file lies.
    trained_on, refused = f"checkpoint {path.stem} {origin}", f"checkpoint {path} {origin}"
    this = f"{backbone.name} with {_said(backbone.weights)}"
    notices = []
    settings = [
        (name, _short(there), _short(here))
        for name, there, here in (
            ("mean", record.mean, backbone.mean),
            ("std", record.std, backbone.std),
            ("input size", [record.input_size], [backbone.input_size]),
        )
        if not np.allclose(there, here, rtol=1e-3)
    ]
    if settings:
        there, here = (", ".join(f"{s[0]} {s[i]}" for s in settings) for i in (1, 2))
        notices.append(f"{trained_on} at {there}; at {here} it may correct nothing")
    differences = dict(_differences(record, backbone, checkpoint.module))
    other_head = differences.pop(LOGITS) > SAME
    first = next((node for node, how_much in differences.items() if how_much > SAME), None)
    if first == backbone.tap and differences[first] > OTHER:
        raise InputError(
            f"{refused}; {this} answers differently at {first}, by {differences[first]:.0%}; "
            f"give --backbone-weights, or train the module on with afd-train --init {path}"
        )
    if not other_head and first is None:
        return notices
    if record.weights not in AUTOMATIC and backbone.weights in AUTOMATIC:
        raise InputError(
            f"{refused}; {this} is another classifier: give --backbone-weights {record.weights}"
        )
    if first is None:
        notices.append(
            f"{trained_on}, and fits {this}: the same layers up to {list(differences)[-1]}, "
            f"another head ({backbone.classes} classes, not {record.classes})"
        )
    else:
        notices.append(
            f"{trained_on}; {this} answers differently from {first} on, by "
            f"{differences[first]:.1%} there: see with afd-eval what it brings, or train it on "
            "with afd-train --init"
        )
    return notices


def _of_bundled(checkpoint: Checkpoint) -> ClassifierRecord | None:
    """Checkpoints without a record were trained on the weights that come with the project."""
    name = checkpoint.backbone
    if name is None or not bundled_weights(name).is_file():
        return None
    return record_of(load_backbone(name, tap=checkpoint.tap), checkpoint.module)


def _differences(
    record: ClassifierRecord, backbone: Backbone, module: AnyModule
) -> Iterator[tuple[str, float]]:
    """Of the answers, relative to the recorded ones; logits of another number differ wholly."""
    for node, answer in _answers(backbone, module, record.input_size):
        recorded = torch.tensor(record.answers.get(node, ()))
        same_size = len(answer) == len(recorded)
        yield node, float((answer - recorded).norm() / recorded.norm()) if same_size else math.inf


@torch.no_grad()
def _answers(backbone: Backbone, module: AnyModule, size: int) -> Iterator[tuple[str, Tensor]]:
    features = backbone.head(probe(size))
    yield backbone.tap, _channels(features)
    if isinstance(module, InsideModule):
        places = module.config.places
        outputs = place_outputs(backbone.tail, places, features)
        for place, output in zip(places, outputs, strict=True):
            yield place.node, _channels(output)
    yield LOGITS, _channels(backbone.tail(features))


def probe(size: int) -> Tensor:
    """A normalised picture of all frequencies: sines that rise from corner to corner."""
    along = torch.linspace(0, 1, size, dtype=torch.float64)
    y, x = along[:, None], along[None, :]
    phases = [4 * x + 24 * x * x + start * y + 16 * y * y for start in (3, 7, 11)]
    return torch.stack([1.5 * (2 * math.pi * phase).sin() for phase in phases])[None].float()


def _channels(output: Tensor) -> Tensor:
    means = output.flatten(2).mean(2)[0] if output.ndim == 4 else output[0]
    chosen = torch.linspace(0, len(means) - 1, min(CHANNELS, len(means))).round().long()
    return means[chosen]


def _rounded(answer: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in answer.tolist())


def _said(weights: str) -> str:
    return f"{weights} weights" if weights in AUTOMATIC else f"the weights {Path(weights).name}"


def _short(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
