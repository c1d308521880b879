from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from afd_benchmark.report.accuracy import (
    AccuracyReport,
    RecoveredShare,
    match,
    read_accuracy,
)
from afd_benchmark.report.cases import shown_cases
from afd_benchmark.report.page import render_html
from afd_benchmark.results import write_results
from afd_mobile.common.errors import InputError
from tests.afd_benchmark import sample_results as sample

CORRECTED = f"{sample.CORRECTED}_float32.tflite"


def matched(*reports: AccuracyReport) -> dict[str, tuple[str, bool]]:
    """file -> (mean top-1 in %, by its hash), on the host."""
    found = match(shown_cases([sample.host_run()]), reports)
    return {
        m.shown.case.file: (f"{100 * m.mean:.1f}", m.by_hash)
        for entry in found
        for m in entry.matched
    }


def test_a_model_is_matched_by_its_hash_and_the_reference_by_its_file() -> None:
    found = matched(sample.accuracy(CORRECTED, 0.05))
    # 83.4 less 5 (8) for each step, the mean of steps 1 to 5
    assert found == {
        CORRECTED: ("68.4", True),
        f"{sample.PLAIN}_float32.tflite": ("59.4", False),
    }


@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_a_name_alone_is_no_match_for_a_model(digest: str | None) -> None:
    report = msgspec.structs.replace(sample.accuracy(CORRECTED, 0.05), model_sha256=digest)
    assert CORRECTED not in matched(report)


def test_a_reference_that_reports_disagree_on_is_left_out() -> None:
    report = sample.accuracy(CORRECTED, 0.05)
    first, *rest = report.conditions
    other = msgspec.structs.replace(first, reference_top1=rest[-1].reference_top1)
    conflicting = msgspec.structs.replace(report, conditions=[other, *rest])
    assert list(matched(report, conflicting)) == [CORRECTED]


def test_a_hash_goes_before_a_name() -> None:
    plain = f"{sample.PLAIN}_float32.tflite"
    found = matched(sample.accuracy(CORRECTED, 0.05), sample.accuracy(plain, 0.08, "something"))
    assert found[plain] == ("59.4", True)


def test_a_share_is_recovered_by_the_model_and_none_by_the_reference() -> None:
    share = RecoveredShare(0.344, 0.261, 0.425)
    report = msgspec.structs.replace(sample.accuracy(CORRECTED, 0.05), recovered_share=share)
    other = msgspec.structs.replace(report, recovered_share=RecoveredShare(0.1))

    def shares(*reports: AccuracyReport) -> dict[str, RecoveredShare | None]:
        (entry,) = match(shown_cases([sample.host_run()]), reports)
        return {m.shown.case.file: m.recovered for m in entry.matched}

    plain = f"{sample.PLAIN}_float32.tflite"
    assert shares(report) == {CORRECTED: share, plain: RecoveredShare(0.0)}
    assert shares(report, other)[CORRECTED] is None


def test_other_conditions_and_cases_without_a_time_are_kept_apart() -> None:
    report = sample.accuracy(f"{sample.CORRECTED}_float16.tflite", 0.05)
    fewer = msgspec.structs.replace(report, conditions=report.conditions[:3])
    entries = match(shown_cases([sample.host_run(), sample.phone_run()]), [report, fewer])
    # The phone's float16 case is INVALID.
    assert [(len(e.suite.conditions), e.where) for e in entries] == [
        (6, sample.HOST.model),
        (3, sample.HOST.model),
    ]
    assert entries[1].suite.averaged == "QF 25, QF 18"


def test_pictures_compressed_before_and_after_scaling_are_kept_apart() -> None:
    after = sample.accuracy(CORRECTED, 0.05)
    before = msgspec.structs.replace(after, compress="before-scaling")
    names = "QF 25, QF 18, QF 15, QF 10, QF 7"
    entries = match(shown_cases([sample.host_run()]), [after, before])
    assert [e.suite.averaged for e in entries] == [names, f"{names} (before scaling)"]


def test_nothing_is_drawn_where_nothing_matches() -> None:
    page = render_html([sample.host_run()], [sample.accuracy("other.tflite", 0.1, "another")])
    assert b"Accuracy against latency" not in page


def test_a_file_of_afd_eval_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    report = sample.accuracy(CORRECTED, 0.05)
    share = {"value": 0.344, "low": 0.261, "high": 0.425}
    content = msgspec.to_builtins(report) | {"unreadable": [], "recovered_share": share}
    path.write_bytes(msgspec.json.encode(content))
    expected = msgspec.structs.replace(report, recovered_share=RecoveredShare(**share))
    assert read_accuracy(path) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"schema_version": 1, "model": "a", "files": []}',
        b'{"x": ' + b"[" * 300_000,
        None,
    ],
)
def test_what_is_no_accuracy_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.json cannot be read .* make it with afd-eval"
    ) as told:
        read_accuracy(path)
    assert str(told.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("top1", "words"),
    [
        ({"value": 0.5, "low": 0.6, "high": 0.7}, "[0.6, 0.7] does not enclose 0.5"),
        ({"value": 0.5, "low": 0.7, "high": 0.4}, "[0.7, 0.4] does not enclose 0.5"),
        ({"value": 50, "low": 40, "high": 60}, "top1"),
        ({"value": 0.5, "low": -0.1, "high": 0.6}, "low"),
    ],
)
def test_shares_that_cannot_be_are_an_input_error(
    top1: dict[str, float], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    content = msgspec.to_builtins(sample.accuracy(CORRECTED, 0.05))
    content["conditions"][1]["top1"] = top1
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(InputError) as refused:
        read_accuracy(path)
    assert words in str(refused.value) and str(path) in str(refused.value)


def test_results_are_told_from_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, sample.host_run())
    with pytest.raises(InputError) as refused:
        read_accuracy(path)
    assert str(refused.value) == (
        f"{path} is afd-bench's own; give it as RESULTS, not by --accuracy"
    )


@pytest.mark.parametrize("changed", [{"schema_version": 2}, {"conditions": []}])
def test_another_version_is_an_input_error(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "a.json"
    content = msgspec.to_builtins(sample.accuracy(CORRECTED, 0.05)) | changed
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(InputError, match="expected version 1 and at least one"):
        read_accuracy(path)
