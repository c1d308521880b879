"""What a converter may leave in a file, and what it may not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from afd_export.convert.left_over import check_operators, reorders
from afd_mobile.common.errors import ConversionError
from tests.afd_export.delegate_cases import F32, integers
from tests.afd_export.tflite_graphs import Fed, single

CHANNELS_FIRST = Fed((1, 8, 4, 4))
TRANSPOSED = single("TRANSPOSE", [Fed((1, 4, 4, 8)), integers(0, 3, 1, 2)], CHANNELS_FIRST)
BY_CHANCE = single("TRANSPOSE", [Fed((1, 4, 4, 8)), Fed((4,), "int32")], CHANNELS_FIRST)


@pytest.mark.parametrize(
    ("content", "reordering", "said"),
    [
        (TRANSPOSED, False, r"holds TRANSPOSE \(the graph's layout changed on the way\)"),
        (BY_CHANCE, True, r"holds TRANSPOSE \(no delegate takes it: .*\)"),
    ],
)
def test_a_transpose_by_mistake_or_that_nothing_takes_is_refused(
    tmp_path: Path, content: bytes, reordering: bool, said: str
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=said):
        check_operators(path, reorders=reordering)


@pytest.mark.parametrize(
    ("content", "reordering"),
    [(TRANSPOSED, True), (single("RELU", [F32], F32), False)],
)
def test_what_delegates_take_is_kept(tmp_path: Path, content: bytes, reordering: bool) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    check_operators(path, reorders=reordering)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("result = Transpose<perm = [0, 3, 1, 2]>(image)", True),
        ("result = Reshape(image, size)", True),
        ("a = GlobalAveragePool(image) result = Reshape(a, size)", False),
        ("result = Relu(image)", False),
    ],
)
def test_whether_a_network_reorders(body: str, expected: bool) -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> graph (float[1, 8, 4, 4] image) => '
    text += f"(float[] result) <int64[2] size = {{1, -1}}> {{ {body} }}"
    model = onnx.parser.parse_model(text)
    assert reorders(model) == expected
