"""What is shipped computes what was trained, and corrects: on real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from afd_export.graph import DeployedGraph
from afd_export.verify import run_torch
from afd_mobile.artifacts import InputRange, Scope, read_manifest
from afd_mobile.backbones import load_backbone
from afd_mobile.checkpoint import find_checkpoint, load_checkpoint
from afd_mobile.datasets import read_image
from afd_mobile.degrade import jpeg
from afd_mobile.litert import LiteRtModel
from afd_mobile.resources import imagenet_classes

CHECKPOINT = "afd-mobilenet_v2-mobile"


def _float32(folder: Path) -> LiteRtModel:
    return LiteRtModel(folder / f"{read_manifest(folder)['name']}_float32.tflite", threads=2)


def _compressed(folder: Path, quality: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(500, 224, 224, 3) after JPEG, and their classes."""
    classes = {wnid: i for i, (wnid, _) in enumerate(imagenet_classes())}
    paths = sorted(folder.glob("*/*.webp"))
    images = np.stack([jpeg(read_image(p), quality) for p in paths]).astype(np.float32)
    return images, np.array([classes[p.parent.name] for p in paths])


def _top1(model: LiteRtModel, images: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.array([int(model.run(image[None]).argmax()) for image in images])


def test_exported_file_has_the_trained_modules_top1(corrected: Path, photographs: Path) -> None:
    images, _ = _compressed(photographs, 10)
    checkpoint = load_checkpoint(find_checkpoint(CHECKPOINT))
    backbone = load_backbone("mobilenet_v2", tap=checkpoint.tap)
    trained = DeployedGraph(backbone, checkpoint.module, InputRange.RGB255, Scope.CLASSIFIER)
    torch.set_num_threads(2)
    expected = run_torch(trained, images).argmax(axis=1)
    assert len(expected) == 500
    assert (_top1(_float32(corrected), images) == expected).sum() >= 499


@pytest.mark.parametrize("quality", [10, 7])
def test_corrected_classifier_beats_the_plain_one(
    corrected: Path, plain: Path, photographs: Path, quality: int
) -> None:
    images, labels = _compressed(photographs, quality)
    hits = {
        which: int((_top1(_float32(folder), images) == labels).sum())
        for which, folder in (("corrected", corrected), ("plain", plain))
    }
    assert hits["corrected"] > hits["plain"], hits


def test_shipped_checkpoint_keeps_the_mobile_budget(corrected: Path) -> None:
    manifest = read_manifest(corrected)
    assert manifest["afd"]["trained"]
    assert manifest["backbone"]["trained"]
    assert manifest["notices"] == []
    assert manifest["cost"]["afd"]["deployed"]["multiply_adds"] <= 60e6


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_golden_inputs_give_golden_outputs(corrected: Path, precision: str) -> None:
    manifest = read_manifest(corrected)
    model = LiteRtModel(corrected / f"{manifest['name']}_{precision}.tflite", threads=2)
    for entry in manifest["golden"]:
        image = np.fromfile(corrected / entry["input"], np.uint8).reshape(1, 224, 224, 3)
        expected = np.fromfile(corrected / entry["outputs"][precision], "<f4")
        actual = model.run(image.astype(np.float32))[0]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
