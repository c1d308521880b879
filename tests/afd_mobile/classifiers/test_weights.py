"""Weights are found wherever a training script puts them, and nothing else is taken for them."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from afd_mobile.classifiers.weights import Weights, find_weights, load_strictly
from afd_mobile.classifiers.weights_file import read_weights_file
from afd_mobile.common.errors import InputError

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = OrderedDict(
            stem=nn.Conv2d(3, 4, 3, stride=2),
            norm=nn.BatchNorm2d(4),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classes=nn.Linear(4, 10),
        )
    return nn.Sequential(layers).eval()


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def averaged(state: State) -> State:
    """As PyTorch's AveragedModel names it."""
    model = network()
    model.load_state_dict(state)
    return AveragedModel(model).state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def found(path: Path, model: nn.Module | None = None) -> Weights:
    return find_weights(read_weights_file(path), model or network(), f"weights {path} for tiny")


def logits(state: State) -> Tensor:
    model = network()
    load_strictly(model, state, what="weights")
    with torch.no_grad():
        result: Tensor = model(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))
    return result


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        found(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}

# As training scripts save a network's weights, the last of them beside raw ones.
PLAIN: dict[str, Callable[[State], Any]] = {
    "plain": lambda w: w,
    "torch.compile": lambda w: under("_orig_mod.", w),
    "DDP": lambda w: under("module.", w),
    "DDP of a compiled one": lambda w: {"state_dict": under("module._orig_mod.", w)},
    "a compiled DDP": lambda w: under("_orig_mod.module.", w),
    "the tutorial": lambda w: {
        "epoch": 3,
        "model_state_dict": w,
        "optimizer_state_dict": OPTIMIZER,
        "loss": 0.3,
    },
    "Lightning": lambda w: {
        "epoch": 1,
        "state_dict": {**under("model.", w), "criterion.weight": torch.ones(10)},
        "optimizer_states": [OPTIMIZER],
        "hyper_parameters": {"lr": 0.1},
    },
    "a compiled one in Lightning": lambda w: {"state_dict": under("net._orig_mod.", w)},
    "net": lambda w: {"net": w, "acc": 91.2, "epoch": 9},
    "torchvision": lambda w: {"model": w, "optimizer": OPTIMIZER, "args": argparse.Namespace()},
    "a state in a state": lambda w: {"checkpoint": {"weights": under("backbone.", w)}},
    "the best as well": lambda w: {"model": w, "best": dict(w)},
}
AVERAGED: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "SWA": (lambda _, e: averaged(e), "module)"),
    "only EMA": (lambda _, e: {"ema": e}, "ema)"),
    "timm": (
        lambda r, e: {
            "arch": "tiny",
            "args": argparse.Namespace(lr=0.1),
            "state_dict": r,
            "state_dict_ema": under("module.", e),
        },
        "state_dict_ema.module) instead of state_dict",
    ),
    "torchvision": (
        lambda r, e: {"model": r, "model_ema": averaged(e)},
        "model_ema.module) instead of model",
    ),
    "one flat dictionary": (
        lambda r, e: {**under("model.", r), **under("ema_model.", e), "step": torch.tensor(3)},
        "ema_model) instead of model",
    ),
    "inside the network": (
        lambda r, e: {**r, **under("ema.", e)},
        "ema) instead of the outermost entries",
    ),
    "Lightning's averaging": (
        lambda r, e: {
            "state_dict": under("model.", e),
            "current_model_state": under("model.", r),
            "averaging_state": {"n_averaged": torch.tensor(5)},
        },
        "state_dict.model) instead of current_model_state.model",
    ),
}


@pytest.mark.parametrize("script", PLAIN)
def test_weights_are_found_as_training_scripts_save_them(tmp_path: Path, script: str) -> None:
    model = network(seed=1)
    weights = found(saved(tmp_path / "w.pth", PLAIN[script](model.state_dict())))
    assert weights.notices == ()
    assert torch.equal(logits(weights.state), logits(model.state_dict()))


@pytest.mark.parametrize("prefix", ["module.", "timm_model.", "_orig_mod.module."])
def test_prefixes_come_off_in_safetensors_too(tmp_path: Path, prefix: str) -> None:
    model = network(seed=1)
    save_file(under(prefix, model.state_dict()), tmp_path / "w.safetensors")
    weights = found(tmp_path / "w.safetensors")
    assert torch.equal(logits(weights.state), logits(model.state_dict()))


@pytest.mark.parametrize("script", AVERAGED)
def test_averaged_weights_are_taken_and_said(tmp_path: Path, script: str) -> None:
    raw, ema = network(seed=1).state_dict(), network(seed=2).state_dict()
    content, said = AVERAGED[script]
    weights = found(saved(tmp_path / "w.pth", content(raw, ema)))
    assert weights.notices == (f"w.pth: the averaged weights are taken ({said}",)
    assert torch.equal(logits(weights.state), logits(ema))
    assert not torch.equal(logits(ema), logits(raw))


def test_averaged_weights_that_do_not_fit_leave_the_raw_ones_and_it_is_said(tmp_path: Path) -> None:
    """Many average the parameters alone, without batch norm's statistics."""
    model = network()
    raw = model.state_dict()
    ema = {name: value + 1 for name, value in model.named_parameters()}
    weights = found(saved(tmp_path / "w.pth", {"model": raw, "ema": {"shadow": ema}}))
    assert torch.equal(logits(weights.state), logits(raw))
    assert weights.notices == (
        "w.pth: model is taken, because the averaged weights, ema.shadow, do not fit: "
        "2 missing: norm.running_mean, norm.running_var",
    )


# --- what is refused ----------------------------------------------------------------------------


def test_two_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    content = {"student": network(1).state_dict(), "teacher": network(2).state_dict()}
    assert "are there 2 times, and differ: student, teacher; save those" in refusal(
        saved(tmp_path / "w.pth", content)
    )


def test_part_of_a_larger_network_is_refused(tmp_path: Path) -> None:
    """Its head, or a norm behind it, would be left out in silence."""
    for behind in (nn.Linear(10, 4), nn.BatchNorm1d(10)):
        larger = nn.Sequential(network(1), behind)
        said = refusal(saved(tmp_path / "w.pth", larger.state_dict()))
        assert "9 found in 0; " in said
        assert "beside them, as of a larger network: 1.weight, 1.bias" in said
        assert "as a factory: package.module:factory" in said


def test_what_is_missing_and_unexpected_is_counted_and_named(tmp_path: Path) -> None:
    state = under("module.", network(1).state_dict())
    del state["module.classes.weight"], state["module.classes.bias"]
    for i in range(5):
        state[f"module.head.{i}.weight"] = torch.ones(2)
    said = refusal(saved(tmp_path / "w.pth", {"model": state}))
    assert (
        "do not fit its 9 entries: 7 found in model.module; 2 missing: classes.weight, "
        "classes.bias; 5 unexpected: head.0.weight, head.1.weight, head.2.weight and 2 more; give"
    ) in said


def test_where_no_name_is_there_both_sides_are_named(tmp_path: Path) -> None:
    other = {f"layer{i}.weight": torch.ones(2) for i in range(5)}
    assert (
        "looked for stem.weight, stem.bias, norm.weight and 6 more; found 5: layer0.weight, "
        "layer1.weight, layer2.weight and 2 more; give the --backbone"
    ) in refusal(saved(tmp_path / "w.pth", {"model": other, "epoch": 3}))


# --- loading ------------------------------------------------------------------------------------


def test_counters_that_only_training_uses_may_be_missing(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(3)
    state = {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    state["weight"] = torch.full((3,), 2.0)
    load_strictly(norm, found(saved(tmp_path / "w.pth", state), norm).state, what="weights")
    assert torch.equal(norm.weight, torch.full((3,), 2.0))


def test_shapes_that_differ_are_counted_and_named() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    state = {name: torch.ones(3, 2) for name in model.state_dict()}
    with pytest.raises(InputError) as caught:
        load_strictly(model, state, what="weights w.pth")
    assert str(caught.value) == (
        "weights w.pth do not fit its 6 entries: 6 of another shape: 0.weight has shape (3, 2), "
        "expected (2, 2), 0.bias has shape (3, 2), expected (2,), 1.weight has shape (3, 2), "
        "expected (2, 2) and 3 more"
    )
