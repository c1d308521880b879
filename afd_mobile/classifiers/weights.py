"""A network's weights: where they lie in what a training script saved, and loading them.

Scripts wrap weights in dictionaries (`state_dict`, `model`, `net`), and their names in prefixes
(`module.` of DDP, `_orig_mod.` of torch.compile, `model.` of Lightning). No list of these is
needed: weights are where the network's own names are, whatever lies around them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afd_mobile.classifiers.weights_file import WeightsFile
from afd_mobile.common.errors import InputError

_AVERAGED = {"ema", "swa", "avg", "average", "averaged", "shadow"}  # words in a wrapper's name
_LOSS = {"loss", "criterion"}  # with weights of its own, which no network computes with
_COUNTER = "num_batches_tracked"  # used in training alone; some publishers leave it out
_SHOWN = 3  # of the entries that do not fit


@dataclass(frozen=True)
class Weights:
    """Attributes:
    state: by the network's own names.
    notices: what a person must know, such as which of several were taken.
    """

    state: dict[str, Tensor]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Copy:
    """What lies below one prefix in one dictionary, and has names of the network.

    Attributes:
        where: the wrappers around it.
        state: by the network's names, without the prefix.
        missing, unexpected: names below the prefix; beside: names outside it. Entries of other
            copies and of the training alone are none of these.
    """

    where: str
    state: dict[str, Tensor]
    averaged: bool
    missing: list[str]
    unexpected: list[str]
    beside: list[str]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.beside)


def find_weights(file: WeightsFile, network: nn.Module, what: str) -> Weights:
    """The entries for this network. Averaged ones (EMA, SWA) are taken before the raw ones.

    Args:
        what: file and network, for people.

    Raises:
        InputError: there are none, more or fewer than the network's, or several different ones.
    """
    names = list(network.state_dict())
    copies = [c for where in file.states for c in _copies_in(file, where, names)]
    fitting = [copy for copy in copies if copy.fits]
    if not fitting:
        raise InputError(
            f"{what} do not fit its {len(names)} entries: {_misfit(file, names, copies)}"
        )
    chosen, *others = [copy for copy in fitting if copy.averaged] or fitting
    if any(not _same(chosen, other) for other in others):
        raise InputError(
            f"{what} are there {1 + len(others)} times, and differ: "
            f"{', '.join(copy.where for copy in (chosen, *others))}; save those that you mean alone"
        )
    notice = _notice(file, chosen, copies)
    return Weights(chosen.state, () if notice is None else (notice,))


def most_of(file: WeightsFile, names: Collection[str]) -> dict[str, Tensor]:
    """What lies below the prefix under which most of these names are found."""
    _, prefix, state = max(
        (
            (count, prefix, state)
            for state in file.states.values()
            for prefix, count in _prefixes(state, names).items()
        ),
        key=lambda found: found[0],
        default=(0, "", {}),
    )
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


# --- copies of a network's weights --------------------------------------------------------------


def _copies_in(file: WeightsFile, where: str, names: Sequence[str]) -> list[_Copy]:
    state = file.states[where]
    needed = [name for name in names if not name.endswith(_COUNTER)]
    missing = {
        prefix: [name for name in needed if prefix + name not in state]
        for prefix in _prefixes(state, set(names))
    }
    whole = {prefix + name for prefix, absent in missing.items() if not absent for name in names}
    copies = []
    for prefix, absent in missing.items():
        label = f"{where}.{prefix}".strip(".")
        own = {prefix + name for name in names}
        other = [key for key in state if key not in own and key not in whole]
        copies.append(
            _Copy(
                label or "the outermost entries",
                {name: state[prefix + name] for name in names if prefix + name in state},
                _is_averaged(file, where, prefix),
                absent,
                [key.removeprefix(prefix) for key in other if key.startswith(prefix)],
                [k for k in other if not (k.startswith(prefix) or _of_training(k, state[k]))],
            )
        )
    return copies


def _prefixes(state: Mapping[str, Tensor], names: Collection[str]) -> Counter[str]:
    """What stands before the network's names, and how many of them follow."""
    found: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in names:
                found["".join(f"{part}." for part in parts[:start])] += 1
    return found


def _is_averaged(file: WeightsFile, where: str, prefix: str) -> bool:
    # PyTorch's AveragedModel counts beside its `module.`. Lightning's WeightAveraging saves what
    # it averaged as `state_dict`, and the raw weights as `current_model_state`.
    return (
        bool(_words(f"{where}.{prefix}") & _AVERAGED)
        or f"{prefix.removesuffix('module.')}n_averaged" in file.states[where]
        or (where == "state_dict" and "current_model_state" in file.states)
    )


def _of_training(key: str, value: Tensor) -> bool:
    """A counter, or a weight of the loss."""
    return value.ndim == 0 or bool(_words(key.partition(".")[0]) & _LOSS)


def _words(label: str) -> set[str]:
    return set(re.split(r"[^a-z]+", label.lower()))


def _same(a: _Copy, b: _Copy) -> bool:
    return a.state.keys() == b.state.keys() and all(
        torch.equal(value, b.state[name]) for name, value in a.state.items()
    )


# --- what is said -------------------------------------------------------------------------------


def _notice(file: WeightsFile, chosen: _Copy, copies: Sequence[_Copy]) -> str | None:
    if chosen.averaged:
        raw = [copy.where for copy in copies if copy.fits and not copy.averaged]
        instead = f" instead of {', '.join(raw)}" if raw else ""
        return f"{file.path.name}: the averaged weights are taken ({chosen.where}){instead}"
    for copy in copies:
        if copy.averaged:
            return (
                f"{file.path.name}: {chosen.where} is taken, because the averaged weights, "
                f"{copy.where}, do not fit: {_told(_misfits(copy))}"
            )
    return None


def _misfit(file: WeightsFile, names: Sequence[str], copies: Sequence[_Copy]) -> str:
    remedy = (
        "give the --backbone that they were trained in, your own as a factory: "
        "package.module:factory"
    )
    if not copies:
        found = file.largest()
        return f"looked for {_listed(names)}; found {len(found)}: {_listed(found)}; {remedy}"
    best = max(copies, key=lambda copy: (len(copy.state), -len(copy.beside)))
    return f"{len(best.state)} found in {best.where}; {_told(_misfits(best))}; {remedy}"


def _misfits(copy: _Copy) -> dict[str, list[str]]:
    return {
        "missing": copy.missing,
        "unexpected": copy.unexpected,
        "beside them, as of a larger network": copy.beside,
    }


def _told(misfits: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{len(ks)} {what}: {_listed(ks)}" for what, ks in misfits.items() if ks)


def _listed(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - _SHOWN} more" * (len(entries) > _SHOWN)
    return f"{', '.join(entries[:_SHOWN])}{more}"


# --- loading ------------------------------------------------------------------------------------


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Loads `state`; what is missing, unexpected or wrongly shaped is named in one error."""
    check_entries(module, state, what)
    not_finite = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if not_finite:
        raise InputError(f"{what} hold NaN or infinity in {_listed(not_finite)}")
    module.load_state_dict(dict(state), strict=False)


def check_entries(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Names and shapes.

    Raises:
        InputError: not the module's.
    """
    own = module.state_dict()
    misfits = {
        "missing": [k for k in own if k not in state and not k.endswith(_COUNTER)],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} has shape {tuple(v.shape)}, expected {tuple(own[k].shape)}"
            for k, v in state.items()
            if k in own and v.shape != own[k].shape
        ],
    }
    if any(misfits.values()):
        raise InputError(f"{what} do not fit its {len(own)} entries: {_told(misfits)}")
