"""`results.json` there and back, and what is no such file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from afd_benchmark.results import (
    RESULTS,
    RESULTS_SCHEMA_VERSION,
    Results,
    read_results,
    write_results,
)
from afd_mobile.common.errors import InputError, OutputError
from tests.afd_benchmark import sample_results as sample

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / RESULTS
    write_results(path, sample.phone_run())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        read_results(path)
    return str(refused.value)


@pytest.mark.parametrize("results", sample.everything())
def test_everything_comes_back_as_it_was_written(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "any name.json"
    write_results(path, results)
    assert read_results(path) == results


def test_every_key_is_there_also_where_nothing_is_known(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["schema_version"] == RESULTS_SCHEMA_VERSION
    names = {"file", "device", "backend", "threads", "verdict", "reasons", "median_ms", "ci95_ms",
             "samples_ms"}  # fmt: skip
    keys = [set(case) for case in content["cases"]]
    assert all(k == keys[0] and k >= names for k in keys)
    assert any(case["median_ms"] is None for case in content["cases"])
    assert {case["verdict"] for case in content["cases"]} <= {
        "VALID", "SUSPECT", "INVALID", "SKIPPED",
    }  # fmt: skip


def test_a_folder_stands_for_its_file(path: Path) -> None:
    assert read_results(path.parent) == read_results(path)


def test_the_key_tells_cases_apart() -> None:
    case = sample.timed_case("a", "float32", 5.0)
    others = [
        replace(case, sha256="0" * 64),
        replace(case, device="phone"),
        replace(case, backend="gpu"),
        replace(case, threads=2),
        replace(case, in_turn_with="1" * 64),
    ]
    assert len({case.key, *(other.key for other in others)}) == 6
    assert replace(case, reasons=["x"], p90_ms=1.0, file="b").key == case.key


WRONG: dict[str, tuple[Edit, str]] = {
    "another version": (lambda r: r.update(schema_version=1), "schema version 1, expected 2"),
    "a version in words": (lambda r: r.update(schema_version="2"), "schema_version"),
    "no version": (lambda r: r.pop("schema_version"), "schema_version"),
    "no cases": (lambda r: r.pop("cases"), "cases"),
    "an unknown key": (lambda r: r.update(colour="red"), "colour"),
    "an unknown key of a case": (lambda r: r["cases"][0].update(best_ms=1), "best_ms"),
    "an unknown key of a repeat": (
        lambda r: r["cases"][0]["repeats"][0]["before"].update(humidity=1), "humidity",
    ),
    "an unknown verdict": (lambda r: r["cases"][0].update(verdict="GOOD"), "GOOD"),
    "a time in words": (lambda r: r["cases"][0].update(median_ms="5 ms"), "median_ms"),
    "half an interval": (lambda r: r["cases"][0].update(ci95_ms=[1.0]), "ci95_ms"),
    "a time of null": (lambda r: r["cases"][0]["repeats"][0].update(init_ms=None), "init_ms"),
    "a time below nothing": (
        lambda r: r["cases"][0].update(median_ms=-5, ci95_ms=None), "median_ms",
    ),
    "a time of nothing": (lambda r: r["cases"][0]["repeats"][0].update(init_ms=0), "init_ms"),
    "an interval the wrong way round": (
        lambda r: r["cases"][0].update(median_ms=5, ci95_ms=[9, 1]),
        "ci95_ms [9.0, 1.0] does not enclose median_ms 5.0 - at `$.cases[0]`",
    ),
    "an interval elsewhere": (
        lambda r: r["cases"][0].update(median_ms=5, ci95_ms=[6, 7]),
        "ci95_ms [6.0, 7.0] does not enclose median_ms 5.0",
    ),
    "an interval of nothing": (
        lambda r: r["cases"][0].update(median_ms=None), "does not enclose median_ms None",
    ),
    "a median that no repeat says": (
        lambda r: r["cases"][0].update(median_ms=0.001, ci95_ms=None),
        "median_ms 0.001 is not the median of the 10 repeats' - at `$.cases[0]`",
    ),
    "a median of no repeats": (
        lambda r: r["cases"][0].update(repeats=[]), "is not the median of the 0 repeats'",
    ),
    "valid without a time": (
        lambda r: r["cases"][0].update(median_ms=None, ci95_ms=None),
        "verdict VALID without median_ms",
    ),
    "suspect without anything": (
        lambda r: r["cases"][3].update(verdict="SUSPECT"), "verdict SUSPECT without median_ms",
    ),
    "valid with wrong outputs": (
        lambda r: r["cases"][0]["golden"].update(violations=["x"]),
        "verdict VALID with golden.violations",
    ),
    "valid on another backend": (
        lambda r: r["cases"][0]["delegation"].update(actual="gpu"), "ran on gpu, not on cpu",
    ),
    "a valid repeat on another backend": (
        lambda r: r["cases"][0]["repeats"][9]["delegation"].update(actual="gpu"),
        "ran on gpu, not on cpu",
    ),
    "more delegated than there are": (
        lambda r: r["cases"][2]["delegation"].update(delegated=100, nodes=4), "100 of 4 nodes",
    ),
    "a ratio of other times": (
        lambda r: r["cases"][0]["ratio"].update(against_median_ms=1000),
        "ratio 1.31 is not between",
    ),
    "a time beyond all charts": (
        lambda r: r["cases"][0]["repeats"][0].update(median_ms=1e308), "median_ms",
    ),
    "a time below all charts": (
        lambda r: r["cases"][0]["repeats"][0].update(median_ms=5e-324), "median_ms",
    ),
    "a ratio beside its interval": (
        lambda r: r["cases"][0]["ratio"].update(ratio=9),
        "ci95 [1.29952, 1.32048] does not enclose ratio 9.0",
    ),
    "a sample below nothing": (
        lambda r: r["cases"][0]["repeats"][0]["samples_ms"].append(-1e-9), "samples_ms",
    ),
    "an outlier that is no sample": (
        lambda r: r["cases"][0]["repeats"][0].update(outliers=[60]), "no sample 60 among 60",
    ),
    "no runs": (lambda r: r["cases"][0]["repeats"][0].update(runs=0), "runs"),
    "no memory": (
        lambda r: r["cases"][0]["repeats"][0].update(peak_memory_bytes=0), "peak_memory_bytes",
    ),
    "more than all": (lambda r: r["cases"][0]["golden"].update(top1_agreement=1.01), "top1"),
    "a battery beyond full": (
        lambda r: r["cases"][0]["repeats"][0]["after"].update(battery_percent=101), "battery",
    ),
    "no threads": (lambda r: r["cases"][0].update(threads=0), "threads"),
    "half a core": (lambda r: r["devices"][0]["cores"][0].update(index=0.5), "index"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_each_wrong_key_or_value_is_named(what: str, path: Path) -> None:
    change, words = WRONG[what]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    message = refusal(path)
    assert words in message and str(path) in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratio": 2.0, "ci95": None}, "ratio 2.0 is not between 1.2"),
        ({"against_median_ms": 7.5}, "ratio.against_median_ms 7.5 is not mobilenet_v2-plain"),
    ],
)
def test_a_ratio_is_what_the_rounds_of_both_cases_say(
    change: dict[str, Any], words: str, path: Path
) -> None:
    write_results(path, sample.host_run())
    content = json.loads(path.read_text())
    content["cases"][0]["ratio"] |= change
    path.write_text(json.dumps(content))
    message = refusal(path)
    assert words in message and "`$.cases[0]`" in message and str(path) in message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_no_number_is_refused(number: str, path: Path) -> None:
    content = json.loads(path.read_text())
    content["cases"][0]["spread"] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', number))
    assert str(path) in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{} {}", b"\0" * 9, b"[" * 300_000]
)
def test_what_is_no_results_file(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert "cannot be read as results of afd-bench" in refusal(path)
    path.write_bytes(b'{"schema_version": 2, "started_at": "\xff"}')
    assert "cannot be read as results" in refusal(path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, len(whole) // 40):
        path.write_bytes(whole[:length])
        assert "cannot be read as results" in refusal(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / RESULTS, tmp_path / "gone.json"):
        assert refusal(path if path.name != RESULTS else tmp_path) == (
            f"{path} cannot be read as results of afd-bench: No such file or directory; give a "
            "folder or file that `afd-bench run` wrote"
        )


def test_accuracy_is_told_from_results(path: Path) -> None:
    path.write_bytes(msgspec.json.encode(sample.accuracies()[0]))
    assert refusal(path) == f"{path} is accuracy, as afd-eval writes it; give it by --accuracy"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_results(tmp_path / "gone" / RESULTS, sample.phone_run())
    (tmp_path / RESULTS).symlink_to("/dev/full")
    with pytest.raises(OutputError, match="link or a device"):
        write_results(tmp_path / RESULTS, sample.phone_run())
