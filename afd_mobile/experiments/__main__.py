"""python -m afd_mobile.experiments: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from afd_mobile.classifiers.names import typed_backbone
from afd_mobile.common.command import Parser, positive, run_command, seed
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import check_writable, make_folder, write_whole
from afd_mobile.common.terminal import printable
from afd_mobile.training.command import add_workers, check_crop

PROGRAM = "python -m afd_mobile.experiments"
PAGE = Path("docs/experiments.md")
TABLES = ("depths", "map", "corrections", "kinds", "fine-tuning", "pictures")


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["page"]:
        run_command(_page, _page_parser(), sys.argv[2:])
    else:
        run_command(_run, _run_parser())


def _run_parser() -> argparse.ArgumentParser:
    parser = Parser(
        PROGRAM,
        "Train every variant of a table for a short while, on the same crops, and compare them.\n"
        "What --out holds already is not trained again.\n"
        f"{PROGRAM} page: all results of a folder as {PAGE}.",
    )
    add = parser.add_argument
    add("table", choices=TABLES)
    add("--images", type=Path, required=True, metavar="DIR", help="every eighth is held out")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; made")
    add(
        "--backbone",
        type=typed_backbone,
        default="mobilenet_v2",
        metavar="NAME",
        help="(default: %(default)s)",
    )
    for name, default, what in (
        ("steps", 300, "of every training"),
        ("batch", 32, "crops a step"),
        ("crop", 160, "pixels; 8 divides it"),
    ):
        add(
            f"--{name}",
            type=positive,
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )
    add("--seed", type=seed, default=0, metavar="N", help="(default: %(default)s)")
    add_workers(parser)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    check_crop(arguments.crop)
    out: Path = arguments.out
    make_folder(out)

    from tqdm import tqdm

    from afd_mobile.experiments import report, results
    from afd_mobile.pictures.picture_files import list_images
    from afd_mobile.training.recipe import Settings

    check_writable(out / results.RESULTS)
    settings = Settings("distill", arguments.steps, arguments.batch, arguments.crop, arguments.seed)
    run = results.Run(
        arguments.backbone,
        list_images(arguments.images),
        settings,
        workers=arguments.workers,
    )
    rows = results.read_rows(out)
    table, described = arguments.table, run.description()
    if any(row["settings"] != described for row in rows):
        raise InputError(f"{out} holds results of other settings or pictures; give another --out")
    for variant in run.variants(table):
        same = [row for row in rows if row["variant"] == variant.name]
        if any(row["table"] == table for row in same):
            continue
        if same:
            row = same[0]
        else:
            with tqdm(total=settings.iterations, unit="step", desc=variant.name) as bar:
                row = run.measured(variant, bar.update)
        rows.append({**row, "table": table, "settings": described})
        results.write_rows(out, rows)
    print("\n".join(report.text_table([row for row in rows if row["table"] == table])))


def _page_parser() -> argparse.ArgumentParser:
    parser = Parser(f"{PROGRAM} page", f"Write all results of a folder as {PAGE}.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="with the results")
    return parser


def _page(arguments: argparse.Namespace) -> None:
    check_writable(PAGE)

    from afd_mobile.experiments import report, results

    rows = results.read_rows(arguments.out)
    if not rows:
        raise InputError(f"no results in {arguments.out}; make some with {PROGRAM} TABLE")
    write_whole(PAGE, report.page(rows).encode())
    print(printable(str(PAGE)))


if __name__ == "__main__":
    main()
