"""`afd-bench` without phones: what it prints and writes, and how it ends."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from afd_benchmark.file_cost import cost_of_file
from afd_benchmark.host.runner import HostRunner
from afd_benchmark.latency_stats import ratio_with_interval
from afd_benchmark.report.accuracy import RecoveredShare
from afd_benchmark.report.terminal_lines import case_line
from afd_benchmark.results import read_results, write_results
from tests.afd_benchmark import sample_results as sample
from tests.afd_benchmark.conftest import afd_bench as bench
from tests.afd_benchmark.conftest import cases, ended, small_graph, start_bench, verdict
from tests.afd_export.tflite_graphs import Fed, Stored, single
from tests.commands import Outcome

LOGS = Path(__file__).parent / "logs"
CORES = len(os.sched_getaffinity(0))
QUICK = ("--repeats", 3, "--runs", 3, "--min-secs", 0)
# A time with its interval, as a finished case is printed.
TIMED = re.compile(r" [mµ]s (\[|no interval)")
BRIEF = ("--repeats", 1, "--runs", 1, "--min-secs", 0)


def undisturbed(case: dict[str, Any]) -> str:
    """The case's verdict, but for what a busy machine does to it."""
    calm = [r for r in case["reasons"] if "own speed fell" not in r]
    return verdict(case | {"reasons": calm})


# --- run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def against(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    out = tmp_path_factory.mktemp("against") / "new" / "out"
    done = bench("run", exports / "corrected", "--against", exports / "plain", "--out", out, *QUICK)
    return done, out


def test_a_run_on_the_host(against: tuple[Outcome, Path]) -> None:
    _, out = against
    main_case, other = cases(out)
    for case in (main_case, other):
        assert undisturbed(case) == "VALID", case["reasons"]
        assert case["golden"]["pictures"] == 2 and case["golden"]["violations"] == []
        assert (case["device"], case["backend"], case["threads"]) == ("host", "cpu", 1)
        medians = [r["median_ms"] for r in case["repeats"]]
        assert case["median_ms"] == np.median(medians)
        assert case["ci95_ms"] is None  # of three repeats
        assert [len(s) for s in case["samples_ms"]] == [3, 3, 3]
    assert main_case["file"] == "corrected_float32.tflite"
    assert other["in_turn_with"] == main_case["sha256"]
    read_results(out)


def test_its_ratio_is_that_of_the_rounds(against: tuple[Outcome, Path]) -> None:
    main_case, other = cases(against[1])
    pairs = [[r["median_ms"] for r in case["repeats"]] for case in (main_case, other)]
    ratio, _ = ratio_with_interval(*pairs)
    found = main_case["ratio"]
    assert (found["ratio"], found["ci95"], found["rounds"]) == (ratio, None, 3)
    assert (found["against"], found["against_sha256"]) == (other["file"], other["sha256"])
    assert found["against_verdict"] == other["verdict"]


def test_its_raw_logs_are_there_and_their_hashes_are_right(against: tuple[Outcome, Path]) -> None:
    _, out = against
    logs = {r["log"]: r["log_sha256"] for case in cases(out) for r in case["repeats"]}
    assert len(logs) == 6
    for log, digest in logs.items():
        assert hashlib.sha256((out / log).read_bytes()).hexdigest() == digest
    golden = {path.name for path in (out / "logs").iterdir()} - {Path(log).name for log in logs}
    assert len(golden) == 2


def test_what_it_prints(against: tuple[Outcome, Path]) -> None:
    done, out = against
    lines = done.out.splitlines()
    assert lines[0].startswith("host: ")
    assert "in turn with plain_float32.tflite" in lines[1]
    (main_line,) = [line for line in lines if " x plain_float32.tflite " in line]
    assert "corrected_float32.tflite" in main_line and TIMED.search(main_line)
    assert main_line.endswith("  median of 3 rounds")
    for case in cases(out):
        assert all(f"{'':10}{reason}" in lines for reason in case["reasons"])
    assert lines[-2:] == [f"  {out / 'results.json'}", f"  {out / 'report.html'}"]
    assert b"corrected" in (out / "report.html").read_bytes()
    assert done.err == ""


def test_what_was_asked_for_is_in_the_results(against: tuple[Outcome, Path]) -> None:
    content = json.loads((against[1] / "results.json").read_text())
    settings = content["settings"]
    assert (settings["repeats"], settings["runs"], settings["min_secs"]) == ("3", "3", "0.0")
    assert settings["against"].startswith("plain_float32.tflite (")
    assert content["started_at"] <= content["finished_at"]
    assert {"afd-mobile", "ai-edge-litert", "numpy", "python"} <= set(content["versions"])
    assert [device["name"] for device in content["devices"]] == ["host"]


def test_resume_measures_nothing_again(
    against: tuple[Outcome, Path], exports: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(against[1], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "logs").iterdir()}
    run = ("run", exports / "corrected", "--against", exports / "plain", "--out", out, *QUICK)
    done = bench(*run, "--resume")
    assert cases(out) == cases(against[1])
    assert {path: path.stat().st_mtime_ns for path in (out / "logs").iterdir()} == before
    kept = [f"{case_line(case)}  kept" for case in read_results(out).cases]
    assert len(kept) == 2 and [x for x in done.out.splitlines() if TIMED.search(x)] == kept

    assert "results.json exists; give --resume" in bench(*run, code=6).err
    done = bench(*run, "--resume", "--runs", 4, "--full-delegation", code=3)
    assert "other settings (full_delegation, runs)" in done.err
    done = bench("run", exports / "corrected", "--out", out, *QUICK, "--resume", code=3)
    assert "other settings (against)" in done.err
    assert cases(out) == cases(against[1])


@pytest.fixture(scope="module")
def two(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both files, once each."""
    out = tmp_path_factory.mktemp("two") / "out"
    bench("run", exports, "--out", out, *BRIEF)
    return out


def test_resume_measures_what_is_missing(two: Path, exports: Path, tmp_path: Path) -> None:
    out = shutil.copytree(two, tmp_path / "out")
    results = read_results(out)
    first, second = results.cases
    write_results(out / "results.json", replace(results, cases=[second]))
    done = bench("run", exports, "--out", out, *BRIEF, "--resume")
    again, kept = read_results(out).cases
    assert kept == second and again.file == first.file and again.repeats != first.repeats
    timed = [line.split() for line in done.out.splitlines() if TIMED.search(line)]
    assert [(line[2], line[-1] == "kept") for line in timed] == [
        (second.file, True),
        (first.file, False),
    ]


def test_resume_keeps_what_could_not_be_measured_any_more(
    two: Path, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(two, tmp_path / "out")
    monkeypatch.setattr(HostRunner, "refuses", lambda *_: "fewer cores")
    done = bench("run", exports, "--out", out, *BRIEF, "--resume")
    assert cases(out) == cases(two)
    assert sum(line.endswith("  kept") for line in done.out.splitlines()) == 2


def test_resume_with_fewer_targets_loses_nothing(two: Path, exports: Path, tmp_path: Path) -> None:
    out = shutil.copytree(two, tmp_path / "out")
    bench("run", exports / "plain", "--out", out, *BRIEF, "--resume")
    assert {case["file"] for case in cases(out)} == {case["file"] for case in cases(two)}


def test_two_files_against_one_keep_their_evidence(exports: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bench("run", exports, "--against", exports / "plain", "--out", out, *BRIEF)
    found = cases(out)
    assert len(found) == 4 and sum(case["in_turn_with"] is None for case in found) == 2
    for case in found:
        for repeat in case["repeats"]:
            raw = (out / repeat["log"]).read_bytes()
            assert hashlib.sha256(raw).hexdigest() == repeat["log_sha256"], case["file"]


def test_wrong_outputs_are_invalid_and_have_no_time(exports: Path, tmp_path: Path) -> None:
    wrong = shutil.copytree(exports / "plain", tmp_path / "wrong")
    (wrong / "golden/1_float32.bin").write_bytes(np.ones(10, "<f4").tobytes())
    out = tmp_path / "out"
    done = bench("run", wrong, "--against", exports / "corrected", "--out", out, *BRIEF, code=8)
    assert "1 INVALID: plain_float32.tflite" in done.err
    case = cases(out)[0]
    assert case["verdict"] == "INVALID" and case["reasons"][0].startswith("wrong outputs: ")
    assert "p1 (QF 7)" in case["reasons"][0] and case["golden"]["violations"]
    assert case["median_ms"] is None and case["samples_ms"] == [] and case["ratio"] is None
    assert (out / "report.html").is_file()


def test_one_that_fails_does_not_stop_the_others(exports: Path, tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    # LiteRT divides by the number of parts, which kills the process.
    axis = Stored(np.array(1, np.int32))
    crash = single("SPLIT", [axis, Fed((1, 8))], Fed((1, 8)), numSplits=0)
    (targets / "a.tflite").write_bytes(crash)
    shutil.copy(exports / "plain/plain_float32.tflite", targets / "b.tflite")
    done = bench("run", targets, "--out", tmp_path / "out", *BRIEF, code=8)
    bad, good = cases(tmp_path / "out")
    assert (bad["file"], bad["verdict"], bad["median_ms"]) == ("a.tflite", "INVALID", None)
    assert bad["reasons"][0].startswith("the process ended with signal ")
    assert good["median_ms"] > 0 and good["verdict"] == "SUSPECT"  # no golden pictures
    assert done.out.index("INVALID") < done.out.index("SUSPECT")


def test_what_the_host_cannot_do_is_skipped_with_its_reason(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench(
        "run", exports / "plain", "--backend", "gpu", "nnapi", "cpu", "external:nowhere.so",
        "--threads", CORES + 1, "--profile",
        code=2,
    )  # fmt: skip
    (out,) = (tmp_path / "benchmarks").iterdir()  # where nothing else was said
    reasons = [
        "LiteRT has no gpu backend on a host; plug in a phone and give --device",
        "LiteRT has no nnapi backend on a host; plug in a phone and give --device",
        f"{CORES + 1} threads on {CORES} cores",
        "there is no library nowhere.so",
    ]
    assert [(c["verdict"], c["reasons"]) for c in cases(out)] == [
        ("SKIPPED", [reason]) for reason in reasons
    ]
    assert all(f"skipped: {reason}" in done.out for reason in reasons)
    assert not (out / "logs").exists()
    assert done.err.startswith("note: host: ") and len(done.err.splitlines()) == 2
    assert (
        f"nothing was measured, both hold reasons only: host, gpu: {reasons[0]}; host, nnapi: "
        in done.err
    )


def children(process: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(process: int) -> bool:
    """Neither gone nor a zombie, which has no command line."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupted_run_keeps_what_is_finished_and_leaves_no_worker(
    two: Path, exports: Path, tmp_path: Path
) -> None:
    """The first of two files is finished; the second would take a minute."""
    results = read_results(two)
    out = tmp_path / "out"
    out.mkdir()
    settings = results.settings | {"min_secs": "60.0"}
    begun = replace(results, cases=results.cases[:1], settings=settings, finished_at=None)
    write_results(out / "results.json", begun)
    process = start_bench("run", exports, "--out", out, *BRIEF, "--min-secs", 60, "--resume")
    try:
        wait_until(lambda: children(process))
        workers = children(process)
        process.send_signal(signal.SIGINT)
        errors = ended(process, 130)
    finally:
        process.kill()
    assert errors == "afd-bench: interrupted; nothing is half-written\n"
    assert [case["file"] for case in cases(out)] == ["corrected_float32.tflite"]
    assert read_results(out).finished_at is None
    wait_until(lambda: not any(map(alive, workers)))


def test_a_broken_file_is_left_out_and_the_others_are_measured(
    exports: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    shutil.copy(exports / "plain" / "plain_float32.tflite", folder / "good one.tflite")
    shutil.copy(exports / "plain" / "plain_float32.tflite", folder / "same.tflite")
    (folder / "._good one.tflite").write_bytes(b"Mac OS X")
    (folder / "bad.tflite").write_bytes(b"no model")
    (folder / "folder.tflite").mkdir()
    done = bench("run", folder, "--out", tmp_path / "out", *QUICK, code=3)
    notes = [line for line in done.err.splitlines() if line.startswith("note: left out: ")]
    assert [Path(line.split()[3]).name for line in notes] == ["bad.tflite", "folder.tflite"]
    assert f"left out: {folder / 'bad.tflite'} is no TFLite model" in done.err.splitlines()[-1]
    assert f"same.tflite is the same file as {folder / 'good one.tflite'}; measured" in done.err
    assert [case["file"] for case in cases(tmp_path / "out")] == ["good one.tflite"]
    done = bench("cost", folder, code=3)
    assert "good one.tflite" in done.out and "left out" in done.err
    (folder / "good one.tflite").unlink()
    (folder / "same.tflite").unlink()
    done = bench("cost", folder, code=3)
    assert done.out == "" and len(done.err.splitlines()) == 1


# --- cost -----------------------------------------------------------------------------------------


def test_cost_in_words(exports: Path) -> None:
    header, *rows = bench("cost", exports).out.splitlines()
    assert header.split()[:3] == ["file", "parameters", "multiply-adds"]
    assert [row.split()[0] for row in rows] == [
        "corrected_float32.tflite", "plain_float32.tflite",
    ]  # fmt: skip
    # 3 x 3 x (3 + 16) x 16 + 16 + 16, and (16 + 1) x 10; 1024 positions of the former products.
    assert rows[1].split()[1:5] == ["0.003", "M", f"{(1024 * 9 * 19 * 16 + 160) / 1e6:.1f}", "M"]


def test_cost_of_every_operation(exports: Path) -> None:
    _, row, *operations = bench("cost", exports / "plain", "--operations").out.splitlines()
    assert row.startswith("plain_float32.tflite")
    assert [line.split()[1] for line in operations] == [
        "CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED",
    ]  # fmt: skip
    assert operations[0].split()[2] == "1x32x32x16"


def test_cost_as_json_has_every_figure(exports: Path) -> None:
    content = json.loads(bench("cost", exports, "--json").out)
    cost = cost_of_file(exports / "plain" / "plain_float32.tflite")
    found = content["plain_float32.tflite"]
    for name in ("parameters", "multiply_adds", "file_bytes", "peak_activation_bytes",
                 "arithmetic_intensity", "bytes_moved"):  # fmt: skip
        assert found[name] == getattr(cost, name)
    assert [o["operator"] for o in found["operations"]] == [o.operator for o in cost.operations]


@pytest.mark.parametrize("as_json", [False, True])
def test_two_files_of_one_name_are_two(as_json: bool, tmp_path: Path) -> None:
    for folder, channels in (("old", 4), ("new", 8)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.tflite").write_bytes(small_graph(channels))
    paths = [tmp_path / folder / "model.tflite" for folder in ("old", "new")]
    out = bench("cost", *paths, *["--json"] * as_json).out
    assert (len(json.loads(out)) if as_json else len(out.splitlines()) - 1) == 2


def test_the_same_file_twice_is_one(exports: Path) -> None:
    plain = exports / "plain"
    assert len(bench("cost", plain, plain / "plain_float32.tflite").out.splitlines()) == 2


def test_cost_of_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(single("HASHTABLE_LOOKUP", [Fed((4,))], Fed((4,))))
    assert "HASHTABLE_LOOKUP" in bench("cost", path, code=3).err


# --- parse ----------------------------------------------------------------------------------------


def test_parse_in_words_and_as_json() -> None:
    out = bench("parse", LOGS / "tflite_cpu.txt").out
    assert out.startswith(f"log               {LOGS / 'tflite_cpu.txt'}\n")
    assert not out.endswith("\n\n")
    figures = dict(line.split(maxsplit=1) for line in out.strip().splitlines())
    assert figures["graph"] == "/data/local/tmp/afd/corrected.tflite"
    assert float(figures["inference_avg_ms"]) == pytest.approx(9.12387)
    (run,) = json.loads(bench("parse", LOGS / "tflite_cpu.txt", "--json").out)
    assert (run["backend"], run["delegated"], run["nodes"], run["runs"]) == ("cpu", 118, 121, 109)
    assert run["init_ms"] == pytest.approx(21.904)


def test_parse_several_logs() -> None:
    logs = [LOGS / "tflite_cpu.txt", LOGS / "logcat_threadtime.txt", LOGS / "litert.txt"]
    runs = json.loads(bench("parse", *logs, "--json").out)
    assert len(runs) >= 3 and all(run["inference_avg_ms"] > 0 for run in runs)
    assert list(dict.fromkeys(run["log"] for run in runs)) == [str(log) for log in logs]
    tables = bench("parse", *logs).out.split("\n\n")
    assert [table.split()[:2] for table in tables] == [["log", run["log"]] for run in runs]


def test_parse_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LOGS / "tflite_gpu.txt"
    with log.open(encoding="utf-8") as text:
        monkeypatch.setattr("sys.stdin", text)
        out = bench("parse", "-", "--json").out
    (run,) = json.loads(bench("parse", log, "--json").out)
    assert json.loads(out) == [run | {"log": "-"}]
    assert json.loads(out)[0]["backend"] == "gpu"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_failed_and_a_cut_off_log_are_errors_beside_the_good_ones(
    as_json: bool, tmp_path: Path
) -> None:
    good = LOGS / "tflite_cpu.txt"
    failed, cut = tmp_path / "failed.txt", tmp_path / "cut.txt"
    failed.write_text(good.read_text() + "ERROR: Benchmarking failed.\n")
    cut.write_text(good.read_text().partition("INFO: Inference timings")[0])
    done = bench("parse", failed, good, cut, *["--json"] * as_json, code=3)
    assert len(done.err.splitlines()) == 1
    assert str(failed) in done.err and str(cut) in done.err and str(good) not in done.err
    assert done.out.count("inference_avg_ms") == 1


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\xff\xfe\0\0", None])
def test_what_is_no_log(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = bench("parse", path, code=3)
    assert len(done.err.splitlines()) == 1 and not done.out.strip()
    if content is not None:
        assert done.err == f"afd-bench: error: {path} is no log of benchmark_model\n"
    assert str(path) in bench("parse", LOGS / "litert.txt", path, code=3).err
    assert "gone.txt" in bench("parse", tmp_path / "gone.txt", code=3).err


# --- report ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "results.json"
    write_results(path, sample.phone_run())
    return path


@pytest.mark.parametrize("ending", [".html", ".md", ".csv", ".json"])
def test_the_ending_chooses_the_report(
    ending: str, results: Path, two: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"report{ending}"
    done = bench("report", results, two, "--out", out)
    assert done.out == f"  {out}\n" and done.err == ""
    content = out.read_text(encoding="utf-8")
    assert content.startswith(
        {".html": "<!doctype html>", ".md": "", ".csv": "", ".json": "["}[ending]
    )
    runs = [read_results(results), read_results(two)]
    if ending == ".json":
        assert [len(run["cases"]) for run in json.loads(content)] == [len(r.cases) for r in runs]
    elif ending == ".csv":
        rows = list(csv.DictReader(io.StringIO(content)))
        assert len(rows) == sum(len(run.cases) for run in runs)
    for run in runs:
        for case in run.cases:
            assert case.file.split("_")[0] in content


def test_recovered_share_is_drawn_against_latency(tmp_path: Path) -> None:
    """A picture where one device and one set of conditions is there, else one line."""
    measured, shares, out = (tmp_path / name for name in ("results.json", "a.json", "x.png"))
    write_results(measured, sample.host_run())
    share = RecoveredShare(0.344, 0.261, 0.425)
    report = sample.accuracy(f"{sample.CORRECTED}_float32.tflite", 0.05)
    shares.write_bytes(msgspec.json.encode(replace(report, recovered_share=share)))
    assert bench("report", measured, "--accuracy", shares, "--out", out).out == f"  {out}\n"
    assert out.read_bytes().startswith(b"\x89PNG")
    out.unlink()
    done = bench("report", measured, "--out", out, code=3)
    assert done.err.endswith("here are 0 such groups\n") and not out.exists()


def test_a_report_without_out_lies_here(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("report", results.parent).out == "  report.html\n"
    assert (tmp_path / "report.html").is_file()
    bench("report", results)  # replaces it


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.HTML", ".html"])
def test_another_ending_is_refused_and_nothing_is_written(
    name: str, results: Path, tmp_path: Path
) -> None:
    done = bench("report", results, "--out", tmp_path / name, code=2)
    assert name in done.err and ".html .md .csv .json" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["broken.json"], 3, "broken.json"),
        (["gone"], 3, "gone"),
        (["."], 3, "results.json"),
        (["RESULTS", "--accuracy", "broken.json"], 3, "broken.json"),
        (["broken.json", "--out", "gone/report.html"], 6, "there is no folder gone"),
        (["RESULTS", "--out", "folder.html"], 6, "folder.html"),
        ([], 2, "RESULTS"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    arguments: list[str], code: int, words: str, results: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"schema_version": 1}')
    (tmp_path / "folder.html").mkdir()
    done = bench("report", *[results if a == "RESULTS" else a for a in arguments], code=code)
    assert words in done.err and len(done.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"broken.json", "folder.html"}


# --- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "COMMAND"),
        ("fly", "fly"),
        ("run", "TARGET"),
        ("run PLAIN --quickly", "--quickly"),
        ("run PLAIN --runs 0", "--runs"),
        ("run PLAIN --runs many", "--runs"),
        ("run PLAIN --repeats -1", "--repeats"),
        ("run PLAIN --threads 1 0", "--threads"),
        ("run PLAIN --threads 1.5", "--threads"),
        ("run PLAIN --min-secs -1", "--min-secs"),
        ("run PLAIN --min-secs nan", "--min-secs"),
        ("run PLAIN --min-secs soon", "'soon'"),
        ("run PLAIN --time-limit inf", "--time-limit"),
        ("run PLAIN --cool-down 1e9", "--cool-down"),
        ("run PLAIN --backend tpu", "cpu, gpu, nnapi, external:LIB"),
        ("run PLAIN --backend cpu external:", "'external:' is none of"),
        ("run PLAIN --delegate-option key=value", "--backend external:LIB"),
        ("run PLAIN --backend external:x.so --delegate-option key", "K=V"),
        ("run PLAIN --backend external:x.so --delegate-option =value", "K=V"),
        ("run PLAIN --resume", "--resume needs --out"),
        ("run peer:nobody", "peer:nobody"),
        ("run PLAIN --against peer:nobody", "peer:nobody"),
        ("cost", "TARGET"),
        ("cost peer:", "peer:"),
        ("parse", "LOG"),
        ("replay", "CASSETTE"),
        ("devices --adb-server nowhere", "HOST:PORT"),
        ("devices --adb-server 127.0.0.1:0", "HOST:PORT"),
        ("devices --adb-server 127.0.0.1:65536", "HOST:PORT"),
    ],
)
def test_every_usage_error_is_one_line_and_leaves_nothing(
    command: str, words: str, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = str(exports / "plain")
    done = bench(*[plain if word == "PLAIN" else word for word in command.split()], code=2)
    assert words in done.err and len(done.err.splitlines()) == 1 and done.out == ""
    assert " _" not in done.err, "a private name"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("run gone", 3, "gone"),
        ("run PLAIN --against gone", 3, "gone"),
        ("run PLAIN --tool gone", 3, "--tool gone"),
        ("run . --out out", 3, "no .tflite file"),
        ("run PLAIN --out file", 6, "cannot write file"),
        ("run PLAIN --out file/out", 6, "cannot write file/out"),
        ("run PLAIN --out out --resume", 3, "out/results.json"),
        ("cost gone", 3, "gone"),
        ("replay gone", 3, "gone"),
        ("replay file", 3, "file"),
        ("replay . --out out", 3, "exchanges.jsonl"),
    ],
)
def test_every_other_error_before_a_run_is_one_line_too(
    command: str, code: int, words: str, exports: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    plain = str(exports / "plain")
    done = bench(*[plain if word == "PLAIN" else word for word in command.split()], code=code)
    assert words in done.err and len(done.err.splitlines()) == 1 and done.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "command", [[], ["run"], ["devices"], ["cost"], ["parse"], ["report"], ["replay"]]
)
def test_help_names_the_exit_codes(command: list[str]) -> None:
    out = bench(*command, "--help").out
    assert out.startswith(" ".join(["usage: afd-bench", *command]))
    assert "7 device" in out and "8 a measurement is INVALID" in out and "130 interrupted" in out


def test_help_says_what_stands_for_what_and_each_default_alike() -> None:
    helped = {
        name: " ".join(bench(name, "--help").out.split()) for name in ("run", "report", "replay")
    }
    assert not re.findall(r"\([\d.]+\)", helped["run"])
    assert "its results.json" in helped["report"] and "under cassettes/" in helped["replay"]


def test_the_version_and_the_module_itself() -> None:
    process = start_bench("--version")
    output, _ = process.communicate(timeout=600)
    assert output == bench("--version").out and output.startswith("afd-mobile ")
