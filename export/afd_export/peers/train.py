"""Trains a peer of the paper's Table V to restore degraded pictures, by MSE.

python -m afd_export.peers.train NAME --images DIR --out FILE.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from afd_export.peers import restored
from afd_mobile.common.command import Parser, deferred_interruption, positive, run_command, seed
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import write_whole
from afd_mobile.common.terminal import printable
from afd_mobile.pictures.datasets import DrawnPictures, nchw, spread_crops
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import list_images, split
from afd_mobile.training.command import (
    DEFAULT_WORKERS,
    add_device,
    add_existing,
    resumable,
    saved,
    shown,
    state_beside,
)
from afd_mobile.training.crops import crop_batches
from afd_mobile.training.distributed import device_of
from afd_mobile.training.loop import SAVE_EVERY_S
from afd_mobile.training.recipe import RECIPES
from afd_mobile.training.recipe import Settings as CropSettings

PEERS = {"arcnn": restored.arcnn, "dncnn": restored.dncnn}
CROP = 160  # as `afd-train` draws them; a patch is cut out once it is degraded
PATCH = 64
LEARNING_RATE = 5e-4  # Adam's at its highest, on the module's own schedule
HELD_OUT = 16  # pictures at most, each at five qualities
SIZE = 224


@dataclass(frozen=True)
class Settings:
    """What a run is; a state is resumed only with the same."""

    peer: str
    iterations: int
    batch: int
    seed: int
    pictures: int


@dataclass(frozen=True)
class Progress:
    """After one iteration: its loss, and what is to be said of pictures that cannot be read."""

    iteration: int
    loss: float
    said: list[str]


# --- training -----------------------------------------------------------------------------------


def train(
    network: nn.Module,
    images: list[Path],
    settings: Settings,
    state: Path,
    *,
    resume: bool,
    device: torch.device,
    workers: int,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Trains `network` in place, yielding after every iteration.

    The state is saved every two minutes and when it is asked to stop; `resume` continues from it
    with the very patches and optimiser that it would have had.

    Raises:
        InputError: more than a tenth of the pictures cannot be read, a state of other settings, or
            a loss that is not finite.
    """
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters())
    start = _load(state, settings, network, optimizer) if resume else 0
    pictures, schedule = DrawnPictures(len(images)), RECIPES["distill"].schedule
    drawn = CropSettings("distill", settings.iterations, settings.batch, CROP, settings.seed)
    batches = crop_batches(images, drawn, start=start, workers=workers, device=device)
    last_saved = time.monotonic()
    for iteration, (*crops, draws) in enumerate(batches, start=start + 1):
        said = pictures.note(draws)
        if refusal := pictures.refusal():
            raise InputError(refusal)
        rng = np.random.default_rng((settings.seed, iteration))
        top, left = rng.integers(CROP - PATCH, size=2, endpoint=True)
        patch = np.s_[:, top : top + PATCH, left : left + PATCH]
        clean, compressed = (_batch(crop[patch], device) for crop in crops)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * schedule(iteration / settings.iterations)
        loss = mse_loss(network(compressed), clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise InputError(f"the loss became {loss.item()} at iteration {iteration}")
        stopping = stop() and iteration < settings.iterations
        if stopping or time.monotonic() - last_saved > SAVE_EVERY_S:
            _save(state, settings, iteration, network, optimizer)
            last_saved = time.monotonic()
        yield Progress(iteration, loss.item(), said)
        if stopping:
            return
    network.eval()


def _batch(pictures: Tensor, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W), 0 to 1."""
    return nchw(pictures.to(device)) / 255


def _save(
    path: Path,
    settings: Settings,
    iteration: int,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    buffer = io.BytesIO()
    content = {
        "settings": dataclasses.asdict(settings),
        "iteration": iteration,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def _load(
    path: Path, settings: Settings, network: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """The iteration that the state was saved after."""
    if not path.is_file():
        raise InputError(f"nothing to resume: no {path}; start without --resume")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        found = dict(state["settings"])
        if found == dataclasses.asdict(settings):
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            return int(state["iteration"])
    except Exception as error:  # a broken file raises whatever the reader stumbles over
        raise InputError(f"{path} cannot be read; delete it and start without --resume") from error
    raise InputError(f"{path} is of another run: {found}, now {dataclasses.asdict(settings)}")


@torch.no_grad()
def held_out_psnr(
    network: nn.Module, held_out: list[Path], device: torch.device
) -> tuple[float, float] | None:
    """Mean PSNR of held-out pictures in dB, degraded and restored; None where there are none."""
    crops, _ = spread_crops(held_out, HELD_OUT, SIZE)
    degraded, mended = [], []
    for crop in crops:
        of_all = np.stack([jpeg(crop, quality) for quality in (None, *QUALITIES)])
        clean, *pictures = _batch(torch.from_numpy(of_all), device)[:, None]
        for picture in pictures:
            degraded.append(_psnr(picture, clean))
            mended.append(_psnr(network(picture).clamp(0, 1), clean))
    return (mean(degraded), mean(mended)) if crops else None


def _psnr(picture: Tensor, clean: Tensor) -> float:
    """Of 0-to-1 pictures; at most 100 dB."""
    return -10 * math.log10(max(mse_loss(picture, clean).item(), 1e-10))


# --- the command --------------------------------------------------------------------------------


def main() -> None:
    run_command(_train, _parser())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd_export.peers.train",
        "Train a network of the paper's Table V to restore pictures, and write it together with\n"
        "the classifier behind it, as weights for --backbone afd_export.peers.restored:NAME.\n"
        "It sees the degraded crops of afd-train, and the same pictures are held out.",
    )
    add = parser.add_argument
    add("peer", choices=sorted(PEERS), metavar="NAME", help=f"of: {' '.join(sorted(PEERS))}")
    add("--images", type=Path, required=True, metavar="DIR", help="searched recursively")
    add("--out", type=Path, required=True, metavar="FILE", help="weights to write, .safetensors")
    add("--iterations", type=positive, default=2000, metavar="N", help="(default: %(default)s)")
    add(
        "--batch",
        type=positive,
        default=32,
        metavar="N",
        help=f"patches of {PATCH} pixels an iteration (default: %(default)s)",
    )
    add("--seed", type=seed, default=0, metavar="N", help="of the patches (default: %(default)s)")
    add_device(parser)
    add_existing(parser, "existing weights")
    return parser


def _train(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    state = state_beside(out, resume=arguments.resume, force=arguments.force)
    images, held_out = split(list_images(arguments.images))
    settings = Settings(
        arguments.peer, arguments.iterations, arguments.batch, arguments.seed, len(images)
    )
    device = device_of(arguments.device)
    network = PEERS[settings.peer]()
    with resumable(state), deferred_interruption() as interrupted:
        steps = train(
            network.restore,
            images,
            settings,
            state,
            resume=arguments.resume,
            device=device,
            workers=DEFAULT_WORKERS,
            stop=interrupted,
        )
        progress = shown(steps, settings.iterations, lambda p: {"loss": f"{p.loss:.5f}"})
    if progress.iteration < settings.iterations:
        raise saved(progress.iteration, state)
    write_whole(out, save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}))
    state.unlink(missing_ok=True)
    print(printable(f"{out}  ({settings.peer} before {restored.CLASSIFIER})"))
    if psnr := held_out_psnr(network.restore, held_out, device):
        qualities = " ".join(map(str, QUALITIES))
        degraded, mended = (f"{value:.2f} dB" for value in psnr)
        print(f"held out, mean of QF {qualities}: PSNR degraded {degraded} -> restored {mended}")


if __name__ == "__main__":
    main()
