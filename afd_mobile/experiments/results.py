"""What is measured of every variant, and the file of it: one JSON line each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from afd_mobile.classifiers.backbones import classifier, load_backbone
from afd_mobile.classifiers.names import BackboneName
from afd_mobile.common.errors import InputError, reason_of
from afd_mobile.common.files import write_whole
from afd_mobile.experiments.tables import TABLES
from afd_mobile.experiments.variant import Setup, Variant
from afd_mobile.pictures.datasets import spread_crops
from afd_mobile.pictures.picture_files import evenly, split
from afd_mobile.training.recipe import CPU, Settings
from afd_mobile.training.validation import MAX_PICTURES, Logits, Validation

RESULTS = "results.jsonl"

Row = dict[str, Any]

# --- cost -----------------------------------------------------------------------------------------

# What a converter merges with the operation before it, and constants.
_FREE = {
    *("empty", "new_zeros", "as_strided_"),
    *("relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clone", "_to_copy"),
    *("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
}
# Views for PyTorch, operations for everybody else.
_COPIED = {"slice", "split", "split_with_sizes", "unbind", "select", "transpose", "permute"}


class _OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        free = name in _FREE or (func.is_view and name not in _COPIED)
        self.operations += not free
        return func(*args, **(kwargs or {}))


def cost_of(logits: Logits, size: int) -> tuple[int, int]:
    """Multiply-adds and operations for one picture of `size` pixels.

    Operations are those of the PyTorch graph; activations, normalisations and reshapes are free.
    """
    counter = _OperationCounter()  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as flops, counter:
        logits(np.zeros((1, size, size, 3), np.uint8))
    return flops.get_total_flops() // 2, counter.operations


# --- a run ----------------------------------------------------------------------------------------


class Run:
    """What all variants of a run share: a classifier, pictures, how they are trained.

    They are measured on pictures as large as the crops, because corrections fit the size that they
    learn at.

    Args:
        name: the classifier's.
        images: all pictures; the reserved ones are held out.
        workers: processes that read and compress crops.
    """

    def __init__(
        self,
        name: BackboneName,
        images: list[Path],
        settings: Settings,
        *,
        workers: int = 1,
    ) -> None:
        self.name, self.settings, self.workers = name, settings, workers
        self.backbone = load_backbone(name, input_size=settings.crop)
        self.training, self.held_out = split(images)
        if not self.held_out:
            raise InputError(f"{len(images)} pictures are too few: none of them is held out")

    def description(self) -> dict[str, Any]:
        """What results must have in common to be compared."""
        settings = self.settings
        return {
            "backbone": self.backbone.name,
            "tap": self.backbone.tap,
            "steps": settings.iterations,
            "batch": settings.batch,
            "crop": settings.crop,
            "seed": settings.seed,
            "pictures": len(self.training),
            "held_out": len(self.held_out),
        }

    def variants(self, table: str) -> list[Variant]:
        """Those of a table, for which there are enough pictures."""
        variants = TABLES[table].variants(self.backbone)
        return [v for v in variants if v.pictures is None or v.pictures < len(self.training)]

    def measured(self, variant: Variant, stepped: Callable[[], object]) -> Row:
        """Trains it and says how good it is; where that diverged, figures are None.

        Args:
            stepped: called after every step.
        """
        backbone, pictures, seen = self.backbone, self.training, self._seen
        if variant.tap is not None:
            backbone = load_backbone(self.name, tap=variant.tap, input_size=self.settings.crop)
        if variant.pictures is not None:
            pictures = evenly(pictures, variant.pictures)
            seen = self._validation(pictures)
        torch.manual_seed(self.settings.seed)
        logits = variant.make(Setup(backbone, pictures, self.settings, self.workers, stepped))
        multiply_adds, operations = (
            own - plain
            for own, plain in zip(
                cost_of(logits, backbone.input_size),
                cost_of(classifier(backbone, None, CPU), backbone.input_size),
                strict=True,
            )
        )
        held_out, of_seen = self._held_out.of(logits), seen.of(logits)
        sound = all(map(math.isfinite, (*held_out.kl.values(), *of_seen.kl.values())))
        return {
            "variant": variant.name,
            "multiply_adds": multiply_adds,
            "operations": operations,
            "kl_removed": self._held_out.kl_removed(held_out) if sound else None,
            "training_kl_removed": seen.kl_removed(of_seen) if sound else None,
            "clean_kl": held_out.kl["clean"] if sound else None,
            "recovered_share": self._held_out.recovered_share(held_out) if sound else None,
        }

    @cached_property
    def _held_out(self) -> Validation:
        return self._validation(self.held_out)

    @cached_property
    def _seen(self) -> Validation:
        """As many as are held out, or nearly."""
        return self._validation(self.training)

    def _validation(self, pictures: list[Path]) -> Validation:
        crops, unreadable = spread_crops(pictures, MAX_PICTURES, self.backbone.input_size)
        if not crops:
            raise InputError(f"none of {len(pictures)} pictures can be read: {unreadable[0]}")
        return Validation(self.backbone, crops, CPU)


# --- the file -------------------------------------------------------------------------------------


def read_rows(folder: Path) -> list[Row]:
    """What has been measured so far, in that order; nothing where there is no file.

    Raises:
        InputError: it cannot be read, or a line is none of these.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows:
            if not {"table", "variant", "settings", "kl_removed"} <= row.keys():
                raise ValueError("a line without its variant")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {reason_of(error)}; give another --out"
        ) from error
    return rows


def write_rows(folder: Path, rows: list[Row]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(folder / RESULTS, text.encode())
