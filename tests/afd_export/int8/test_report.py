from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afd_export.int8.editable_model import OPERATOR, FlatModel
from afd_export.int8.report import LayerNoise, layer_noise, write_int8_report
from afd_mobile.common.artifacts import Precision
from tests.afd_export.conftest import Exported


@pytest.fixture
def float32(exported: Exported) -> bytes:
    return exported.tflite(Precision.FLOAT32.value).read_bytes()


def test_noise_appears_where_it_is_put_in_and_is_handed_on(float32: bytes) -> None:
    noisy = FlatModel(float32)
    (first, *_) = (op for op in noisy.operations if noisy.code(op) == OPERATOR.CONV_2D)
    weights = noisy.weights(first)
    noisy.set_constant(first.inputs[1], weights * 1.01)
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    found = layer_noise(float32, noisy.content(), pictures)
    by_name = {layer.name: layer for layer in found}
    own = by_name[noisy.name(first)]
    # 1 % of the signal is 40 dB, but for the bias and the activation.
    assert own.snr_db == pytest.approx(40, abs=3)
    assert own.input_snr_db is None
    assert all(layer.index >= own.index for layer in found)
    assert found[0] is max(found, key=lambda layer: layer.lost_db)


def test_the_report_lists_the_worst_first_and_draws_all(tmp_path: Path) -> None:
    layers = [LayerNoise(3, "a;b", "ADD", 20.0, 35.0), LayerNoise(1, "c", "CONV_2D", 40.0, None)]
    write_int8_report(tmp_path, layers)
    lines = (tmp_path / "int8.md").read_text("utf-8").splitlines()
    assert lines[-2] == "| 3 | ADD | 20.0 | 35.0 | 15.0 | a |"
    assert lines[-1] == "| 1 | CONV_2D | 40.0 |  | 20.0 | c |"
    content = json.loads((tmp_path / "int8.json").read_text("utf-8"))
    assert [layer["lost_db"] for layer in content] == [15.0, 20.0]
    with Image.open(tmp_path / "int8.png") as picture:
        assert min(picture.size) > 300
