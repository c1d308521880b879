"""The harness app's protocol from this side; JUnit tests the same golden files from the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afd_benchmark.harness.protocol import HARNESS_SCHEMA_VERSION, read_result, start_command
from afd_mobile.common.errors import MeasurementError

PROTOCOL = Path(__file__).resolve().parents[3] / "android_app" / "protocol"
RESULT = json.loads((PROTOCOL / "result.json").read_text(encoding="utf-8"))
RUN_ID = RESULT["run_id"]


def read(content: dict[str, Any], run_id: str = RUN_ID) -> Any:
    return read_result(json.dumps(content).encode(), run_id)


def test_the_golden_result_is_read_whole() -> None:
    result = read(RESULT)
    assert RESULT["schema_version"] == HARNESS_SCHEMA_VERSION
    assert result.samples_ms == RESULT["samples_ms"] and result.init_ms == RESULT["init_ms"]
    assert result.delegation.delegate == RESULT["delegation"]["delegate"]
    assert result.golden[1].output_file == RESULT["golden"][1]["output_file"]
    assert result.memory.pss_peak_kb == RESULT["memory"]["pss_peak_kb"]


def test_the_golden_error_says_field_value_and_remedy() -> None:
    error = json.loads((PROTOCOL / "error.json").read_text(encoding="utf-8"))
    with pytest.raises(MeasurementError) as refused:
        read(error, error["run_id"])
    for key in ("field", "value", "message", "remedy"):
        assert error["error"][key] in str(refused.value)


def test_the_golden_request_becomes_am_start() -> None:
    request = json.loads((PROTOCOL / "request.json").read_text(encoding="utf-8"))
    assert request["schema_version"] == str(HARNESS_SCHEMA_VERSION)
    command = start_command(request)
    assert command[:5] == ["am", "start", "-S", "-n", "org.afdmobile.harness/.BenchActivity"]
    pairs = zip(command[6::3], command[7::3], strict=True)
    assert dict(pairs) == request and set(command[5::3]) == {"--es"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"run_id": "another"}, "answered run another"),
        ({"surprise": 1}, "surprise"),
        ({"samples_ms": ["fast"]}, "samples_ms"),
        ({"samples_ms": [4.0, -4.0]}, "samples_ms"),
        ({"init_ms": 0}, "init_ms"),
        ({"memory": RESULT["memory"] | {"pss_peak_kb": -1}}, "pss_peak_kb"),
        (
            {"delegation": RESULT["delegation"] | {"delegated_nodes": 9, "graph_nodes": 4}},
            "9 of 4 nodes",
        ),
        ({"init_ms": None}, "gives no times"),
        ({"status": "error"}, "says error"),
    ],
)
def test_what_is_no_good_answer_is_an_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(MeasurementError, match=words):
        read(RESULT | change)


def test_a_deep_answer_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="cannot be read"):
        read_result(b'{"x": ' + b"[" * 300_000, RUN_ID)


def test_half_an_answer_is_an_error() -> None:
    whole = json.dumps(RESULT).encode()
    for end in range(0, len(whole), 97):
        with pytest.raises(MeasurementError, match="cannot be read"):
            read_result(whole[:end], RUN_ID)
