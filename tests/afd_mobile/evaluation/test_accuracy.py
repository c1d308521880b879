from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, multinomial

from afd_mobile.common.intervals import Estimate, difference, share
from afd_mobile.evaluation.accuracy import Accuracy, accuracy_of
from afd_mobile.evaluation.conditions import CLEAN, LEFT_ALONE, Condition, repeated, single
from afd_mobile.evaluation.outcomes import Outcomes
from afd_mobile.pictures.degrade import Blur, Codec

QF25, QF7 = single(25), single(7)
Hits = NDArray[np.uint8]


def outcomes_of(top1: Any, reference_top1: Any, **others: Any) -> Outcomes:
    """(P, C) tables; those not given are 1 everywhere."""
    tables = {"top1": top1, "reference_top1": reference_top1, **others}
    hits = {name: np.asarray(table, np.uint8) for name, table in tables.items()}
    ones = np.ones_like(hits["top1"])
    rest = {name: ones for name in ("top5", "reference_top5", "agreement") if name not in hits}
    keys = [str(i) for i in range(len(ones))]
    return Outcomes(keys=keys, unreadable={"broken": "why"}, **hits, **rest)


def columns(count: int, *hits: int) -> Hits:
    """(count, len(hits)): so many ones on top of every column."""
    return np.asarray(np.arange(count)[:, None] < np.array(hits), np.uint8)


def random_outcomes(count: int) -> Outcomes:
    """Clean, QF 25, QF 7: as classifiers are, right on much the same pictures."""
    rng = np.random.default_rng(5)
    ease = rng.random((count, 1))

    def hits(*shares: float) -> Hits:
        noise = rng.normal(0, 0.1, (count, len(shares)))
        return np.asarray(ease + noise < np.array(shares), np.uint8)

    return outcomes_of(
        hits(0.78, 0.7, 0.55),
        hits(0.8, 0.6, 0.3),
        top5=hits(0.95, 0.9, 0.8),
        reference_top5=hits(0.95, 0.85, 0.5),
        agreement=hits(0.9, 0.8, 0.6),
    )


def test_values_are_the_shares_of_pictures() -> None:
    outcomes = outcomes_of(
        columns(10, 7, 6),
        columns(10, 8, 4),
        top5=columns(10, 9, 8),
        reference_top5=columns(10, 10, 5),
        agreement=columns(10, 3, 2),
    )
    accuracy = accuracy_of(outcomes, [CLEAN, QF7])
    assert (accuracy.pictures, accuracy.unreadable) == (10, ["broken"])
    clean, compressed = accuracy.conditions
    assert (clean.condition, compressed.condition) == ("clean", "QF 7")
    for name, expected in {
        "top1": (0.7, 0.6),
        "top5": (0.9, 0.8),
        "reference_top1": (0.8, 0.4),
        "reference_top5": (1.0, 0.5),
        "difference": (-0.1, 0.2),
        "agreement": (0.3, 0.2),
    }.items():
        values = tuple(getattr(row, name).value for row in accuracy.conditions)
        assert values == pytest.approx(expected), name
    assert clean.recovered_share is None
    assert compressed.recovered_share is not None
    assert compressed.recovered_share.value == pytest.approx(0.5)  # (6 - 4) / (8 - 4)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def test_the_recovered_share_is_against_the_references_clean_pictures() -> None:
    # The paper's table I, of 10000 pictures: ResNet-50 at QF 10 and 7.
    outcomes = outcomes_of(columns(10_000, 7604, 5724, 4902), columns(10_000, 7614, 4750, 3165))
    accuracy = accuracy_of(outcomes, [CLEAN, single(10), QF7])
    shares = [value(row.recovered_share) for row in accuracy.conditions[1:]]
    assert shares == pytest.approx([974 / 2864, 1737 / 4449])  # 34 %, 39 %
    assert value(accuracy.recovered_share) == pytest.approx(np.mean(shares))


def test_where_the_reference_corrects_as_well_there_are_no_shares() -> None:
    outcomes, conditions = random_outcomes(50), [CLEAN, QF25, QF7]
    with_shares, without = (accuracy_of(outcomes, conditions, shares=s) for s in (True, False))
    assert with_shares.recovered_share is not None
    assert without.recovered_share is None
    assert [row.recovered_share for row in without.conditions] == [None] * 3
    for one, other in zip(with_shares.conditions, without.conditions, strict=True):
        assert one.difference == other.difference


def test_the_order_of_conditions_does_not_matter() -> None:
    first, second = columns(10, 7, 6, 5), columns(10, 8, 6, 4)
    accuracy = accuracy_of(outcomes_of(first, second), [CLEAN, QF25, QF7])
    turned = accuracy_of(outcomes_of(first[:, ::-1], second[:, ::-1]), [QF7, QF25, CLEAN])
    assert turned.conditions[::-1] == accuracy.conditions
    assert value(turned.recovered_share) == pytest.approx(value(accuracy.recovered_share))


def test_what_makes_things_worse_recovers_a_negative_share() -> None:
    accuracy = accuracy_of(outcomes_of(columns(10, 8, 2), columns(10, 8, 4)), [CLEAN, QF7])
    assert value(accuracy.conditions[1].recovered_share) == pytest.approx(-0.5)


@pytest.mark.parametrize("compressed", [8, 9])
def test_nothing_is_recovered_where_nothing_was_lost(compressed: int) -> None:
    outcomes = outcomes_of(columns(10, 8, 9), columns(10, 8, compressed))
    accuracy = accuracy_of(outcomes, [CLEAN, QF7])
    assert accuracy.conditions[1].recovered_share is None
    assert accuracy.recovered_share is None


def test_the_average_is_over_single_compressions() -> None:
    conditions = [CLEAN, QF25, QF7, repeated(2), single(7, Codec.AVIF)]
    outcomes = outcomes_of(columns(20, 16, 14, 8, 16, 10), columns(20, 16, 12, 6, 10, 6))
    accuracy = accuracy_of(outcomes, conditions)
    shares = [value(row.recovered_share) for row in accuracy.conditions[1:]]
    assert shares == pytest.approx([2 / 4, 2 / 10, 6 / 6, 4 / 10])
    assert value(accuracy.recovered_share) == pytest.approx((2 / 4 + 2 / 10 + 4 / 10) / 3)
    alone = outcomes_of(columns(20, 16, 14), columns(20, 16, 12))
    assert accuracy_of(alone, [CLEAN, repeated(2)]).recovered_share is None


def test_every_group_has_its_own_average() -> None:
    conditions = [CLEAN, QF25, QF7, repeated(2), single(7, Codec.AVIF)]
    outcomes = outcomes_of(columns(20, 16, 14, 8, 16, 10), columns(20, 16, 12, 6, 10, 6))
    accuracy = accuracy_of(outcomes, conditions)
    shares = {group: value(share) for group, share in accuracy.group_shares.items()}
    expected = {"JPEG": (2 / 4 + 2 / 10) / 2, "JPEG repeated": 6 / 6, "AVIF": 4 / 10}
    assert shares == pytest.approx(expected)
    assert [row.group for row in accuracy.conditions] == ["", "JPEG", "JPEG", *list(expected)[1:]]
    assert accuracy_of(outcomes, conditions, shares=False).group_shares == {}


def test_what_costs_too_little_has_no_share() -> None:
    # It costs the reference 1, 2 and 10 of 20 pictures.
    outcomes = outcomes_of(columns(20, 16, 16, 15, 10), columns(20, 16, 15, 14, 6))
    conditions = [CLEAN, single(75), QF25, QF7]
    accuracy = accuracy_of(outcomes, conditions, least_loss=0.1)
    first, *others = (row.recovered_share for row in accuracy.conditions[1:])
    assert first is None and list(map(value, others)) == pytest.approx([1 / 2, 4 / 10])
    assert value(accuracy.recovered_share) == pytest.approx((1 / 2 + 4 / 10) / 2)


def test_of_a_blurred_picture_nothing_is_to_be_recovered() -> None:
    blurred = Condition(Blur(2), LEFT_ALONE)
    accuracy = accuracy_of(outcomes_of(columns(10, 8, 6), columns(10, 8, 4)), [CLEAN, blurred])
    assert accuracy.conditions[1].difference.value == pytest.approx(0.2)
    assert accuracy.conditions[1].recovered_share is None and accuracy.group_shares == {}


# --- intervals -----------------------------------------------------------------------------------


def interval(statistic: Callable[..., Any], *tables: Hits) -> tuple[float, float]:
    """scipy's paired percentile bootstrap over pictures."""
    result = bootstrap(
        [table.astype(float) for table in tables],
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    return float(result.low), float(result.high)


def bounds(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high
    return estimate.low, estimate.high


@pytest.fixture(scope="module")
def drawn() -> tuple[Outcomes, Accuracy]:
    outcomes = random_outcomes(300)
    return outcomes, accuracy_of(outcomes, [CLEAN, QF25, QF7])


@pytest.mark.parametrize("name", ["top1", "top5", "reference_top1", "reference_top5", "agreement"])
def test_intervals_of_shares_are_wilsons(drawn: tuple[Outcomes, Accuracy], name: str) -> None:
    outcomes, accuracy = drawn
    for i, row in enumerate(accuracy.conditions):
        hits = getattr(outcomes, name)[:, i]
        expected = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        assert bounds(getattr(row, name)) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("count", [1, 2, 4, 20, 500])
def test_where_all_pictures_are_alike_the_interval_of_a_share_is_no_point(count: int) -> None:
    for right in (0, count):
        low, high = bounds(share(columns(count, right)[:, 0]))
        expected = binomtest(right, count).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx(tuple(expected)) and high - low > 3 / (count + 4)


def test_the_interval_of_a_difference_is_paired(drawn: tuple[Outcomes, Accuracy]) -> None:
    outcomes, accuracy = drawn
    for i, row in enumerate(accuracy.conditions):
        ours, theirs = outcomes.top1[:, i], outcomes.reference_top1[:, i]
        expected = interval(lambda a, b, axis: a.mean(axis) - b.mean(axis), ours, theirs)
        low, high = bounds(row.difference)
        assert (low, high) == pytest.approx(expected, abs=0.01)
        unpaired = 2 * 1.96 * np.sqrt((ours.var() + theirs.var()) / len(ours))
        assert high - low < 0.8 * unpaired


def test_the_interval_of_a_difference_by_hand() -> None:
    """Of 21 one is won and seven are lost: 2 and 8 of 23 with one more picture each."""
    ours, theirs = (np.array(t, np.uint8) for t in ([1] + 7 * [0] + 13 * [1], [0] + 20 * [1]))
    # -6/23 +- 1.96 sqrt((10/23 - (6/23)^2) / 23)
    found = difference(ours, theirs)
    assert (found.value, *bounds(found)) == pytest.approx((-6 / 21, -0.5084, -0.0134), abs=1e-4)
    for count, reach in ((1, 0.9239), (2, 0.6930), (500, 0.0055)):  # 1.96 sqrt(2) / (count + 2)
        ones = np.ones(count, np.uint8)
        assert bounds(difference(ones, ones)) == pytest.approx((-reach, reach), abs=1e-4)
    for lost, count in ((1, 1), (5, 5), (500, 500)):
        low, high = bounds(difference(np.zeros(count, np.uint8), np.ones(count, np.uint8)))
        assert low == -1 and high < 1 and (lost < 5 or high < 0)


@pytest.mark.parametrize("changed", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("count", [2, 4, 10])
def test_the_interval_of_a_difference_holds_the_truth_on_few_pictures_too(
    count: int, changed: float
) -> None:
    """Exactly, over everything that can come: as much is won as is lost."""
    held = 0.0
    for won, lost in ((w, n) for w in range(count + 1) for n in range(count + 1 - w)):
        kinds = np.repeat([1, -1, 0], [won, lost, count - won - lost])
        hits, reference_hits = np.asarray([kinds > 0, kinds < 0], np.uint8)
        low, high = bounds(difference(hits, reference_hits))
        shares = [changed / 2, changed / 2, 1 - changed]
        if low <= 0 <= high:
            held += multinomial.pmf([won, lost, count - won - lost], count, shares)
    assert held >= 0.95


def test_the_interval_of_the_recovered_share_is_paired(drawn: tuple[Outcomes, Accuracy]) -> None:
    outcomes, accuracy = drawn

    def share(ours: Any, theirs: Any, clean: Any, axis: int) -> Any:
        return (ours.mean(axis) - theirs.mean(axis)) / (clean.mean(axis) - theirs.mean(axis))

    clean = outcomes.reference_top1[:, 0]
    for i in (1, 2):
        tables = (outcomes.top1[:, i], outcomes.reference_top1[:, i], clean)
        expected = interval(share, *tables)
        assert bounds(accuracy.conditions[i].recovered_share) == pytest.approx(expected, abs=0.03)

    def mean_share(a: Any, ra: Any, b: Any, rb: Any, clean: Any, axis: int) -> Any:
        return (share(a, ra, clean, axis) + share(b, rb, clean, axis)) / 2

    both = [hits[:, i] for i in (1, 2) for hits in (outcomes.top1, outcomes.reference_top1)]
    expected = interval(mean_share, *both, clean)
    assert bounds(accuracy.recovered_share) == pytest.approx(expected, abs=0.03)


def test_the_same_every_time() -> None:
    conditions = [CLEAN, QF25, QF7]
    outcomes = random_outcomes(40)
    assert accuracy_of(outcomes, conditions) == accuracy_of(outcomes, conditions)


def test_resamples_in_which_nothing_is_lost_do_not_count() -> None:
    # Compression costs ten pictures and brings nine; in half the resamples it costs nothing.
    hits = columns(30, 15, 30)
    hits[:, 1] = (np.arange(30) >= 10) & (np.arange(30) < 24)
    accuracy = accuracy_of(outcomes_of(hits, hits), [CLEAN, QF7])
    assert bounds(accuracy.conditions[1].recovered_share) == (0, 0)


def test_a_share_of_few_pictures_has_no_interval() -> None:
    """QF 25 changes ten, QF 7 nine: five from right to wrong and four the other way."""
    clean = np.arange(40) < 25
    after = [(np.arange(40) >= lost) & (np.arange(40) < 25 + won) for lost, won in ((7, 3), (5, 4))]
    plain = np.stack([clean, *after], axis=1)
    corrected = np.stack([clean] * 3, axis=1)
    accuracy = accuracy_of(outcomes_of(corrected, plain), [CLEAN, QF25, QF7])
    _, ten, nine = accuracy.conditions
    assert bounds(ten.recovered_share) == (1, 1)
    assert nine.recovered_share == Estimate(1.0, None, None)
    assert accuracy.recovered_share == Estimate(1.0, None, None)
    assert accuracy.group_shares == {"JPEG": Estimate(1.0, None, None)}
    assert accuracy_of(
        outcomes_of(corrected[:, :2], plain[:, :2]), [CLEAN, QF25]
    ).recovered_share == Estimate(1.0, 1.0, 1.0)
