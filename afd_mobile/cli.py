"""afd-train: the command line of the model's own side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from afd_mobile.command import Parser, positive, run_command
from afd_mobile.errors import UsageError


def train_main() -> None:
    """Entry point of the console script."""
    run_command(_train, _train_parser())


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd-train", "Train an AFD-Module for a frozen classifier: pictures, no labels."
    )
    add = parser.add_argument
    add(
        "--backbone",
        required=True,
        metavar="NAME",
        help="torchvision or timm classifier, or package.module:factory",
    )
    add(
        "--tap", metavar="NODE", help="node whose output is corrected (default: the backbone's own)"
    )
    add(
        "--backbone-weights",
        default="auto",
        metavar="auto|random|PATH",
        help="(default: %(default)s)",
    )
    add(
        "--preset",
        default="mobile",
        choices=["mobile", "paper"],
        help="architecture (default: %(default)s)",
    )
    add(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="training pictures, searched recursively",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write, .safetensors")
    add(
        "--objective",
        default="distill",
        choices=["feature-mse", "distill"],
        help="the paper's loss, or deeper features and logits as well (default: %(default)s)",
    )
    add("--iterations", type=positive, default=3000, metavar="N", help="(default: %(default)s)")
    add(
        "--batch",
        type=positive,
        default=32,
        metavar="N",
        help="crops an iteration (default: %(default)s)",
    )
    add(
        "--crop",
        type=positive,
        default=160,
        metavar="N",
        help="crop size in pixels; 8 divides it (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of crops and initial weights (default: %(default)s)")
    add("--resume", action="store_true", help="continue from the state beside --out")
    return parser


def _train(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors")
    if arguments.crop % 8:
        raise UsageError(f"--crop {arguments.crop} is not a multiple of 8")

    import torch
    from tqdm import tqdm

    from afd_mobile import training
    from afd_mobile.afd_module import AfdConfig, AfdModule
    from afd_mobile.backbones import load_backbone
    from afd_mobile.checkpoint import Checkpoint, save_checkpoint
    from afd_mobile.datasets import list_images

    images = list_images(arguments.images)
    backbone = load_backbone(
        arguments.backbone,
        tap=arguments.tap,
        weights=arguments.backbone_weights,
        seed=arguments.seed,
    )
    if not backbone.trained:
        print(
            "note: the classifier has random weights: there is nothing to learn from it",
            file=sys.stderr,
        )
    config = AfdConfig.preset(
        arguments.preset,
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
    )
    torch.manual_seed(arguments.seed)
    module = AfdModule(config)
    module.reset_to_identity()
    settings = training.Settings(
        arguments.objective, arguments.iterations, arguments.batch, arguments.crop, arguments.seed
    )
    state = out.with_suffix(".state")
    steps = training.train(module, backbone, images, settings, state, resume=arguments.resume)
    with tqdm(total=arguments.iterations, unit="it", mininterval=1.0) as bar:
        for progress in steps:
            bar.update(progress.iteration - bar.n)
            bar.set_postfix(loss=f"{progress.smooth_loss:.4f}")
    record = {"pictures": len(images), **settings.as_dict()}
    save_checkpoint(out, Checkpoint(module, backbone.name, backbone.tap, record))
    state.unlink(missing_ok=True)
    print(f"{out}  (trained for {backbone.name} at {backbone.tap}, {len(images)} pictures)")
