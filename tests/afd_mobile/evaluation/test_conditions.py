from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_mobile.evaluation import conditions
from afd_mobile.evaluation.conditions import (
    CLEAN,
    LEFT_ALONE,
    SUITES,
    Condition,
    field_suite,
    paper_suite,
    repeated,
    single,
)
from afd_mobile.pictures.degrade import Codec, Jpeg, Noise, jpeg

RGB = NDArray[np.uint8]


@pytest.fixture
def crop(photograph: RGB) -> RGB:
    return photograph[100:180, 200:296]


def test_a_condition_of_one_quality_is_that_compression(crop: RGB) -> None:
    for key in "ab":
        assert np.array_equal(single(10).apply(crop, key), jpeg(crop, 10))
        assert np.array_equal(CLEAN.apply(crop, key), crop)


def test_what_is_drawn_depends_on_the_pictures_key_alone(crop: RGB) -> None:
    noisy = Condition(Noise(8))
    assert np.array_equal(noisy.apply(crop, "a"), noisy.apply(crop, "a"))
    assert not np.array_equal(noisy.apply(crop, "a"), noisy.apply(crop, "b"))
    # As it was drawn when the published figures were measured.
    drawn = repeated(2).apply(crop, "n01440764/1.jpg")
    assert np.array_equal(drawn, jpeg(jpeg(crop, 7), 18))


def test_the_papers_suite_is_its_tables() -> None:
    names = [c.name for c in paper_suite().conditions]
    assert names == [
        "clean",
        *(f"QF {q}" for q in (25, 18, 15, 10, 7)),
        *(f"{n}x" for n in (1, 2, 3, 4, 5)),
        *(f"avif QF {q}" for q in (25, 18, 15, 10, 7)),
    ]
    assert [c.name for c in paper_suite().conditions if c.averaged] == names[1:6]


def test_the_field_suite_leaves_out_heic_where_it_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [c.group for c in field_suite().conditions]
    monkeypatch.setattr(conditions, "heic_installed", lambda: False)
    assert [c.group for c in field_suite().conditions] == [g for g in groups if g != "HEIC"]
    assert groups.count("HEIC") == 2


@pytest.mark.parametrize("name", SUITES)
def test_suites_hold_what_tables_need(name: str, crop: RGB) -> None:
    suite = SUITES[name]()
    names = [c.name for c in suite.conditions]
    assert suite.name == name and len(set(names)) == len(names) and suite.conditions[0] == CLEAN
    groups = [c.group for c in suite.conditions[1:]]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes == len(set(groups)) - 1 and all(groups)  # every group stands together
    for condition in suite.conditions[1:]:
        degraded = condition.apply(crop, "a")
        assert degraded.shape == crop.shape and not np.array_equal(degraded, crop)


def test_only_compressions_are_averaged_in_the_field() -> None:
    for condition in field_suite().conditions:
        assert condition.averaged == (condition.group not in ("", LEFT_ALONE))


def test_names() -> None:
    found = [c.name for c in (CLEAN, single(7), single(30, Codec.AVIF), repeated(2, Codec.AVIF))]
    assert found == ["clean", "QF 7", "avif QF 30", "avif 2x"]
    assert Condition(Jpeg(7)).name == "QF 7"
