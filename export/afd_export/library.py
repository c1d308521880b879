"""`afd_mobile.correct` and `afd_mobile.export`: what `afd-export` does, from Python."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from afd_export import pipeline
from afd_export.convert.graph import DeployedGraph, fold_normalization
from afd_export.pipeline import ExportResult
from afd_export.request import ExportRequest
from afd_export.source import find_source
from afd_mobile.classifiers.names import Module, typed_backbone
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.common.artifacts import Precision
from afd_mobile.common.errors import AfdWarning, UsageError
from afd_mobile.network.fusion import fuse

PathLike = str | os.PathLike[str]


def correct(
    model: nn.Module | PathLike,
    checkpoint: PathLike = ExportRequest.checkpoint,
    *,
    backbone_weights: PathLike = ClassifierOptions.weights,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
) -> nn.Module:
    """A classifier with the AFD-Module in it, fused, as `export` writes it.

    Args:
        model: a network of your own, with its weights; it stays as it is, a copy is taken. Or a
            name as after `--backbone`: of torchvision or timm, an .onnx file,
            `package.module:factory`.
        checkpoint: a shipped one's name, a file, `random` for an untrained module, or `none` for
            the plain classifier.
        backbone_weights: of a name: `auto`, `random` or a file.
        mean, std: of RGB from 0 to 1. Default: the network's attributes of these names, or what is
            recorded for the name, else ImageNet's.
        input_size: S, pixels, which 8 divides. Default: likewise, else 224.

    Returns:
        A module in eval mode, on the CPU, without gradients: RGB from 0 to 255, float32
        (N, 3, S, S) -> logits (N, classes). S is its attribute `input_size`.

    Warns:
        AfdWarning: what is to be known of the weights, and of how module and classifier fit.

    Raises:
        AfdError: one of them is missing, broken, or made for another (InputError), or arguments
            that cannot be (UsageError). Messages name the options of `afd-export`.
    """
    request = ExportRequest(
        checkpoint=os.fspath(checkpoint),
        classifier=_classifier(model, backbone_weights, mean, std, input_size),
        fused=True,
    )
    with torch.random.fork_rng(devices=[]):
        source = find_source(request)
        graph = DeployedGraph(source.backbone, source.afd, request.input_range, request.scope)
        corrected = fold_normalization(fuse(graph))
    for notice in source.notices:
        _warn(notice)
    return corrected


def export(
    model: nn.Module | PathLike,
    checkpoint: PathLike = ExportRequest.checkpoint,
    *,
    labels: Sequence[str] | PathLike | None = None,
    images: PathLike | None = None,
    precisions: Sequence[str] = ExportRequest.precisions,
    out: PathLike | None = None,
    force: bool = False,
    backbone_weights: PathLike = ClassifierOptions.weights,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
) -> ExportResult:
    """Writes the corrected classifier as verified ONNX and TFLite files: `afd-export --fuse`.

    Args:
        labels: the names of the classes in the order of the logits, or a file with one a line.
            Default: ImageNet's where the weights are ImageNet's, else none.
        images: a folder of pictures that verify and calibrate. Default: scikit-image's.
        precisions: of float32, float16, dynamic and int8.
        out: the export folder. Default: exports/<name>.
        force: whether an existing export folder is replaced.
        model, checkpoint, backbone_weights, mean, std, input_size: as for `correct`.

    Returns:
        The folder, its manifest, and the precisions that failed, which are not in it.

    Warns:
        AfdWarning: as `correct`; few pictures, classes without names, a precision that failed. As
            an error (`warnings.simplefilter("error", AfdWarning)`) it ends the export, and nothing
            is published; a precision that failed is told after the others are published.

    Raises:
        AfdError: see `afd_mobile.common.errors`; nothing is published then.
    """
    if labels is not None:
        labels = Path(labels) if isinstance(labels, str | os.PathLike) else tuple(labels)
    request = ExportRequest(
        checkpoint=os.fspath(checkpoint),
        classifier=_classifier(model, backbone_weights, mean, std, input_size),
        fused=True,
        precisions=_precisions(precisions),
        images=None if images is None else Path(images),
        labels=labels,
        out=None if out is None else Path(out),
        force=force,
    )
    with torch.random.fork_rng(devices=[]):
        result = pipeline.export(request, progress=lambda _: None, notice=_warn)
    for precision, error in result.failed.items():
        _warn(f"{result.folder} is published without {precision.value}: {error}")
    return result


def _classifier(
    model: nn.Module | PathLike,
    weights: PathLike,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    input_size: int | None,
) -> ClassifierOptions:
    return ClassifierOptions(
        Module(model) if isinstance(model, nn.Module) else typed_backbone(os.fspath(model)),
        os.fspath(weights),
        None if mean is None else tuple(map(float, mean)),
        None if std is None else tuple(map(float, std)),
        input_size,
    )


def _precisions(given: Sequence[str]) -> tuple[Precision, ...]:
    known = [p.value for p in Precision]
    if isinstance(given, str) or not given or not set(given) <= set(known):
        raise UsageError(f"precisions {given!r}: give a list of {', '.join(known)}")
    return tuple(map(Precision, dict.fromkeys(given)))


def _warn(notice: str) -> None:
    """At the line that called this library, however deep in it the notice arises."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(notice, AfdWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("afd_mobile", "afd_export")
