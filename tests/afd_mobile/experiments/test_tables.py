from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest
import torch

from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.choose import inside_preset
from afd_mobile.experiments import __main__, tables
from afd_mobile.experiments.results import Run
from afd_mobile.experiments.tables import TABLES
from afd_mobile.experiments.variant import Setup
from afd_mobile.network.corrections import InsideModule, Residual
from afd_mobile.pictures.degrade import QUALITIES
from tests.afd_mobile.experiments.conftest import SETTINGS
from tests.afd_mobile.tiny_blocks import FACTORY

QUICK = ("fine-tuning",)
UNTRAINED = ("statistics of the picture", "pooled features re-centred")


@pytest.mark.parametrize(
    "table",
    [t if t in QUICK else pytest.param(t, marks=pytest.mark.long) for t in TABLES],
)
def test_every_variant_of_a_table_is_trained_and_measured(
    table: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PICTURES", (2, 1000))  # there are seven
    monkeypatch.setattr(tables, "EARLIER_TAPS", {run.backbone.name: ["features.0"]})
    for variant in run.variants(table):
        if variant == tables.AUTO_VARIANT and table != "kinds":
            continue  # the same in all tables
        steps: Iterator[int] = count()
        row = run.measured(variant, steps.__next__)
        trained = not variant.name.startswith(UNTRAINED)
        assert (row["variant"], next(steps)) == (variant.name, 2 * trained)
        assert [*row["kl_removed"]] == [*row["training_kl_removed"]] == [str(q) for q in QUALITIES]
        figures = [*row["kl_removed"].values(), row["clean_kl"], row["recovered_share"]]
        assert all(map(math.isfinite, figures))
        if trained:  # fine-tuning alone adds nothing to be computed
            free = variant.name == "fine-tuned behind the tap"
            assert (row["multiply_adds"] > 0) == (row["operations"] > 0) == (not free)


def test_names_are_unique_but_for_the_whole_design(mobilenet: Backbone) -> None:
    names = Counter(v.name for t in TABLES.values() for v in t.variants(mobilenet))
    assert names.pop("auto") == len(TABLES)
    assert set(names.values()) == {1}
    assert len(names) == 30


def test_the_command_line_knows_the_tables() -> None:
    assert tuple(TABLES) == __main__.TABLES


def remember(modules: dict[str, InsideModule], name: str, _: Setup, module: InsideModule) -> None:
    """In place of training it."""
    modules[name] = module


def test_what_the_tables_leave_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the places that `auto` chooses."""
    modules: dict[str, InsideModule] = {}
    for table in ("depths", "kinds"):
        for variant in run.variants(table):
            monkeypatch.setattr(tables, "_corrected", partial(remember, modules, variant.name))
            variant.make(Setup(run.backbone, run.training, SETTINGS))
    every = inside_preset(run.backbone, ["auto"]).places
    kinds = Counter(place.kind for place in every)
    assert kinds["scale"] >= 1 and kinds["residual"] > 1
    assert modules["auto"].config.places == every
    ends = [place for place in every if place.kind == "residual"]
    for end in ends:
        behind = every[every.index(end) + 1 :]
        assert not behind or modules[f"auto, behind {end.node}"].config.places == behind
        assert modules[f"one residual at {end.node}"].config.places == (end,)
    for kind in ("scale", "residual"):
        expected = tuple(place for place in every if place.kind == kind)
        assert modules[f"{kind} only"].config.places == expected


def test_what_is_inside_a_residual_is_replaced(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: dict[str, InsideModule] = {}
    monkeypatch.setattr(tables, "_corrected", partial(remember, modules, "x"))
    tables.inside(setup, network=lambda c, w: torch.nn.Conv2d(c, w, 1))
    residuals = [c for c in modules["x"].corrections if isinstance(c, Residual)]
    assert residuals and all(isinstance(r.enter, torch.nn.Conv2d) for r in residuals)


def test_a_variant_may_cut_the_classifier_elsewhere(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "EARLIER_TAPS", {run.backbone.name: ["features.0"]})
    variant = run.variants("depths")[0]
    assert variant.name == "auto, behind features.0"
    elsewhere = load_backbone(FACTORY, tap="features.0")
    own = load_backbone(FACTORY)
    places = (inside_preset(b, ["auto"]).places for b in (elsewhere, own))
    more, fewer = (sum(p.kind == "scale" for p in chosen) for chosen in places)
    assert more > fewer
