"""Running classifiers over labelled pictures, clean and degraded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from afd_mobile.common.errors import InputError
from afd_mobile.common.labels import class_index
from afd_mobile.evaluation.conditions import Compress, Condition
from afd_mobile.evaluation.predictors import Predictor
from afd_mobile.pictures.datasets import batches_of, centre_crop
from afd_mobile.pictures.degrade import RGB
from afd_mobile.pictures.picture_files import list_images, read_image
from afd_mobile.training.distributed import gather, rank, world

_BATCH = 8
_FOLDERS = (
    "pictures must lie in folders named by class: an export's labels, the lines of --labels FILE, "
    "or ImageNet's wnids, such as n02123045"
)
_AT_ONCE = 48  # pictures that a classifier gets; more take gigabytes


@dataclass(frozen=True)
class LabelledPicture:
    """Attributes: the file, its path below the folder, and the index of its class."""

    path: Path
    key: str
    label: int


@dataclass(frozen=True)
class Outcomes:
    """What two classifiers said of P pictures under C conditions; uint8 tables of 0 and 1.

    Attributes:
        keys: of the P pictures.
        unreadable: the keys of the pictures left out, and why.
        top1, top5: (P, C), whether the label is the classifier's first, one of its first five.
        reference_top1, reference_top5: the same of the reference.
        agreement: (P, C), whether both have the same first.
    """

    keys: list[str]
    unreadable: dict[str, str]
    top1: NDArray[np.uint8]
    top5: NDArray[np.uint8]
    reference_top1: NDArray[np.uint8]
    reference_top5: NDArray[np.uint8]
    agreement: NDArray[np.uint8]


def labelled_pictures(
    folder: Path, class_names: Sequence[str], *, labels_from: str, limit: int | None
) -> list[LabelledPicture]:
    """The pictures in `folder`/CLASS/, in an order that mixes the classes evenly.

    Args:
        class_names: a folder's name gives the index of its class in these. ImageNet's wnids stand
            for ImageNet's labels.
        labels_from: where they come from, for messages.
        limit: how many pictures at most.

    Raises:
        InputError: no pictures, some in no folder, or a folder that names no class.
    """
    index = class_index(class_names)
    paths = list_images(folder)
    loose = [path for path in paths if path.parent == folder]
    if loose:
        raise InputError(f"{loose[0]} lies in no folder of a class ({len(loose)} such); {_FOLDERS}")
    by_class: dict[str, list[Path]] = {}
    for path in paths:
        by_class.setdefault(path.relative_to(folder).parts[0], []).append(path)
    unknown = [name for name in by_class if name not in index]
    if unknown:
        raise InputError(
            f"{folder / unknown[0]} is no class of {labels_from} ({len(unknown)} such); {_FOLDERS}"
        )
    ambiguous = [name for name in by_class if class_names.count(name) > 1]
    if ambiguous:
        raise InputError(f"{folder / ambiguous[0]} is more than one class of {labels_from}")
    pictures = [
        (place, name, LabelledPicture(path, _key(path, folder), index[name]))
        for name, paths in by_class.items()
        for place, path in enumerate(paths)
    ]
    # The first of every class, then the second: whatever the limit, the classes stay balanced.
    ordered = [picture for _, _, picture in sorted(pictures, key=lambda p: (p[0], p[1]))]
    return ordered[:limit]


def _key(path: Path, folder: Path) -> str:
    """Its path below the folder; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")


def own_share(pictures: list[LabelledPicture]) -> list[LabelledPicture]:
    """This rank's pictures. Ranks share whole batches, because what else is in a batch changes the
    last digits of logits, and the outcomes must not depend on how many ranks there are."""
    step = world() * _BATCH
    firsts = range(rank() * _BATCH, len(pictures), step)
    return [picture for first in firsts for picture in pictures[first : first + _BATCH]]


def evaluate(
    model: Predictor,
    reference: Predictor,
    pictures: list[LabelledPicture],
    conditions: Sequence[Condition],
    *,
    workers: int,
    compress: Compress = Compress.AFTER_SCALING,
) -> Iterator[int | Outcomes]:
    """Yields how many pictures each batch brought, and at last the outcomes of all of them.

    Pictures are read and compressed in `workers` processes and dropped once classified. Under
    `torchrun` every rank takes its share, and all end with the same outcomes.

    Raises:
        InputError: no picture can be read, or the classifiers do not fit each other or the labels.
    """
    if (model.input_size, model.classes) != (reference.input_size, reference.classes):
        raise InputError(
            f"{model.name} has {model.classes} classes and takes {model.input_size} pixels, "
            f"{reference.name} {reference.classes} and {reference.input_size}: not comparable"
        )
    own, alone = own_share(pictures), model is reference
    loader = DataLoader(
        _Degraded(own, conditions, model.input_size, compress),
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=list,
    )
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    unreadable: dict[str, str] = {}
    for batch in batches_of(loader):
        unreadable |= {own[i].key: found for i, found in batch if isinstance(found, str)}
        read = [(own[i], found) for i, found in batch if not isinstance(found, str)]
        if read:
            stack = np.concatenate([images for _, images in read])
            labels = np.repeat([p.label for p, _ in read], len(conditions))
            parts = [slice(i, i + _AT_ONCE) for i in range(0, len(stack), _AT_ONCE)]
            hits = np.concatenate(
                [
                    _hits(logits, logits if alone else reference.logits(stack[p]), labels[p])
                    for p in parts
                    for logits in [model.logits(stack[p])]
                ]
            )
            per_picture = hits.reshape(len(read), len(conditions), hits.shape[1])
            rows += [(p.key, h) for (p, _), h in zip(read, per_picture, strict=True)]
        yield len(batch)
    shares = gather((rows, unreadable))
    by_key = dict(row for share in shares for row in share[0])
    left_out = {key: why for share in shares for key, why in share[1].items()}
    if not by_key:
        first = left_out[pictures[0].key]
        raise InputError(f"none of the {len(pictures)} pictures can be read; first: {first}")
    keys = [p.key for p in pictures if p.key in by_key]
    table = np.stack([by_key[key] for key in keys])
    yield Outcomes(keys, dict(sorted(left_out.items())), *np.moveaxis(table, 2, 0))


def _hits(
    logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """(N, 5) of 0 and 1, in the order of the tables in Outcomes."""
    if labels.max() >= logits.shape[1] or logits.shape != reference.shape:
        raise InputError(
            f"logits of shape {logits.shape} and {reference.shape} do not fit labels up to "
            f"{labels.max()}; is this the right list of classes, and --against the same kind?"
        )
    if not (np.isfinite(logits).all() and np.isfinite(reference).all()):
        raise InputError("a classifier gave logits that are NaN or infinite")
    first, reference_first = logits.argmax(1), reference.argmax(1)
    hits = [
        first == labels,
        _in_top5(logits, labels),
        reference_first == labels,
        _in_top5(reference, labels),
        first == reference_first,
    ]
    return np.asarray(np.stack(hits, axis=1), np.uint8)


def _in_top5(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of equal logits the first counts as greater, as in argmax."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    result: NDArray[np.bool_] = ((logits > own) | (logits == own) & earlier).sum(axis=1) < 5
    return result


class _Degraded(Dataset[tuple[int, NDArray[np.uint8] | str]]):
    """Item i: picture i under every condition, (C, S, S, 3), or why it cannot be used."""

    def __init__(
        self,
        pictures: list[LabelledPicture],
        conditions: Sequence[Condition],
        size: int,
        compress: Compress,
    ) -> None:
        self.pictures, self.conditions, self.size = pictures, conditions, size
        self.compress = compress

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[int, NDArray[np.uint8] | str]:
        picture = self.pictures[i]
        try:
            image = read_image(picture.path)
            if self.compress is Compress.BEFORE_SCALING:
                degraded = (self._whole(c, image, picture) for c in self.conditions)
                return i, np.stack([centre_crop(found, self.size) for found in degraded])
        except InputError as error:
            return i, str(error)
        image = centre_crop(image, self.size)
        return i, np.stack([c.apply(image, picture.key) for c in self.conditions])

    def _whole(self, condition: Condition, image: RGB, picture: LabelledPicture) -> RGB:
        try:
            return condition.apply(image, picture.key)
        except (OSError, ValueError) as error:  # the format holds no such picture
            h, w = image.shape[:2]
            raise InputError(
                f"cannot compress picture {picture.path} at its {w} x {h} pixels, {condition.name}"
            ) from error
