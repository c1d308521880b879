"""The converter's C++ table of operator versions is the oracle for ours."""

from __future__ import annotations

import pytest
from ai_edge_litert import schema_py_generated as schema

from afd_mobile.common.artifacts import Precision
from afd_mobile.tflite.minimum_version import minimum_runtime
from tests.afd_export.conftest import Exported


@pytest.mark.parametrize("precision", [p.value for p in Precision])
def test_minimum_runtime_is_what_the_converter_says(exported: Exported, precision: str) -> None:
    path = exported.tflite(precision)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    # The quantiser appends an empty entry, and keeps the first one current.
    entry = next(m for m in model.metadata if m.name == b"min_runtime_version")
    said = bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
    assert minimum_runtime(path) == said
