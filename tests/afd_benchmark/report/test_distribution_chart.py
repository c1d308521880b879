"""The chart that a report holds once a case: every sample, outlier and median, where it belongs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from afd_benchmark.number_format import time_scale
from afd_benchmark.report.distribution_chart import distribution_svg
from afd_benchmark.results import Repeat
from tests.afd_benchmark import sample_results as sample


def drawn(
    repeats: Sequence[Repeat], median_ms: float, ci95_ms: tuple[float, float] | None = None,
    title: str = "a title",
) -> ElementTree.Element:  # fmt: skip
    scale = time_scale(median_ms, ci95_ms)
    return ElementTree.fromstring(distribution_svg(repeats, median_ms, ci95_ms, scale, title))


def axis(svg: ElementTree.Element) -> tuple[float, float]:
    """(offset, units per unit of time), from the ticks."""
    ticks = [
        (float(t.get("x", "")), float(t.text or ""))
        for t in svg.iter("text")
        if t.get("text-anchor") == "middle" and "transform" not in t.attrib
    ]
    (x1, v1), (x2, v2) = ticks[0], ticks[-1]
    factor = (x2 - x1) / (v2 - v1)
    return x1 - factor * v1, factor


def starts(svg: ElementTree.Element, kind: str) -> list[list[float]]:
    """Where the strokes of each path of a class start, in units of the axis."""
    offset, factor = axis(svg)
    return [
        [(float(x) - offset) / factor for x in re.findall(r"M(-?[\d.]+)", path.get("d", ""))]
        for path in svg.iter("path")
        if path.get("class") == kind
    ]


def texts(svg: ElementTree.Element) -> list[str]:
    return [t.text or "" for t in svg.iter("text")]


def test_samples_medians_and_far_outliers_are_all_there() -> None:
    repeats = [sample.repeat(n, 8.6) for n in range(4)]  # outliers at 3.1 and 1.15 times
    svg = drawn(repeats, 8.6, (8.5, 8.7))
    assert texts(svg)[-1] == "2 beyond the axis, 9.89 to 26.7 ms" and "ms" in texts(svg)
    assert [len(crosses) // 1 for crosses in starts(svg, "outliers")] == [1, 1]
    for lines, repeat in zip(starts(svg, "samples"), repeats, strict=True):
        kept = [v for i, v in enumerate(repeat.samples_ms) if i not in repeat.outliers]
        assert max(min(abs(x - v) for x in lines) for v in kept) < 0.002
    for (x,), repeat in zip(starts(svg, "median"), repeats, strict=True):
        assert x == pytest.approx(repeat.median_ms, abs=0.002)


def test_every_repeat_has_its_number() -> None:
    svg = drawn([sample.repeat(n, 8.6) for n in range(3)], 8.6)
    numbers = [t.text for t in svg.iter("text") if t.get("text-anchor") == "end"]
    assert numbers[:3] == ["1", "2", "3"]


def test_averages_only_are_drawn_as_medians() -> None:
    repeats = [sample.repeat(n, 143.0, averages_only=True) for n in range(5)]
    svg = drawn(repeats, 143.0)
    assert len(starts(svg, "median")) == 5 and starts(svg, "samples") == []


def test_short_times_are_in_microseconds() -> None:
    repeats = [sample.repeat(n, 0.0046) for n in range(6)]
    svg = drawn(repeats, 0.0046)
    assert "µs" in texts(svg) and "ms" not in texts(svg)
    assert starts(svg, "median")[0] == [pytest.approx(1e3 * repeats[0].median_ms, abs=0.002)]


def test_repeats_that_are_all_alike_have_an_axis_too() -> None:
    alike = [sample.repeat(1, 5.0, averages_only=True)] * 6
    assert len(starts(drawn(alike, alike[0].median_ms), "median")) == 6


def test_a_strange_title_stays_text() -> None:
    svg = drawn([sample.repeat(1, 5.0)], 5.0, title='小米\x00 <b id="x"> \uffff')
    assert svg.get("aria-label") == svg.findtext("title") == '小米\\x00 <b id="x"> \ufffd'
