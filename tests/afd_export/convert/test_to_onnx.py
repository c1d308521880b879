from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from afd_export.convert.to_onnx import OPSET, export_onnx, input_and_output, run_onnx, simplify_onnx
from afd_mobile.common.errors import ConversionError


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 1)
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def onnx_path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "graph.onnx"
    export_onnx(network, 16, "features", path)
    return path


def test_names_and_static_shapes(onnx_path: Path) -> None:
    given, result = input_and_output(onnx_path)
    assert given == ("image", (1, 3, 16, 16))
    assert result == ("features", (1, 4, 8, 8))
    assert onnx.load(onnx_path).opset_import[0].version == OPSET


def test_the_values_are_pytorchs(network: nn.Module, onnx_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    actual = run_onnx(onnx_path, images)
    assert actual.shape == (3, 4, 8, 8)
    np.testing.assert_allclose(actual, network(torch.from_numpy(images)), atol=1e-5)


def test_no_path_of_this_machine_is_left(onnx_path: Path) -> None:
    content = onnx_path.read_bytes()
    for trace in (b"/work", b"/tmp", b".py", b"site-packages"):
        assert trace not in content


def test_simplifying_keeps_the_values(onnx_path: Path, tmp_path: Path) -> None:
    simplified = tmp_path / "simplified.onnx"
    assert simplify_onnx(onnx_path, simplified) is None
    images = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    np.testing.assert_allclose(run_onnx(simplified, images), run_onnx(onnx_path, images), atol=1e-6)
    assert input_and_output(simplified) == input_and_output(onnx_path)


def test_a_failed_simplification_says_why_and_leaves_the_graph(tmp_path: Path) -> None:
    garbage = tmp_path / "graph.onnx"
    garbage.write_bytes(b"no graph")
    reason = simplify_onnx(garbage, tmp_path / "simplified.onnx")
    assert reason is not None
    assert "simplify_worker failed with exit code 1" in reason
    assert not (tmp_path / "simplified.onnx").exists()
    assert garbage.read_bytes() == b"no graph"


class DataDependent(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image if image.sum().item() > 0 else -image


def test_a_graph_that_cannot_be_exported_is_one_line_with_chatter_aside(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="torch cannot export this graph to ONNX") as caught:
        export_onnx(DataDependent(), 16, "logits", tmp_path / "graph.onnx")
    assert "\n" not in str(caught.value)
    assert caught.value.chatter
    assert not (tmp_path / "graph.onnx").exists()
