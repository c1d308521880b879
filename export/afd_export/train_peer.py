"""Trains a peer of the paper's Table V to restore degraded pictures, by MSE.

python -m afd_export.train_peer NAME --images DIR --out FILE.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import os
import sys
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
from torch.utils.data import DataLoader
from tqdm import tqdm

from afd_export import restored
from afd_mobile.augment import FIELD
from afd_mobile.command import Parser, deferred_interruption, positive, run_command, seed
from afd_mobile.datasets import CompressedCrops, DrawnPictures, batches_of, nchw, spread_crops
from afd_mobile.degrade import QUALITIES, RGB, jpeg
from afd_mobile.distributed import device_of
from afd_mobile.errors import InputError, OutputError, UsageError
from afd_mobile.files import check_writable, write_whole
from afd_mobile.picture_files import list_images, split
from afd_mobile.terminal import printable
from afd_mobile.training import RECIPES, SAVE_EVERY_S

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
    loader = DataLoader(
        CompressedCrops(images, CROP, FIELD, seed=settings.seed),
        batch_size=settings.batch,
        sampler=range(start * settings.batch, settings.iterations * settings.batch),
        num_workers=workers,
        collate_fn=list,
    )
    saved = time.monotonic()
    for iteration, crops in enumerate(batches_of(loader), start=start + 1):
        said = pictures.note((crop.pictures, crop.unreadable) for crop in crops)
        if refusal := pictures.refusal():
            raise InputError(refusal)
        rng = np.random.default_rng((settings.seed, iteration))
        top, left = rng.integers(CROP - PATCH, size=2, endpoint=True)
        patch = np.s_[top : top + PATCH, left : left + PATCH]
        clean = _batch([crop.clean[patch] for crop in crops], device)
        compressed = _batch([crop.compressed[patch] for crop in crops], device)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * schedule(iteration / settings.iterations)
        loss = mse_loss(network(compressed), clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise InputError(f"the loss became {loss.item()} at iteration {iteration}")
        stopping = stop() and iteration < settings.iterations
        if stopping or time.monotonic() - saved > SAVE_EVERY_S:
            _save(state, settings, iteration, network, optimizer)
            saved = time.monotonic()
        yield Progress(iteration, loss.item(), said)
        if stopping:
            return
    network.eval()


def _batch(pictures: list[RGB], device: torch.device) -> Tensor:
    """(N, 3, H, W), 0 to 1."""
    return nchw(torch.from_numpy(np.stack(pictures)).to(device)) / 255


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
        clean = _batch([crop], device)
        for quality in QUALITIES:
            picture = _batch([jpeg(crop, quality)], device)
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
        "afd_export.train_peer",
        "Train a network of the paper's Table V to restore pictures, and write it together with\n"
        "the classifier behind it, as weights for --backbone afd_export.restored:NAME. It sees\n"
        "the degraded crops of afd-train, and the same pictures are held out.",
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
    add(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="auto takes a GPU where there is one (default: %(default)s)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="continue from the state beside --out"
    )
    existing.add_argument(
        "--force", action="store_true", help="replace existing weights, or such a state"
    )
    return parser


def _train(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors")
    state = out.with_suffix(".state")
    check_writable(out, state)
    if not (arguments.resume or arguments.force):
        for path in filter(Path.exists, (out, state)):
            raise OutputError(f"{path} exists; use --force to replace it, or another --out")
    images, held_out = split(list_images(arguments.images))
    settings = Settings(
        arguments.peer, arguments.iterations, arguments.batch, arguments.seed, len(images)
    )
    device = device_of(arguments.device)
    network = PEERS[settings.peer]()
    with deferred_interruption() as interrupted:
        steps = train(
            network.restore,
            images,
            settings,
            state,
            resume=arguments.resume,
            device=device,
            workers=max(1, (os.cpu_count() or 2) - 1),
            stop=interrupted,
        )
        progress = _shown(steps, settings.iterations)
    if progress.iteration < settings.iterations:
        raise KeyboardInterrupt(
            f"iteration {progress.iteration} is saved in {state}; continue with --resume"
        )
    write_whole(out, save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}))
    state.unlink(missing_ok=True)
    print(printable(f"{out}  ({settings.peer} before {restored.CLASSIFIER})"))
    if psnr := held_out_psnr(network.restore, held_out, device):
        qualities = " ".join(map(str, QUALITIES))
        degraded, mended = (f"{value:.2f} dB" for value in psnr)
        print(f"held out, mean of QF {qualities}: PSNR degraded {degraded} -> restored {mended}")


def _shown(steps: Iterator[Progress], iterations: int) -> Progress:
    """Runs the training to its end, under a bar, and returns the last progress."""
    often_s = 0.1 if sys.stderr.isatty() else 30.0
    with tqdm(total=iterations, unit="it", mininterval=often_s) as bar:
        for progress in steps:
            for line in progress.said:
                tqdm.write(f"note: left out: {printable(line)}", file=sys.stderr)
            bar.update(progress.iteration - bar.n)
            bar.set_postfix(loss=f"{progress.loss:.5f}", refresh=False)
    return progress


if __name__ == "__main__":
    main()
