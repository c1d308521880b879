from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation import outcomes as evaluation
from afd_mobile.evaluation.conditions import CLEAN, Compress, Condition, repeated, single
from afd_mobile.evaluation.outcomes import LabelledPicture, Outcomes, evaluate, labelled_pictures
from afd_mobile.evaluation.predictors import Predictor
from afd_mobile.pictures.degrade import Codec, Noise

SIZE = 8
Table = NDArray[np.float32]


def no_backbone() -> Backbone:
    raise AssertionError


def predictor(
    logits: Callable[[NDArray[np.uint8]], Table], *, size: int = SIZE, classes: int
) -> Predictor:
    return Predictor("hand-made", None, size, classes, False, None, logits, no_backbone)


def looks_up(table: Table) -> Predictor:
    """Row i of the table for a picture of grey i."""
    return predictor(lambda pictures: table[pictures[:, 0, 0, 0]], classes=table.shape[1])


def grey_pictures(folder: Path, labels: list[int]) -> list[LabelledPicture]:
    """Picture i is of grey i all over."""
    pictures = []
    for i, label in enumerate(labels):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((SIZE, SIZE, 3), i, np.uint8)).save(path)
        pictures.append(LabelledPicture(path, path.name, label))
    return pictures


def outcomes_of(
    model: Predictor,
    reference: Predictor,
    pictures: list[LabelledPicture],
    conditions: tuple[Condition, ...] = (CLEAN,),
    workers: int = 0,
) -> Outcomes:
    *_, outcomes = evaluate(model, reference, pictures, conditions, workers=workers)
    assert isinstance(outcomes, Outcomes)
    return outcomes


# --- which pictures ------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_labels_come_from_folder_names_and_classes_take_turns(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.png", "b/2.jpg", "b/deep/3.webp", "a/9.png", "c/0.png", "c/5.png")
    pictures = labelled_pictures(tmp_path, ["c", "a", "x", "b"], labels_from="L", limit=None)
    assert [(p.key, p.label) for p in pictures] == [
        *(("a/9.png", 1), ("b/1.png", 3), ("c/0.png", 0)),
        *(("b/2.jpg", 3), ("c/5.png", 0)),
        ("b/deep/3.webp", 3),
    ]
    assert all(p.path == tmp_path / p.key for p in pictures)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, (1, 0, 0)), (3, (1, 1, 1)), (5, (2, 1, 2)), (8, (4, 1, 3)), (10**12, (5, 1, 3))],
)
def test_a_limit_takes_evenly_from_all_classes(
    tmp_path: Path, limit: int, expected: tuple[int, ...]
) -> None:
    touch(tmp_path, *(f"a/{i}.png" for i in range(5)), "b/0.png", "c/0.png", "c/1.png", "c/2.png")
    pictures = labelled_pictures(tmp_path, ["a", "b", "c"], labels_from="L", limit=limit)
    assert tuple(np.bincount([p.label for p in pictures], minlength=3)) == expected


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("dog/1.png", ["cat"], r"dog is no class of L \(1 such\)"),
        ("1.png", ["cat"], r"1\.png lies in no folder of a class \(1 such\)"),
        ("crane/1.png", ["crane", "cat", "crane"], "crane is more than one class of L"),
    ],
)
def test_a_folder_that_is_not_one_class_is_refused(
    tmp_path: Path, name: str, classes: list[str], message: str
) -> None:
    touch(tmp_path, name, "cat/1.png")
    with pytest.raises(InputError, match=message):
        labelled_pictures(tmp_path, classes, labels_from="L", limit=1)


def test_a_file_name_that_is_no_utf8_gives_a_key_that_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = os.fsencode(tmp_path) + b"/a/\xff.png"
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(os.fsdecode(path))
    pictures = labelled_pictures(tmp_path, ["a"], labels_from="L", limit=None)
    assert [p.key for p in pictures] == [r"a/\xff.png"]
    model = looks_up(np.ones((256, 1), np.float32))
    outcomes = outcomes_of(model, model, pictures, (CLEAN, repeated(1)))
    assert outcomes.keys == [r"a/\xff.png"]


# --- what is counted -----------------------------------------------------------------------------


def test_outcomes_are_hits_by_hand(tmp_path: Path) -> None:
    pictures = grey_pictures(tmp_path, [0, 1, 2])
    model = np.array([[9, 0, 0], [9, 1, 0], [0, 0, 9]], np.float32)  # says 0, 0, 2
    reference = np.array([[0, 9, 0], [9, 1, 0], [0, 0, 9]], np.float32)  # says 1, 0, 2
    outcomes = outcomes_of(looks_up(model), looks_up(reference), pictures)
    assert outcomes.keys == ["0.png", "1.png", "2.png"] and outcomes.unreadable == {}
    assert outcomes.top1.tolist() == [[1], [0], [1]]
    assert outcomes.reference_top1.tolist() == [[0], [0], [1]]
    assert outcomes.agreement.tolist() == [[0], [1], [1]]
    assert outcomes.top5.all() and outcomes.reference_top5.all()


def test_of_equal_logits_the_first_five_are_the_top_five(tmp_path: Path) -> None:
    """Otherwise a classifier that always says the same would be right every time."""
    labels = list(range(10))
    constant = looks_up(np.ones((10, 10), np.float32))
    outcomes = outcomes_of(constant, constant, grey_pictures(tmp_path, labels))
    assert outcomes.top1[:, 0].tolist() == [1] + 9 * [0]
    assert outcomes.top5[:, 0].tolist() == 5 * [1] + 5 * [0]


def test_top_five_agrees_with_a_stable_sort(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [int(n) for n in rng.integers(10, size=60)]
    coarse, fine = rng.integers(0, 4, (60, 10)), rng.normal(size=(60, 10))  # with ties, without
    tables = [table.astype(np.float32) for table in (coarse, fine)]
    pictures = grey_pictures(tmp_path, labels)
    outcomes = outcomes_of(looks_up(tables[0]), looks_up(tables[1]), pictures)
    for table, top1, top5 in (
        (tables[0], outcomes.top1, outcomes.top5),
        (tables[1], outcomes.reference_top1, outcomes.reference_top5),
    ):
        ranking = np.argsort(-table, axis=1, kind="stable")
        assert top1[:, 0].tolist() == [r[0] == k for r, k in zip(ranking, labels, strict=True)]
        assert top5[:, 0].tolist() == [k in r[:5] for r, k in zip(ranking, labels, strict=True)]
        assert 0 < top1.mean() < top5.mean() < 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["model", "reference"])
def test_logits_that_are_not_finite_are_refused(tmp_path: Path, value: float, which: str) -> None:
    pictures = grey_pictures(tmp_path, [0, 0, 0])
    broken, whole = np.ones((2, 3, 6), np.float32)
    broken[2, 5] = value
    tables = (broken, whole) if which == "model" else (whole, broken)
    with pytest.raises(InputError, match="NaN or infinite"):
        outcomes_of(looks_up(tables[0]), looks_up(tables[1]), pictures)


def test_a_picture_is_compressed_before_or_after_it_is_scaled(tmp_path: Path) -> None:
    """What the classifier is fed with, against Pillow by hand."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (60, 40, 3), dtype=np.uint8))
    photo.save(tmp_path / "0.png")
    fed: list[NDArray[np.uint8]] = []

    def logits(pictures: NDArray[np.uint8]) -> Table:
        fed.append(pictures)
        return np.ones((len(pictures), 1), np.float32)

    def jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=10)
        return Image.open(buffer)

    def scaled(image: Image.Image) -> Image.Image:
        """The short side to 8 * 256 / 224, then the middle."""
        return image.resize((9, 14), Image.Resampling.BILINEAR).crop((0, 3, 8, 11))

    model = predictor(logits, classes=1)
    pictures = [LabelledPicture(tmp_path / "0.png", "0.png", 0)]
    for compress in Compress:
        list(evaluate(model, model, pictures, [CLEAN, single(10)], workers=0, compress=compress))
    clean, before, after = (scaled(photo), scaled(jpeg(photo)), jpeg(scaled(photo)))
    for found, expected in zip(fed, ((clean, after), (clean, before)), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, np.asarray(other))
    assert not np.array_equal(np.asarray(before), np.asarray(after))


def test_pictures_that_cannot_be_read_are_named_and_left_out(tmp_path: Path) -> None:
    pictures = grey_pictures(tmp_path, [0, 1, 2, 0])
    pictures[1].path.write_bytes(b"")
    pictures[2].path.write_bytes(pictures[3].path.read_bytes()[:40])
    model = looks_up(np.eye(3, dtype=np.float32)[[0, 0, 0, 1]])
    steps = list(evaluate(model, model, pictures, [CLEAN], workers=0))
    assert sum(step for step in steps if isinstance(step, int)) == 4
    outcomes = steps[-1]
    assert isinstance(outcomes, Outcomes)
    assert list(outcomes.unreadable) == ["1.png", "2.png"]
    assert outcomes.unreadable["1.png"].startswith(f"cannot read picture {pictures[1].path}: ")
    assert outcomes.keys == ["0.png", "3.png"]
    assert outcomes.top1.tolist() == [[1], [0]]


def test_no_readable_picture_is_an_input_error(tmp_path: Path) -> None:
    pictures = grey_pictures(tmp_path, [0, 0])
    for picture in pictures:
        picture.path.unlink()
    model = looks_up(np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match="none of the 2 pictures"):
        outcomes_of(model, model, pictures)


def test_a_label_that_the_classifier_does_not_have_is_an_input_error(tmp_path: Path) -> None:
    model = looks_up(np.ones((1, 6), np.float32))
    with pytest.raises(InputError, match="labels up to 6"):
        outcomes_of(model, model, grey_pictures(tmp_path, [6]))


@pytest.mark.parametrize(("size", "classes"), [(16, 6), (SIZE, 7)])
def test_only_like_is_compared_with_like(tmp_path: Path, size: int, classes: int) -> None:
    model = looks_up(np.ones((1, 6), np.float32))
    other = predictor(lambda x: np.ones((len(x), classes), np.float32), size=size, classes=classes)
    for pair in ((model, other), (other, model)):
        with pytest.raises(InputError, match="not comparable"):
            outcomes_of(*pair, grey_pictures(tmp_path, [0]))


# --- what the classifiers see --------------------------------------------------------------------


def seen_by(
    pictures: list[LabelledPicture], size: int, *conditions: Condition
) -> list[NDArray[np.uint8]]:
    """The batches that both classifiers are given."""
    batches: list[NDArray[np.uint8]] = []

    def logits(images: NDArray[np.uint8]) -> Table:
        batches.append(images)
        return np.ones((len(images), 2), np.float32)

    model, reference = (predictor(logits, size=size, classes=2) for _ in range(2))
    outcomes_of(model, reference, pictures, conditions)
    assert all(np.array_equal(a, b) for a, b in zip(batches[::2], batches[1::2], strict=True))
    return batches[::2]


def test_pictures_are_cropped_then_compressed_each_under_its_own_key(
    tmp_path: Path, photograph: NDArray[np.uint8]
) -> None:
    path = tmp_path / "big.png"
    Image.fromarray(photograph).save(path)  # 512x512
    crop = np.asarray(
        Image.fromarray(photograph)
        .resize((256, 256), Image.Resampling.BILINEAR)
        .crop((16, 16, 240, 240))
    )
    conditions = (CLEAN, single(10), single(30, Codec.AVIF), repeated(2))
    pictures = [LabelledPicture(path, key, 0) for key in ("a", "b")]
    (batch,) = seen_by(pictures, 224, *conditions)
    expected = [c.apply(crop, key) for key in ("a", "b") for c in conditions]
    assert np.array_equal(batch, expected)
    assert np.array_equal(batch[0], crop)
    assert not np.array_equal(batch[3], batch[7])  # other qualities for the other picture


def test_no_more_than_a_batch_is_held_at_a_time(tmp_path: Path) -> None:
    pictures = grey_pictures(tmp_path, 19 * [0])
    batches = seen_by(pictures, SIZE, CLEAN, single(7))
    assert [len(batch) for batch in batches] == [16, 16, 6]
    assert [int(image[0, 0, 0]) for batch in batches for image in batch[::2]] == list(range(19))


def test_of_many_conditions_only_some_are_classified_at_a_time(tmp_path: Path) -> None:
    """Of a whole field suite, 320 pictures, one of MobileNetV2's maps alone takes 1.5 GB."""
    pictures = grey_pictures(tmp_path, 9 * [1])
    conditions = [Condition(Noise(n)) for n in range(10)]
    batches = seen_by(pictures, SIZE, CLEAN, *conditions)
    assert [len(batch) for batch in batches] == [48, 40, 11]
    seen = np.concatenate(batches)
    expected = [
        c.apply(np.full((SIZE, SIZE, 3), i, np.uint8), picture.key)
        for i, picture in enumerate(pictures)
        for c in (CLEAN, *conditions)
    ]
    assert np.array_equal(seen, expected)
    model = looks_up(np.eye(256, 10, dtype=np.float32))
    outcomes = outcomes_of(model, model, pictures, (CLEAN, *conditions))
    assert outcomes.top1[:, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert outcomes.top1.shape == (9, 11)


def test_outcomes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = grey_pictures(tmp_path, [int(n) for n in rng.integers(10, size=20)])
    pictures[3].path.unlink()
    tables = rng.normal(size=(2, 256, 10)).astype(np.float32)
    conditions = (CLEAN, repeated(3))
    model, reference = map(looks_up, tables)
    one, two = (outcomes_of(model, reference, pictures, conditions, n) for n in (0, 2))
    assert (one.keys, one.unreadable) == (two.keys, two.unreadable)
    assert len(one.keys) == 19
    for name in ("top1", "top5", "reference_top1", "reference_top5", "agreement"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("count", [1, 8, 9, 40, 61])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_whole_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, world: int
) -> None:
    pictures = [LabelledPicture(tmp_path, str(i), 0) for i in range(count)]
    batches = [pictures[i : i + 8] for i in range(0, count, 8)]
    monkeypatch.setattr(evaluation, "world", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(evaluation, "rank", lambda rank=rank: rank)
        expected = [picture for batch in batches[rank::world] for picture in batch]
        assert evaluation.own_share(pictures) == expected
