"""How each objective is trained: optimiser, schedule, augmentation, averaging."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.optim import Muon
from timm.optim import muon as timm_muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from afd_mobile.pictures.augment import FIELD, PAPER, Augmentation
from afd_mobile.pictures.datasets import nchw
from afd_mobile.training.distributed import average_gradients
from afd_mobile.training.frozen_classifier import fast_type

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """How one objective is trained.

    Attributes:
        optimizer: makes it, from the parameters and the learning rate at its highest, which a
            group of parameters may multiply by a `factor` of its own.
        schedule: factor on that rate, from the share of the training that is done.
        augmentation: how its crops are drawn.
        ema: decay of the averaged weights that are kept; 0 keeps the last ones.
    """

    optimizer: Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]
    learning_rate: float
    schedule: Callable[[float], float]
    augmentation: Augmentation
    ema: float


def _warm_up_and_cosine(done: float) -> float:
    return min(1.0, done / 0.03) * 0.5 * (1 + math.cos(math.pi * done))


def _adam(parameters: Iterator[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, rate)


class _Muon(Muon):  # type: ignore[misc]
    """timm's, which orthogonalises in bfloat16, in float32 where the processor has no other."""

    def step(self, closure: Any = None) -> Any:
        own = timm_muon.zeropower_via_newtonschulz
        device = self.param_groups[0]["params"][0].device
        timm_muon.zeropower_via_newtonschulz = partial(own, dtype=fast_type(device))
        try:
            return super().step(closure)
        finally:
            timm_muon.zeropower_via_newtonschulz = own


def _muon(parameters: Iterator[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    # Kernels are orthogonalised as C_out x rest; biases go to AdamW at the same rate.
    optimizer: torch.optim.Optimizer = _Muon(
        parameters, lr=rate, nesterov=True, normalize_spatial=False
    )
    return optimizer


Tensors = tuple[Tensor, ...] | list[Tensor]


def _ema(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential averaging whose window grows with the run, so that short ones work as well."""

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, updates: Tensor | int) -> None:
        done = int(updates)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + done) / (10 + done)))

    return update


RECIPES = {
    # The paper's: Adam, 1e-4, 2e-5 after half; every crop compressed; features alone.
    "feature-mse": Recipe(_adam, 1e-4, lambda done: 1.0 if done < 0.5 else 0.2, PAPER, ema=0.0),
    "distill": Recipe(_muon, 2e-3, _warm_up_and_cosine, FIELD, ema=0.999),
}


class Learner:
    """A module with its optimiser and the averages of its weights; made ready to be trained."""

    def __init__(self, module: nn.Module, recipe: Recipe, device: torch.device) -> None:
        module.to(device).to(memory_format=torch.channels_last).train()
        self.module, self.recipe, self.device = module, recipe, device
        self.optimizer = recipe.optimizer(module.parameters(), recipe.learning_rate)
        self.average = AveragedModel(module, multi_avg_fn=_ema(recipe.ema))

    def step(self, objective: nn.Module, crops: Sequence[Tensor], done: float) -> float:
        """The loss, after which all weights have moved.

        Args:
            crops: clean and compressed, (N, crop, crop, 3) uint8.
            done: the share of the training that ends with this step.
        """
        for group in self.optimizer.param_groups:
            highest = self.recipe.learning_rate * group.get("factor", 1.0)
            group["lr"] = highest * self.recipe.schedule(done)
        clean, compressed = (nchw(x.to(self.device, non_blocking=True)) for x in crops)
        loss = objective(clean, compressed)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.module)
        self.optimizer.step()
        self.average.update_parameters(self.module)
        return float(loss.item())

    def finish(self) -> None:
        """The module takes its averages, and is trained no more."""
        self.module.load_state_dict(self.average.module.state_dict())
        self.module.eval()


@dataclass(frozen=True)
class Settings:
    """What a run is; a state is resumed only with the same.

    Attributes:
        batch: crops an iteration, over all ranks.
        crop: pixels.
        init_sha256: of the checkpoint's file it starts from; None for no correction.
    """

    objective: str
    iterations: int
    batch: int
    crop: int
    seed: int
    init_sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
