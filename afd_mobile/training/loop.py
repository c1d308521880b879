"""Training an AFD-Module: the classifier is frozen, the clean picture is the only teacher."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.optim import Muon
from timm.optim import muon as timm_muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from afd_mobile.checkpoints.learning_curve import Point, checked
from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.files import write_whole
from afd_mobile.network.corrections import AnyModule, InsideModule
from afd_mobile.pictures.augment import FIELD, PAPER, Augmentation
from afd_mobile.pictures.datasets import (
    CompressedCrops,
    DrawnPictures,
    TrainingCrop,
    batches_of,
    nchw,
    spread_crops,
)
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import split
from afd_mobile.training.distributed import average_gradients, gather, rank, world
from afd_mobile.training.frozen_classifier import fast_type
from afd_mobile.training.objectives import objective_of
from afd_mobile.training.validation import MAX_PICTURES, Validation

SAVE_EVERY_S = 120.0
VALIDATIONS = 10
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


@dataclass(frozen=True)
class Progress:
    """Attributes:
    iteration, loss, smooth_loss: how many are done, the last one's loss, its running mean.
    curve: the learning curve, whose points `learning_curve` describes.
    unreadable: how many pictures are known to be so, held-out ones included.
    said: what is to be said of those that turned out to be so in this iteration, on any rank.
    validation: the held-out pictures; None where there are none, or none has been read yet.
    saved: the training was asked to stop, and can be resumed from here.
    """

    iteration: int
    loss: float
    smooth_loss: float
    curve: list[Point]
    unreadable: int
    said: list[str]
    validation: Validation | None = dataclasses.field(compare=False)  # no figure of the run
    saved: bool


def train(
    module: AnyModule,
    backbone: Backbone,
    images: list[Path],
    settings: Settings,
    state_path: Path,
    *,
    resume: bool,
    device: torch.device = CPU,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Trains `module` in place, yielding after every iteration; at the end it holds the result.

    The state is saved every two minutes and when it is asked to stop, and `resume` continues from
    it with the very crops, optimiser and averages it would have had. Under `torchrun` the ranks
    share every batch. For a picture that cannot be read another one is drawn.

    Args:
        workers: processes that read and compress crops, for this rank.
        stop: asked after every iteration.

    Raises:
        InputError: more than a tenth of the pictures cannot be read, a state of other settings, or
            a loss that is not finite.
        UsageError: a batch that the ranks cannot share.
    """
    recipe, iterations = RECIPES[settings.objective], settings.iterations
    if settings.batch % world():
        raise UsageError(
            f"--batch {settings.batch} cannot be shared by {world()} processes; "
            f"use a multiple of {world()}"
        )
    learner = Learner(module, recipe, device)
    training_images, held_out = split(images)
    identity = _identity(settings, module, backbone, images)
    run = _Run(state_path, identity, learner, DrawnPictures(len(training_images)))
    start = run.load(module) if resume else 0
    objective = objective_of(settings.objective, module, backbone, settings.crop, device)
    validation: Validation | None = None
    seen: Validation | None = None
    if start == iterations:  # stopped between its last state and its result
        yield run.progress(start, run.smooth_loss, [], None, saved=False)
    batches = crop_batches(training_images, settings, start=start, workers=workers, device=device)
    saved = time.monotonic()
    for iteration, (*crops, draws) in enumerate(batches, start=start + 1):
        loss = learner.step(objective, crops, iteration / iterations)
        # One exchange, so that all ranks know the same pictures and end at the same iteration.
        losses, stops, all_draws = zip(*gather((loss, stop(), draws)), strict=True)
        value, stopping = sum(losses) / len(losses), any(stops)
        said = run.pictures.note(chain.from_iterable(all_draws))
        refusal = run.pictures.refusal()
        if refusal:
            raise InputError(refusal)
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} at iteration {iteration}")
        before = value if math.isnan(run.smooth_loss) else run.smooth_loss
        run.smooth_loss = 0.98 * before + 0.02 * value
        if rank() == 0 and iteration % max(1, iterations // VALIDATIONS) == 0:
            if held_out:  # not sooner: reading its pictures would delay the start
                validation, broken = held_out_validation(backbone, held_out, device)
                said += broken[run.unreadable_held_out :]  # a resumed run has said them
                run.unreadable_held_out, held_out = len(broken), []
                if validation is not None:
                    seen = _training_validation(training_images, validation)
            if validation is not None and seen is not None:
                averaged = cast(AnyModule, learner.average.module)
                crops_seen = iteration * settings.batch
                run.curve.append(
                    _curve_point(crops_seen, run.smooth_loss, validation, seen, averaged)
                )
        if stopping or time.monotonic() - saved > SAVE_EVERY_S or iteration == iterations:
            run.save(iteration, module)
            saved = time.monotonic()
        yield run.progress(iteration, value, said, validation, saved=stopping)
        if stopping:
            return
    learner.finish()
    if isinstance(module, InsideModule):
        sharpen_gate(module, training_images, backbone.input_size)


def held_out_validation(
    backbone: Backbone, held_out: list[Path], device: torch.device
) -> tuple[Validation | None, list[str]]:
    """Of at most MAX_PICTURES of them, None where none can be read; and what was said of those."""
    crops, unreadable = spread_crops(held_out, MAX_PICTURES, backbone.input_size)
    return (Validation(backbone, crops, device) if crops else None), unreadable


def _training_validation(images: list[Path], held_out: Validation) -> Validation | None:
    """Of as many pictures that are trained on. What cannot be read is said when it is drawn."""
    backbone = held_out.backbone
    crops, _ = spread_crops(images, len(held_out.reference), backbone.input_size)
    return Validation(backbone, crops, held_out.device) if crops else None


def sharpen_gate(module: InsideModule, images: list[Path], size: int) -> None:
    """Sharpens the gate between clean pictures and those of QF 25.

    Args:
        images: at most MAX_PICTURES of them are used, evenly spread; centre crops of `size`.
    """
    crops, _ = spread_crops(images, MAX_PICTURES, size)
    device = next(module.parameters()).device
    clean, compressed = (
        nchw(torch.from_numpy(np.stack([jpeg(crop, quality) for crop in crops]))).to(device)
        for quality in (None, max(QUALITIES))
    )
    with torch.no_grad():
        module.sharpen_gate(*(module.gate_logits(x).flatten() for x in (clean, compressed)))


def _curve_point(
    crops: int, loss: float, held_out: Validation, seen: Validation, module: AnyModule
) -> Point:
    module.eval()
    corrected, of_seen = held_out.corrected(module), seen.corrected(module)
    return {
        "crops": crops,
        "loss": round(loss, 4),
        "agreement": corrected.agreement,
        "direct_agreement": held_out.direct.agreement,
        "recovered_share": held_out.recovered_share(corrected),
        "kl_removed": held_out.kl_removed(corrected),
        "clean_kl": corrected.kl["clean"],
        "training_kl_removed": seen.kl_removed(of_seen),
        "training_clean_kl": of_seen.kl["clean"],
    }


# --- crops --------------------------------------------------------------------------------------


def crop_batches(
    images: list[Path],
    settings: Settings,
    *,
    start: int = 0,
    workers: int = 1,
    device: torch.device = CPU,
) -> Iterator[Any]:
    """This rank's part of every batch from the `start`-th on: what `_collate` makes of crops."""
    share = settings.batch // world()
    augmentation = RECIPES[settings.objective].augmentation
    loader = DataLoader(
        CompressedCrops(images, settings.crop, augmentation, seed=settings.seed),
        batch_sampler=_Batches(start, settings.iterations, settings.batch, rank() * share, share),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    return batches_of(loader)


class _Batches:
    """This rank's part of every batch: indices that no number of ranks changes."""

    def __init__(self, start: int, stop: int, batch: int, offset: int, share: int) -> None:
        self.start, self.stop, self.batch = start, stop, batch
        self.offset, self.share = offset, share

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.start, self.stop):
            first = iteration * self.batch + self.offset
            yield list(range(first, first + self.share))


def _collate(
    crops: list[TrainingCrop],
) -> tuple[Tensor, Tensor, list[tuple[tuple[int, ...], dict[int, str]]]]:
    return (
        torch.from_numpy(np.stack([crop.clean for crop in crops])),
        torch.from_numpy(np.stack([crop.compressed for crop in crops])),
        [(crop.pictures, crop.unreadable) for crop in crops],
    )


# --- state --------------------------------------------------------------------------------------


def _identity(
    settings: Settings, module: AnyModule, backbone: Backbone, images: list[Path]
) -> dict[str, Any]:
    return {
        **settings.as_dict(),
        "config": json.dumps(dataclasses.asdict(module.config)),
        "backbone": backbone.name,
        "tap": backbone.tap,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "input size": backbone.input_size,
        "weights_sha256": backbone.weights_sha256(),
        "pictures_sha256": _pictures_sha256(images),
    }


# What is said where two of these differ; of everything else, the two values.
_OTHER = {
    "init_sha256": "--init is another file",
    "weights_sha256": "the classifier has other weights (--backbone-weights)",
    "pictures_sha256": "--images holds other pictures",
}
_END_BYTES = 32 * 1024
_LOOKED_INTO = 1000  # files


def _pictures_sha256(images: list[Path]) -> str:
    """Over the pictures' paths below their common folder, and sizes; of 1,000 also both ends.

    Reading more would delay the start on a folder of 100,000 photographs by minutes, and another
    picture or quality of JPEG, WebP or AVIF has another size, or another beginning; the end of a
    PNG holds sums over all of it. What goes unseen: a few bytes changed in the middle of a large
    file, as in a BMP, and in a large folder a picture of the very same name and size. Of
    what cannot be opened there is nothing to see; its reading will tell.
    """
    root = os.path.commonpath([path.parent for path in images])
    digest = hashlib.sha256()
    step = -(-len(images) // _LOOKED_INTO)
    for number, path in enumerate(images):
        name = os.fsencode(path.relative_to(root))
        size, ends = 0, b""
        with suppress(OSError):
            size = path.stat().st_size
            if number % step == 0:
                ends = _ends(path, size)
        digest.update(b"%d %b %d %b" % (len(name), name, size, ends))
    return digest.hexdigest()


def _ends(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        first = file.read(_END_BYTES)
        file.seek(max(_END_BYTES, size - _END_BYTES))
        return first + file.read(_END_BYTES)


@dataclass
class _Run:
    """What is saved between sessions, and only resumed by the same run."""

    path: Path
    identity: dict[str, Any]
    learner: Learner
    pictures: DrawnPictures
    curve: list[Point] = dataclasses.field(default_factory=list)
    smooth_loss: float = math.nan
    unreadable_held_out: int = 0

    def progress(
        self,
        iteration: int,
        loss: float,
        said: list[str],
        validation: Validation | None,
        *,
        saved: bool,
    ) -> Progress:
        unreadable = len(self.pictures.unreadable) + self.unreadable_held_out
        return Progress(
            iteration, loss, self.smooth_loss, self.curve, unreadable, said, validation, saved
        )

    def save(self, iteration: int, module: AnyModule) -> None:
        if rank() != 0:
            return
        buffer = io.BytesIO()
        state = {
            "identity": self.identity,
            "iteration": iteration,
            "module": module.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "average": self.learner.average.state_dict(),
            "curve": self.curve,
            "smooth_loss": self.smooth_loss,
            "drawn": torch.tensor(sorted(self.pictures.drawn)),
            "unreadable": torch.tensor(sorted(self.pictures.unreadable), dtype=torch.int64),
            "unreadable_held_out": self.unreadable_held_out,
        }
        torch.save(state, buffer)
        write_whole(self.path, buffer.getvalue())

    def load(self, module: AnyModule) -> int:
        """The iteration that the state was saved after."""
        path = self.path
        if not path.is_file():
            raise InputError(f"nothing to resume: no {path}; start without --resume")
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            saved = dict(state["identity"])
        except Exception as error:  # a broken file raises whatever the reader stumbles over
            raise InputError(
                f"{path} cannot be read; delete it and start without --resume"
            ) from error
        other = [k for k in self.identity if saved.get(k) != self.identity[k]]
        if other:
            raise InputError(
                f"{path} is of another run: "
                + "; ".join(
                    _OTHER.get(k, f"{k} {saved.get(k)}, now {self.identity[k]}") for k in other
                )
                + "; give what it was started with, or start anew without --resume"
            )
        try:
            return self._take(state, module)
        except Exception as error:  # a state of this identity, but edited or of another version
            raise InputError(
                f"{path} is broken or of another version; delete it and start without --resume"
            ) from error

    def _take(self, state: dict[str, Any], module: AnyModule) -> int:
        iteration, smooth_loss = int(state["iteration"]), float(state["smooth_loss"])
        if not 1 <= iteration <= self.identity["iterations"] or not math.isfinite(smooth_loss):
            raise ValueError("no state is saved there")
        module.load_state_dict(state["module"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.average.load_state_dict(state["average"])
        self.curve, self.smooth_loss = checked(state["curve"]), smooth_loss
        self.pictures.drawn = set(state["drawn"].tolist())
        self.pictures.unreadable = set(state["unreadable"].tolist())
        self.unreadable_held_out = int(state["unreadable_held_out"])
        return iteration
