from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from afd_mobile.pictures.augment import (
    AREA,
    FIELD,
    LIGHT,
    PAPER,
    STRONG,
    Augmentation,
    _one_of,
    mixed,
    random_area,
    window,
)
from afd_mobile.pictures.degrade import (
    QUALITIES,
    Avif,
    Chroma,
    Degradation,
    Encoder,
    Jpeg,
    Scaled,
    Shifted,
    Then,
    Webp,
)

RGB = NDArray[np.uint8]
N = 4000


def gradient(h: int, w: int) -> RGB:
    """Every pixel tells where it is: (row, column, 0)."""
    rows, columns = np.mgrid[:h, :w]
    return np.asarray(np.stack([rows, columns, np.zeros((h, w))], 2), np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- what is drawn -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field() -> list[Degradation | None]:
    draws = rng()
    return [_one_of(draws, FIELD.kinds)(draws) for _ in range(N)]


def kind(degradation: Degradation | None) -> str:
    if degradation is None:
        return "clean"
    inner = degradation
    while isinstance(inner, Shifted):
        inner = inner.inner
    if isinstance(inner, Webp | Avif):
        return type(inner).__name__
    if is_light(degradation):
        return "light"
    return type(degradation).__name__ if isinstance(degradation, Shifted | Scaled) else "grid"


def is_light(degradation: Degradation | None) -> bool:
    """Of a quality above all that are to be repaired. The two meet at one: LIGHT[0] = STRONG[1]."""
    found = jpegs(degradation)
    return bool(found) and found[0].quality > STRONG[1]


def jpegs(degradation: Degradation | None) -> list[Jpeg]:
    """All of them that are in it, the last one first."""
    match degradation:
        case Jpeg():
            return [degradation]
        case Then():
            return jpegs(degradation.second) + jpegs(degradation.first)
        case Shifted() | Scaled():
            return jpegs(degradation.inner)
    return []


def test_the_fields_mix(field: list[Degradation | None]) -> None:
    counts = Counter(map(kind, field))
    expected = {"grid": 0.40, "Shifted": 0.16, "Scaled": 0.10, "Webp": 0.09, "Avif": 0.09,
                "clean": 0.08, "light": 0.08}  # fmt: skip
    assert {k: n / N for k, n in counts.items()} == pytest.approx(expected, abs=0.025)
    assert sum(FIELD.kinds.values()) == pytest.approx(1)


def test_jpegs_have_every_quality_chroma_and_encoder(field: list[Degradation | None]) -> None:
    strong = [found[0] for d in field if not is_light(d) and (found := jpegs(d))]
    qualities = [j.quality for j in strong]
    assert set(qualities) == set(range(STRONG[0], STRONG[1] + 1))
    assert np.median(qualities) == pytest.approx(math.sqrt(5 * 40), abs=1)
    low, high = (np.mean([a <= q < b for q in qualities]) for a, b in ((5, 10), (20, 40)))
    assert low == pytest.approx(1 / 3, abs=0.04) and high == pytest.approx(1 / 3, abs=0.04)
    for counts, usual in (
        (Counter(j.chroma.value for j in strong), Chroma.QUARTER),
        (Counter(j.encoder.value for j in strong), Encoder.STANDARD),
    ):
        assert len(counts) == len(type(usual)) and counts.most_common(1)[0][0] == usual.value
        assert min(counts.values()) > 0.03 * len(strong)
    twice = [d for d in field if not is_light(d) and len(jpegs(d)) == 2]
    assert len(twice) / len(strong) == pytest.approx(0.15, abs=0.03)


def test_light_ones_are_drawn_evenly(field: list[Degradation | None]) -> None:
    qualities = [jpegs(d)[0].quality for d in field if is_light(d)]
    assert min(qualities) < LIGHT[0] + 5 and max(qualities) <= LIGHT[1]
    assert np.mean(qualities) == pytest.approx(sum(LIGHT) / 2, abs=3)


def test_grids_begin_anywhere_but_at_the_corner(field: list[Degradation | None]) -> None:
    shifts = {(d.left, d.up) for d in field if isinstance(d, Shifted) and jpegs(d.inner)}
    assert {s for s in shifts if max(s) < 8} == {(x, y) for x in range(8) for y in range(8)} - {
        (0, 0)
    }
    others = [d for d in field if kind(d) in ("Webp", "Avif")]
    assert np.mean([isinstance(d, Shifted) for d in others]) == pytest.approx(0.5, abs=0.08)
    assert (0, 0) not in {(d.left, d.up) for d in others if isinstance(d, Shifted)}


def test_scales_lie_on_both_sides_of_one(field: list[Degradation | None]) -> None:
    factors = [d.factor for d in field if isinstance(d, Scaled)]
    assert 0.5 <= min(factors) < 0.55 and 1.8 < max(factors) <= 2
    assert np.mean(np.array(factors) < 1) == pytest.approx(0.5, abs=0.08)


def test_the_papers_are_its_five_qualities_on_the_grid() -> None:
    draws = rng()
    drawn = [_one_of(draws, PAPER.kinds)(draws) for _ in range(500)]
    assert Counter(drawn).keys() == {Jpeg(q) for q in QUALITIES}
    assert min(Counter(drawn).values()) > 60


# --- cutting -------------------------------------------------------------------------------------


def test_a_window_is_a_part_of_the_picture() -> None:
    image, draws = gradient(90, 120), rng()
    corners = set()
    for _ in range(200):
        crop = window(image, 64, draws)
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        assert np.array_equal(crop, image[top : top + 64, left : left + 64])
        corners.add((top, left))
    assert len(corners) > 150
    assert {0, 26} <= {top for top, _ in corners} and max(left for _, left in corners) > 50


def test_areas_and_aspects_are_random_and_the_whole_picture_is_reached() -> None:
    image, draws = gradient(240, 250), rng()
    areas, aspects, sides = [], [], []
    for _ in range(500):
        crop = random_area(image, 16, draws).astype(float)
        down, across = (np.ptp(crop[..., i]) * 16 / 15 for i in (0, 1))
        areas.append(down * across / (240 * 250))
        aspects.append(across / down)
        sides.append((crop[..., 0].mean() < 120, crop[..., 1].mean() < 125))
    assert AREA[0] * 0.9 < min(areas) < 0.2 and max(areas) > 0.9
    assert np.mean(areas) == pytest.approx(sum(AREA) / 2, abs=0.06)
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.4
    assert min(Counter(sides).values()) > 50


@pytest.mark.parametrize("shape", [(40, 30), (64, 64), (70, 60), (1, 300), (300, 1)])
@pytest.mark.parametrize("cut", [window, random_area])
def test_small_pictures_and_strips_are_enlarged(
    cut: Callable[..., RGB], shape: tuple[int, int]
) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    for seed in range(20):
        crop = cut(image, 64, rng(seed))
        assert crop.shape == (64, 64, 3) and (crop == 200).all()


def test_no_picture_is_enlarged_that_has_enough_pixels() -> None:
    image, draws = gradient(80, 80), rng()
    for _ in range(100):
        crop = random_area(image, 64, draws).astype(float)
        down, across = (np.ptp(crop[..., i]) + 1 for i in (0, 1))
        assert down * across > 0.9 * 64 * 64


# --- mixing --------------------------------------------------------------------------------------


def test_crops_are_mixed_by_cutmix_and_mixup() -> None:
    one, other = np.full((32, 32, 3), 40, np.uint8), np.full((32, 32, 3), 240, np.uint8)
    draws, cut, shares = rng(), 0, []
    for _ in range(400):
        result = mixed(one, other, draws)
        shares.append((result.mean() - 40) / 200)
        values = np.unique(result)
        if set(values) <= {40, 240} and len(values) == 2:
            cut += 1
            rows, columns = (np.flatnonzero((result[..., 0] == 240).any(a)) for a in (1, 0))
            box = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == 240).all() and (result == 240).sum() == box.size
            assert abs(len(rows) - len(columns)) <= 16  # a square, cut off by the border
        else:
            assert len(values) == 1
    assert (one == 40).all()
    assert cut / 400 == pytest.approx(0.5, abs=0.1)
    assert min(shares) < 0.05 and max(shares) > 0.95


# --- degrading -----------------------------------------------------------------------------------


def always(degradation: Degradation | None, spoilt: float = 0.0) -> Augmentation:
    return Augmentation(window, 0.0, spoilt, {lambda _: degradation: 1.0})


def test_the_clean_crop_stays_beside_the_compressed_one(photograph: RGB) -> None:
    crop = photograph[:64, :64]
    clean, compressed = always(Jpeg(10)).degraded(crop, rng())
    assert clean is crop and np.array_equal(compressed, Jpeg(10).apply(crop, 0))
    clean, compressed = always(None).degraded(crop, rng())
    assert np.array_equal(clean, crop) and np.array_equal(compressed, crop)


def test_a_spoilt_crop_is_spoilt_for_the_teacher_as_well(photograph: RGB) -> None:
    """So that blur and noise are left as they are, and what comes on top is repaired."""
    crop = photograph[:64, :64]
    for seed in range(20):
        clean, same = always(None, spoilt=1.0).degraded(crop, rng(seed))
        assert not np.array_equal(clean, crop) and np.array_equal(clean, same)
        again, compressed = always(Jpeg(10), spoilt=1.0).degraded(crop, rng(seed))
        assert np.array_equal(again, clean)
        assert np.array_equal(compressed, Jpeg(10).apply(clean, 0))


def test_blur_and_noise_are_drawn_alike(photograph: RGB) -> None:
    crop, draws = photograph[100:164, 200:264], rng()

    def roughness(image: RGB) -> float:
        return float(np.abs(np.diff(image.astype(float), axis=0)).mean())

    spoilt = [always(None, spoilt=0.5).degraded(crop, draws)[0] for _ in range(300)]
    counts = Counter(np.sign(roughness(image) - roughness(crop)) for image in spoilt)
    assert {k: n / 300 for k, n in counts.items()} == pytest.approx(
        {-1: 0.25, 0: 0.5, 1: 0.25}, abs=0.09
    )
