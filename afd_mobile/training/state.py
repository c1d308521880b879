"""What a training says and saves as it goes, and resumes from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afd_mobile.checkpoints.learning_curve import Point, checked
from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import write_whole
from afd_mobile.network.corrections import AnyModule
from afd_mobile.pictures.datasets import DrawnPictures
from afd_mobile.training.distributed import rank
from afd_mobile.training.recipe import Learner, Settings
from afd_mobile.training.validation import Validation


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


def identity_of(
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
class TrainingState:
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
