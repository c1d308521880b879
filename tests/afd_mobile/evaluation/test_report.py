from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afd_mobile.common.artifacts import to_json
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation.accuracy import accuracy_of
from afd_mobile.evaluation.accuracy_plot import draw
from afd_mobile.evaluation.conditions import CLEAN, LEFT_ALONE, Condition, repeated, single
from afd_mobile.evaluation.outcomes import Outcomes
from afd_mobile.evaluation.report import Report, markdown_table, read_report, report_of, text_table
from afd_mobile.pictures.degrade import Blur, Codec, Jpeg, Webp

CONDITIONS = [CLEAN, single(25), single(7), repeated(3, Codec.AVIF)]


def make_report(
    conditions: list[Condition] = CONDITIONS, *, seed: int = 0, model: str = "mine"
) -> Report:
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.9, 0.2, len(conditions))
    tables = (rng.random((5, 50, len(conditions))) < shares).astype(np.uint8)
    outcomes = Outcomes([str(i) for i in range(50)], {"a/broken.png": "why"}, *tables)
    accuracy = accuracy_of(outcomes, conditions)
    return report_of(accuracy, model=model, sha256="0" * 64, reference="plain")


def suite_report() -> Report:
    """Three of ten pictures come back at QF 10, harm is done to webp, and perhaps to blurred ones.

    In hundredths: reference 90, QF 10 40 > 70, QF 75 89 > 90, webp 60 > 40, blur 80 > 79.
    """
    conditions = [
        CLEAN,
        Condition(Jpeg(10), "JPEG", averaged=True),
        Condition(Jpeg(75), "JPEG", averaged=True),
        Condition(Webp(5), "WebP", averaged=True),
        Condition(Blur(1), LEFT_ALONE),
    ]
    top1 = np.arange(100)[:, None] < np.array([90, 70, 90, 40, 79])
    reference = np.arange(100)[:, None] < np.array([90, 40, 89, 60, 80])
    tables = [np.asarray(t, np.uint8) for t in (top1, top1, reference, reference, top1)]
    accuracy = accuracy_of(
        Outcomes([str(i) for i in range(100)], {}, *tables), conditions, least_loss=0.05
    )
    return report_of(accuracy, model="mine", sha256=None, reference="plain", suite="field")


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
        ("suite", 3, "suite is 3"),
        ("group_shares", [], "group_shares is []"),
        ("group_shares", {"JPEG": estimate(99)}, "group_shares.JPEG is 99 [0.0, 1.0]"),
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


def test_a_groups_share_of_too_few_pictures_says_so(tmp_path: Path) -> None:
    report = suite_report()
    few = {"value": 1.0, "low": None, "high": None}
    report["conditions"][1]["recovered_share"] = report["group_shares"]["JPEG"] = few
    path = tmp_path / "r.json"
    path.write_bytes(to_json(report))
    assert read_report(path) == report
    lines = text_table(report)
    assert len([line for line in lines if line.endswith(" 100.0 [too few]")]) == 2
    assert lines[-2] == "too few: compression changes fewer than 10 pictures"
    *_, below = markdown_table([report]).splitlines()
    assert below.index(" Too few: ") < below.index(" Harm, ")


def test_a_suite_is_one_table_by_groups() -> None:
    lines = text_table(suite_report())
    assert [line.split("  ")[0] for line in lines[1:4]] == ["clean", "JPEG", ""]
    names = [line[:12].rstrip() for line in lines[1:-2]]
    assert names == ["clean", "JPEG", "  QF 10", "  QF 75", "WebP", "  webp QF 5", "left alone",
                     "  blur 1"]  # fmt: skip
    share, group = lines[3].split()[-3], lines[2].split()[-3]
    assert share == group == "60.0"  # (70 - 40) / (90 - 40); QF 75 costs too little
    assert lines[4].split()[-3] == "+1.0" and lines[2].split()[:2] == ["JPEG", "60.0"]
    # Of 60 and -20 / 30.
    said = "100 pictures, compressed after scaling; recovered share on average -3.3 ["
    assert said in lines[-2]
    assert lines[-1] == "harm, by more than 0.5 points and beyond chance: webp QF 5"


@pytest.mark.parametrize("missing", ["group", "condition"])
def test_a_suites_conditions_must_have_groups(tmp_path: Path, missing: str) -> None:
    broken = suite_report()
    del broken["conditions"][1][missing]
    path = tmp_path / "r.json"
    path.write_bytes(to_json(broken))
    with pytest.raises(InputError, match=rf"no conditions\[1\]\.{missing}"):
        read_report(path)


def test_a_suite_without_harm_says_so() -> None:
    report = suite_report()
    report["conditions"][3]["difference"] = {"value": -0.2, "low": -0.3, "high": 0.0}
    assert text_table(report)[-1].endswith(": none")
    report["conditions"][3]["difference"] = {"value": -0.004, "low": -0.005, "high": -0.003}
    assert text_table(report)[-1].endswith(": none")


# --- Markdown and picture ------------------------------------------------------------------------


def test_pictures_that_were_compressed_before_scaling_are_told(
    tmp_path: Path, report: Report, figure_of: Callable[..., Any]
) -> None:
    before = report | {"compress": "before-scaling"}
    assert "50 pictures, compressed before scaling" in "\n".join(text_table(before))
    assert "50 pictures, compressed before scaling" in markdown_table([before])
    titles = [axes.get_title() for axes in figure_of(draw, [report, before]).axes]
    assert ["before scaling" in title for title in titles] == [False, True]
    path = tmp_path / "a.json"
    path.write_bytes(to_json({k: v for k, v in before.items() if k != "compress"}))
    assert read_report(path)["compress"] == "after-scaling"  # of an earlier version
    path.write_bytes(to_json(before | {"compress": "never"}))
    with pytest.raises(InputError, match="compress is 'never'"):
        read_report(path)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_markdown_table_holds_all_reports(report: Report) -> None:
    other = make_report([CLEAN, single(10)], seed=1, model="other")
    blocks = markdown_table([report, other]).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 2
    for table, source in zip(tables, (report, other), strict=True):
        rows = {line[0]: line[1:] for line in map(cells, table)}
        heading = f"{source['model']} against plain, 50 pictures, compressed after scaling"
        assert rows[heading] == [r["condition"] for r in source["conditions"]]
        assert len({len(row) for row in rows.values()}) == 1
        for name, key in (("top-1, reference", "reference_top1"), ("top-1, model", "top1")):
            assert rows[name] == [f"{100 * r[key]['value']:.1f}" for r in source["conditions"]]
        shares = [r["recovered_share"] for r in source["conditions"]]
        assert rows["recovered share"] == [with_interval(s) if s else "" for s in shares]
        assert rows["top-5, reference to model"] == [
            f"{100 * r['reference_top5']['value']:.1f} to {100 * r['top5']['value']:.1f}"
            for r in source["conditions"]
        ]


def test_a_suites_markdown_has_a_line_for_every_condition() -> None:
    heading, _, *lines, below = (
        line for line in markdown_table([suite_report()]).splitlines() if line
    )
    assert cells(heading)[0] == "mine against plain, 100 pictures, compressed after scaling"
    table = {line[0]: line[1:] for line in map(cells, lines)}
    assert list(table) == ["clean", "**JPEG**", "QF 10", "QF 75", "**WebP**", "webp QF 5",
                           "**left alone**", "blur 1"]  # fmt: skip
    assert [cell.split(" ")[0] for cell in table["QF 10"]] == ["40.0", "70.0", "+30.0", "60.0"]
    assert table["**JPEG**"][:3] == ["", "", ""] and table["**left alone**"][3] == ""
    assert "Recovered share on average: -3.3 [" in below
    assert below.endswith("Harm, by more than 0.5 points and beyond chance: webp QF 5.")


RED, BLUE, PALE = (0xD6, 0x27, 0x28), (0x1F, 0x77, 0xB4), (0xF2, 0xA7, 0xA7)


def colours_of(report: Report) -> dict[tuple[int, int, int], int]:
    with Image.open(io.BytesIO(draw([report]))) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {c: int((pixels == c).all(1).sum()) for c in (RED, BLUE, PALE)}


def test_harm_is_red_in_the_picture_of_a_suite() -> None:
    report = suite_report()
    drawn = colours_of(report)
    assert drawn[BLUE] > drawn[RED] > drawn[PALE] > 0  # 31, 20 and 1 point
    for row in report["conditions"]:
        row["difference"] = {"value": 0.1, "low": 0.05, "high": 0.15}
    harmless = colours_of(report)
    assert harmless[RED] == harmless[PALE] == 0 and harmless[BLUE] > drawn[BLUE]


def test_suites_and_others_are_drawn_together(report: Report) -> None:
    content = draw([suite_report(), report])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"


def test_reports_from_before_there_were_suites_are_read(tmp_path: Path, report: Report) -> None:
    earlier = {k: v for k, v in report.items() if k not in ("suite", "group_shares")}
    earlier["conditions"] = copy.deepcopy(earlier["conditions"])
    for row in earlier["conditions"]:
        del row["group"]
    path = tmp_path / "r.json"
    path.write_bytes(to_json(earlier))
    again = read_report(path)
    assert text_table(again) == text_table(report) and draw([again]).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_plot_is_a_png_with_a_panel_for_every_report(report: Report, count: int) -> None:
    content = draw([report] * count)
    assert count > 1 or draw([report]) == content  # the same every time
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))
    width, height = 552 * min(count, 3), 408 * -(-count // 3)
    assert pixels.shape == (height, width)
    for i in range(6):
        inside = pixels[408 * (i // 3) :, 552 * (i % 3) :][80:330, 100:450]
        assert inside.size == 0 or (inside.min() < 150) == (i < count)


@pytest.fixture(scope="module")
def drawn(report: Report) -> bytes:
    return draw([report])


@pytest.mark.parametrize("key", ["top1", "reference_top1"])
@pytest.mark.parametrize("part", ["value", "low", "high"])
def test_the_plot_shows_the_figures(report: Report, drawn: bytes, key: str, part: str) -> None:
    changed = copy.deepcopy(report)
    changed["conditions"][1][key][part] += -0.02 if part == "low" else 0.02
    assert draw([changed]) != drawn


@pytest.mark.parametrize("report", [make_report(), suite_report()], ids=["top-1", "gains"])
@pytest.mark.parametrize("count", [1, 4])
def test_the_legend_covers_no_panel(
    report: Report, count: int, figure_of: Callable[..., Any]
) -> None:
    figure = figure_of(draw, [report] * count)
    figure.draw_without_rendering()
    legends = figure.legends + [a.get_legend() for a in figure.axes if a.get_legend()]
    (box,) = (legend.get_window_extent() for legend in legends)
    assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)
    panels = [*filter(None, (axes.get_tightbbox() for axes in figure.axes))]
    assert len(panels) >= count and box.count_overlaps(panels) == 0


def test_no_line_joins_conditions_of_two_kinds(figure_of: Callable[..., Any]) -> None:
    conditions = [CLEAN, single(25), single(7), repeated(1), repeated(2), single(7, Codec.AVIF)]
    panel = figure_of(draw, [make_report(conditions)]).axes[0]
    lines = [[round(x) for x in c.lines[0].get_xdata()] for c in panel.containers]
    assert lines == 2 * [[0, 1], [2, 3], [4]]
    assert panel.get_legend_handles_labels()[1] == ["reference, clean", "model", "reference"]


def test_a_single_condition_stands_in_the_middle(figure_of: Callable[..., Any]) -> None:
    panel = figure_of(draw, [make_report([CLEAN, single(7)])]).axes[0]
    left, right = panel.get_xlim()
    for points in panel.containers:
        (x,) = points.lines[0].get_xdata()
        assert (x - left) / (right - left) == pytest.approx(0.5, abs=0.1)


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
