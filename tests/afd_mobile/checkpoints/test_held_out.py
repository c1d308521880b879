"""What held-out pictures say of a correction: figures, intervals, and a verdict in words."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from afd_mobile.checkpoints.held_out import Answers, HeldOut, Verdict, held_out_of
from afd_mobile.common.intervals import Estimate, share

QUALITIES = 5


def drawn(count: int, *, kl: float, same: float, clean: float = 1.0, seed: int = 0) -> HeldOut:
    """Of a correction that multiplies every KL by about `kl` and keeps these shares of top-1.

    The plain classifier keeps 60 % at every quality, and its KL is as skewed as real ones.
    """
    rng = np.random.default_rng(seed)
    hard = rng.random((count, 1))  # a picture is hard at all qualities, for both

    def kept(share_of: float) -> Any:
        return hard + rng.normal(0, 0.1, (count, QUALITIES)) < share_of

    def answers(compressed: Any, divergences: Any, of_clean: float) -> Answers:
        first = np.arange(count)[:, None] < round(of_clean * count)
        table = np.hstack([first, compressed]).astype(np.uint8)
        return Answers(table, np.hstack([np.zeros((count, 1)), divergences]))

    direct = rng.lognormal(0, 1.5, (count, QUALITIES))
    after = direct * kl * rng.lognormal(-0.125, 0.5, (count, QUALITIES))  # of mean 1
    return held_out_of(answers(kept(0.6), direct, 1.0), answers(kept(same), after, clean))


HELPFUL, HARMFUL = drawn(100, kl=0.7, same=0.7), drawn(100, kl=2.0, same=0.4)


def test_the_figures_by_hand() -> None:
    """Means over two qualities, of twelve pictures; the first one lost nothing at the second."""
    direct = Answers(
        np.array([[1, 0, 0]] * 6 + [[1, 0, 1]] * 6, np.uint8), np.array([[0.0, 1.0, 4.0]] * 12)
    )
    corrected = Answers(
        np.array([[1, 1, 1]] * 3 + [[1, 0, 0]] * 8 + [[0, 0, 1]], np.uint8),
        np.array([[0.5, 0.5, 5.0]] * 12),
    )
    found = held_out_of(direct, corrected)
    # 1 - 0.5 / 1 and 1 - 5 / 4; all pictures alike, so without spread.
    assert found.kl_removed == Estimate(0.125, 0.125, 0.125)
    # Right at first 0 and 6 of 12, then 3 and 4: (3/12) / (12/12) and (-2/12) / (6/12). At the
    # second quality only six pictures changed, which gives no interval.
    assert found.recovered_share == Estimate(pytest.approx((3 / 12 - 2 / 6) / 2), None, None)  # type: ignore[arg-type]
    assert found.clean_kept == share(corrected.same[:, 0])
    assert (found.pictures, found.verdict) == (12, Verdict.BETTER)


@pytest.mark.parametrize(
    ("options", "harm"),
    [
        ({"kl": 1.5, "same": 0.6}, "answers move further away"),
        ({"kl": 0.7, "same": 0.5}, "it changes more top-1 than it brings back"),
        ({"kl": 0.7, "same": 0.7, "clean": 0.89}, "clean pictures lose their class"),
    ],
)
def test_each_harm_is_worse_than_no_correction(options: dict[str, float], harm: str) -> None:
    found = drawn(128, **options)  # type: ignore[arg-type]
    assert found.verdict is Verdict.WORSE
    assert found.text().startswith(f"held out, 128 pictures: WORSE than no correction ({harm}); ")


def test_all_harms_are_said_with_their_figures() -> None:
    found = drawn(400, kl=2.0, same=0.4, clean=0.5)
    assert found.text().count("answers move further away, it changes more top-1 than it") == 1
    assert f"KL removed {found.kl_removed.value:.1%} [" in found.text()
    assert found.text().endswith("clean 50.0% [45.1, 54.9]")  # Wilson's, of 200 in 400


def test_a_good_correction_is_never_called_worse() -> None:
    """At 10 to 128 pictures; with many of them it is called better."""
    for count in (10, 32, 128):
        for seed in range(4):
            found = drawn(count, kl=0.7, same=0.7, clean=0.97 if count > 30 else 1.0, seed=seed)
            assert found.verdict is not Verdict.WORSE, found.text()
            assert count < 128 or found.verdict is Verdict.BETTER


def test_a_correction_that_does_nothing_is_undecided() -> None:
    """Each of two intervals misses on its own side once in 40, and twice as often on few."""
    verdicts = [drawn(64, kl=1.0, same=0.6, seed=seed).verdict for seed in range(10)]
    assert verdicts.count(Verdict.UNDECIDED) >= 8
    found = drawn(64, kl=1.0, same=0.6, seed=verdicts.index(Verdict.UNDECIDED))
    assert found.text().startswith("held out, 64 pictures: cannot be told from no correction; ")


def test_fewer_than_ten_pictures_decide_nothing() -> None:
    for options in ({"kl": 0.1, "same": 1.0}, {"kl": 9.0, "same": 0.0, "clean": 0.0}):
        found = drawn(9, **options)  # type: ignore[arg-type]
        assert found.verdict is Verdict.UNDECIDED
        assert found.text().startswith("held out, 9 pictures: too few to tell it from no correctio")
        assert "[" not in found.text()
    assert drawn(10, kl=9.0, same=0.0, clean=0.0).verdict is Verdict.WORSE
    assert "held out, 1 picture: " in drawn(1, kl=0.5, same=1.0).text()


def test_where_compression_does_nothing_there_is_nothing_to_remove() -> None:
    same = Answers(np.ones((20, 3), np.uint8), np.zeros((20, 3)))
    found = held_out_of(same, same)
    assert found.kl_removed == found.recovered_share == Estimate(0.0, None, None)
    assert found.verdict is Verdict.UNDECIDED


def test_answers_that_are_no_numbers_are_worse() -> None:
    kl = np.full((20, 3), 0.5)
    direct = Answers(np.ones((20, 3), np.uint8), kl)
    found = held_out_of(direct, Answers(direct.same, np.full((20, 3), np.nan)))
    assert found.verdict is Verdict.WORSE and math.isfinite(found.kl_removed.value)


@pytest.mark.parametrize("count", [5, 40])
def test_what_is_recorded_comes_back(count: int) -> None:
    found = drawn(count, kl=0.7, same=0.7)
    assert HeldOut.from_dict(json.loads(json.dumps(found.as_dict()))) == found


WHOLE = HELPFUL.as_dict()


@pytest.mark.parametrize(
    "values",
    [
        [],
        "worse",
        {k: v for k, v in WHOLE.items() if k != "verdict"},
        {**WHOLE, "more": 1},
        {**WHOLE, "pictures": 0},
        {**WHOLE, "pictures": True},
        {**WHOLE, "verdict": "excellent"},
        {**WHOLE, "verdict": ["worse"]},
        {**WHOLE, "clean_kept": 0.5},
        {**WHOLE, "clean_kept": {"value": 0.5}},
        {**WHOLE, "clean_kept": {"value": "0.5", "low": None, "high": None}},
        {**WHOLE, "kl_removed": {"value": 0.5, "low": None, "high": 0.6}},
        {**WHOLE, "kl_removed": {"value": math.nan, "low": 0.1, "high": 0.6}},
    ],
)
def test_what_was_not_recorded_so_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"held_out|Verdict"):
        HeldOut.from_dict(values)
