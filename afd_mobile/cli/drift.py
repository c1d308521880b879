"""afd-eval drift."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afd_mobile.classifiers.names import named_backbone
from afd_mobile.classifiers.options import add_classifier, classifier_options
from afd_mobile.cli.messages import say, say_left_out
from afd_mobile.common.artifacts import to_json
from afd_mobile.common.command import Parser, positive
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import check_writable, make_folder, write_whole
from afd_mobile.common.resources import DEFAULT_CHECKPOINT
from afd_mobile.common.terminal import printable
from afd_mobile.pictures.degrade import QUALITIES, RGB

_DISTILLED = (
    "--objective distill mends deeper features and the logits: at a single tap the angle stays\n"
    "about the same, and the maps look alike."
)


def parser() -> argparse.ArgumentParser:
    added = Parser(
        "afd-eval drift",
        "Draw how far compression moves DCT coefficients and features (the paper's Fig. 4), the "
        "drift of every block before and after correction (Fig. 2 and 7), and the features "
        "themselves (Fig. 6 and 8).\n"
        f"{_DISTILLED}",
    )
    added.add_argument("--images", type=Path, required=True, metavar="DIR")
    added.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the figures; made"
    )
    added.add_argument(
        "--checkpoint",
        default=DEFAULT_CHECKPOINT,
        metavar="NAME|PATH",
        help="(default: %(default)s)",
    )
    add_classifier(added)
    added.add_argument(
        "--tap",
        metavar="NODE",
        help="where features are looked at, such as D1 for the paper's first layer (default: the "
        "checkpoint's tap, or the deepest feature map that it corrects; elsewhere there is no "
        "correction to show)",
    )
    added.add_argument(
        "--limit",
        type=positive,
        default=100,
        metavar="N",
        help="pictures at most, evenly over the sorted paths (default: %(default)s)",
    )
    return added


def run(arguments: argparse.Namespace) -> None:
    import dataclasses

    from tqdm import tqdm

    from afd_mobile.checkpoints.checkpoint import find_checkpoint, load_checkpoint
    from afd_mobile.checkpoints.fit import load_fitting, notices_of_fit
    from afd_mobile.classifiers import places
    from afd_mobile.classifiers.backbones import load_backbone
    from afd_mobile.evaluation import drift, drift_figures
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
    say([*backbone.notices, *checkpoint.notices(path)])
    if backbone.tap == checkpoint.tap:
        say(notices_of_fit(checkpoint, backbone, path))
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
        say_left_out(list(unreadable.values()))
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
    write_whole(out / "curves.png", drift_figures.draw_curves(curves))
    write_whole(out / "maps.png", drift_figures.draw_maps(maps))
    write_whole(out / "features.png", drift_figures.draw_features(features))
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
