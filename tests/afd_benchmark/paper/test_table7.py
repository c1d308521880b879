"""The paper's Table VII beside this machine's figures."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from afd_benchmark.file_cost import FileCost
from afd_benchmark.paper.table7 import Row, figure9, figure10, rows, table7
from afd_benchmark.results import Case, Verdict
from tests.afd_benchmark import sample_results as sample


def cost(parameters: int, multiply_adds: int) -> FileCost:
    return FileCost(parameters, 0, multiply_adds, 4, 4, 4, 4, 4, ())


COSTS = {
    "resnet50": cost(25_500_000, 4_120_000_000),
    "afd": cost(25_610_000, 4_480_000_000),
    "ddp": cost(140_000, 1_480_000_000),
}


def measured(verdicts: Mapping[str, Verdict] | None = None, **ms: float) -> list[Row]:
    def case(name: str, ms: float) -> Case:
        verdict = (verdicts or {}).get(name, Verdict.VALID)
        if verdict is Verdict.INVALID:
            return replace(sample.phone_run().cases[3], verdict=verdict)
        found = sample.timed_case(name, "float32", ms, verdict=verdict)
        return replace(found, median_ms=ms, ci95_ms=(ms, ms))

    return rows(COSTS, {name: case(name, value) for name, value in ms.items()})


def times(found: list[Row]) -> dict[str, tuple[float | None, float | None, bool]]:
    return {row.name: (row.median_ms, row.ratio, row.suspect) for row in found}


def test_the_module_is_its_network_less_the_classifier() -> None:
    found = measured(resnet50=80.0, afd=90.0, ddp=20.0)
    assert times(found) == {
        "resnet50": (80.0, 1.0, False), "ddp": (20.0, 0.25, False), "afd": (10.0, 0.125, False),
    }  # fmt: skip
    (module,) = [row for row in found if row.name == "afd"]
    assert (module.parameters, module.multiply_adds) == (110_000, 360_000_000)
    assert "| AFD | 0.110 | 0.11 | 0.36 | 0.36 | 10.0 | 0.12 | 54 | 0.41 |" in table7(found)


@pytest.mark.parametrize("whole", [80.0, 79.9])
def test_a_difference_that_is_noise_is_no_time(whole: float) -> None:
    found = measured(resnet50=80.0, afd=whole, ddp=20.0)
    assert times(found)["afd"] == (None, None, False)
    assert figure9(found).startswith(b"\x89PNG")


def test_a_suspect_side_marks_every_figure_made_of_it() -> None:
    found = measured({"resnet50": Verdict.SUSPECT}, resnet50=80.0, afd=90.0, ddp=20.0)
    assert all(suspect for _, _, suspect in times(found).values())
    text = table7(found)
    assert text.count("? |") == 3 and "SUSPECT" in text
    assert figure9(found) != figure9(measured(resnet50=80.0, afd=90.0, ddp=20.0))
    assert figure10(found) == figure10(measured(resnet50=80.0, afd=90.0, ddp=20.0))


def test_an_invalid_side_gives_no_ratio() -> None:
    found = measured({"resnet50": Verdict.INVALID}, resnet50=80.0, afd=90.0, ddp=20.0)
    assert times(found) == {
        "resnet50": (None, None, False), "ddp": (20.0, None, False), "afd": (None, None, False),
    }  # fmt: skip
