from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from afd_export.package.card import model_card
from afd_export.request import ExportRequest
from afd_export.source import ExportSource, find_source
from afd_mobile import __version__
from afd_mobile.common.artifacts import Scope
from afd_mobile.common.resources import models_dir

CLASSIFIER, FEATURES = Scope


@pytest.fixture
def untrained(make_request: Callable[..., ExportRequest]) -> ExportSource:
    """The tiny classifier and its module, both with random weights."""
    return find_source(make_request())


def with_weights(
    source: ExportSource, weights: str, checkpoint: Path | None = None
) -> ExportSource:
    backbone = dataclasses.replace(source.backbone, weights=weights, trained=True)
    return dataclasses.replace(source, backbone=backbone, checkpoint=checkpoint)


def test_a_card_says_what_it_is_and_what_to_beware_of(untrained: ExportSource) -> None:
    card = model_card(untrained, CLASSIFIER)
    assert card.name == untrained.name
    assert card.version == __version__
    assert card.description.startswith(
        "tinynet:make, an image classifier, with an AFD-Module at 2 places behind act2 that"
    )
    assert len(untrained.notices) == 2
    for notice in untrained.notices:
        assert f"; {notice}" in card.description


def test_features_are_not_called_a_classifier(make_request: Callable[..., ExportRequest]) -> None:
    source = find_source(make_request(preset="paper", taps=("act1",), scope=FEATURES))
    description = model_card(source, FEATURES).description
    assert description.startswith(
        "tinynet:make up to act1, a feature extractor, with an AFD-Module at act1 that corrects"
    )
    assert "classifier" not in description


def test_a_plain_classifier_has_no_module(untrained: ExportSource) -> None:
    plain = dataclasses.replace(with_weights(untrained, "bundled"), afd=None, notices=[])
    card = model_card(plain, CLASSIFIER)
    assert card.description == "tinynet:make, an image classifier."
    assert "AFD" not in card.licence


@pytest.mark.parametrize(
    ("weights", "licence"),
    [("bundled", "BSD 3-Clause"), ("published", "publisher's"), ("/home/me/mine.pth", "owner's")],
)
def test_licence_of_the_classifier(untrained: ExportSource, weights: str, licence: str) -> None:
    classifier, module = model_card(with_weights(untrained, weights), CLASSIFIER).licence.split(";")
    assert licence in classifier
    assert "/home" not in classifier  # no folder of this machine goes into the files
    assert module == " AFD-Module's weights: random, none needed"


def test_licence_of_the_module(untrained: ExportSource, tmp_path: Path) -> None:
    shipped = models_dir() / "afd-mobilenet_v2-mobile.safetensors"
    assert shipped.is_file()
    own = tmp_path / shipped.name  # the same name does not make it the project's
    for path, licence in ((shipped, "Apache-2.0 (afd-mobile)"), (own, "their owner's")):
        card = model_card(with_weights(untrained, "bundled", path), CLASSIFIER)
        assert card.licence.endswith(f"AFD-Module's weights: {licence}")


def test_random_weights_need_no_licence(untrained: ExportSource) -> None:
    assert model_card(untrained, CLASSIFIER).licence == (
        "classifier's weights: random, none needed; AFD-Module's weights: random, none needed"
    )


def test_a_shipped_modules_figures_are_named_for_its_own_classifier(
    untrained: ExportSource, tmp_path: Path
) -> None:
    shipped = models_dir() / "afd-mobilenet_v2-mobile.safetensors"
    figures = shipped.with_suffix(".md")
    assert figures.is_file()
    for path, weights, expected in (
        (shipped, "bundled", figures.name),
        (shipped, "/home/me/mine.pth", None),
        (tmp_path / shipped.name, "bundled", None),
        (None, "bundled", None),
    ):
        card = model_card(with_weights(untrained, weights, path), CLASSIFIER)
        assert card.figures == expected
