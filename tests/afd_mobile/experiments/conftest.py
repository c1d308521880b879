"""The tiny classifier, its pictures, and a run as short as can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from afd_mobile.classifiers import choose
from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.experiments.results import Run
from afd_mobile.experiments.variant import Setup
from afd_mobile.pictures.picture_files import list_images
from afd_mobile.training.recipe import Settings
from tests.afd_mobile.tiny_blocks import FACTORY, SIZE, write_pictures

SETTINGS = Settings("distill", iterations=2, batch=2, crop=SIZE, seed=0)


@pytest.fixture(autouse=True)
def _costly_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any residual costs more than a share of so small a classifier."""
    monkeypatch.setattr(choose, "RESIDUAL_SHARE", 100.0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def run(pictures: Path) -> Run:
    return Run(FACTORY, list_images(pictures), SETTINGS, workers=0)


@pytest.fixture
def tiny(run: Run) -> Backbone:
    return run.backbone


@pytest.fixture
def setup(run: Run) -> Setup:
    return Setup(run.backbone, run.training, SETTINGS, workers=0)
