"""Drift angles against arccos, scipy's DCT and loops written out here."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from afd_mobile.classifiers.backbones import Backbone, Normalize, load_backbone
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation import drift, drift_figures
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.pictures.datasets import centre_crop
from afd_mobile.pictures.degrade import jpeg
from afd_mobile.pictures.picture_files import list_images, read_image
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config

RGB = NDArray[np.uint8]
Array = NDArray[np.float64]

SIZE = 96
BLOCKS = SIZE // 8


@pytest.fixture(scope="module")
def first_layer() -> Backbone:
    """Stride 2."""
    return load_backbone("mobilenet_v2", tap="D1", input_size=SIZE)


@pytest.fixture
def module(first_layer: Backbone) -> AfdModule:
    """Its correction is random."""
    config = single_tap_config(
        "mobile", channels=first_layer.channels, stride=2, activation=first_layer.activation
    )
    return AfdModule(config).eval()


# --- angles -------------------------------------------------------------------------------------


def arccos_degrees(a: Array, b: Array) -> float:
    return math.degrees(math.acos(a @ b / math.sqrt((a @ a) * (b @ b))))


def test_angles_equal_arccos() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 192, 4)) * rng.uniform(0.01, 1000, (2, 5, 1, 4))
    actual = drift.angles(torch.from_numpy(a), torch.from_numpy(b), dim=1)
    expected = [[arccos_degrees(a[i, :, j], b[i, :, j]) for j in range(4)] for i in range(5)]
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-9)


def vector(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ((1, 0), (1, 1), 45.0),
        ((1, 0), (0, 7), 90.0),
        ((2, 1), (-4, -2), 180.0),
        ((3, 4), (3, 4), 0.0),
        ((1, 0), (1, 1e-10), math.degrees(1e-10)),  # the cosine is 1 here
        ((0, 0), (0, 0), 0.0),
        ((0, 0), (0, 1e-30), 90.0),
        ((5, 5), (0, 0), 90.0),
    ],
)
def test_angles_by_hand(a: tuple[float, ...], b: tuple[float, ...], degrees: float) -> None:
    actual = drift.angles(vector(a), vector(b), dim=0)
    assert actual.item() == pytest.approx(degrees, rel=1e-9, abs=0)


# --- DCT vectors --------------------------------------------------------------------------------


def test_block_dct_is_what_jpeg_quantises(photograph: RGB) -> None:
    picture = photograph[100:124, 200:240]
    r, g, b = np.moveaxis(picture.astype(np.float64), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    actual = drift.block_dct(picture).numpy()
    assert actual.shape == (192, 3, 5)
    for c, plane in enumerate((y - 128, (b - y) / 1.772, (r - y) / 1.402)):
        for i in range(3):
            for j in range(5):
                block = plane[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                expected = dctn(block, type=2, norm="ortho").reshape(-1)
                found = actual[64 * c : 64 * c + 64, i, j]
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


# --- angles by block ----------------------------------------------------------------------------


def rotated(theta: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (2, h, w) and a reference that differ by these degrees at every position."""
    radians = torch.from_numpy(np.radians(theta))
    reference = torch.stack([torch.ones_like(radians), torch.zeros_like(radians)])
    return 3 * torch.stack([radians.cos(), radians.sin()]), reference


def test_block_angles_by_hand() -> None:
    theta = np.array([[10.0, 20, 50, 50], [30, 40, 50, 90]])  # stride 4: two blocks side by side
    whole = drift.block_angles(*rotated(theta), stride=4, blocks=(1, 2))
    np.testing.assert_allclose(whole.numpy(), [[25, 60]], rtol=0, atol=1e-9)
    one_short = drift.block_angles(*rotated(theta[:1, :3]), stride=4, blocks=(1, 2))
    np.testing.assert_allclose(one_short.numpy(), [[15, 50]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("short", [(0, 0), (1, 1), (0, 1), (1, 0)])
def test_block_angles_average_the_positions_inside(stride: int, short: tuple[int, int]) -> None:
    h, w = 24 // stride - short[0], 32 // stride - short[1]
    theta = np.random.default_rng(1).uniform(0, 180, (h, w))
    inside: list[list[list[float]]] = [[[] for _ in range(4)] for _ in range(3)]
    for i in range(h):
        for j in range(w):
            inside[stride * i // 8][stride * j // 8].append(theta[i, j])
    expected = [[float(np.mean(t)) if t else math.nan for t in row] for row in inside]
    actual = drift.block_angles(*rotated(theta), stride=stride, blocks=(3, 4))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-9)
    assert np.isnan(expected).any() == (stride == 8 and any(short))


@pytest.mark.parametrize(("stride", "short"), [(16, 0), (16, 1), (32, 0)])
def test_above_stride_8_a_position_counts_for_several_blocks(stride: int, short: int) -> None:
    """5x6 blocks; without the last row and column, blocks from there on have no features."""
    times = stride // 8
    h, w = -(-5 // times) - short, -(-6 // times) - short
    theta = np.random.default_rng(1).uniform(0, 180, (h, w))
    expected = np.full((5, 6), math.nan)
    for i in range(min(5, times * h)):
        for j in range(min(6, times * w)):
            expected[i, j] = theta[i // times, j // times]
    actual = drift.block_angles(*rotated(theta), stride=stride, blocks=(5, 6))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("stride", "size"), [(16, 3), (12, 1), (3, 8), (0, 4), (2, 6), (2, 9), (4, 2)]
)
def test_features_that_do_not_cover_the_blocks_are_refused(stride: int, size: int) -> None:
    features = torch.ones(2, size, size)
    with pytest.raises(InputError, match=rf"{size}x{size} at stride {stride}"):
        drift.block_angles(features, features, stride=stride, blocks=(2, 2))


# --- measuring ----------------------------------------------------------------------------------


def test_maps_equal_eq_1_and_2_position_by_position(
    first_layer: Backbone, module: AfdModule, photograph: RGB
) -> None:
    (found,) = drift.drift_maps(first_layer, module, photograph, [15])
    clean = centre_crop(photograph, SIZE)
    compressed = jpeg(clean, 15)
    image, degraded = (
        torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (clean, compressed)
    )
    normalize = Normalize(first_layer.mean, first_layer.std)
    with torch.no_grad():
        reference, before = (first_layer.head(normalize(x)) for x in (image, degraded))
        after = module(before, degraded)  # multi-branch; drift_maps fuses
    assert found.quality == 15 and np.array_equal(found.picture, compressed)
    assert found.after is not None
    assert found.before.shape == found.after.shape == found.dct_angle.shape == (BLOCKS, BLOCKS)
    ref = reference[0].double().numpy()
    for features, actual in ((before, found.before), (after, found.after)):
        values = features[0].double().numpy()
        for row, column in ((0, 0), (3, 7), (BLOCKS - 1, BLOCKS - 1)):
            positions = [(4 * row + i, 4 * column + j) for i in range(4) for j in range(4)]
            mean = np.mean([arccos_degrees(values[:, y, x], ref[:, y, x]) for y, x in positions])
            assert actual[row, column] == pytest.approx(mean, abs=1e-2)
    vectors = [drift.block_dct(p).numpy()[:, 3, 7] for p in (clean, compressed)]
    assert found.dct_angle[3, 7] == pytest.approx(arccos_degrees(*vectors), abs=1e-6)


def test_inside_the_classifier_the_deepest_corrected_map_is_looked_at(
    mobilenet: Backbone, photograph: RGB
) -> None:
    """Stride 16 at features.9, after a scale that it sees; against the tail itself, cut by hand."""
    module = inside_module(mobilenet, "scale:features.8.conv.1", "residual:features.9", size=0.1)
    (found,) = drift.drift_maps(mobilenet, module, photograph, [15])
    clean = centre_crop(photograph, mobilenet.input_size)
    pair = np.stack([clean, jpeg(clean, 15)]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(pair).float()
    other = load_backbone("mobilenet_v2", tap="features.9")
    scale, residual = module.corrections
    normalize = Normalize(mobilenet.mean, mobilenet.std)
    with torch.no_grad():
        guide = module(images[1:])
        reference, before = other.head(normalize(images))
        hook = other.head.get_submodule("features.8.conv.1.2").register_forward_hook(
            lambda _, __, y: scale(y, guide)
        )
        after = residual(other.head(normalize(images[1:])), guide)[0]
        hook.remove()
    for features, actual in ((before, found.before), (after, found.after)):
        assert actual is not None and actual.shape == (28, 28)
        expected = arccos_degrees(features[:, 3, 5].numpy(), reference[:, 3, 5].numpy())
        assert actual[6:8, 10:12].ravel().tolist() == pytest.approx([expected] * 4, abs=0.05)
    assert found.after is not None and abs(found.after - found.before).max() > 1
    maps = drift.feature_maps(mobilenet, module, photograph, 15)
    assert maps.corrected is not None and maps.corrected.shape == (drift.CHANNELS, 14, 14)
    np.testing.assert_allclose(maps.corrected, after[maps.channels].numpy(), atol=1e-3)
    assert maps.drift.after is not None and np.array_equal(maps.drift.after, found.after)


def test_the_channels_that_drift_most_are_drawn(
    first_layer: Backbone, module: AfdModule, photograph: RGB
) -> None:
    maps = drift.feature_maps(first_layer, module, photograph, 15)
    clean = centre_crop(photograph, SIZE)
    pair = np.stack([clean, jpeg(clean, 15)]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(pair).float()
    with torch.no_grad():
        features = first_layer.head(Normalize(first_layer.mean, first_layer.std)(images))
        corrected = module(features[1:], images[1:])[0]
        estimate = module.fde_net(images[1:])[0].abs().mean(0)
    drifts = [float(np.square(b - a).mean()) for a, b in zip(*features.numpy(), strict=True)]
    most = sorted(range(len(drifts)), key=lambda c: -drifts[c])[: drift.CHANNELS]
    assert maps.channels == most and np.array_equal(maps.clean_picture, clean)
    for shown, values in (
        (maps.clean, features[0]),
        (maps.compressed, features[1]),
        (maps.corrected, corrected),
    ):
        assert shown is not None and shown.shape == (drift.CHANNELS, SIZE // 2, SIZE // 2)
        np.testing.assert_allclose(shown, values[most].numpy(), atol=1e-3)
    assert maps.estimate is not None and maps.estimate.shape == (BLOCKS, BLOCKS)
    np.testing.assert_allclose(maps.estimate, estimate.numpy(), atol=1e-3)
    (whole,) = drift.drift_maps(first_layer, module, photograph, [15])
    np.testing.assert_array_equal(maps.drift.before, whole.before)


def test_without_a_module_nothing_is_corrected_or_estimated(
    first_layer: Backbone, photograph: RGB
) -> None:
    maps = drift.feature_maps(first_layer, None, photograph)
    assert maps.drift.quality == drift.FEATURE_QUALITY
    assert maps.corrected is None and maps.estimate is None and maps.drift.after is None


def test_drift_grows_with_compression_and_with_the_dct_angle(
    first_layer: Backbone, photos: Path
) -> None:
    curves = drift.measure_drift(first_layer, None, map(read_image, list_images(photos)))
    assert tuple(c.quality for c in curves) == drift.QUALITIES == (10, 25, 50, 60)
    means = [c.mean_before for c in curves]
    assert means == sorted(means, reverse=True) and means[0] > 1.3 * means[-1]
    for curve in curves:
        assert curve.after is None and curve.mean_after is None
        assert np.all(np.diff(curve.dct_angle) > 0)
        assert curve.before[-1] > 1.3 * curve.before[0]


def test_curves_hold_the_blocks_of_all_maps(
    first_layer: Backbone, module: AfdModule, photos: Path
) -> None:
    paths = list_images(photos)
    (curve,) = drift.measure_drift(first_layer, module, map(read_image, paths), [10])
    maps = [drift.drift_maps(first_layer, module, read_image(p), [10])[0] for p in paths]
    dct_angle = np.stack([m.dct_angle for m in maps]).ravel()
    before = np.stack([m.before for m in maps]).ravel()
    after = np.stack([m.after for m in maps if m.after is not None]).ravel()
    bins = [
        (low <= dct_angle) & (dct_angle < low + drift.BIN_DEGREES)
        for low in np.arange(0, 180, drift.BIN_DEGREES)
    ]
    kept = [b for b in bins if b.sum() >= drift.MIN_BLOCKS]
    assert 1 < len(kept) < sum(bool(b.any()) for b in bins)
    assert curve.blocks.tolist() == [b.sum() for b in kept]
    assert curve.after is not None
    for actual, values in (
        (curve.dct_angle, dct_angle),
        (curve.before, before),
        (curve.after, after),
    ):
        np.testing.assert_allclose(actual, [values[b].mean() for b in kept], rtol=1e-9)
    assert curve.mean_before == pytest.approx(before.mean())
    assert curve.mean_after == pytest.approx(after.mean())


def test_no_correction_leaves_the_drift_as_it_is(
    first_layer: Backbone, module: AfdModule, photos: Path
) -> None:
    module.reset_to_identity()
    (curve,) = drift.measure_drift(first_layer, module, map(read_image, list_images(photos)), [10])
    assert curve.after is not None and np.array_equal(curve.after, curve.before)
    assert curve.mean_after == curve.mean_before > 0


def test_blocks_without_features_do_not_count(photos: Path) -> None:
    backbone = load_backbone("squeezenet1_1", tap="features.5")
    assert (backbone.feature_size, backbone.stride) == (27, 8)  # of 28 blocks
    path = list_images(photos)[0]
    (found,) = drift.drift_maps(backbone, None, read_image(path), [10])
    assert np.isnan(found.before[-1]).all() and np.isnan(found.before[:, -1]).all()
    assert np.isfinite(found.before[:-1, :-1]).all()
    (curve,) = drift.measure_drift(backbone, None, [read_image(path)], [10])
    assert curve.mean_before == pytest.approx(found.before[:-1, :-1].mean())


def test_no_picture_is_refused(first_layer: Backbone) -> None:
    with pytest.raises(InputError, match="no picture"):
        drift.measure_drift(first_layer, None, [])


def test_features_that_are_not_finite_are_refused(
    first_layer: Backbone, module: AfdModule, photograph: RGB
) -> None:
    with torch.no_grad():
        next(module.fe_net.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="NaN or infinity"):
        drift.drift_maps(first_layer, module, photograph, [10])


# --- drawing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [pytest.param(False, marks=pytest.mark.long), True])
def test_figures_are_pngs_and_the_same_every_time(
    first_layer: Backbone,
    module: AfdModule,
    photos: Path,
    corrected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "CHANNELS", 1)  # fewer are drawn sooner
    path = list_images(photos)[0]
    used = module if corrected else None
    curves = drift.measure_drift(first_layer, used, [read_image(path)], [10, 25])
    maps = drift.drift_maps(first_layer, used, read_image(path), [10, 25])
    features = drift.feature_maps(first_layer, used, read_image(path))
    drawn, *again = (
        (
            drift_figures.draw_curves(curves),
            drift_figures.draw_maps(maps),
            drift_figures.draw_features(features),
        )
        for _ in range(1 + corrected)
    )
    assert again == [drawn] * corrected
    for png in drawn:
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG" and min(image.size) > 300
            darkest, brightest = image.convert("L").getextrema()
        assert (darkest, brightest) == (0, 255)
