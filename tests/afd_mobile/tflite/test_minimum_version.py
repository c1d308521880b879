from __future__ import annotations

from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from afd_mobile.tflite.minimum_version import minimum_runtime

CUSTOM = "CUSTOM"


def write_model(
    path: Path, *operators: tuple[str, int], unused: tuple[str, int] | None = None, entry: str = ""
) -> Path:
    """A file with these (operator, version); `entry`: what it says of itself in its metadata."""
    model, graph, metadata = schema.ModelT(), schema.SubGraphT(), schema.MetadataT()
    model.operatorCodes = []
    for name, version in (*operators, *([unused] if unused else [])):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        code.customCode = b"Mine" if name == CUSTOM else None
        model.operatorCodes.append(code)
    graph.operators = []
    for index in range(len(operators)):
        operator = schema.OperatorT()
        operator.opcodeIndex = index
        graph.operators.append(operator)
    metadata.name, metadata.buffer = b"min_runtime_version", 1
    data = schema.BufferT()
    data.data = list(entry.encode().ljust(16, b"\0"))
    model.version, model.subgraphs, model.metadata = 3, [graph], [metadata]
    model.buffers = [schema.BufferT(), data]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ([("CONV_2D", 1)], "1.5.0"),
        ([("CONV_2D", 1), ("CONV_2D", 5)], "2.4.0"),
        ([("RESIZE_BILINEAR", 3), ("MUL", 1)], "2.2.0"),
        # By number: as text, 2.9.0 comes after 2.11.0, and 1.5.0 after 1.14.0.
        ([("GELU", 1), ("CONV_2D", 7)], "2.11.0"),
        ([("PAD", 2), ("RESHAPE", 1)], "1.14.0"),
        # Codes from 128 on lie in another field.
        ([("GELU", 2)], "2.9.0"),
    ],
)
def test_the_newest_operator_version_decides(
    operators: list[tuple[str, int]], expected: str, tmp_path: Path
) -> None:
    assert minimum_runtime(write_model(tmp_path / "m.tflite", *operators)) == expected


def test_an_operator_that_no_operation_uses_does_not_count(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.tflite", ("RELU", 1), unused=("CONV_2D", 8))
    assert minimum_runtime(path) == "1.5.0"


@pytest.mark.parametrize("entry", ["", "1.5.0", "9.9.9"])
def test_the_files_own_entry_is_not_believed(entry: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.tflite", ("MEAN", 2), entry=entry)
    assert minimum_runtime(path) == "1.14.0"


@pytest.mark.parametrize("operator", [("CONV_2D", 99), (CUSTOM, 1), ("DENSIFY", 1)])
def test_what_is_not_known_is_not_guessed(operator: tuple[str, int], tmp_path: Path) -> None:
    assert minimum_runtime(write_model(tmp_path / "m.tflite", ("ADD", 1), operator)) is None
