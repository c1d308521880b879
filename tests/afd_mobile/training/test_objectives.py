from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import UsageError
from afd_mobile.network.afd_module import AfdConfig, AfdModule
from afd_mobile.pictures.degrade import jpeg
from afd_mobile.pictures.picture_files import list_images, read_image
from afd_mobile.training import objectives
from afd_mobile.training.objectives import (
    OBJECTIVES,
    Distill,
    FeatureMse,
    InsideDistill,
    _normalized_mse,
    objective_of,
)
from tests.afd_mobile.inside import inside_module

CPU = torch.device("cpu")
SIZE = 64

Array = NDArray[np.float64]


def new_module(backbone: Backbone, drift_input: str = "dct") -> AfdModule:
    torch.manual_seed(0)
    config = AfdConfig.paper(
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
        drift_input=drift_input,
    )
    return AfdModule(config).train()


@pytest.fixture(scope="module")
def crops(photos: Path) -> tuple[Tensor, Tensor]:
    """Clean and QF 10, (3, 3, 64, 64)."""
    clean = [read_image(p)[:SIZE, :SIZE] for p in list_images(photos)]
    pairs = (clean, [jpeg(c, 10) for c in clean])
    a, b = (torch.from_numpy(np.stack(p)).permute(0, 3, 1, 2).float() for p in pairs)
    return a, b


def normalized_errors(x: Array, target: Array) -> Array:
    """By the definition, channel by channel: x, target (N, C, H, W) -> (N,)."""
    variances = [target[:, c].var() for c in range(target.shape[1])]
    floor = 1e-3 * np.mean(variances)
    errors = [np.mean((x[:, c] - target[:, c]) ** 2, axis=(1, 2)) for c in range(target.shape[1])]
    return np.mean([e / (v + floor) for e, v in zip(errors, variances, strict=True)], axis=0)  # type: ignore[no-any-return]


def normalized_mse(x: Array, target: Array) -> float:
    return float(normalized_errors(x, target).mean())


def test_the_normalized_mse() -> None:
    scale = torch.tensor([0.01, 1.0, 50.0, 0.0])[:, None, None]  # one channel never changes
    target = scale * torch.randn(3, 4, 5, 6) + torch.arange(4.0)[:, None, None]
    x = target + 0.1 * torch.randn(3, 4, 5, 6)
    expected = normalized_mse(x.double().numpy(), target.double().numpy())
    assert _normalized_mse(x, target).item() == pytest.approx(expected, rel=1e-3)
    assert _normalized_mse(x[:, 1:3], target[:, 1:3]).item() == pytest.approx(
        normalized_mse(x[:, 1:3].double().numpy(), target[:, 1:3].double().numpy()), rel=1e-5
    )
    assert _normalized_mse(target, target).item() == 0


def previous_normalized_mse(x: Tensor, target: Tensor) -> Tensor:
    """As it was before it knew of flat colours."""
    error = (x - target).square().mean(dim=(0, 2, 3))
    mean = target.mean(dim=(0, 2, 3))
    variance = target.square().mean(dim=(0, 2, 3)) - mean.square()
    return (error / (variance.clamp_min(0) + 1e-3 * variance.mean())).mean()


def test_the_normalized_mse_of_pictures_is_what_it_always_was(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    mean, std = (torch.tensor(v)[:, None, None] for v in (mobilenet.mean, mobilenet.std))
    with torch.no_grad():
        target, x = (mobilenet.head((c / 255 - mean) / std) for c in crops)
    for i in range(3):
        value = _normalized_mse(x[i : i + 1], target[i : i + 1])
        assert value > 0.01
        assert torch.equal(value, previous_normalized_mse(x[i : i + 1], target[i : i + 1]))


def test_the_normalized_mse_of_a_flat_colour_is_relative_to_its_size() -> None:
    """Without variance the mean square, 2.5, takes its place: a hundredth of it in each channel."""
    target = torch.tensor([1.0, 2.0])[None, :, None, None].expand(1, 2, 3, 3)
    assert _normalized_mse(target, target).item() == 0
    for size in (1e-3, 1.0, 1e3):
        off = _normalized_mse(size * (target + 0.1), size * target)
        assert off.item() == pytest.approx(0.1**2 / (0.01 * 2.5 * 1.001), rel=1e-4)


def test_the_normalized_mse_has_no_jump_between_flat_and_almost_flat() -> None:
    flat = torch.full((1, 1, 64, 64), 5.0)
    almost = flat.clone()
    almost[..., 0, 0] = 5.5
    values = [_normalized_mse(t + 0.1, t).item() for t in (flat, almost)]
    assert values[1] == pytest.approx(values[0], rel=1e-3)


def test_of_features_that_are_all_zero_the_normalized_mse_is_the_error() -> None:
    x = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    loss = _normalized_mse(x, torch.zeros(1, 2, 3, 3))
    assert loss.item() == 0.25
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.isfinite().all()
    assert _normalized_mse(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)).item() == 0


def test_feature_mse_is_the_mean_squared_error(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    module = new_module(mobilenet)
    loss = FeatureMse(module, mobilenet, SIZE, CPU)(*crops)
    mean, std = (torch.tensor(v)[:, None, None] for v in (mobilenet.mean, mobilenet.std))
    with torch.no_grad():
        clean, features = (mobilenet.head((c / 255 - mean) / std) for c in crops)
        corrected = module(features, crops[1])
    expected = np.mean((corrected.double().numpy() - clean.double().numpy()) ** 2)
    assert expected > 1e-3
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_distill_is_zero_where_there_is_nothing_to_correct(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    module = new_module(mobilenet)
    module.reset_to_identity()
    distill = Distill(module, mobilenet, SIZE, CPU)
    assert abs(distill(crops[0], crops[0]).item()) < 1e-5
    assert distill(*crops).item() > 0.1


def test_distill_is_its_three_terms(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each against float32 and numpy; what is left is bfloat16."""
    module = new_module(mobilenet)
    distill = Distill(module, mobilenet, SIZE, CPU)
    default = distill(*crops).item()
    weights = {"DEEP_WEIGHT": 2.0, "TAP_WEIGHT": 0.2}
    for name in weights:
        monkeypatch.setattr(objectives, name, 0.0)
    found = {"divergence": distill(*crops).item()}
    for name in weights:
        with monkeypatch.context() as patch:
            patch.setattr(objectives, name, 1.0)
            found[name] = distill(*crops).item() - found["divergence"]

    mean, std = (torch.tensor(v)[:, None, None] for v in (mobilenet.mean, mobilenet.std))
    with torch.no_grad():
        clean, features = (mobilenet.head((c / 255 - mean) / std) for c in crops)
        corrected = module(features, crops[1])
        x, t = (outputs_by_size(mobilenet.tail, f) for f in (corrected, clean))
    log_p, log_q = (m[0] - np.log(np.exp(m[0]).sum(1, keepdims=True)) for m in (x, t))
    expected = {
        "divergence": np.mean(np.sum(np.exp(log_q) * (log_q - log_p), axis=1)),
        "DEEP_WEIGHT": np.mean([normalized_mse(x[size], t[size]) for size in (4, 2)]),
        "TAP_WEIGHT": normalized_mse(corrected.double().numpy(), clean.double().numpy()),
    }
    assert found == pytest.approx(expected, rel=0.15)  # measured: 8 % for the divergence
    total = found["divergence"] + sum(weight * found[name] for name, weight in weights.items())
    assert default == pytest.approx(total, rel=1e-5)


def outputs_by_size(tail: nn.Module, features: Tensor) -> dict[int, Array]:
    """The last layer's output of every spatial size; 0 holds the logits."""
    outputs: dict[int, Array] = {}

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        outputs[output.shape[-1] if output.ndim == 4 else 0] = output.double().numpy()

    layers = [m for m in tail.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(record) for m in layers]
    tail(features)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_reach_the_whole_module_and_nothing_else(
    objective: str, mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    module = new_module(mobilenet)
    step = OBJECTIVES[objective](module, mobilenet, SIZE, CPU)
    step(*crops).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    own = {id(p) for p in module.parameters()}
    others = [p for p in step.parameters() if id(p) not in own]
    others += [*mobilenet.head.parameters(), *mobilenet.tail.parameters()]
    assert others and all(p.grad is None and not p.requires_grad for p in others)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("drift_input", ["pixels", "shuffled-dct", "none"])
def test_every_parameter_of_an_ablation_has_a_gradient(
    objective: str, drift_input: str, mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    module = new_module(mobilenet, drift_input=drift_input)
    module.reset_to_identity()  # parameters that get none would stop processes that share a batch
    step = OBJECTIVES[objective](module, mobilenet, SIZE, CPU)
    step(*crops).backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_tap_with_nothing_deeper_is_distilled_all_the_same(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    backbone = dataclasses.replace(mobilenet, tail=fx.symbolic_trace(pooled))
    module = new_module(backbone)
    loss = Distill(module, backbone, SIZE, CPU)(*crops)
    loss.backward()
    assert loss.item() > 0 and all(p.grad is not None for p in module.parameters())


# --- several places -----------------------------------------------------------------------------


def cross_entropy(logits: Array, target: Array) -> float:
    """Mean over pictures, (N,) and (N,)."""
    p = 1 / (1 + np.exp(-logits))
    return float(-np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))


def kl_divergence(logits: Array, target: Array) -> Array:
    """KL(target || logits) of each picture, (N, C), (N, C) -> (N,)."""
    log_p, log_q = (m - np.log(np.exp(m).sum(1, keepdims=True)) for m in (logits, target))
    return np.sum(np.exp(log_q) * (log_q - log_p), axis=1)  # type: ignore[no-any-return]


def test_distilling_inside_is_its_three_terms(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each against float32 and numpy, the corrected features by hooks."""
    module = inside_module(mobilenet, "scale:features.8.conv.1", "residual:features.13")
    distill = InsideDistill(module, mobilenet, SIZE, CPU)
    with torch.no_grad():
        whole = distill(*crops).item()
        monkeypatch.setattr(objectives, "DEEP_WEIGHT", 0.0)
        shallow = distill(*crops).item()
        # Hardly a weight, whatever the drift.
        monkeypatch.setattr(objectives, "LIGHT", 1e9)
        gate_loss = distill(*crops).item()
    found = {"likeness": shallow - gate_loss, "deep": whole - shallow, "gate": gate_loss}

    mean, std = (torch.tensor(v)[:, None, None] for v in (mobilenet.mean, mobilenet.std))
    with torch.no_grad():
        clean, features = (mobilenet.head((c / 255 - mean) / std) for c in crops)
        guide = module(crops[1])
        t, plain = (outputs_by_size(mobilenet.tail, f) for f in (clean, features))
        scale, residual = module.corrections
        layers = {
            "features.8.conv.1.2": scale,
            # The last addition of a resolution is no layer: what enters the next block is it.
            "features.14.conv.0.0": residual,
        }
        hooks = []
        for name, correct in layers.items():
            layer = mobilenet.tail.get_submodule(name)
            if correct is scale:
                hook = layer.register_forward_hook(lambda _, __, y: scale(y, guide))
            else:
                hook = layer.register_forward_pre_hook(lambda _, xs: residual(xs[0], guide))
            hooks.append(hook)
        x = outputs_by_size(mobilenet.tail, features)
        for hook in hooks:
            hook.remove()
    drift = normalized_errors(features.double().numpy(), clean.double().numpy())
    logits = [module.gate_logits(c).detach().double().numpy().reshape(3) for c in crops]
    expected = {
        "likeness": np.mean(kl_divergence(x[0], t[0]) / (drift + 0.1)),
        "deep": 2.0 * np.mean([normalized_mse(x[size], t[size]) for size in (4, 2)]),
        "gate": cross_entropy(np.array(logits), np.array([np.zeros(3), drift / (drift + 0.02)])),
    }
    assert drift.min() > 0.02 and not np.allclose(x[0], plain[0], rtol=0.05)
    assert found == pytest.approx(expected, rel=0.15)  # bfloat16, where the processor has it


def test_clean_pictures_teach_the_gate_alone(
    mobilenet: Backbone, crops: tuple[Tensor, Tensor]
) -> None:
    """At the start, where nothing is corrected: their target is a gate that is shut."""
    module = inside_module(mobilenet).train().requires_grad_(True)
    module.reset_to_identity()
    distill = objective_of("distill", module, mobilenet, SIZE, CPU)
    with torch.no_grad():
        shut = nn.functional.softplus(module.gate_logits(crops[0])).mean().item()
        assert distill(crops[0], crops[0]).item() == pytest.approx(shut, rel=0.02)
    distill(*crops).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
    last = ("linear.weight", "leave.weight", "gate.logit.weight", "statistics.filters.weight")
    learning = [n for n, p in module.named_parameters() if n.endswith(last)]
    assert len(learning) == len(module.corrections) + 2
    assert all(p.grad.any() for n, p in module.named_parameters() if n in learning)  # type: ignore[union-attr]
    others = [*mobilenet.head.parameters(), *mobilenet.tail.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in others)


def test_one_taps_loss_is_refused_where_there_are_several(mobilenet: Backbone) -> None:
    module = inside_module(mobilenet, "residual:features.13")
    with pytest.raises(UsageError, match=r"--objective feature-mse .* use --objective distill"):
        objective_of("feature-mse", module, mobilenet, SIZE, CPU)
