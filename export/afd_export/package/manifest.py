"""`manifest.json`: what was exported, from what, and how it was proved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from afd_export.package.card import ModelCard
from afd_export.package.using_page import USING, using_page
from afd_export.pictures import PictureSet
from afd_export.request import ExportRequest
from afd_export.source import ExportSource
from afd_export.verify import StageResult
from afd_mobile.common.artifacts import (
    MANIFEST,
    SCHEMA_VERSION,
    InputRange,
    Precision,
    sha256,
    to_json,
    versions_of,
)
from afd_mobile.network.cost import Cost
from afd_mobile.tflite.litert import LiteRtModel, TensorContract, float_operations, operators
from afd_mobile.tflite.minimum_version import minimum_runtime

PACKAGES = (
    "afd-mobile", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxsim", "onnx2tf",
    "tensorflow", "ai-edge-litert", "numpy", "pillow",
)  # fmt: skip


def write(
    folder: Path,
    *,
    request: ExportRequest,
    source: ExportSource,
    card: ModelCard,
    labels: list[str] | None,
    results: list[StageResult],
    pictures: PictureSet,
    models: dict[Path, Precision],
    golden: list[dict[str, Any]],
    golden_pictures: list[dict[str, Any]],
    simplified: bool,
    costs: dict[str, dict[str, Cost]],
    not_published: dict[str, str],
) -> dict[str, Any]:
    """Writes `USING.md`, then the manifest over everything that lies in `folder`; returns it.

    Args:
        not_published: precision -> why, of those that were asked for and failed.
    """
    backbone = source.backbone
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": source.name,
        "afd": source.afd
        and {
            "checkpoint": source.checkpoint.name if source.checkpoint else None,
            "checkpoint_sha256": source.checkpoint_sha256,
            "trained": source.checkpoint is not None,
            "config": dataclasses.asdict(source.afd.config),
            "fused": request.fused,
        },
        "backbone": {
            "name": backbone.name,
            "tap": backbone.tap,
            "weights": "file" if Path(backbone.weights).is_file() else backbone.weights,
            "weights_sha256": source.backbone_sha256,
            "trained": backbone.trained,
            "classes": backbone.classes,
            "mean": backbone.mean,
            "std": backbone.std,
            "input_size": backbone.input_size,
        },
        "scope": request.scope.value,
        "input_range": request.input_range.value,
        "seed": request.seed,
        "notices": source.notices,
        "simplified": simplified,
        "cost": {
            part: {when: dataclasses.asdict(cost) for when, cost in both.items()}
            for part, both in costs.items()
        },
        "files": _files(folder, source, models, request.input_range),
        "not_published": not_published,
        "golden": golden,
        "golden_pictures": golden_pictures,
        "calibration": {
            "pictures": pictures.calibrating,
            "inputs": len(pictures.calibration),
        },
        "parity": {
            "pictures": len(pictures.verification),
            "picture_source": pictures.source,
            "unreadable": len(pictures.unreadable),
            "stages": [r.as_dict(pictures.verification) for r in results],
        },
        "versions": versions_of(*PACKAGES),
    }
    page = using_page(content, card, labelled=labels is not None)
    (folder / USING).write_text(page, encoding="utf-8")
    content["files"] = sorted(
        [*content["files"], _entry(folder, folder / USING)], key=lambda entry: entry["path"]
    )
    (folder / MANIFEST).write_bytes(to_json(content))
    return content


def _files(
    folder: Path, source: ExportSource, models: dict[Path, Precision], input_range: InputRange
) -> list[dict[str, Any]]:
    """Every file with its hash, and what it was made from: the chain back to the weights."""
    onnx = f"{source.name}.onnx"
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        entry = _entry(folder, path)
        if entry["path"] == onnx:
            entry["made_from"] = [
                h for h in (source.checkpoint_sha256, source.backbone_sha256) if h
            ]
        elif path in models:
            model = LiteRtModel(path)
            entry["precision"] = models[path].value
            entry["made_from"] = [sha256(folder / onnx)]
            entry["input"] = {**_contract(model.input), "range": input_range.value}
            entry["output"] = _contract(model.output)
            entry["float_operations"] = float_operations(path)
            entry["minimum_runtime"] = minimum_runtime(path)
            entry["operators"] = dict(sorted(operators(path).items()))
        entries.append(entry)
    return entries


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _contract(contract: TensorContract) -> dict[str, Any]:
    return dataclasses.asdict(contract)
