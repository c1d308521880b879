"""What a checkpoint remembers of the classifier that it was trained on.

Names and hashes of weights say little: the same layers come folded, rounded, wrapped or with
another head. So the record holds what the layers answer to one picture; `fit.py` compares it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClassifierRecord:
    """Attributes:
    name: as it was given.
    weights: what they were: `bundled`, `published`, `factory`, `random` or a file's name.
    mean, std, input_size, classes: as in Backbone.
    answers: by node, in the order of the network: at most 32 channels' means over the positions,
        for the probe picture. The tap comes first, then the places that are corrected, then
        LOGITS.
    """

    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    classes: int
    answers: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassifierRecord:
        """The inverse of `dataclasses.asdict` after JSON.

        Raises:
            ValueError: not what that gives.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            raise ValueError(f"keys {sorted(values)}, expected {sorted(names)}")
        name, weights, size, classes = (
            values[key] for key in ("name", "weights", "input_size", "classes")
        )
        if not (isinstance(name, str) and isinstance(weights, str)):
            raise ValueError(f"name {name!r} and weights {weights!r} are no texts")
        if not all(type(n) is int and 0 < n < 1 << 20 for n in (size, classes)):
            raise ValueError(f"input_size {size!r} and classes {classes!r} are no counts")
        answers = {str(node): _numbers(answer) for node, answer in dict(values["answers"]).items()}
        mean, std = _numbers(values["mean"]), _numbers(values["std"])
        if not (len(mean) == len(std) == 3 and min(std) > 0):
            raise ValueError(f"mean {mean} and std {std} are not of three channels")
        return cls(name, weights, mean, std, size, classes, answers)


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{values!r} are no numbers")
    return numbers
