"""afd-export: the command line. Heavy imports come after the arguments are known to be good."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from afd_export.request import ExportRequest
from afd_mobile.classifiers.options import add_classifier, classifier_options
from afd_mobile.common.artifacts import MANIFEST, InputRange, Precision, Scope, to_json
from afd_mobile.common.command import Parser, check_interrupted, one_of, run_command, seed
from afd_mobile.common.errors import AfdError, ConversionError, ParityError, UsageError
from afd_mobile.common.terminal import printable
from afd_mobile.network.taps import LIST, PRESETS

if TYPE_CHECKING:
    from afd_export.pipeline import ExportResult, Step

_HEADING = (
    f"{'stage':<18} {'size':>9} {'time':>7}  {'max err':>8} {'SNR':>7} {'changed':>7} {'beyond':>6}"
)


def main() -> None:
    """Entry point of the console script."""
    run_command(_export, _parser())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "afd-export",
        "Fuse a trained AFD-Module, join it with its classifier, and write verified "
        "ONNX and TFLite files.",
    )
    add = parser.add_argument
    add(
        "--fuse", action="store_true", help="re-parameterise every RepConv into one 3x3 convolution"
    )
    add(
        "--checkpoint",
        default=ExportRequest.checkpoint,
        metavar="NAME|PATH|random|none",
        help="a shipped checkpoint, a file, `random` for an untrained module, or `none` for the "
        "plain classifier by the same path (default: %(default)s)",
    )
    add_classifier(parser)
    add(
        "--preset",
        default=ExportRequest.preset,
        choices=PRESETS,
        help="an untrained module: inside the classifier, or the paper's at one tap "
        "(default: %(default)s)",
    )
    add(
        "--taps",
        nargs="+",
        default=[],
        metavar=("auto|list|KIND:NODE|NODE", "KIND:NODE"),
        help="where an untrained module corrects, as in afd-train --help; list prints the nodes of "
        "--backbone that can be corrected, with their cost, and ends; without a module, the "
        "node that --scope features ends at, such as features.0, or D1 to D4 (default: the "
        "classifier's own)",
    )
    add(
        "--scope",
        type=one_of(Scope),
        default=ExportRequest.scope,
        metavar="classifier|features",
        help="up to the logits, or up to the corrected features (default: classifier)",
    )
    add(
        "--precision",
        type=one_of(Precision),
        nargs="+",
        default=list(ExportRequest.precisions),
        metavar="P",
        help=f"of: {' '.join(p.value for p in Precision)} (default: float32 float16 int8)",
    )
    add(
        "--input",
        type=one_of(InputRange),
        default=ExportRequest.input_range,
        metavar="rgb255|normalized",
        help="raw RGB with normalisation inside the graph, or normalised (default: rgb255)",
    )
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="24 of these pictures verify, up to 96 others calibrate int8; where there are fewer "
        "others, the 24 calibrate as well (default: scikit-image's public-domain ones)",
    )
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes, one a line in the order of the logits (default: ImageNet's "
        "where the weights are ImageNet's, else none)",
    )
    add(
        "--explain-int8",
        action="store_true",
        help="write int8.md and int8.png as well: where int8 loses precision, worst layers first",
    )
    add("--out", type=Path, metavar="DIR", help="export folder (default: exports/<name>)")
    add(
        "--seed",
        type=seed,
        default=ExportRequest.seed,
        metavar="N",
        help="of random weights (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the manifest alone")
    add("--force", action="store_true", help="replace an existing export folder")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    if arguments.taps == [LIST]:
        if arguments.backbone is None:
            raise UsageError(f"--taps {LIST} needs --backbone NAME")
        from afd_mobile.classifiers.tap_list import tap_list

        print("\n".join(map(printable, tap_list(arguments.backbone, arguments.input_size))))
        return

    from afd_export.pipeline import export

    request = ExportRequest(
        checkpoint=arguments.checkpoint,
        classifier=classifier_options(arguments),
        taps=tuple(arguments.taps),
        preset=arguments.preset,
        fused=arguments.fuse,
        scope=arguments.scope,
        precisions=tuple(dict.fromkeys(arguments.precision)),
        input_range=arguments.input,
        images=arguments.images,
        labels=arguments.labels,
        explain_int8=arguments.explain_int8,
        out=arguments.out,
        seed=arguments.seed,
        force=arguments.force,
    )
    quiet = arguments.json

    def progress(step: Step) -> None:
        check_interrupted()
        if not quiet:
            print(_line(step), flush=True)

    result = export(
        request,
        progress=progress,
        notice=lambda line: print(printable(f"note: {line}"), file=sys.stderr, flush=True),
    )
    if quiet:
        sys.stdout.write(to_json(result.manifest).decode())
    else:
        print(_summary(result), flush=True)
    if result.failed:
        raise _not_published(result)


def _line(step: Step) -> str:
    size = "" if step.bytes is None else f"{step.bytes / 1e6:.2f} MB"
    line = f"{step.stage:<18} {size:>9} {step.seconds:>5.1f} s"
    if step.result is None:
        return f"{_HEADING}\n{line}  reference"
    parity = step.result.parity
    snr = "exact" if parity.snr_db is None else f"{parity.snr_db:.0f} dB"
    line = f"{line}  {parity.max_abs_error / (parity.range or 1):>8.1e} {snr:>7}"
    if parity.changed is None or parity.changed_beyond_error is None:
        return line
    return f"{line} {len(parity.changed):>7} {len(parity.changed_beyond_error):>6}"


def _summary(result: ExportResult) -> str:
    lines = []
    for part, costs in result.manifest["cost"].items():
        trained, deployed = costs["trained"], costs["deployed"]
        line = (
            f"{part:<5} {deployed['parameters'] / 1e6:.3f} M parameters, "
            f"{deployed['multiply_adds'] / 1e6:.1f} M multiply-adds"
        )
        if trained != deployed:
            line += (
                f" (as trained: {trained['parameters'] / 1e6:.3f} M, "
                f"{trained['multiply_adds'] / 1e6:.1f} M)"
            )
        lines.append(line)
    lines.append(
        f"of {result.manifest['parity']['pictures']} pictures; max err: a share of the output's "
        "range; changed: another top-1;"
    )
    lines.append(
        "beyond: of these, those that the stage's error does not explain; limits: "
        f"{result.folder}/parity.md"
    )
    lines += [
        f"  {result.folder}/{entry['path']}"
        for entry in result.manifest["files"]
        if not entry["path"].startswith("golden/")
    ]
    lines += [f"  {result.folder}/golden/", f"  {result.folder}/{MANIFEST}"]
    return "\n".join(map(printable, lines))


def _not_published(result: ExportResult) -> AfdError:
    """The error that ends an export which left precisions out: of the kind of the first one's."""
    failed = [p for p in Precision if p in result.failed]
    errors = [result.failed[p] for p in failed]
    names = ", ".join(p.value for p in failed)
    remedy = "give other pictures with --images, or " * any(
        isinstance(error, ParityError) for error in errors
    )
    published = " ".join(p.value for p in Precision if p in result.published)
    message = (
        f"{'; '.join(map(str, errors))}; {result.folder} is published without {names}; "
        f"{remedy}leave {names} out with --precision {published}"
    )
    if isinstance(errors[0], ConversionError):
        return ConversionError(message, chatter=errors[0].chatter)
    return ParityError(message)


if __name__ == "__main__":
    main()
