"""How each precision is converted, and what it may differ: data in `recipes/*.toml`."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path

from afd_mobile.common.artifacts import Precision
from afd_mobile.common.errors import UsageError
from afd_mobile.common.parity import Limits

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Recipe:
    """One way to make a `.tflite` file.

    Attributes:
        optimize: whether TensorFlow's converter changes the weights' type. For int8 it does not:
            that is quantised by passes of its own, from a float32 graph.
        float_spans: (first, late, after), tried in order: how many operations at the graph's
            beginning and late in it take float32 activations, and how many follow those.
        limits: what its output may differ from the trained module's.
    """

    precision: Precision
    optimize: bool
    float_spans: tuple[tuple[int, int, int], ...]
    limits: Limits


def recipes_dir() -> Path:
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def load_recipe(precision: Precision) -> Recipe:
    """The recipe of a precision; unknown or missing keys are refused."""
    path = recipes_dir() / f"{precision.value}.toml"
    with path.open("rb") as file:
        content = tomllib.load(file)
    limits = content.pop("limits", {})
    for values, cls in ((limits, Limits), (content | {"limits": None}, Recipe)):
        expected = {f.name for f in dataclasses.fields(cls)}
        if set(values) != expected:
            raise UsageError(
                f"recipe {path} has keys {sorted(values)}, expected {sorted(expected)}"
            )
    return Recipe(
        precision=Precision(content["precision"]),
        optimize=content["optimize"],
        float_spans=tuple((first, late, after) for first, late, after in content["float_spans"]),
        limits=Limits(**limits),
    )
