from __future__ import annotations

import io
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from afd_benchmark.report import charts
from afd_benchmark.report.chart_labels import label_points
from afd_benchmark.report.chart_output import (
    BLUE,
    ORANGE,
    inline_svg,
    new_figure,
    png_file,
    shorten,
    svg_file,
)
from afd_benchmark.report.charts import Panel, Point, RatioRow

SVG = "{http://www.w3.org/2000/svg}"
# Table VII with the accuracy at QF 15: name, G multiply-adds, top-1 %, M parameters.
PEERS = (
    ("ARCNN", 5.91, 58.76, 0.12),
    ("DnCNN", 28.07, 60.25, 0.56),
    ("RNAN", 81.46, 60.15, 2.24),
    ("RDN", 26.63, 59.68, 0.53),
    ("MIRNet", 92.26, 59.89, 7.95),
    ("FBCNN", 134.74, 55.90, 71.92),
    ("JARCAL", 419.45, 59.86, 13.88),
    ("DDP", 1.48, 61.62, 0.14),
    ("AFD", 0.36, 62.91, 0.11),
)
POINTS = [Point(name, x, y, name == "AFD", size) for name, x, y, size in PEERS]


def texts(svg: bytes) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_scatter_writes_every_name_and_plain_numbers() -> None:
    figure = charts.scatter(POINTS, "multiply-adds, G", "top-1 at QF 15, %", log_x=True)
    content = svg_file(figure)
    assert {name for name, *_ in PEERS} | {"1", "10", "100", "multiply-adds, G"} <= set(
        texts(content)
    )
    assert content == svg_file(
        charts.scatter(POINTS, "multiply-adds, G", "top-1 at QF 15, %", log_x=True)
    )
    assert b"<dc:date>" not in content


def test_hollow_points_are_those_that_are_not_sure() -> None:
    points = [Point("a", 1, 1, True), Point("b", 2, 2), Point("c", 3, 3, True, sure=False)]
    marks = charts.scatter(points, "x", "y").axes[0].lines[:3]
    assert [mark.get_markerfacecolor() for mark in marks] == [BLUE, ORANGE, "none"]
    assert marks[2].get_markeredgecolor() == BLUE


def test_an_interval_is_drawn_within_the_axes_and_no_name_crosses_it() -> None:
    long = "a name that goes beyond the other point"
    points = [Point("a", 0, 0), Point("b", 6, 8, ci95=(-9, 25)), Point(long, 9, 15, True)]
    figure = charts.scatter(points, "x", "y", width=520)
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if list(line.get_ydata()) == [-9, 25]]
    low, high = axes.get_ylim()
    assert low < -9 and high > 25
    interval = line.get_window_extent()
    for name in (text.get_window_extent() for text in axes.texts):
        assert not (name.x0 < interval.x0 < name.x1 and name.y0 < interval.y1)


def test_no_name_beside_a_ratio_is_crossed_by_the_line_at_one() -> None:
    rows = [
        RatioRow(f"a rather long name, number {n}", "1.0", 0.9 + 0.1 * n, None, True)
        for n in range(4)
    ]
    figure = charts.ratios(rows, "times")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    line = [mark.get_window_extent() for mark in axes.lines if list(mark.get_xdata()) == [1, 1]]
    names = [t.get_window_extent() for t in axes.texts if t.get_text().startswith("a rather")]
    assert len(line) == len(names) == 4
    assert all(name.x0 < line[0].x0 < name.x1 for name in names)
    assert not [1 for part in line for name in names if part.y0 < name.y1 and name.y0 < part.y1]


def test_a_scatter_can_be_a_png() -> None:
    figure = charts.scatter(POINTS, "x", "y", log_x=True, log_y=True)
    with Image.open(io.BytesIO(png_file(figure))) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 800 and pixels.min() < 60 and np.median(pixels) > 250


@pytest.mark.parametrize("seed", range(4))
def test_names_cover_neither_each_other_nor_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    figure = new_figure(380, 320)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # Half of the points in one corner.
    points = [
        (f"a network, {n}", *(rng.random(2) * (0.25 if n % 2 else 1)), 4.0, n < 2)
        for n in range(14)
    ]
    boxes = label_points(axes, points)
    assert len(boxes) == 14
    for one, other in itertools.combinations(boxes, 2):
        assert one.overlap(other) == 0
    extent = axes.get_window_extent()
    for box in boxes:
        assert extent.x0 <= box.left and box.right <= extent.x1
        for x, y in axes.transData.transform([point[1:3] for point in points]):
            assert not (box.left < x < box.right and box.bottom < y < box.top)


def test_the_ratio_plot_holds_the_line_at_one() -> None:
    rows = [
        RatioRow("a", "1.31 [1.30, 1.32]", 1.31, (1.30, 1.32), True),
        RatioRow("b", "1.08 [1.07, 1.09]", 1.08, (1.07, 1.09), False),
    ]
    figure = charts.ratios(rows, "times the time of plain")
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 1 < 1.32 < high
    at_one = [line.get_ydata() for line in axes.lines if list(line.get_xdata()) == [1, 1]]
    assert len(at_one) == 2 and all(top < place < end for place, (top, end) in enumerate(at_one))
    assert 1.0 in np.round(axes.get_xticks(), 9)
    assert {"a", "1.31 [1.30, 1.32]", "times the time of plain"} <= set(texts(svg_file(figure)))


def test_a_timeline_has_a_panel_for_each_quantity() -> None:
    panels = [
        Panel("°C", {"AP": [(0, 30.5), (1, 41.0)], "SKIN": [(0, 28.0), (1, 35.0)]}),
        Panel("status", {"thermal status": [(0, 0), (1, 2)]}),
    ]
    figure = charts.timeline(panels)
    assert [axes.get_ylabel() for axes in figure.axes] == ["°C", "status"]
    assert [tuple(line.get_ydata()) for line in figure.axes[0].lines] == [
        (30.5, 41.0),
        (28.0, 35.0),
    ]
    assert {"AP", "SKIN", "thermal status"} <= set(texts(svg_file(figure)))


def test_strange_names_stay_text(recwarn: pytest.WarningsRecorder) -> None:
    name = '小米\x00\x1b\uffff <b x="y"> $x$ url(#y)'
    svg = inline_svg(charts.scatter([Point(name, 1, 1)], "x", "y"), "chart", name)
    shown = name.replace("\x00\x1b", "\\x00\\x1b").replace("\uffff", "\ufffd")
    found = ElementTree.fromstring(svg)
    assert shown in [t.text for t in found.iter("text")]
    assert found.attrib["aria-label"] == shown
    assert not recwarn.list


def test_two_charts_share_no_id() -> None:
    figure = charts.scatter(POINTS, "x", "y")
    one, two = (ElementTree.fromstring(inline_svg(figure, n, "a title")) for n in ("one", "two"))
    assert not {e.get("id") for e in one.iter()} & {e.get("id") for e in two.iter()} - {None}


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [("abcdefgh", 8, "abcdefgh"), ("abcdefgh", 7, "abc…fgh"), ("abcdefgh", 6, "abc…gh")],
)
def test_long_names_lose_their_middle(text: str, limit: int, expected: str) -> None:
    assert shorten(text, limit) == expected
