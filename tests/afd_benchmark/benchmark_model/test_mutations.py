"""Whatever happens to a log, its figures are the same or there are none."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from afd_benchmark.benchmark_model.lines import LogError
from afd_benchmark.benchmark_model.log import ToolRun, parse_logs
from tests.afd_benchmark.benchmark_model.test_log import LOGS, log, only

NAMES = sorted(path.stem for path in Path(LOGS).glob("*.txt"))
PLAIN = [name for name in NAMES if not name.startswith(("logcat", "studio"))]
# Not asked of a damaged log: names are no figures, and warnings may go.
NAMED = {"graph", "delegate", "delegates", "warnings"}
OPTIONAL = {
    field.name for field in dataclasses.fields(ToolRun) if "None" in str(field.type)
} - NAMED


def figures(run: ToolRun) -> dict[str, Any]:
    found = {f.name: getattr(run, f.name) for f in dataclasses.fields(run) if f.name not in NAMED}
    for name in ("asked", "backend"):
        found[name] = found[name] and found[name].partition(":")[0]  # the library is a name
    return found


def other_figures(text: str, expected: Sequence[ToolRun]) -> str | None:
    """What is read from the text and stands in none of the expected runs."""
    try:
        runs = parse_logs(text)
    except LogError:
        return None
    for run in runs:
        if isinstance(run, ToolRun) and not any(_subset(run, e) for e in expected):
            return repr(run)
    return None


def _subset(run: ToolRun, expected: ToolRun) -> bool:
    wanted = figures(expected)
    return all(
        value == wanted[name] or (value is None and name in OPTIONAL)
        for name, value in figures(run).items()
    )


def test_the_check_itself_sees_another_figure() -> None:
    run = only(log("tflite_cpu"))
    other = dataclasses.replace(run, median_ms=1.0)
    assert other_figures(log("tflite_cpu"), [run]) is None
    assert other_figures(log("tflite_cpu"), [other])
    assert "median_ms" in OPTIONAL and "inference_avg_ms" not in OPTIONAL


@pytest.mark.parametrize("name", NAMES)
def test_any_line_deleted(name: str) -> None:
    lines = log(name).splitlines(True)
    expected = [only(log(name))]
    for i in range(len(lines)):
        other = other_figures("".join(lines[:i] + lines[i + 1 :]), expected)
        assert not other, (lines[i], other)


@pytest.mark.parametrize("name", NAMES)
def test_cut_anywhere(name: str) -> None:
    text = log(name)
    expected = [only(text)]
    read = 0
    for end in range(0, len(text), 3 if name in PLAIN else 7):
        other = other_figures(text[:end], expected)
        assert not other, (text[:end][-80:], other)
        read = read or end * (_times(text[:end]) is not None)
    # Not before the results are there in full.
    results = [m.end() for m in re.finditer(r"Inference(?: \((?:avg|std)\))?: +\S+", text)]
    assert read >= max(results)


def _times(text: str) -> float | None:
    try:
        (run,) = parse_logs(text)
    except (LogError, ValueError):
        return None
    return run.inference_avg_ms if isinstance(run, ToolRun) else None


@pytest.mark.parametrize("garbage", ["?", ".", "e"])
@pytest.mark.parametrize("name", [*PLAIN, "logcat_long", "studio_new"])
def test_any_digit_turned_to_garbage(name: str, garbage: str) -> None:
    text = log(name)
    expected = [only(text)]
    for line in re.finditer(r".*(?:count=|timings|session|ms|Replacing|MB).*", text):
        for digit in re.finditer(r"\d", line[0]):
            at = line.start() + digit.start()
            other = other_figures(text[:at] + garbage + text[at + 1 :], expected)
            assert not other, (line[0], digit.start(), other)


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "litert"])
def test_any_digit_of_the_results_turned_to_another(name: str) -> None:
    """Every time in them is printed twice."""
    text = log(name)
    expected = only(text)
    results = re.search(r"(?:Init|Warmup): .*?(?= Overall|\n)", text)
    assert results
    for digit in re.finditer(r"\d", results[0]):
        at = results.start() + digit.start()
        changed = str((int(digit[0]) + 1) % 10)
        try:
            run = only(text[:at] + changed + text[at + 1 :])
        except LogError:
            continue
        # The other print of the initialisation has six digits.
        assert run.init_ms == pytest.approx(expected.init_ms, rel=1e-5), (results[0], at)
        assert dataclasses.replace(run, init_ms=expected.init_ms) == expected


def _mutate(text: str, draw: random.Random) -> str:
    lines = text.splitlines(True)
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    at = draw.randrange(len(text))
    kind = draw.randrange(7)
    if kind == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 1:
        lines.insert(j, lines[i])
    elif kind == 2:
        lines[i] = lines[i].rstrip("\n")
    elif kind == 3:
        lines.insert(i, bytes(draw.randrange(256) for _ in range(40)).decode("latin-1") + "\n")
    elif kind == 4:
        del lines[min(i, j) : max(i, j)]
    elif kind == 5:
        return text[:at] + draw.choice("?ex-.\x1b[]()/:") + text[at + 1 :]
    else:
        return text[:at]
    return "".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_seeded_fuzz(name: str) -> None:
    draw = random.Random(name)
    text = log(name)
    expected = [only(text)]
    read = 0
    for _ in range(200):
        mutated = _mutate(text, draw)
        if draw.random() < 0.5 and mutated:
            mutated = _mutate(mutated, draw)
        assert not other_figures(mutated, expected), mutated
        read += _times(mutated) is not None
    assert 20 < read < 180  # neither everything refused nor everything taken


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("tflite_cpu", "tflite_external"),
        ("tflite_gpu", "tflite_cpu"),
        ("tflite_plain", "tflite_gpu"),
        ("litert", "tflite_fallback"),
        ("tflite_fallback", "tflite_external"),
    ],
)
def test_two_runs_mixed_line_by_line(one: str, two: str) -> None:
    draw = random.Random(one + two)
    expected = [only(log(one)), only(log(two))]
    for _ in range(200):
        left, right = log(one).splitlines(True), log(two).splitlines(True)
        mixed = []
        stay = draw.choice([0.5, 0.8, 0.95])
        while left or right:
            if draw.random() > stay:
                left, right = right, left
            if left:
                mixed.append(left.pop(0))
            elif right:
                left, right = right, left
        # A peak that follows the other run's results cannot be told from that run's own.
        text = "".join(line for line in mixed if "periodic monitoring" not in line)
        assert not other_figures(text, expected), text
