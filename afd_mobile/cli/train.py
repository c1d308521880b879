"""afd-train."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afd_mobile.checkpoints.held_out import RULE as HELD_OUT_RULE
from afd_mobile.checkpoints.held_out import held_out_line
from afd_mobile.classifiers.options import ClassifierOptions, add_classifier, classifier_options
from afd_mobile.cli.messages import check_plot, say, write
from afd_mobile.common.artifacts import sha256
from afd_mobile.common.command import (
    Parser,
    check_interrupted,
    deferred_interruption,
    positive,
    run_command,
    seed,
)
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.files import check_writable
from afd_mobile.common.terminal import printable
from afd_mobile.network.taps import LIST, PRESETS, RULE, preset_taps
from afd_mobile.training.command import (
    add_device,
    add_existing,
    add_workers,
    check_crop,
    first_process,
    resumable,
    saved,
    shown,
    state_beside,
)

if TYPE_CHECKING:
    from afd_mobile.checkpoints.learning_curve import Point
    from afd_mobile.classifiers.backbones import Backbone
    from afd_mobile.network.corrections import AnyModule
    from afd_mobile.training.state import Progress


def main() -> None:
    """Entry point of the console script."""
    run_command(_train, _train_parser())


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd-train",
        "Train an AFD-Module for a frozen classifier: pictures, no labels.\n"
        "The eighth picture of a folder, the 16th, ... are held out. The bar shows of these how\n"
        "much of what JPEG does to the classifier's answer (its KL divergence from that on the\n"
        "clean picture) is removed, how much of the top-1 that it changes is `recovered`, both as\n"
        "mean of QF 25 to 7, and how many `clean` pictures keep theirs. A table of how they grew\n"
        "comes at the end. KL that is removed only on pictures that were trained on is learnt by\n"
        "heart: more pictures help there, more steps do not. The last line says what it came to,\n"
        f"and the checkpoint remembers it.\n\n{HELD_OUT_RULE}",
    )
    add = parser.add_argument
    add_classifier(parser, when="needed, but for --init and --show")
    add(
        "--taps",
        nargs="+",
        default=[],
        metavar=("auto|list|KIND:NODE|NODE", "KIND:NODE"),
        help="where it is corrected; list prints the nodes that can be, with their cost, and "
        "ends. mobile: auto (default), or places, each of a KIND: scale or "
        f"residual. paper: one node (default: the cut of auto). {RULE}",
    )
    add(
        "--preset",
        choices=PRESETS,
        help="mobile: corrections inside the classifier; paper: the paper's module at one tap "
        f"(default: {PRESETS[0]})",
    )
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="training pictures, searched recursively; needed, but for --taps list and --show",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="checkpoint to write, .safetensors; needed, but for --taps list and --show",
    )
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
        metavar="N",
        help="crop size in pixels; 8 divides it. Corrections fit the size that they learn at; less "
        "is cheaper, for a start that --init goes on from (default: the classifier's input size)",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of crops and initial weights (default: %(default)s)",
    )
    add(
        "--drift-input",
        choices=["dct", "pixels", "shuffled-dct", "none"],
        help="what FDE-Net sees; all but dct are the paper's ablations (default: dct)",
    )
    add(
        "--init",
        metavar="FILE",
        help="checkpoint to start from instead of no correction; it says where and how it "
        "corrects, and --backbone may be left out, or be the same layers under another name",
    )
    add_device(parser)
    add_workers(parser)
    add_existing(parser, "an existing checkpoint")
    add("--plot", type=Path, metavar="FILE", help="draw the learning curve, .png")
    add(
        "--show",
        nargs="+",
        metavar="CHECKPOINT",
        help="print what checkpoints (files, or shipped names) record of their training, and their "
        "learning curves, and end; with --plot draw these",
    )
    return parser


def _train(arguments: argparse.Namespace) -> None:
    check_plot(arguments.plot)
    needed = ["backbone", "images", "out"]
    given = [f"--{option}" for option in needed if getattr(arguments, option)]
    if arguments.show:
        if given:
            raise UsageError(f"--show trains nothing: leave out {', '.join(given)}")
        _show(arguments.show, arguments.plot)
        return
    if arguments.taps == [LIST]:
        needed = ["backbone"]
    elif arguments.init is not None:
        needed.remove("backbone")
        for option in ("taps", "preset", "drift_input"):
            if getattr(arguments, option):
                typed = option.replace("_", "-")
                raise UsageError(f"--{typed}: --init says where and how it corrects; leave it out")
    missing = [f"--{option}" for option in needed if f"--{option}" not in given]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
    if arguments.taps == [LIST]:
        from afd_mobile.classifiers.tap_list import tap_list

        print("\n".join(map(printable, tap_list(arguments.backbone, arguments.input_size))))
        return
    out: Path = arguments.out
    state = state_beside(out, resume=arguments.resume, force=arguments.force)
    if arguments.crop is not None:
        check_crop(arguments.crop)
    check_writable(arguments.plot)
    taps = preset_taps(arguments.preset or PRESETS[0], arguments.taps)

    from afd_mobile.pictures.picture_files import list_images, split

    images = list_images(arguments.images)
    held_out = split(images)[1]
    if first_process():  # torch alone may take many seconds to import
        print(f"{len(images):,} pictures, {len(held_out):,} of them held out", flush=True)

    import torch

    from afd_mobile.checkpoints import learning_curve
    from afd_mobile.checkpoints.checkpoint import Checkpoint, find_checkpoint, save_checkpoint
    from afd_mobile.checkpoints.fit import record_of
    from afd_mobile.classifiers.backbones import check_size, load_backbone
    from afd_mobile.classifiers.choose import preset_config
    from afd_mobile.network.corrections import module_of
    from afd_mobile.training import distributed
    from afd_mobile.training import loop as training
    from afd_mobile.training.recipe import Settings

    device = distributed.device_of(arguments.device)
    asked, init = classifier_options(arguments), None
    if arguments.init is None:
        backbone = load_backbone(
            arguments.backbone,
            tap=taps.node,
            before=taps.nodes,
            seed=arguments.seed,
            **asked.settings,
        )
        torch.manual_seed(arguments.seed)
        module = module_of(preset_config(backbone, taps, arguments.drift_input or "dct"))
        module.reset_to_identity()
    else:
        init = find_checkpoint(arguments.init)
        module, backbone = _start(init, asked, arguments.seed)
    say(backbone.notices)
    if not backbone.trained:
        say(["the classifier has random weights: there is nothing to learn from it"])
    crop = arguments.crop or backbone.input_size
    check_size(backbone, crop, "--crop")
    settings = Settings(
        arguments.objective,
        arguments.iterations,
        arguments.batch,
        crop,
        arguments.seed,
        None if init is None else sha256(init),
    )
    with resumable(state):
        with distributed.ranks(device), deferred_interruption() as interrupted:
            steps = training.train(
                module,
                backbone,
                images,
                settings,
                state,
                resume=arguments.resume,
                device=device,
                workers=arguments.workers,
                stop=interrupted,
            )
            silent = distributed.rank() > 0
            progress = shown(steps, arguments.iterations, _postfix, silent=silent)
            if progress.saved:
                raise saved(progress.iteration, state)
            if distributed.rank() > 0:
                return
        validation = progress.validation
        if validation is None:  # a resumed training that lacked its result alone has read none
            validation, _ = training.held_out_validation(backbone, held_out, device)
        found = None if validation is None else validation.held_out(module)
        check_interrupted()
        record = {
            "pictures": len(images),
            "unreadable": progress.unreadable,
            **settings.as_dict(),
            "init": init and init.stem,
            "held_out": found and found.as_dict(),
            "curve": progress.curve,
        }
        trained = Checkpoint(
            module, backbone.name, backbone.tap, record, record_of(backbone, module)
        )
        save_checkpoint(out, trained)
        state.unlink(missing_ok=True)
    broken = f", {progress.unreadable} of them unreadable" if progress.unreadable else ""
    made = f"trained for {backbone.name} at {backbone.tap}, {len(images)} pictures{broken}"
    print(printable(f"{out}  ({made})"))
    if progress.curve:
        print("\n".join(learning_curve.text_table(progress.curve)))
    if arguments.plot:
        _draw({str(out): progress.curve}, arguments.plot)
    print(held_out_line(found))


def _show(names: list[str], plot: Path | None) -> None:
    check_writable(plot)

    from afd_mobile.checkpoints.checkpoint import find_checkpoint, load_checkpoint
    from afd_mobile.checkpoints.training_record import curve_of, record_lines

    checkpoints = {name: load_checkpoint(find_checkpoint(name)) for name in names}
    curves = {name: curve_of(checkpoint, name) for name, checkpoint in checkpoints.items()}
    for name, checkpoint in checkpoints.items():
        print(printable(name))
        print("\n".join(map(printable, record_lines(checkpoint, curves[name]))))
    if plot:
        _draw(curves, plot)


def _draw(curves: Mapping[str, Sequence[Point]], plot: Path) -> None:
    """Of those that have one."""
    from afd_mobile.checkpoints import learning_curve

    drawn = {printable(name): curve for name, curve in curves.items() if curve}
    if drawn:
        write(plot, learning_curve.draw(drawn))
    else:
        say([f"no {plot}: there is no learning curve to draw"])


def _start(path: Path, asked: ClassifierOptions, seed: int) -> tuple[AnyModule, Backbone]:
    """Of --init: the module, to be trained on, and the classifier that it fits."""
    from afd_mobile.checkpoints.checkpoint import load_checkpoint
    from afd_mobile.checkpoints.fit import load_fitting
    from afd_mobile.network.corrections import still_trained

    checkpoint = load_checkpoint(path)
    if not still_trained(checkpoint.module.config):
        raise InputError(f"--init {path}: afd-train no longer has this architecture; leave it out")
    if checkpoint.backbone is None:
        raise InputError(f"--init {path} does not say for which classifier it is; leave it out")
    checkpoint, backbone = load_fitting(checkpoint, path, asked, seed=seed)
    return checkpoint.module.requires_grad_(True), backbone


def _postfix(progress: Progress) -> dict[str, str]:
    from afd_mobile.checkpoints.learning_curve import mean_removed

    shown = {"loss": f"{progress.smooth_loss:.4f}"}
    if progress.curve:
        last = progress.curve[-1]
        removed = mean_removed(last)
        if removed is not None:  # resumed from a state of an earlier version
            shown["KL removed"] = f"{removed:.1%}"
        shown["recovered"] = f"{last['recovered_share']:.1%}"
        shown["clean"] = f"{last['agreement']['clean']:.1%}"
    return shown
