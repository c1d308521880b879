"""What a delegate takes: data in `delegates/*.toml`, and the checks that the data name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from afd_export.placement.checks import CHECKS
from afd_export.placement.operations import Operation
from afd_mobile.common.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]


class Delegate(str, Enum):
    """What may run a phone's operations besides TFLite's own CPU kernels."""

    XNNPACK = "xnnpack"
    GPU = "gpu"
    NNAPI = "nnapi"


class Folding(str, Enum):
    """When a delegate swallows the DEQUANTIZE that unpacks a constant.

    Else the CPU unpacks: EACH, where an operation on the CPU needs that constant; WHOLE, where
    any operation of the graph stays on the CPU.
    """

    EACH = "each"
    WHOLE = "whole"


@dataclass(frozen=True)
class Refusal:
    """Why a delegate leaves an operation to the CPU.

    Attributes:
        check: the rule's key, "operator" where no rule names the operator.
    """

    check: str
    reason: str


@dataclass(frozen=True)
class Rules:
    """One file of `delegates/`.

    Attributes:
        name: as people call it.
        runtime: which versions the rules hold for, and what they were compared with.
        read_from: the published lists, each with its version.
        folds: types of constants whose DEQUANTIZE is swallowed.
        max_partitions: how many the delegate keeps by default; None for all.
        operators: operator -> {check: its value}.
        desktop_takes: operator -> checks that LiteRT's desktop GPU engine does not make.
        desktop_operators: those that only the desktop engine takes.
    """

    delegate: Delegate
    name: str
    runtime: str
    read_from: tuple[str, ...]
    folds: tuple[str, ...]
    folding: Folding
    max_partitions: int | None
    operators: dict[str, dict[str, Any]]
    desktop_takes: dict[str, tuple[str, ...]]
    desktop_operators: tuple[str, ...]

    def refusal(self, operation: Operation) -> Refusal | None:
        """Why the delegate does not take the operation by itself; None where it does."""
        rule = self.operators.get(operation.operator)
        if rule is None:
            return Refusal("operator", f"{operation.operator} is not on the delegate's list")
        seen = operation.folded(self.folds)
        for check, function in CHECKS.items():
            reason = function(seen, rule[check]) if check in rule else None
            if reason is not None:
                return Refusal(check, reason)
        return None


def delegates_dir() -> Path:
    installed = _PACKAGE / "delegates"
    return installed if installed.is_dir() else _PACKAGE.parent / "delegates"


def load_rules(delegate: Delegate) -> Rules:
    """The rules of a delegate.

    Raises:
        UsageError: a key is unknown or missing, or an operator has two rules.
    """
    path = delegates_dir() / f"{delegate.value}.toml"
    with path.open("rb") as file:
        content = tomllib.load(file)
    groups, every = content.pop("operators", []), content.pop("every", {})
    required = {"name", "runtime", "read_from", "folds", "folding"}
    optional = {"max_partitions", "desktop_operators"}
    _expect_keys(path, "the file", content, required, optional)
    _expect_keys(path, "every", every, set(), set(CHECKS))
    operators: dict[str, dict[str, Any]] = {}
    desktop_takes: dict[str, tuple[str, ...]] = {}
    for group in groups:
        names, takes = group.pop("names", []), tuple(group.pop("desktop_takes", ()))
        _expect_keys(path, f"the rule of {', '.join(names)}", group, set(), set(CHECKS))
        for name in names:
            if name in operators:
                raise UsageError(f"{path} has two rules for {name}")
            operators[name] = every | group
            desktop_takes[name] = takes
    return Rules(
        delegate=delegate,
        name=content["name"],
        runtime=content["runtime"],
        read_from=tuple(content["read_from"]),
        folds=tuple(content["folds"]),
        folding=Folding(content["folding"]),
        max_partitions=content.get("max_partitions"),
        operators=operators,
        desktop_takes=desktop_takes,
        desktop_operators=tuple(content.get("desktop_operators", ())),
    )


def _expect_keys(
    path: Path, what: str, content: dict[str, Any], required: set[str], optional: set[str]
) -> None:
    if not required <= set(content) <= required | optional:
        raise UsageError(
            f"{path}: {what} has keys {sorted(content)}, expected {sorted(required)}"
            + (f", perhaps {sorted(optional)}" if optional else "")
        )
