from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from afd_mobile.checkpoints.learning_curve import Point, checked, draw, mean_removed, text_table
from afd_mobile.pictures.degrade import QUALITIES

NAMES = [str(quality) for quality in QUALITIES]


def point(crops: int, removed: float, of_trained: float) -> Point:
    return earlier_point(crops) | {
        "kl_removed": dict(zip(NAMES, [removed - 0.1, *[removed] * 3, removed + 0.1], strict=True)),
        "clean_kl": 0.00125,
        "training_kl_removed": dict.fromkeys(NAMES, of_trained),
        "training_clean_kl": 0.0625,
    }


def earlier_point(crops: int) -> Point:
    """As versions wrote it that did not know the KL."""
    agreement = {"clean": 0.75} | dict.fromkeys(NAMES, 0.5)
    direct = dict.fromkeys(["clean", *NAMES], 0.25)
    return {
        "crops": crops, "loss": 1.5, "agreement": agreement, "direct_agreement": direct,
        "recovered_share": 0.125,
    }  # fmt: skip


CURVE = [point(3200, 0.25, 0.5), point(6400, 0.375, 0.75)]


def test_curves_are_read_as_they_are_also_earlier_ones() -> None:
    for curve in (CURVE, [earlier_point(3200)], [earlier_point(1), point(2, 0.0, 0.0)], []):
        assert checked(copy.deepcopy(curve)) == curve


def changed(**values: Any) -> Point:
    return CURVE[0] | values


@pytest.mark.parametrize(
    "curve",
    [
        None,
        "steep",
        [None],
        [changed(x=1.0)],
        [{k: v for k, v in CURVE[0].items() if k != "clean_kl"}],
        [changed(crops=1.0)],
        [changed(crops=True)],
        [changed(loss=math.nan)],
        [changed(recovered_share="all")],
        [changed(agreement={})],
        [changed(agreement=dict.fromkeys(NAMES, 1.0))],
        [changed(kl_removed={})],
        [changed(kl_removed=[0.5])],
        [changed(training_kl_removed={"7": "much"})],
        [changed(clean_kl=None)],
    ],
)
def test_what_is_no_curve_is_refused(curve: Any) -> None:
    with pytest.raises(ValueError, match="no learning curve"):
        checked(curve)


def test_the_mean_of_the_qualities() -> None:
    assert mean_removed(CURVE[0]) == pytest.approx(0.25)
    assert mean_removed(CURVE[0], "training_kl_removed") == 0.5
    assert mean_removed(earlier_point(1)) is None


def test_the_table() -> None:
    assert text_table([earlier_point(1600), *CURVE]) == [
        "crops   loss  KL removed, held out  trained on  recovered  clean",
        "1,600  1.500                     -           -      12.5%  75.0%",
        "3,200  1.500                 25.0%       50.0%      12.5%  75.0%",
        "6,400  1.500                 37.5%       75.0%      12.5%  75.0%",
    ]


TWO = {"_$a$": CURVE, "b": [earlier_point(3200), earlier_point(6400)]}


def test_the_picture_is_the_same_every_time() -> None:
    drawn = draw(TWO)
    assert drawn == draw(TWO)
    with Image.open(io.BytesIO(drawn)) as image:
        assert image.format == "PNG" and min(image.size) > 300


def test_every_curve_is_shown(figure_of: Callable[..., Any]) -> None:
    panels = figure_of(draw, TWO).axes
    assert [[line.get_xydata().tolist() for line in panel.lines] for panel in panels] == [
        [[[3200, 25], [6400, 37.5]], [[3200, 50], [6400, 75]]],
        2 * [[[3200, 12.5], [6400, 12.5]]],
    ]
    (legend,) = figure_of(draw, TWO).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["held out: _$a$", "trained on: _$a$", "held out: b"]


@pytest.mark.parametrize(("curve", "panels"), [(CURVE, 2), ([earlier_point(3200)], 1)])
def test_no_panel_is_empty(curve: list[Point], panels: int, figure_of: Callable[..., Any]) -> None:
    """The KL of earlier versions is unknown."""
    assert [axes.has_data() for axes in figure_of(draw, {"mine": curve}).axes] == [True] * panels
