"""afd-eval, and its sub-command table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from afd_mobile.classifiers.options import ClassifierOptions, add_classifier, classifier_options
from afd_mobile.cli import drift
from afd_mobile.cli.messages import check_plot, say, say_left_out, write
from afd_mobile.common.artifacts import to_json
from afd_mobile.common.command import Parser, one_of, positive, run_command
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.files import check_writable
from afd_mobile.common.labels import imagenet_labels, load_labels
from afd_mobile.common.terminal import printable
from afd_mobile.evaluation.conditions import CLEAN, SUITES, Compress, Suite, repeated, single
from afd_mobile.pictures.degrade import QUALITIES, Codec
from afd_mobile.training.command import add_device, add_workers

if TYPE_CHECKING:
    import torch

    from afd_mobile.evaluation.predictors import Predictor


def main() -> None:
    """Entry point of the console script. Without a sub-command it is `accuracy`."""
    commands = {
        "accuracy": (_accuracy, _accuracy_parser),
        "drift": (drift.run, drift.parser),
        "table": (_table, _table_parser),
    }
    named = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in commands else None
    command, parser = commands[named or "accuracy"]
    run_command(command, parser(), sys.argv[1 if named is None else 2 :])


def _accuracy_parser() -> argparse.ArgumentParser:
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


def _accuracy(arguments: argparse.Namespace) -> None:
    check_plot(arguments.plot)
    check_writable(arguments.json, arguments.plot)
    suite = _suite(arguments)
    conditions = suite.conditions

    from tqdm import tqdm

    from afd_mobile.evaluation.accuracy import accuracy_of
    from afd_mobile.evaluation.accuracy_plot import draw
    from afd_mobile.evaluation.outcomes import evaluate, labelled_pictures, own_share
    from afd_mobile.evaluation.predictors import open_predictor, recovers
    from afd_mobile.evaluation.report import report_of, text_table
    from afd_mobile.training import distributed

    names, source = _class_names(arguments)
    pictures = labelled_pictures(arguments.images, names, labels_from=source, limit=arguments.limit)
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
        steps = evaluate(
            model,
            reference,
            pictures,
            conditions,
            workers=arguments.workers,
            compress=arguments.compress,
        )
        own = len(own_share(pictures))
        with tqdm(total=own, unit="picture", disable=distributed.rank() > 0) as bar:
            for step in steps:
                if isinstance(step, int):
                    bar.update(step)
                else:
                    outcomes = step
        if distributed.rank() > 0:
            return
    report = report_of(
        accuracy_of(
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
    say(dict.fromkeys([*model.notices, *reference.notices, *alone]))
    print(printable(f"{model.name} against {reference.name}" if not alone else model.name))
    print("\n".join(text_table(report)))
    say_left_out(list(outcomes.unreadable.values()))
    if arguments.json:
        write(arguments.json, to_json(report))
    if arguments.plot:
        write(arguments.plot, draw([report]))


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


def _table_parser() -> argparse.ArgumentParser:
    parser = Parser("afd-eval table", "Several results of afd-eval --json as one Markdown table.")
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture, .png")
    return parser


def _table(arguments: argparse.Namespace) -> None:
    check_plot(arguments.plot)
    check_writable(arguments.out, arguments.plot)

    from afd_mobile.evaluation.accuracy_plot import draw
    from afd_mobile.evaluation.report import markdown_table, read_report

    reports = [read_report(path) for path in arguments.results]
    write(arguments.out, markdown_table(reports).encode())
    if arguments.plot:
        write(arguments.plot, draw(reports))
