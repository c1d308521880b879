from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from afd_mobile import plotting
from afd_mobile.accuracy import accuracy_of
from afd_mobile.accuracy_report import (
    Report,
    draw,
    markdown_table,
    read_report,
    report_of,
    text_table,
)
from afd_mobile.artifacts import to_json
from afd_mobile.degrade import CLEAN, Codec, Condition
from afd_mobile.errors import InputError
from afd_mobile.evaluation import Outcomes

CONDITIONS = [CLEAN, Condition(quality=25), Condition(quality=7), Condition(Codec.AVIF, times=3)]


def make_report(
    conditions: list[Condition] = CONDITIONS, *, seed: int = 0, model: str = "mine"
) -> Report:
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.9, 0.2, len(conditions))
    tables = (rng.random((5, 50, len(conditions))) < shares).astype(np.uint8)
    outcomes = Outcomes([str(i) for i in range(50)], {"a/broken.png": "why"}, *tables)
    accuracy = accuracy_of(outcomes, conditions)
    return report_of(accuracy, model=model, sha256="0" * 64, reference="plain")


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


def test_a_report_is_strict_json_that_can_be_read_again(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(to_json(report))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(path.read_bytes(), parse_constant=refuse)
    assert content == read_report(path) == report
    assert (content["model"], content["reference"], content["pictures"]) == ("mine", "plain", 50)
    assert content["unreadable"] == ["a/broken.png"]
    assert [row["condition"] for row in content["conditions"]] == [c.name for c in CONDITIONS]
    for row in content["conditions"]:
        estimates = [v for v in row.values() if isinstance(v, dict)]
        assert len(estimates) == (6 if row["condition"] == "clean" else 7)
        assert all(e["low"] <= e["value"] <= e["high"] for e in estimates)
    assert {"torch", "pillow", "numpy"} < set(content["versions"])


def test_a_missing_report_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*none\.json"):
        read_report(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[1, 2]",
        b"3",
        b"[" * 300_000,
        b'{"schema_version": 1, "x": ' + b"[" * 300_000,
        b"{}",
        b'{"schema_version": 0}',
        b'{"schema_version": 1, "name": "a manifest", "files": []}',
    ],
)
def test_what_is_no_report_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"r\.json"):
        read_report(path)


@pytest.mark.parametrize("missing", ["model", "conditions", "recovered_share", "top5", "low"])
def test_an_incomplete_report_is_an_input_error(
    tmp_path: Path, report: Report, missing: str
) -> None:
    broken: dict[str, Any] = copy.deepcopy(report)
    row = broken["conditions"][1]
    for place in (broken, row, row["top1"], row["difference"]):
        place.pop(missing, None)
    path = tmp_path / "r.json"
    path.write_bytes(to_json(broken))
    with pytest.raises(InputError, match=missing):
        read_report(path)


def estimate(value: Any, low: Any = 0.0, high: Any = 1.0) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("top1", estimate(float("nan")), "conditions[1].top1 is nan [0.0, 1.0]"),
        ("top1", estimate(7.5, 9, -1), "conditions[1].top1 is 7.5 [9, -1]"),
        ("top5", estimate(0.5, 0.6, 0.7), "conditions[1].top5 is 0.5 [0.6, 0.7]"),
        ("agreement", estimate(1e308, -1e308, 1e308), "conditions[1].agreement is 1e+308"),
        ("reference_top1", estimate(True), "conditions[1].reference_top1.value is True"),
        ("difference", estimate(0.9), "conditions[1].difference is 0.9, not"),
        ("difference", None, "conditions[1].difference is None"),
        ("recovered_share", estimate(51, 0, 60), "conditions[1].recovered_share is 51 [0, 60]"),
        ("recovered_share", estimate("x"), "conditions[1].recovered_share.value is 'x'"),
        ("recovered_share", estimate(0.5, 1, 0), "recovered_share is 0.5 [1, 0]"),
        ("recovered_share", estimate(51, None, None), "recovered_share is 51 [51, 51]"),
        ("recovered_share", estimate(0.5, None), "conditions[1].recovered_share.low is None"),
        ("top1", estimate(0.5, None, None), "conditions[1].top1.low is None"),
        ("condition", 5, "conditions[1].condition is 5"),
        ("pictures", "-5\n| <b>", r"pictures is '-5\n| <b>'"),
        ("pictures", 0, "pictures is 0"),
        ("pictures", True, "pictures is True"),
        ("model", [1, 2], "model is [1, 2]"),
        ("reference", None, "reference is None"),
        ("conditions", [3], "no conditions[0].condition"),
    ],
)
def test_figures_that_cannot_be_are_one_line(
    tmp_path: Path, report: Report, key: str, value: Any, words: str
) -> None:
    broken: dict[str, Any] = copy.deepcopy(report)
    (broken["conditions"][1] if "conditions[1]" in words else broken)[key] = value
    path = tmp_path / "r.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(InputError) as refused:
        read_report(path)
    message = str(refused.value)
    assert f"{path} is no result of afd-eval --json: {words}" in message and "\n" not in message


def test_a_report_without_clean_pictures_is_an_input_error(tmp_path: Path, report: Report) -> None:
    broken = {**report, "conditions": report["conditions"][1:]}
    path = tmp_path / "r.json"
    path.write_bytes(to_json(broken))
    with pytest.raises(InputError, match="clean"):
        read_report(path)


# --- the printed table ---------------------------------------------------------------------------


def with_interval(estimate: dict[str, float], sign: str = "") -> str:
    value, low, high = (100 * estimate[k] for k in ("value", "low", "high"))
    return f"{value:{sign}.1f} [{low:.1f}, {high:.1f}]"


def test_every_figure_is_printed_with_its_interval(report: Report) -> None:
    lines = text_table(report)
    for row in report["conditions"]:
        name = row["condition"]
        printed = [line for line in lines if line.startswith(name + "  ")]
        assert len(printed) == 2
        for key, value in row.items():
            if isinstance(value, dict):
                expected = with_interval(value, "+" if key == "difference" else "")
                assert f" {expected}" in " ".join(printed), key
    assert "50 pictures" in lines[-1]
    assert lines[-1].endswith(with_interval(report["recovered_share"]))


def test_printed_columns_line_up() -> None:
    report = make_report()
    extreme = {"value": -1.0, "low": -12.5, "high": 100.0}  # -100.0 [-1250.0, 10000.0]
    report["conditions"][1].update(recovered_share=extreme, difference=extreme)
    lines = text_table(report)[:-1]
    tables = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert [len(table) for table in tables] == [5, 5]
    for header, *rows in tables:
        starts = [match.start() for match in re.finditer(r"\S+( \S+)*", header)]
        for row in rows:
            points = [match.start() for match in re.finditer(r"\.\d \[", row)]
            assert points == [start + 2 for start in starts[: len(points)]]
        assert len(points) == len(starts)
    assert all(len(line) <= 110 and line == line.rstrip() for line in lines)


def test_nothing_is_said_of_a_share_that_does_not_exist() -> None:
    report = make_report([CLEAN])
    assert report["recovered_share"] is None
    assert "recovered" not in text_table(report)[-1]
    assert "Recovered" not in markdown_table([report])


def test_a_share_of_too_few_pictures_says_so(tmp_path: Path) -> None:
    report = make_report()
    few = {"value": 1.0, "low": None, "high": None}
    report["conditions"][2]["recovered_share"] = report["recovered_share"] = few
    path = tmp_path / "r.json"
    path.write_bytes(to_json(report))
    assert read_report(path) == report
    why = "oo few: compression changes fewer than 10 pictures"
    *_, mean, last = text = text_table(report)
    assert last == f"t{why}" and mean.endswith("; recovered share on average 100.0 [too few]")
    assert len([line for line in text if line.endswith(" 100.0 [too few]")]) == 2
    markdown = markdown_table([report])
    assert " 100.0 [too few] |" in markdown
    assert markdown.endswith(f" Recovered share on average: 100.0 [too few]. T{why}.\n")
    assert why not in "".join(text_table(make_report())) + markdown_table([make_report()])


# --- Markdown and picture ------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_markdown_table_holds_all_reports(report: Report) -> None:
    other = make_report([CLEAN, Condition(quality=10)], seed=1, model="other")
    blocks = markdown_table([report, other]).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 2
    for table, source in zip(tables, (report, other), strict=True):
        rows = {line[0]: line[1:] for line in map(cells, table)}
        heading = f"{source['model']} against plain, 50 pictures"
        assert rows[heading] == [r["condition"] for r in source["conditions"]]
        assert len({len(row) for row in rows.values()}) == 1
        for name, key in (("top-1, reference", "reference_top1"), ("top-1", "top1")):
            assert rows[name] == [f"{100 * r[key]['value']:.1f}" for r in source["conditions"]]
        shares = [r["recovered_share"] for r in source["conditions"]]
        assert rows["recovered share"] == [with_interval(s) if s else "" for s in shares]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_plot_is_a_png_with_a_panel_for_every_report(report: Report, count: int) -> None:
    content = draw([report] * count)
    assert draw([report] * count) == content
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))
    width, height = 552 * min(count, 3), 408 * -(-count // 3)
    assert pixels.shape == (height, width)
    for i in range(6):
        inside = pixels[408 * (i // 3) :, 552 * (i % 3) :][80:330, 100:450]
        assert inside.size == 0 or (inside.min() < 150) == (i < count)


@pytest.mark.parametrize("key", ["top1", "reference_top1"])
@pytest.mark.parametrize("part", ["value", "low", "high"])
def test_the_plot_shows_the_figures(report: Report, key: str, part: str) -> None:
    changed = copy.deepcopy(report)
    changed["conditions"][1][key][part] += -0.02 if part == "low" else 0.02
    assert draw([report]) != draw([changed])


@pytest.mark.parametrize("count", [1, 4])
def test_the_legend_covers_no_panel(
    report: Report, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plotting, "png", figures.append)
    draw([report] * count)
    (figure,) = figures
    figure.draw_without_rendering()
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    (box,) = (legend.get_window_extent() for legend in legends)
    assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)
    panels = [*filter(None, (axes.get_tightbbox() for axes in figure.axes))]
    assert len(panels) >= count and box.count_overlaps(panels) == 0


def test_clean_pictures_alone_can_be_drawn() -> None:
    assert draw([make_report([CLEAN])]).startswith(b"\x89PNG")


def test_a_name_breaks_neither_the_table_nor_the_plot() -> None:
    report = make_report(model="a|b\n<img src=x> $\\frac{$ \x1b[31m")
    text = markdown_table([report])
    (heading,) = [line for line in text.splitlines() if "against plain" in line]
    assert heading.startswith(r"| a\|b\\n\<img src=x\> \$\\frac{\$ \\x1b[31m against plain, 50")
    assert len(text.splitlines()) == len(markdown_table([make_report()]).splitlines())
    with Image.open(io.BytesIO(draw([report]))) as image:
        image.load()
