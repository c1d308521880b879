"""Training an AFD-Module: the classifier is frozen, the clean picture is the only teacher."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn.functional import kl_div, mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler

from afd_mobile.afd_module import AfdModule
from afd_mobile.backbones import Backbone, Normalize
from afd_mobile.datasets import CompressedCrops, read_image
from afd_mobile.errors import InputError
from afd_mobile.files import write_whole

SAVE_EVERY_S = 120.0


@dataclass(frozen=True)
class Recipe:
    """How one objective is trained.

    Attributes:
        learning_rate: at its highest.
        schedule: factor on it, from the share of the training that is done.
        clean_share: share of crops left clean or compressed only lightly.
        ema: decay of the averaged weights that are kept; None keeps the last ones.
    """

    optimizer: type[torch.optim.Optimizer]
    learning_rate: float
    schedule: Callable[[float], float]
    clean_share: float
    ema: float | None


def _warm_up_and_cosine(done: float) -> float:
    return min(1.0, done / 0.03) * 0.5 * (1 + math.cos(math.pi * done))


RECIPES = {
    # The paper's: Adam, 1e-4, 2e-5 after half; every crop compressed; features alone.
    "feature-mse": Recipe(
        torch.optim.Adam, 1e-4, lambda done: 1.0 if done < 0.5 else 0.2, clean_share=0.0, ema=None
    ),
    "distill": Recipe(torch.optim.AdamW, 1e-3, _warm_up_and_cosine, clean_share=0.2, ema=0.999),
}


@dataclass(frozen=True)
class Settings:
    """What a run is; a state is resumed only with the same."""

    objective: str
    iterations: int
    batch: int
    crop: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Progress:
    """Attributes: iterations done, the last one's loss, and its running mean."""

    iteration: int
    loss: float
    smooth_loss: float


def train(
    module: AfdModule,
    backbone: Backbone,
    images: list[Path],
    settings: Settings,
    state_path: Path,
    *,
    resume: bool,
) -> Iterator[Progress]:
    """Trains `module` in place, yielding after every iteration; at the end it holds the result.

    The state is saved every two minutes, and `resume` continues from it with the very crops,
    optimiser and averages it would have had.

    Raises:
        InputError: an unreadable picture, a state of other settings, or a loss that is not finite.
    """
    recipe = RECIPES[settings.objective]
    batch, iterations = settings.batch, settings.iterations
    for path in images:
        read_image(path)
    module.train()
    optimizer = recipe.optimizer(module.parameters(), lr=recipe.learning_rate)  # type: ignore[call-arg]
    ema = get_ema_multi_avg_fn(recipe.ema or 0.0)  # type: ignore[no-untyped-call]
    average = AveragedModel(module, multi_avg_fn=ema)
    start = 0
    identity = {
        **settings.as_dict(),
        "config": json.dumps(dataclasses.asdict(module.config)),
        "backbone": backbone.name,
        "tap": backbone.tap,
        "pictures": hashlib.sha256("\n".join(p.name for p in images).encode()).hexdigest(),
    }
    if resume:
        start = _load_state(state_path, identity, module, optimizer, average)
    loss_of = _OBJECTIVES[settings.objective](module, backbone, settings.crop)
    crops = CompressedCrops(
        images, settings.crop, clean_share=recipe.clean_share, seed=settings.seed
    )
    loader = DataLoader(
        crops,
        batch_size=batch,
        sampler=_Range(start * batch, iterations * batch),
        num_workers=1,
        collate_fn=_collate,
    )
    saved, smooth = time.monotonic(), 0.0
    for iteration, (clean, compressed) in enumerate(loader, start=start + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.schedule(iteration / iterations)
        loss = loss_of(clean, compressed)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average.update_parameters(module)
        if not math.isfinite(loss.item()):
            raise InputError(f"the loss became {loss.item()} at iteration {iteration}")
        if time.monotonic() - saved > SAVE_EVERY_S or iteration == iterations:
            _save_state(state_path, identity, iteration, module, optimizer, average)
            saved = time.monotonic()
        smooth = loss.item() if iteration == start + 1 else 0.98 * smooth + 0.02 * loss.item()
        yield Progress(iteration, loss.item(), smooth)
    if recipe.ema is not None:
        module.load_state_dict(average.module.state_dict())
    module.eval()


# --- objectives ---------------------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor], Tensor]


def _feature_mse(module: AfdModule, backbone: Backbone, crop: int) -> Loss:
    """Corrected against clean features at the tap (the paper's loss)."""
    normalize = Normalize(backbone.mean, backbone.std)

    def loss(clean: Tensor, compressed: Tensor) -> Tensor:
        with torch.no_grad():
            target = backbone.head(normalize(clean))
            features = backbone.head(normalize(compressed))
        return mse_loss(module(features, compressed), target)

    return loss


def _distill(module: AfdModule, backbone: Backbone, crop: int) -> Loss:
    """Features at the tap and deeper, each normalised per channel, and the logits."""
    normalize = Normalize(backbone.mean, backbone.std)
    head = backbone.head.to(memory_format=torch.channels_last)
    with torch.no_grad():
        probe = head(torch.zeros(1, 3, crop, crop))
    tail = with_deeper_features(backbone.tail, probe).to(memory_format=torch.channels_last)
    module.to(memory_format=torch.channels_last)

    def loss(clean: Tensor, compressed: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                target = head(normalize(clean))
                target_logits, *target_deeper = tail(target)
                features = head(normalize(compressed))
            corrected = module(features, compressed)
            logits, *deeper = tail(corrected)
        tap_loss = _normalized_mse(corrected, target)
        deep_loss = torch.stack(
            [_normalized_mse(x, t) for x, t in zip(deeper, target_deeper, strict=True)]
        ).mean()
        logit_loss = kl_div(
            logits.float().log_softmax(1),
            target_logits.float().log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        return logit_loss + deep_loss + 0.2 * tap_loss

    return loss


_OBJECTIVES: dict[str, Callable[[AfdModule, Backbone, int], Loss]] = {
    "feature-mse": _feature_mse,
    "distill": _distill,
}


def _normalized_mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean over channels of the squared error relative to the target channel's variance."""
    x, target = x.float(), target.float()
    error = (x - target).square().mean(dim=(0, 2, 3))
    variance = target.var(dim=(0, 2, 3), unbiased=False)
    return (error / (variance + 1e-3 * variance.mean())).mean()


def with_deeper_features(tail: fx.GraphModule, features: Tensor) -> fx.GraphModule:
    """The tail returning (logits, *the last feature map at each lower resolution)."""
    shapes: dict[fx.Node, torch.Size] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor) and result.ndim == 4 and result.shape[-1] > 1:
                shapes[n] = result.shape
            return result

    with torch.no_grad():
        Recorder(tail).run(features)
    last_of_size = {shape[-1]: node for node, shape in shapes.items()}
    deeper = [n for size, n in last_of_size.items() if size <= features.shape[-1] // 2]
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    logits = graph.graph_copy(tail.graph, copies)
    graph.output((logits, *(copies[n] for n in deeper)))
    return fx.GraphModule(tail, graph)


# --- crops and state ----------------------------------------------------------------------------


class _Range(Sampler[int]):
    """The indices start to stop - 1, in order."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


def _collate(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[Tensor, Tensor]:
    clean, compressed = (
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        for images in zip(*pairs, strict=True)
    )
    return clean, compressed


def _save_state(
    path: Path,
    identity: dict[str, Any],
    iteration: int,
    module: AfdModule,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel,
) -> None:
    buffer = io.BytesIO()
    state = {
        "identity": identity,
        "iteration": iteration,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict(),
    }
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def _load_state(
    path: Path,
    identity: dict[str, Any],
    module: AfdModule,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel,
) -> int:
    """The iteration that the state was saved after."""
    if not path.is_file():
        raise InputError(f"nothing to resume: no {path}; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
        saved, iteration = state["identity"], int(state["iteration"])
    except Exception as error:  # a broken file raises whatever the reader stumbles over
        raise InputError(f"{path} cannot be read; delete it and start without --resume") from error
    other = [k for k in identity if saved.get(k) != identity[k]]
    if other:
        raise InputError(
            f"{path} is of another run: "
            + "; ".join(f"{k} {saved.get(k)}, now {identity[k]}" for k in other)
        )
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    return iteration
