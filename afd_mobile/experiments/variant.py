"""What is compared: a name, and a function that trains what it has to and gives a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.training.crops import crop_batches
from afd_mobile.training.recipe import CPU, RECIPES, Learner, Recipe, Settings
from afd_mobile.training.validation import Logits


@dataclass(frozen=True)
class Setup:
    """What a variant is trained with.

    Attributes:
        backbone: the classifier, cut where the variant wants it.
        pictures: to be trained on.
        workers: processes that read and compress crops.
        stepped: called after every step.
    """

    backbone: Backbone
    pictures: list[Path]
    settings: Settings
    workers: int = 1
    stepped: Callable[[], object] = lambda: None

    def fit(self, module: nn.Module, objective: nn.Module, recipe: Recipe | None = None) -> None:
        """Trains `module` in place: the same crops for all. A loss that is not finite ends it."""
        settings = self.settings
        learner = Learner(module, recipe or RECIPES[settings.objective], CPU)
        batches = crop_batches(self.pictures, settings, workers=self.workers)
        for step, (*crops, _) in enumerate(batches, start=1):
            loss = learner.step(objective, crops, step / settings.iterations)
            self.stepped()
            if not math.isfinite(loss):
                break
        learner.finish()


@dataclass(frozen=True)
class Variant:
    """One line of a table.

    Attributes:
        name: the same in two tables only for the same thing, which is then trained once.
        make: trains it, and gives the classifier that it makes.
        tap: where the classifier is cut for it; None for its own tap.
        pictures: how many of the training pictures it sees, evenly spread; None for all.
    """

    name: str
    make: Callable[[Setup], Logits]
    tap: str | None = None
    pictures: int | None = None


@dataclass(frozen=True)
class Table:
    """Attributes:
    title, text: for the page.
    variants: those for a classifier, cut at its own tap.
    """

    title: str
    text: str
    variants: Callable[[Backbone], list[Variant]]
