"""Training an AFD-Module: the classifier is frozen, the clean picture is the only teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch

from afd_mobile.checkpoints.learning_curve import Point
from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.corrections import AnyModule, InsideModule
from afd_mobile.pictures.datasets import DrawnPictures, nchw, spread_crops
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import split
from afd_mobile.training.crops import crop_batches
from afd_mobile.training.distributed import gather, rank, world
from afd_mobile.training.objectives import objective_of
from afd_mobile.training.recipe import CPU, RECIPES, Learner, Settings
from afd_mobile.training.state import Progress, TrainingState, identity_of
from afd_mobile.training.validation import MAX_PICTURES, Validation

SAVE_EVERY_S = 120.0
VALIDATIONS = 10


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
    identity = identity_of(settings, module, backbone, images)
    run = TrainingState(state_path, identity, learner, DrawnPictures(len(training_images)))
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
