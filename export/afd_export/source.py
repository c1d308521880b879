"""What is exported: the trained module, its classifier, and the name of the result."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afd_export.request import ExportRequest
from afd_mobile.checkpoints.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from afd_mobile.checkpoints.fit import has_imagenet_head, load_fitting, notices_of_fit
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.choose import check_places, preset_config
from afd_mobile.common.artifacts import Scope, sha256
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.afd_module import AfdConfig
from afd_mobile.network.corrections import AnyModule, InsideConfig, InsideModule, module_of
from afd_mobile.network.taps import Taps, preset_taps, single_tap

NO_CHECKPOINT = "none"
RANDOM_CHECKPOINT = "random"


@dataclass(frozen=True)
class ExportSource:
    """Attributes:
    afd: the module in eval mode; None for the plain classifier.
    checkpoint: its file; None for an untrained or absent module.
    backbone_sha256: over all the classifier's weights.
    imagenet: whether the classes are ImageNet's.
    notices: what a person must know about them.
    """

    name: str
    backbone: Backbone
    afd: AnyModule | None
    checkpoint: Path | None
    checkpoint_sha256: str | None
    backbone_sha256: str
    imagenet: bool
    notices: list[str]


def find_source(request: ExportRequest) -> ExportSource:
    """Loads classifier and module, and checks that they belong together.

    Raises:
        InputError: one of them is missing, broken, or made for another.
        UsageError: options that contradict each other.
    """
    path: Path | None = None
    checkpoint: Checkpoint | None = None
    if request.checkpoint not in (NO_CHECKPOINT, RANDOM_CHECKPOINT):
        path = find_checkpoint(request.checkpoint)
        checkpoint = load_checkpoint(path)
    taps = _taps(request, checkpoint, path)
    checkpoint, backbone = _fitting(request, taps, checkpoint, path)
    own = request.classifier.own_name and _plain(request.classifier.own_name)
    afd: AnyModule | None = None
    notices = list(backbone.notices)
    if checkpoint is not None and path is not None:
        afd = checkpoint.module
        if isinstance(afd.config, InsideConfig):
            check_places(backbone, afd.config.places, f"checkpoint {path}")
        else:
            _check_fit(afd.config, backbone, path)
        if afd.config.drift_input != "dct":
            raise InputError(
                f"checkpoint {path} is an ablation (--drift-input {afd.config.drift_input}), not "
                "for phones; measure it with afd-eval, or train with --drift-input dct"
            )
        notices += checkpoint.notices(path)
        notices += notices_of_fit(checkpoint, backbone, path)
        name = _plain(path.stem)
        trained_for = checkpoint.backbone or backbone.name
        if own is None and backbone.name != trained_for:
            own = _plain(backbone.name)
        if own is not None:
            trained_for = _plain(trained_for.removesuffix(".onnx"))
            rest = name.removeprefix(f"afd-{trained_for}-")
            name = "-".join(dict.fromkeys(("afd", own, rest)))  # the two may be called alike
    elif request.checkpoint == RANDOM_CHECKPOINT:
        torch.default_generator.manual_seed(request.seed)
        afd = module_of(preset_config(backbone, taps)).eval().requires_grad_(False)
        name = f"{own or _plain(backbone.name)}-{request.preset}-untrained"
        notices.append("the AFD-Module is untrained (random): accuracy means nothing")
    else:
        name = f"{own or _plain(backbone.name)}-plain"
    if not backbone.trained:
        name += "-random-weights"
        notices.append(f"{backbone.name} has random weights: accuracy means nothing")
    if afd is not None and not request.fused:
        name += "-multibranch"
    if request.scope is Scope.FEATURES:
        name += "-features"
    return ExportSource(
        name=name,
        backbone=backbone,
        afd=afd,
        checkpoint=path,
        checkpoint_sha256=sha256(path) if path else None,
        backbone_sha256=backbone.weights_sha256(),
        imagenet=has_imagenet_head(backbone, checkpoint),
        notices=notices,
    )


def _taps(request: ExportRequest, checkpoint: Checkpoint | None, path: Path | None) -> Taps:
    """Where the classifier is cut and, with an untrained module, corrected."""
    typed = request.taps
    if request.checkpoint == RANDOM_CHECKPOINT:
        taps = preset_taps(request.preset, typed)
    elif checkpoint is not None and checkpoint.tap is not None:
        if typed:
            raise UsageError(f"--taps: checkpoint {path} says where it corrects; leave it out")
        taps = Taps(checkpoint.tap)
    elif checkpoint is None and typed and request.scope is not Scope.FEATURES:
        raise UsageError(
            f"--taps: --checkpoint {NO_CHECKPOINT} corrects nothing; leave it out, or add "
            f"--scope {Scope.FEATURES.value}"
        )
    else:
        taps = single_tap(typed, f"--checkpoint {request.checkpoint}")
    inside = checkpoint is not None and isinstance(checkpoint.module, InsideModule)
    if (inside or taps.places) and request.scope is Scope.FEATURES:
        raise UsageError(
            "--scope features: the module corrects inside the classifier, and no features hold "
            "all of that; leave it out, or take a module with a single tap (--preset paper)"
        )
    return taps


def _fitting(
    request: ExportRequest, taps: Taps, checkpoint: Checkpoint | None, path: Path | None
) -> tuple[Checkpoint | None, Backbone]:
    """The classifier, and the checkpoint with its names of the nodes."""
    asked = request.classifier
    options: dict[str, Any] = {
        "seed": request.seed,
        "features_only": request.scope is Scope.FEATURES,
    }
    if checkpoint is not None and path is not None and checkpoint.backbone is not None:
        return load_fitting(checkpoint, path, asked, **options)
    if asked.backbone is None:
        raise UsageError(
            f"--checkpoint {request.checkpoint} does not say for which classifier; "
            "give --backbone NAME"
        )
    backbone = load_backbone(
        asked.backbone, tap=taps.node, before=taps.nodes, **asked.settings, **options
    )
    return checkpoint, backbone


def _check_fit(config: AfdConfig, backbone: Backbone, path: Path) -> None:
    for what, wanted, given in (
        ("channels", config.channels, backbone.channels),
        ("stride", config.stride, backbone.stride),
    ):
        if wanted != given:
            raise InputError(
                f"checkpoint {path} corrects features with {what} {wanted}, but tap "
                f"{backbone.tap} of {backbone.name} has {given}; choose another checkpoint or "
                "other --taps"
            )


def _plain(name: str) -> str:
    """A backbone's or a checkpoint's name as part of file names, Markdown and code: letters,
    digits and what never means anything there; every other character becomes a dot."""
    return "".join(
        c if unicodedata.category(c)[0] in "LMN" or c in " _.,+-=@" else "." for c in name
    )
