"""Logs of `benchmark_model` in every form; the figures in `logs/` are made up and fit together."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from afd_benchmark.benchmark_model.lines import LogError, decode_log, read_lines
from afd_benchmark.benchmark_model.log import ToolRun, parse_log, parse_logs
from afd_mobile.common.errors import InputError

LOGS = Path(__file__).parents[1] / "logs"


def log(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text("utf-8")


def only(text: str) -> ToolRun:
    (run,) = parse_logs(text)
    if isinstance(run, LogError):
        raise run
    return run


# --- every form -----------------------------------------------------------------------------------


def test_cpu_with_percentiles_and_peak_memory() -> None:
    run = only(log("tflite_cpu"))
    assert dataclasses.asdict(run) == {
        "form": "tflite",
        "graph": "/data/local/tmp/afd/corrected.tflite",
        "asked": "cpu",
        "backend": "cpu",
        "delegate": "TfLiteXNNPackDelegate",
        "init_ms": 21.904,
        "first_ms": 11.25,
        "warmup_avg_ms": 9.15436,
        "inference_avg_ms": 9.12387,
        "runs": 109,
        "min_ms": 8.874,
        "max_ms": 10.417,
        "std_ms": 0.187,
        "median_ms": 9.085,
        "p5_ms": 8.94,
        "p95_ms": 9.466,
        "delegated": 118,
        "nodes": 121,
        "partitions": 4,
        "kernels": 2,
        "fully_delegated": False,
        "delegates": (
            {
                "delegate": "TfLiteXNNPackDelegate",
                "backend": "cpu",
                "delegated": 118,
                "nodes": 121,
                "partitions": 4,
                "subgraph": 0,
            },
        ),
        "peak_memory_bytes": 40632320,  # 38.75 * 1024 * 1024
        "init_growth_bytes": 26017792,  # 24.8125 * 1024 * 1024
        "growth_bytes": 32931788,  # 31.4062 * 1024 * 1024
        "warnings": ("Tensor # 0 is named serving_default_x:0 but flags call it x",),
    }
    assert json.dumps(dataclasses.asdict(run))


def test_gpu_that_leaves_the_rest_to_xnnpack() -> None:
    run = only(log("tflite_gpu"))
    assert (run.asked, run.backend, run.delegate) == ("gpu", "gpu", "TfLiteGpuDelegateV2")
    assert (run.delegated, run.nodes, run.partitions, run.kernels) == (68, 96, 2, 1)
    assert run.fully_delegated is False
    assert [(d.backend, d.delegated, d.nodes) for d in run.delegates] == [
        ("gpu", 68, 96),
        ("cpu", 27, 29),
    ]
    assert (run.init_ms, run.inference_avg_ms, run.runs) == (1043.551, 13.3386, 75)
    assert (run.median_ms, run.p5_ms, run.p95_ms, run.peak_memory_bytes) == (None,) * 4
    assert run.warnings == (
        "68 operations will run on the GPU, and the remaining 28 operations will run on the CPU.",
    )


def test_the_asked_backend_comes_first_whatever_the_order() -> None:
    lines = log("tflite_gpu").splitlines()
    gpu, xnnpack = (i for i, line in enumerate(lines) if "Replacing" in line)
    lines[gpu], lines[xnnpack] = lines[xnnpack], lines[gpu]
    assert only("\n".join(lines)).delegates == only(log("tflite_gpu")).delegates


def test_an_accelerator_that_takes_nothing_is_the_cpu() -> None:
    run = only(log("tflite_fallback"))
    assert (run.asked, run.backend, run.fully_delegated) == ("nnapi", "cpu", False)
    assert (run.delegate, run.delegated) == (None, None)
    # count=1, and 20 runs that all took the same
    assert (run.first_ms, run.warmup_avg_ms, run.runs) == (88.012, 88.012, 20)
    assert run.min_ms == run.max_ms == run.inference_avg_ms == run.median_ms == 87.654
    assert run.std_ms == 0


def test_an_external_delegate_goes_by_its_library() -> None:
    run = only(log("tflite_external"))
    assert run.asked == run.backend == "external:libQnnTFLiteDelegate.so"
    assert (run.delegate, run.delegated, run.nodes) == ("TfLiteQnnDelegate", 64, 64)
    assert (run.partitions, run.kernels, run.fully_delegated) == (1, 1, True)


def test_without_prefixes_and_with_six_digits_of_a_long_time() -> None:
    run = only(log("tflite_plain"))
    assert (run.inference_avg_ms, run.warmup_avg_ms, run.first_ms) == (1234.57, 1312.58, 1312.577)
    assert run.init_ms == 10115.432  # of the results; the line above has 10115.4
    # The old line does not say of how many, but nothing is left.
    assert (run.delegated, run.nodes, run.fully_delegated) == (77, 77, True)
    assert run.peak_memory_bytes is None  # what it calls a peak is a difference from the start


def test_the_form_of_2020() -> None:
    run = only(log("tflite_2020"))
    assert (run.form, run.backend, run.fully_delegated) == ("tflite-2020", "cpu", None)
    assert (run.init_ms, run.first_ms, run.warmup_avg_ms) == (1.892, 91.81, 86.1843)
    assert (run.inference_avg_ms, run.runs) == (115.062, 50)
    assert run.peak_memory_bytes == 21495808  # 20.5 * 1024 * 1024
    older = log("tflite_2020").replace(" Inference: 115062 Overall", " no stats: 115062\nOverall")
    assert only(older) == run


def test_litert() -> None:
    run = only(log("litert"))
    assert (run.form, run.backend, run.delegate) == ("litert", "gpu", "LITERT_CL")
    assert (run.init_ms, run.first_ms, run.warmup_avg_ms) == (744.73, 7.44, 4.43)
    assert (run.inference_avg_ms, run.runs, run.fully_delegated) == (4.41, 227, True)
    assert (run.min_ms, run.max_ms, run.std_ms) == (4.37, 4.61, 0.03)
    assert (run.p5_ms, run.median_ms, run.p95_ms) == (4.38, 4.401, 4.455)
    assert run.peak_memory_bytes == 146276352  # 139.5 * 1024 * 1024
    bare = re.sub(r"INFO: (\[.*?\] ?)?", "", re.sub(r"INFO: count=.*\n", "", log("litert")))
    assert only(bare) == dataclasses.replace(run, p5_ms=None, median_ms=None, p95_ms=None)


@pytest.mark.parametrize(
    "name",
    [
        "logcat_brief",
        "logcat_time",
        "logcat_threadtime",
        "logcat_long",
        "studio_old",
        "studio_new",
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r\r\n"])
def test_through_logcat_among_other_processes(name: str, ending: str) -> None:
    text = log(name).replace("\n", ending)
    assert "NnapiDelegate" in text and "Adreno" in text
    assert only(text) == only(log("tflite_gpu"))


def test_logcat_with_users_years_and_zones() -> None:
    text = log("logcat_threadtime")
    expected = only(text)
    assert only(re.sub(r"^06-01 (\S+) ", r"06-01 \1  u0_a213 ", text, flags=re.M)) == expected
    assert (
        only(re.sub(r"^06-01 (\S+) ", r"2024-06-01 \g<1>123 +0200 ", text, flags=re.M)) == expected
    )


@pytest.mark.parametrize("name", ["tflite_cpu", "tflite_gpu", "tflite_plain", "litert"])
def test_colours_and_carriage_returns_change_nothing(name: str) -> None:
    text = log(name)
    coloured = "".join(f"\x1b[32m{line}\x1b[0m\r\n" for line in text.splitlines())
    assert only("\ufeff" + coloured) == only(text)


# What a log's lines come with: the tool's own levels, every `logcat -v`, Android Studio, CI.
_DAY = "06-01 14:02:03.391"
_PREFIXES = {
    "none": "{text}",
    "level": "{word}: {text}",
    "absl": "{absl}0000 00:00:1714567890.123456    7651 benchmark_model.cc:12] {text}",
    "glog": "{absl}0601 14:02:03.391234  7651 benchmark_model.cc:12] {text}",
    "brief": "{level}/tflite  ( 7651): {text}",
    "tag": "{level}/tflite  : {text}",
    "process": "{level}( 7651) {text}  (tflite)",
    "thread": "{level}( 7651: 7652) {text}",
    "time": _DAY + " {level}/tflite  ( 7651): {text}",
    "threadtime": _DAY + "  7651  7652 {level} tflite  : {text}",
    "threadtime, user": _DAY + " u0_a213  7651  7652 {level} tflite  : {text}",
    "threadtime, year, zone, usec":
        "2024-06-01 14:02:03.391123 +0200  7651  7652 {level} tflite  : {text}",
    "epoch": "         1714567890.123  7651  7652 {level} tflite  : {text}",
    "monotonic": "       12345.678901  7651  7652 {level} tflite  : {text}",
    "studio, old": "2024-" + _DAY + " 7651-7652/org.app {level}/tflite: {text}",
    "studio": "2024-" + _DAY + "  7651-7652  tflite                  org.app    {level}  {text}",
    "studio, no ids": "2024-" + _DAY + "  tflite                  org.app    {level}  {text}",
    "studio, no package": "2024-" + _DAY + "  tflite                  {level}  {text}",
    "studio, compact": "14:02:03.391  {level}  {text}",
    "github, azure": "2024-06-01T14:02:03.3912345Z {word}: {text}",
    "gitlab": "2024-06-01T14:02:03.391234Z 01O {word}: {text}",
    "kubernetes": "2024-06-01T14:02:03.391234567Z stdout F {word}: {text}",
    "gh run view": "build\trun\t2024-06-01T14:02:03.3912345Z {word}: {text}",
    "syslog": "Jun  1 14:02:03 host bench[123]: {word}: {text}",
    "docker compose": "app-1  | {word}: {text}",
    "go": "2024/06/01 14:02:03 {word}: {text}",
    "jenkins": "[2024-06-01T14:02:03.391Z] {word}: {text}",
    "jenkins, short": "14:02:03 {word}: {text}",
    "teamcity": "[14:02:03]: {word}: {text}",
    "teamcity, bitrise": "[14:02:03] {text}",
    "ci and logcat":
        "2024-06-01T14:02:03.3912345Z " + _DAY + "  7651  7652 {level} tflite  : {text}",
}  # fmt: skip
_WORDS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "V": "VERBOSE"}
_WRITTEN: dict[str, Callable[[str], bytes]] = {  # how programs and shells store a text
    "UTF-8": lambda text: text.encode(),
    "UTF-8, BOM": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR CR LF": lambda text: text.replace("\n", "\r\r\n").encode(),
    "UTF-16, BOM": lambda text: text.encode("utf-16"),
    "UTF-16, CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16 LE": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: text.encode("utf-16-be"),
}


def with_prefix(name: str, prefix: str) -> str:
    """A log of the tool itself as it comes through something else.

    Of a message of several lines logcat gives each its level; the tool itself the first alone.
    """
    lines, level = [], "I"
    for raw in log(name).splitlines():
        found = re.match(r"(INFO|WARNING|WARN|ERROR|VERBOSE): ?", raw)
        shape = _PREFIXES[prefix]
        if found:
            level, raw = found[1][0], raw[found.end() :]
        else:
            shape = "{text}" if "{absl}" in shape else shape.replace("{word}: ", "")
        absl = level.replace("V", "I")  # which has no letter for it
        line = shape.format(level=level, absl=absl, word=_WORDS[level], text=raw)
        lines.append(line.rstrip())
    return "".join(f"{line}\n" for line in lines)


FORMS = (
    "tflite_cpu", "tflite_gpu", "tflite_external", "tflite_plain", "tflite_2020", "litert",
)  # fmt: skip


@pytest.mark.parametrize("prefix", _PREFIXES)
def test_every_line_is_read_under_every_prefix_and_encoding(prefix: str) -> None:
    levels = re.search(r"\{(level|absl|word)\}", _PREFIXES[prefix])
    for name in FORMS:
        text, expected = with_prefix(name, prefix), only(log(name))
        for how, written in _WRITTEN.items():
            run = only(decode_log(written(text)))
            if not levels:  # nothing tells what was a warning
                run, expected = (dataclasses.replace(r, warnings=()) for r in (run, expected))
            assert run == expected, (name, how)


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("error", ["Failed to apply the default TensorFlow Lite delegate.", "x"])
def test_an_error_under_any_prefix_takes_the_times_away(prefix: str, error: str) -> None:
    """Wherever a level shows; `x` alone is no error without one."""
    shape = _PREFIXES[prefix]
    if error == "x" and not re.search(r"\{(level|absl|word)\}", shape):
        return
    lines = with_prefix("tflite_plain", prefix).splitlines()
    lines.insert(9, shape.format(level="E", absl="E", word="ERROR", text=error))
    with pytest.raises(LogError, match="the run failed"):
        only("\n".join(lines) + "\n")


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("level", ["V", "I", "W"])
def test_a_level_decides_what_words_would_call_an_error(prefix: str, level: str) -> None:
    shape = _PREFIXES[prefix]
    if not re.search(r"\{(level|absl|word)\}", shape):
        return
    lines = with_prefix("tflite_plain", prefix).splitlines()
    said = shape.format(
        level=level, absl=level.replace("V", "I"), word=_WORDS[level], text="Failed to open a cache"
    )
    run = only("\n".join([*lines[:9], said, *lines[9:]]) + "\n")
    warnings = ("Failed to open a cache",) if level == "W" else ()
    expected = only("\n".join(lines) + "\n")
    assert run == dataclasses.replace(expected, warnings=(*warnings, *expected.warnings))


@pytest.mark.parametrize("line", ["KilledProcesses: 0", "Aborted signals are counted: no"])
def test_what_only_begins_like_a_failure_is_none(line: str) -> None:
    assert only(log("tflite_plain") + f"{line}\n") == only(log("tflite_plain"))


def test_a_failure_in_the_middle_of_what_the_gpu_refuses_counts() -> None:
    text = log("logcat_brief")
    (place,) = (line for line in text.splitlines() if "operations are not supported" in line)
    head = place[: place.index("Following")]
    failed = f"{place}\n{head}Node number 3 (TfLiteGpuDelegateV2) failed to prepare."
    with pytest.raises(LogError, match="the run failed"):
        only(text.replace(place, failed))


def test_a_long_line_takes_no_long_time() -> None:
    """Quadratic, it took minutes; here the time limit of all tests is the judge."""
    line = "I/" + " " * 200_000 + "x"
    (found,) = read_lines(line)
    assert found.text.endswith("x")


def test_what_absl_says_of_itself_is_harmless() -> None:
    said = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1714567890.123456    7651 benchmark_tflite_model.cc:12] hello\n"
    )
    run = only(said + log("tflite_plain"))
    assert dataclasses.replace(run, warnings=()) == only(log("tflite_plain"))
    assert len(run.warnings) == 1


def test_bytes_that_are_no_text_leave_the_others_readable() -> None:
    content = b"\xff\xfeq" + b"x\0\n" + log("tflite_plain").encode()
    assert only(decode_log(b"\xc3(\n" + log("tflite_plain").encode() + b"\0\0\n"))
    assert decode_log(content[3:]).startswith("x\nSTARTING")


def test_the_last_line_may_lack_its_end() -> None:
    for name in ("tflite_plain", "litert"):
        text = log(name).rstrip("\n")
        run = only(text)
        expected = only(log(name))
        assert (run.inference_avg_ms, run.runs) == (expected.inference_avg_ms, expected.runs)


# --- several runs ---------------------------------------------------------------------------------


def test_several_runs_in_one_file() -> None:
    names = ["tflite_cpu", "tflite_plain", "tflite_gpu", "tflite_2020", "litert"]
    text = "$ adb shell ./benchmark_model\n" + "$ next\n".join(map(log, names))
    assert parse_logs(text) == [only(log(name)) for name in names]


def test_runs_of_an_app_without_its_first_line() -> None:
    """In logcat one process may print all runs."""
    text = log("logcat_brief").replace("Running TensorFlow Lite benchmark with args", "")
    assert parse_logs(text + text) == [only(text)] * 2


def test_runs_of_two_processes_line_by_line() -> None:
    one = log("logcat_brief")
    two = one.replace("( 7651)", "( 8000)").replace("13338.6", "13338.7").replace("75", "76")
    mixed = "".join(a + b for a, b in zip(one.splitlines(True), two.splitlines(True), strict=True))
    first, second = parse_logs(mixed)
    assert first == only(one)
    assert second == only(two) and second != first


def test_a_failed_run_is_an_error_beside_the_others() -> None:
    failed = log("tflite_gpu").replace("INFO: Initialized session", "ERROR: Failed to apply\n")
    before, error, after = parse_logs(log("tflite_cpu") + failed + log("litert"))
    assert isinstance(before, ToolRun) and isinstance(after, ToolRun)
    assert isinstance(error, LogError) and "Failed to apply" in error.line
    assert (log("tflite_cpu") + failed).splitlines()[error.number - 1] == error.line


@pytest.mark.parametrize("text", ["", "\n\n", "hello\n", "sh: ./benchmark_model: not found\n"])
def test_what_is_no_log(text: str) -> None:
    assert parse_logs(text) == []


# --- streams and exit code ------------------------------------------------------------------------


def streams(name: str) -> tuple[str, str]:
    """As the tool divides its lines since it has prefixes."""
    lines = log(name).splitlines(True)
    mine = [line for line in lines if line.startswith(("INFO", "WARN"))]
    return "".join(mine), "".join(line for line in lines if line not in mine)


@pytest.mark.parametrize("name", ["tflite_cpu", "tflite_gpu", "tflite_external", "litert"])
@pytest.mark.parametrize("exit_code", [0, None])
def test_streams_apart(name: str, exit_code: int | None) -> None:
    assert parse_log(*streams(name), exit_code) == only(log(name))
    assert parse_log("", log(name), exit_code) == only(log(name))


@pytest.mark.parametrize("exit_code", [1, 134, -9, 255])
def test_times_of_a_run_that_exits_with_an_error_are_none(exit_code: int) -> None:
    with pytest.raises(LogError, match=f"exit code {exit_code}"):
        parse_log(*streams("tflite_cpu"), exit_code)


def test_an_error_on_stderr_is_named_with_its_line() -> None:
    stdout, stderr = streams("tflite_cpu")
    with pytest.raises(
        InputError, match=r"stderr line 4: .*'ERROR: Benchmarking failed\.'"
    ) as raised:
        parse_log(stdout, stderr + "ERROR: Benchmarking failed.\n", 0)
    assert isinstance(raised.value, LogError)
    assert (raised.value.line, raised.value.number) == ("ERROR: Benchmarking failed.", 4)


def test_nothing_at_all() -> None:
    with pytest.raises(LogError, match="cut off: no inference times"):
        parse_log("", "", 0)


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Benchmarking failed.",
        "Benchmarking failed.",
        "Failed to allocate tensors!",
        "ERROR: Failed to load model x.tflite",
        "ERROR: Disallowed CPU fallback detected.",
        "ERROR: Falling back to OpenGL",
        "FATAL: Failed to read the input_layer_value_file:x",
        "WARN: Unconsumed cmdline flags: --num_thread=4",
        "Unconsumed cmdline flags: --num_thread=4",
        "Segmentation fault",
        "Aborted",
        "Killed",
        "[1] + Killed ./benchmark_model --graph=x",
        "/system/bin/sh: Segmentation fault",
        "Illegal instruction (core dumped)",
        "Node number 3 (TfLiteGpuDelegateV2) failed to prepare.",
        "terminating with uncaught exception of type std::bad_alloc",
        'CANNOT LINK EXECUTABLE "./benchmark_model": library "libx.so" not found',
        "[ERROR] nothing good",
        "ERROR nothing good",
        "E0000 00:00:1700000000.1 foo.cc:30] nothing good",
        "adb: error: connection reset",
        "##[error]Process completed with exit code 139.",
    ],
)
@pytest.mark.parametrize("at", [1, 14, -1])
def test_any_failure_takes_the_times_away(line: str, at: int) -> None:
    lines = log("tflite_cpu").splitlines()
    lines.insert(at, line)
    with pytest.raises(LogError, match="the run failed") as raised:
        parse_log("\n".join(lines), "", None)
    assert raised.value.line == line


@pytest.mark.parametrize(
    "line",
    [
        "F/libc    ( 7651): Fatal signal 11 (SIGSEGV), code 1",
        "E/AndroidRuntime( 7651): FATAL EXCEPTION: main",
        "E/tflite  ( 7651): Something broke.",
    ],
)
def test_a_crash_in_logcat(line: str) -> None:
    with pytest.raises(LogError, match="the run failed"):
        only(log("logcat_brief") + line + "\n")
    assert only(log("logcat_brief") + line.replace("7651", "1204") + "\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("avg=9123.87 std=187 ", ""),
        ("avg=9123.87", "avg=nan"),
        ("avg=9123.87", "avg=-9123.87"),
        ("count=109 ", "count=0 "),
        ("count=109 first", "count=1 first"),
        ("curr=9102", "curr=9102.5"),
        ("Inference (avg): 9123.87", "Inference (avg): 9123.87, Inference (p99): 9999"),
        ("First inference: 11250, ", ""),
        ("Init: 21904", "Init: 0"),
        ("Init: 21904", "Init: nan"),
        ("Init: 21904", "Init: 2190"),
        ("Initialized session in 21.904ms", "Initialized session in 21.904s"),
        ("First inference: 11250", "First inference: 11251"),
        ("Warmup (avg): 9154.36", "Warmup (avg): 9154.37"),
        ("Inference (avg): 9123.87", "Inference (avg): 912"),
        ("Inference (avg): 9123.87", "Inference (avg): inf"),
        ("min=8874", "min=9200"),
        ("min=8874", "min=0"),
        ("max=10417", "max=9100"),
        ("std=187", "std=1870"),
        ("std=187", "std=-9223372036854775808"),
        ("median=9085", "median=8000"),
        ("p95=9466", "p95=9"),
        ("118 out of 121 node(s)", "118 of 121 nodes"),
        ("partially executed by", "half executed by"),
        ("Graph: [/data/local/tmp/afd/corrected.tflite]", "Graph: [other.tflite]"),
        ("Replacing 118 out of 121", "Replacing 121 out of 121"),  # but partially
        ("Replacing 118 out of 121", "Replacing 122 out of 121"),
        ("INFO: count=109", "INFO: count=1 curr=9000\nINFO: count=109"),
        ("INFO: count=55", "INFO: note"),
        ("Use xnnpack: [1]", "Use xnnpack: [maybe]"),
        ("periodic monitoring: 38.75", "periodic monitoring: a lot"),
    ],
)
def test_lines_that_mean_something_else(old: str, new: str) -> None:
    text = log("tflite_cpu")
    assert text.count(old) == 1
    with pytest.raises(LogError) as raised:
        only(text.replace(old, new))
    assert raised.value.number > 0 and raised.value.line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(227 runs)", "(226 runs)"),
        ("(avg):      4.41", "(avg):      4.42"),
        ("(min):      4.37", "(min):      4.42"),
        ("(min):      4.37", "(min):      0.00"),
        ("(max):      4.61", "(max):      4.16"),
        ("(std):      0.03", "(std):      nan"),
        ("(std):      0.03", "(std):      3.00"),
        ("4.41 ms (227 runs)", "4410 us (227 runs)"),
        ("initialization: 744.73", "initialization: 744.83"),
    ],
)
def test_litert_lines_that_mean_something_else(old: str, new: str) -> None:
    assert log("litert").count(old) == 1
    with pytest.raises(LogError):
        only(log("litert").replace(old, new))


def test_without_warm_up_the_first_inference_is_unknown() -> None:
    text = re.sub(r"count=55 .*", "count=0 p5=0 median=0 p95=0", log("tflite_cpu"))
    with pytest.raises(LogError, match="count=0"):
        only(re.sub(r"First .*, Inf", "First inference: 0, Warmup (avg): nan, Inf", text))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tflite_gpu", "Though GPU delegate is explicitly applied, the model graph will not be"),
        ("tflite_gpu", "Explicitly applied GPU delegate, and the model graph will be completely"),
    ],
)
def test_a_tool_that_contradicts_itself(name: str, said: str) -> None:
    text = re.sub(r"Explicitly applied GPU .*", f"{said} executed by the delegate.", log(name))
    with pytest.raises(LogError, match="contradicts that TfLiteGpuDelegateV2 took 68 of 96"):
        only(text)


def test_a_peak_that_may_be_cut_off_is_left_out() -> None:
    text = log("tflite_cpu").split("INFO: Memory status")[0]
    assert only(text).peak_memory_bytes == 40632320
    run = only(text.rstrip("\n"))
    assert run.peak_memory_bytes is None
    assert run.warnings[-1].startswith("peak memory left out")
