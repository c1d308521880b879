"""Whether a module fits a classifier, and where: by what the layers answer, not by names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afd_mobile.checkpoints.checkpoint import Checkpoint
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.names import named_backbone, recorded_backbone, spelling
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.classifiers.places import Network, node_outputs, place_outputs, stride_of
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.classifiers.sources import AUTOMATIC, PUBLISHED, WITHIN, bundled_weights
from afd_mobile.common.errors import InputError
from afd_mobile.common.resources import imagenet_classes
from afd_mobile.network.afd_module import AfdConfig
from afd_mobile.network.corrections import (
    AnyModule,
    InsideConfig,
    InsideModule,
    module_of,
    still_trained,
)

LOGITS = "logits"
CHANNELS = 32
# Differences are relative. The bundled weights, rounded, answer as the published ones to less than
# 0.0005. 2 % of noise on all weights before the tap makes 0.01 to 0.11 there, 10 % 0.05 to 0.7.
SAME = 0.005
OTHER = 0.12
# Of a layer behind the tap, which is looked for; at more, nothing is alike. With 2 and 5 % of noise
# on MobileNetV2's weights they differed by up to 0.3 and 0.6; all 17 nodes were found, with each of
# three seeds. Real fine-tuning was not measured.
LOST = 0.9
# How much worse an activation may answer than what it is applied to, and still be taken: chosen
# after one of 17 was missed without it, at 2 % of noise.
ALIKE = 1.5
# The remedy where nothing that was learnt fits.
TRAIN_ANEW = "train a module for it with afd-train"


def has_imagenet_head(backbone: Backbone, checkpoint: Checkpoint | None) -> bool:
    """Whether the classes are ImageNet's: by where the weights come from, or what they answer.

    Args:
        checkpoint: of a module for it; it may remember what the library's weights answer.
    """
    if backbone.classes != len(imagenet_classes()) or not backbone.trained:
        return False
    if backbone.weights in PUBLISHED:
        return True
    size = backbone.input_size
    record = None if checkpoint is None else checkpoint.classifier or _of_bundled(checkpoint)
    if record is not None and record.weights in PUBLISHED:
        size, known = record.input_size, torch.tensor(record.answers.get(LOGITS, ()))
    elif bundled_weights(backbone.name).is_file():
        known = _head_answer(load_backbone(backbone.name, tap=backbone.tap), size)
    else:
        return False
    return _difference(_head_answer(backbone, size), known) <= SAME


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
    if not other_head and first is None:
        return notices
    forgotten = record.weights not in AUTOMATIC and backbone.weights in AUTOMATIC
    if forgotten and backbone.name == record.name:  # of another name, they were typed
        raise InputError(
            f"{refused}; {this} is another classifier: give --backbone-weights {record.weights}"
        )
    if first == backbone.tap and differences[first] > OTHER:
        raise InputError(
            f"{refused}; {this} answers differently at {first}, by {differences[first]:.0%}; "
            f"{TRAIN_ANEW}"
        )
    if first is None:
        notices.append(
            f"{trained_on}, and fits {this}: the same layers up to {list(differences)[-1]}, "
            f"another head ({backbone.classes} classes, not {record.classes})"
        )
    else:
        trained = "train the module on with afd-train --init"
        if not still_trained(checkpoint.module.config):
            trained = TRAIN_ANEW
        notices.append(
            f"{trained_on}; {this} answers differently from {first} on, by "
            f"{differences[first]:.1%} there: see with afd-eval what it brings, or {trained}"
        )
    return notices


def load_fitting(
    checkpoint: Checkpoint, path: Path, asked: ClassifierOptions, **options: Any
) -> tuple[Checkpoint, Backbone]:
    """The classifier that was typed or that the checkpoint names, cut where the module belongs.

    A classifier may come under any name, with any names of its nodes: wrapped, by a factory, as an
    ONNX file. Where it lacks the nodes that the checkpoint names, they are those whose answers to
    the recorded picture are nearest, at the same stride and with as many channels.

    Args:
        path: the checkpoint's file.
        asked: what the person typed of the classifier; the rest is as in the checkpoint's record.
        options: of `load_backbone`.

    Returns:
        The checkpoint, with the classifier's own names of the nodes.

    Raises:
        InputError: no layer answers as the recorded one, or it takes no pictures of the recorded
            size; or as `load_backbone`.
    """
    assert checkpoint.backbone is not None
    what = f"checkpoint {path}"
    name = named_backbone(checkpoint.backbone, asked.backbone, what=what)
    record = checkpoint.classifier
    if record is None and spelling(name) != checkpoint.backbone:
        record = _of_bundled(checkpoint)
    options |= asked.settings | {"record": record}
    if record is None or checkpoint.tap is None or asked.weights == "random":
        name = recorded_backbone(checkpoint.backbone, asked.backbone, what=what)
        return checkpoint, load_backbone(name, tap=checkpoint.tap, **options)
    nodes: dict[str, str] = {}

    def tap_of(network: Network) -> str:
        nodes.update(_nodes(network, checkpoint, record, f"{what} was trained on {record.name}"))
        return nodes[checkpoint.tap or ""]

    backbone = load_backbone(name, tap=tap_of, **options)
    if all(there == here for there, here in nodes.items()):
        return checkpoint, backbone
    answers = {nodes.get(node, node): answer for node, answer in record.answers.items()}
    renamed = dataclasses.replace(
        checkpoint,
        module=_renamed(checkpoint.module, nodes),
        tap=backbone.tap,
        classifier=dataclasses.replace(record, answers=answers),
    )
    return renamed, backbone


def _renamed(module: AnyModule, nodes: Mapping[str, str]) -> AnyModule:
    if not isinstance(module, InsideModule):
        return module
    places = [dataclasses.replace(p, node=nodes[p.node]) for p in module.config.places]
    renamed = module_of(dataclasses.replace(module.config, places=tuple(places)))
    renamed.load_state_dict(module.state_dict())
    return renamed.eval().requires_grad_(False)


def _nodes(
    network: Network, checkpoint: Checkpoint, record: ClassifierRecord, trained_on: str
) -> dict[str, str]:
    """The network's nodes for those that the checkpoint names.

    Raises:
        InputError: one is not found, or the network takes no pictures of the recorded size.
    """
    config = checkpoint.module.config
    places = config.places if isinstance(config, InsideConfig) else ()
    names = [str(checkpoint.tap), *(place.node for place in places)]
    size = record.input_size
    try:
        outputs = node_outputs(network.network, probe(size))
    except Exception as error:  # whatever the network's forward raises
        raise InputError(
            f"{trained_on} at {size} x {size} pixels, of which this classifier takes no pictures; "
            f"{TRAIN_ANEW}"
        ) from error
    if all(
        any(s.qualname == n or s.qualname.startswith(f"{n}.") for s in network.steps) for n in names
    ):
        return {name: name for name in names}
    shapes = {place.node: (place.channels, place.stride) for place in places}
    if isinstance(config, AfdConfig):
        shapes[names[0]] = (config.channels, config.stride)
    steps = [s for s in network.steps if s.node.op != "placeholder" and s.size > 1]
    answers = [_channels(outputs[step.node]) for step in steps]
    found: dict[str, str] = {}
    first = 0
    for name in dict.fromkeys(names):
        recorded = torch.tensor(record.answers.get(name, ()))
        differences = {
            number: _difference(answers[number], recorded)
            for number, step in enumerate(steps[first:], first)
            if len(answers[number]) == len(recorded)
            and (name not in shapes or shapes[name] == _shape_of(outputs[step.node], record))
            and (name != names[0] or step.only_path)
        }
        best = min(differences, key=differences.__getitem__, default=None)
        if best is not None and name != names[0]:
            # In layers that differ, both may answer nearly alike; most corrections are behind it.
            activated = network.activated(steps[best].node)
            behind = next(n for n, step in enumerate(steps) if step.node is activated)
            if differences.get(behind, math.inf) <= ALIKE * differences[best]:
                best = behind
        if best is None or differences[best] > (OTHER if name == names[0] else LOST):
            near = (
                ""
                if best is None
                else (f" (the nearest, {steps[best].qualname}, differs by {differences[best]:.0%})")
            )
            raise InputError(
                f"{trained_on}; none of this classifier's layers answers as {name} does{near}; "
                f"{TRAIN_ANEW}"
            )
        found[name], first = steps[best].qualname, best
    return found


def _shape_of(output: Tensor, record: ClassifierRecord) -> tuple[int, int]:
    return output.shape[1], stride_of(output.shape, record.input_size)


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
        yield node, _difference(answer, torch.tensor(record.answers.get(node, ())))


def _difference(answer: Tensor, known: Tensor) -> float:
    return float((answer - known).norm() / known.norm()) if len(answer) == len(known) else math.inf


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


@torch.no_grad()
def _head_answer(backbone: Backbone, size: int) -> Tensor:
    return _channels(backbone.tail(backbone.head(probe(size))))


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
    if weights in WITHIN:
        return "its own weights"
    return f"{weights} weights" if weights in AUTOMATIC else f"the weights {Path(weights).name}"


def _short(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
