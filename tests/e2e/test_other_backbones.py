"""The same export for the other families of classifier that the project names.

SqueezeNet is shipped: `test_placement.py` exports it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afd_mobile.artifacts import read_manifest

BACKBONES = {
    "resnet50": ("--preset", "paper", "--backbone-weights", "random"),
    "repvgg_a2": ("--preset", "paper", "--backbone-weights", "random"),
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_export_keeps_its_limits(
    backbone: str, few_pictures: Path, export_fused: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = (
        *("--checkpoint", "random", "--backbone", backbone, *BACKBONES[backbone]),
        *("--images", few_pictures),
    )
    manifest = read_manifest(export_fused(tmp_path / "out", *arguments, "--precision", "float32"))
    assert [s["stage"] for s in manifest["parity"]["stages"]] == [
        "fused",
        "onnx",
        "simplified",
        "tflite float32",
    ]
    assert all(s["parity"]["top1_agreement"] == 1 for s in manifest["parity"]["stages"])
    assert not manifest["backbone"]["trained"]
    assert "untrained" in manifest["name"]
    (operators,) = (f["operators"] for f in manifest["files"] if "operators" in f)
    assert "CONV_2D" in operators
    assert "TRANSPOSE" not in operators
