"""The same export for the other families of classifier that the project names.

SqueezeNet is shipped: `test_placement.py` and `test_shipped_checkpoint.py` export it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from afd_export import cli
from afd_export.placement.place import place_file
from afd_export.placement.rules import Delegate
from afd_mobile.common.artifacts import read_manifest
from tests.commands import run_here
from tests.delegate_engines import xnnpack_log

# The paper's tap D2; RepVGG in its smallest form, which has the same blocks as A2.
BACKBONES = {"resnet50": "relu", "repvgg_a0": "stages.0.0"}


@pytest.mark.long
@pytest.mark.parametrize("backbone", BACKBONES)
def test_export_keeps_its_limits(
    backbone: str, few_pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run_here(
        cli.main, "afd-export", "--fuse", "--out", tmp_path / "out",
        *("--checkpoint", "random", "--backbone", backbone, "--taps", BACKBONES[backbone]),
        *("--preset", "paper", "--backbone-weights", "random"),
        *("--images", few_pictures, "--precision", "float32", "--input-size", 112),
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = read_manifest(tmp_path / "out")
    assert [s["stage"] for s in manifest["parity"]["stages"]] == [
        "fused",
        "onnx",
        "simplified",
        "tflite float32",
    ]
    assert all(s["parity"]["changed"] == [] for s in manifest["parity"]["stages"])
    assert not manifest["backbone"]["trained"]
    assert "untrained" in manifest["name"]
    (file,) = (f for f in manifest["files"] if "operators" in f)
    assert "CONV_2D" in file["operators"]
    assert "TRANSPOSE" not in file["operators"]
    path = tmp_path / "out" / file["path"]
    placements = place_file(path).placements
    assert placements[Delegate.GPU].whole
    # XNNPACK leaves ResNet's padding with minus infinity, before its pooling.
    xnnpack = placements[Delegate.XNNPACK]
    assert xnnpack.delegated >= xnnpack.total - 1
    taken = (xnnpack.delegated, xnnpack.total, xnnpack.node_subsets)
    assert xnnpack_log(path, capfd) == taken


@pytest.mark.long
def test_efficientnet_lite0_has_neither_padding_nor_activations_of_their_own(
    few_pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run_here(
        cli.main, "afd-export", "--fuse", "--checkpoint", "none", "--out", tmp_path / "out",
        *("--backbone", "tf_efficientnet_lite0", "--input-size", 64),
        *("--images", few_pictures, "--precision", "float32"),
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = read_manifest(tmp_path / "out")
    assert manifest["backbone"]["mean"] == [127 / 255] * 3
    (file,) = (f for f in manifest["files"] if "operators" in f)
    # The first addition takes the mean off the picture; the others are the blocks' shortcuts.
    assert file["operators"] == {
        "ADD": 10,
        "CONV_2D": 33,
        "DEPTHWISE_CONV_2D": 16,
        "FULLY_CONNECTED": 1,
        "MEAN": 1,
    }
    path = tmp_path / "out" / file["path"]
    placements = place_file(path).placements
    assert placements[Delegate.GPU].whole
    assert xnnpack_log(path, capfd) == (61, 61, 1)


OWN_NETWORK = '''
"""Shuffled channels and a flattened head, as many channels as rows and columns at both."""

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 4, stride=4)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 5))

    def forward(self, x):
        one, other = self.stem(x).relu().chunk(2, dim=1)
        x = torch.cat((one, self.branch(other).relu()), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.last(x).relu().flatten(1))


def make():
    torch.manual_seed(0)
    network = Network()
    nn.init.normal_(network.head[3].weight, std=3.0)
    network.input_size = 32
    return network
'''


@pytest.mark.long
def test_shuffled_channels_and_a_flattened_head(
    few_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shuffled_net.py").write_text(OWN_NETWORK, "utf-8")
    monkeypatch.chdir(tmp_path)
    done = run_here(
        cli.main, "afd-export", "--fuse", "--checkpoint", "none", "--out", tmp_path / "out",
        *("--backbone", "shuffled_net:make"),
        *("--images", few_pictures, "--precision", "float32", "int8"),
    )  # fmt: skip
    assert done.code == 0, done.err
    for file in (f for f in read_manifest(tmp_path / "out")["files"] if "operators" in f):
        assert "TRANSPOSE" not in file["operators"]
        if file["precision"] == "float32":
            # Stem, branch, shuffle, last, and the flattened head's first product.
            assert file["operators"]["CONV_2D"] == 5
            placements = place_file(tmp_path / "out" / file["path"]).placements
            assert placements[Delegate.GPU].whole
