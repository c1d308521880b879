"""afd-train and afd-eval: the command lines of the model's own side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afd_mobile.checkpoints.held_out import RULE as HELD_OUT_RULE
from afd_mobile.checkpoints.held_out import held_out_line
from afd_mobile.classifiers.names import named_backbone
from afd_mobile.classifiers.options import ClassifierOptions, add_classifier, classifier_options
from afd_mobile.common.artifacts import sha256, to_json
from afd_mobile.common.command import (
    Parser,
    check_interrupted,
    deferred_interruption,
    one_of,
    positive,
    run_command,
    seed,
)
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.files import check_writable, make_folder, write_whole
from afd_mobile.common.labels import imagenet_labels, load_labels
from afd_mobile.common.resources import DEFAULT_CHECKPOINT
from afd_mobile.common.terminal import printable
from afd_mobile.evaluation.conditions import CLEAN, SUITES, Compress, Suite, repeated, single
from afd_mobile.network.taps import LIST, PRESETS, RULE, preset_taps
from afd_mobile.pictures.degrade import QUALITIES, Codec
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

_SHOWN = 5  # pictures that cannot be read
_DISTILLED = (
    "--objective distill mends deeper features and the logits: at a single tap the angle stays\n"
    "about the same, and the maps look alike."
)

if TYPE_CHECKING:
    import torch

    from afd_mobile.checkpoints.learning_curve import Point
    from afd_mobile.classifiers.backbones import Backbone
    from afd_mobile.evaluation.predictors import Predictor
    from afd_mobile.network.corrections import AnyModule
    from afd_mobile.pictures.degrade import RGB
    from afd_mobile.training.loop import Progress


def train_main() -> None:
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
    _check_plot(arguments.plot)
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
    from afd_mobile.classifiers.places import preset_config
    from afd_mobile.network.corrections import module_of
    from afd_mobile.training import distributed
    from afd_mobile.training import loop as training

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
    _say(backbone.notices)
    if not backbone.trained:
        _say(["the classifier has random weights: there is nothing to learn from it"])
    crop = arguments.crop or backbone.input_size
    check_size(backbone, crop, "--crop")
    settings = training.Settings(
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
        _write(plot, learning_curve.draw(drawn))
    else:
        _say([f"no {plot}: there is no learning curve to draw"])


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


# --- afd-eval -----------------------------------------------------------------------------------


def eval_main() -> None:
    """Entry point of the console script."""
    other = {
        "drift": (_drift, _drift_parser),
        "table": (_table, _table_parser),
    }
    if len(sys.argv) > 1 and sys.argv[1] in other:
        command, parser = other[sys.argv.pop(1)]
        run_command(command, parser())
    else:
        run_command(_eval, _eval_parser())


def _eval_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd-eval",
        "Measure a classifier's accuracy on clean and compressed pictures.\n"
        "afd-eval drift: how far compression moves features, and the correction brings them back.\n"
        "afd-eval table: several --json files as one table and plot.",
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="checkpoint (file or shipped name), export folder, or a .tflite or .onnx in one",
    )
    add_classifier(parser)
    add(
        "--against",
        metavar="direct|MODEL",
        help="what it is compared with; direct: its classifier without correction (default: "
        "direct, or nothing where an export's needs --backbone or --backbone-weights)",
    )
    add(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="pictures in folders named by class",
    )
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes, one a line in the order of the logits (default: the export's, "
        "else ImageNet's, whose folders may be named by wnid)",
    )
    add(
        "--suite",
        choices=sorted(SUITES),
        help="paper: all of its Tables V, VI and IX; field: pictures as phones have them, in other "
        "codecs and encoders, off the grid, at other scales; instead of --qualities, --codec and "
        "--times",
    )
    add(
        "--qualities",
        nargs="*",
        type=_quality,
        metavar="QF",
        help="quality factors, 1 to 100, and `clean` (default: clean 25 18 15 10 7)",
    )
    add(
        "--codec",
        type=one_of(Codec),
        metavar="jpeg|avif",
        help="(default: jpeg)",
    )
    add(
        "--times",
        nargs="*",
        type=_times,
        metavar="N",
        help="compress N times as well, each time at one of the paper's five qualities (seeded)",
    )
    add(
        "--compress",
        type=one_of(Compress),
        default=Compress.AFTER_SCALING,
        metavar="after-scaling|before-scaling",
        help="what the network gets, or the picture at its own size, which is then scaled and "
        "cropped, as in an app (default: after-scaling)",
    )
    add("--limit", type=positive, metavar="N", help="pictures at most, evenly over the classes")
    add("--json", type=Path, metavar="FILE", help="write the figures with their intervals")
    add("--plot", type=Path, metavar="FILE", help="write a picture, .png")
    add_device(parser)
    add_workers(parser)
    return parser


def _quality(text: str) -> int | None:
    if text == "clean":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a quality from 1 to 100 nor clean")
    return int(text)


def _times(text: str) -> int:
    value = positive(text)
    if value > 1000:
        raise argparse.ArgumentTypeError(f"{value} are more than 1000 times")
    return value


def _suite(arguments: argparse.Namespace) -> Suite:
    """The one that is named, or what --qualities, --codec and --times ask for."""
    chosen = [
        f"--{o}" for o in ("qualities", "codec", "times") if getattr(arguments, o) is not None
    ]
    if arguments.suite:
        if chosen:
            raise UsageError(f"--suite {arguments.suite} has its own conditions: no {chosen[0]}")
        if arguments.compress is not Compress.AFTER_SCALING:
            raise UsageError(
                f"--suite {arguments.suite} is defined at the network's input size: no --compress "
                f"{arguments.compress.value}"
            )
        return SUITES[arguments.suite]()
    codec = arguments.codec or Codec.JPEG
    qualities = QUALITIES if arguments.qualities is None else arguments.qualities
    asked = [single(q, codec) for q in qualities if q is not None]
    asked += [repeated(n, codec) for n in arguments.times or ()]
    # Clean pictures are the measure of what is recovered, so they are always among them.
    return Suite("", tuple(dict.fromkeys([CLEAN, *asked])))


def _eval(arguments: argparse.Namespace) -> None:
    _check_plot(arguments.plot)
    check_writable(arguments.json, arguments.plot)
    suite = _suite(arguments)
    conditions = suite.conditions

    from tqdm import tqdm

    from afd_mobile.evaluation import accuracy
    from afd_mobile.evaluation import outcomes as evaluation
    from afd_mobile.evaluation import report as accuracy_report
    from afd_mobile.evaluation.predictors import open_predictor, recovers
    from afd_mobile.training import distributed

    names, source = _class_names(arguments)
    pictures = evaluation.labelled_pictures(
        arguments.images, names, labels_from=source, limit=arguments.limit
    )
    device = distributed.device_of(arguments.device)
    with distributed.ranks(device):
        asked = classifier_options(arguments)
        model = open_predictor(arguments.model, device, asked)
        reference, alone = _reference(model, arguments.against, device, asked)
        if len(names) != model.classes:
            raise InputError(
                f"{source} names {len(names)} classes, but {model.name} has {model.classes}; give "
                "its own with --labels FILE, one a line"
            )
        steps = evaluation.evaluate(
            model,
            reference,
            pictures,
            conditions,
            workers=arguments.workers,
            compress=arguments.compress,
        )
        own = len(evaluation.own_share(pictures))
        with tqdm(total=own, unit="picture", disable=distributed.rank() > 0) as bar:
            for step in steps:
                if isinstance(step, int):
                    bar.update(step)
                else:
                    outcomes = step
        if distributed.rank() > 0:
            return
    report = accuracy_report.report_of(
        accuracy.accuracy_of(
            outcomes,
            conditions,
            shares=recovers(model, reference),
            least_loss=suite.least_loss,
        ),
        model=model.name,
        sha256=model.sha256,
        reference=reference.name,
        suite=suite.name,
        compress=arguments.compress,
    )
    _say(dict.fromkeys([*model.notices, *reference.notices, *alone]))
    print(printable(f"{model.name} against {reference.name}" if not alone else model.name))
    print("\n".join(accuracy_report.text_table(report)))
    _say_left_out(list(outcomes.unreadable.values()))
    if arguments.json:
        _write(arguments.json, to_json(report))
    if arguments.plot:
        _write(arguments.plot, accuracy_report.draw([report]))


def _write(path: Path, content: bytes) -> None:
    write_whole(path, content)
    print(f"  {printable(str(path))}")


def _say(notices: Iterable[str]) -> None:
    for line in notices:
        print(printable(f"note: {line}"), file=sys.stderr)


def _say_left_out(unreadable: list[str]) -> None:
    """Five of them; --json names the others."""
    more = [f"{len(unreadable) - _SHOWN} more"] * (len(unreadable) > _SHOWN)
    _say(f"left out: {line}" for line in [*unreadable[:_SHOWN], *more])


def _class_names(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Names of the classes in the order of the logits, and where they come from."""
    from afd_mobile.evaluation.predictors import exported_labels

    if arguments.labels is not None:
        return load_labels(arguments.labels), f"--labels {arguments.labels}"
    inside = exported_labels(arguments.model)
    return (imagenet_labels(), "ImageNet") if inside is None else (inside, arguments.model)


def _reference(
    model: Predictor, against: str | None, device: torch.device, asked: ClassifierOptions
) -> tuple[Predictor, list[str]]:
    """What the model is compared with: itself, and why, where that is not at hand."""
    from afd_mobile.evaluation.predictors import NotAtHandError, open_predictor, plain_predictor

    if against is not None and against != "direct":
        return open_predictor(against, device, asked), []
    try:
        return plain_predictor(model, device), []
    except NotAtHandError as error:
        if against is not None:
            raise
        return model, [f"compared with itself, so that nothing is recovered: {error}"]


def _check_plot(plot: Path | None) -> None:
    if plot and plot.suffix != ".png":
        raise UsageError(f"--plot {plot} must end in .png")


def _table_parser() -> argparse.ArgumentParser:
    parser = Parser("afd-eval table", "Several results of afd-eval --json as one Markdown table.")
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture, .png")
    return parser


def _table(arguments: argparse.Namespace) -> None:
    _check_plot(arguments.plot)
    check_writable(arguments.out, arguments.plot)

    from afd_mobile.evaluation import report as accuracy_report

    reports = [accuracy_report.read_report(path) for path in arguments.results]
    _write(arguments.out, accuracy_report.markdown_table(reports).encode())
    if arguments.plot:
        _write(arguments.plot, accuracy_report.draw(reports))


def _drift_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd-eval drift",
        "Draw how far compression moves DCT coefficients and features (the paper's Fig. 4), the "
        "drift of every block before and after correction (Fig. 2 and 7), and the features "
        "themselves (Fig. 6 and 8).\n"
        f"{_DISTILLED}",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the figures; made"
    )
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT_CHECKPOINT,
        metavar="NAME|PATH",
        help="(default: %(default)s)",
    )
    add_classifier(parser)
    parser.add_argument(
        "--tap",
        metavar="NODE",
        help="where features are looked at, such as D1 for the paper's first layer (default: the "
        "checkpoint's tap, or the deepest feature map that it corrects; elsewhere there is no "
        "correction to show)",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=100,
        metavar="N",
        help="pictures at most, evenly over the sorted paths (default: %(default)s)",
    )
    return parser


def _drift(arguments: argparse.Namespace) -> None:
    import dataclasses

    from tqdm import tqdm

    from afd_mobile.checkpoints.checkpoint import find_checkpoint, load_checkpoint
    from afd_mobile.checkpoints.fit import load_fitting, notices_of_fit
    from afd_mobile.classifiers import places
    from afd_mobile.classifiers.backbones import load_backbone
    from afd_mobile.evaluation import drift
    from afd_mobile.network.afd_module import AfdModule
    from afd_mobile.network.corrections import InsideModule
    from afd_mobile.pictures.picture_files import evenly, list_images, read_image

    images = evenly(list_images(arguments.images), arguments.limit)
    path = find_checkpoint(arguments.checkpoint)
    checkpoint = load_checkpoint(path)
    if checkpoint.backbone is None:
        raise InputError(f"checkpoint {path} does not say for which classifier it is")
    asked = classifier_options(arguments)
    if arguments.tap:
        name = named_backbone(checkpoint.backbone, asked.backbone, what=f"checkpoint {path}")
        backbone = load_backbone(
            name, tap=arguments.tap, record=checkpoint.classifier, **asked.settings
        )
    else:
        checkpoint, backbone = load_fitting(checkpoint, path, asked)
    _say([*backbone.notices, *checkpoint.notices(path)])
    if backbone.tap == checkpoint.tap:
        _say(notices_of_fit(checkpoint, backbone, path))
    module = checkpoint.module if backbone.tap == checkpoint.tap else None
    node = places.observed_place(module).node if isinstance(module, InsideModule) else backbone.tap
    out: Path = arguments.out
    make_folder(out)
    check_writable(out / "drift.json")
    unreadable: dict[Path, str] = {}

    def pictures() -> Iterator[RGB]:
        for image in tqdm(images, unit="picture"):
            try:
                yield read_image(image)
            except InputError as error:
                unreadable[image] = str(error)
        _say_left_out(list(unreadable.values()))
        if len(unreadable) == len(images):
            raise InputError(
                f"none of the {len(images)} pictures drawn from {arguments.images} can be read"
            )

    curves = drift.measure_drift(backbone, module, pictures())
    shown, *rest = (image for image in images if image not in unreadable)
    picture = read_image(shown)
    maps = drift.drift_maps(backbone, module, picture, QUALITIES)
    features = drift.feature_maps(backbone, module, picture)
    content = {
        "checkpoint": path.stem,
        "tap": node,
        "pictures": 1 + len(rest),
        "map_picture": shown.name,
        "curves": [_as_lists(dataclasses.asdict(curve)) for curve in curves],
    }
    write_whole(out / "drift.json", to_json(content))
    write_whole(out / "curves.png", drift.draw_curves(curves))
    write_whole(out / "maps.png", drift.draw_maps(maps))
    write_whole(out / "features.png", drift.draw_features(features))
    for curve in curves:
        corrected = "" if curve.mean_after is None else f", corrected {curve.mean_after:.1f}"
        print(f"QF {curve.quality:<3} mean drift {curve.mean_before:.1f} degrees{corrected}")
    distilled = checkpoint.training.get("objective") == "distill"
    if distilled and isinstance(module, AfdModule):
        print(f"trained with {_DISTILLED}")
    print(printable(f"{out}: drift.json, curves.png, maps.png, features.png"))


def _as_lists(values: dict[str, Any]) -> dict[str, Any]:
    """numpy's arrays as JSON's lists."""
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
