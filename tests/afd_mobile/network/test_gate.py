"""The picture's gate: its filters, their means, and what it tells apart before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d

from afd_mobile.network import gate
from afd_mobile.network.fusion import fuse
from afd_mobile.network.gate import BlockStatistics, Gate
from afd_mobile.pictures.datasets import centre_crop, nchw
from afd_mobile.pictures.degrade import Degradation, Jpeg, Shifted
from afd_mobile.pictures.picture_files import list_images, read_image
from tests.afd_mobile.conftest import Randomize

HALF = gate.FILTERS // 2


def batch(*pictures: NDArray[np.uint8]) -> Tensor:
    return nchw(torch.from_numpy(np.stack(pictures)))


def grey(values: NDArray[np.float64]) -> Tensor:
    """(H, W) -> (1, 3, H, W)."""
    return torch.tensor(values).float().expand(1, 3, -1, -1)


def test_a_flat_picture_answers_nothing() -> None:
    for level in (0.0, 77.0, 255.0):
        means = BlockStatistics()(grey(np.full((32, 48), level)))
        assert means.shape == (1, gate.FILTERS, 1, 1) and means.abs().max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("position", [1, 4, 7])
def test_a_step_is_answered_by_the_filter_of_its_position(axis: int, position: int) -> None:
    """Of a fifth of a grey level: 3 / 0.35 of it, by the sign it has; by others not at all."""
    step = np.where(np.arange(64) % 8 < position, 100.0, 100.2)
    means = BlockStatistics()(grey(np.broadcast_to(step if axis == 0 else step[:, None], (64, 64))))
    steps = means.flatten().reshape(2, -1)[:, gate.COEFFICIENTS :].reshape(2, 2, gate.STEPS)
    expected = torch.zeros(2, 2, gate.STEPS)
    expected[0, axis, position - 1] = 0.2 * 3 / 0.35
    torch.testing.assert_close(steps, expected, rtol=1e-2, atol=1e-2)


def test_a_coefficient_is_answered_by_its_filter_and_limited() -> None:
    """Of 2 grey levels, 3 / 4 of it; of 100, the most there is; the other sign not at all."""
    chosen = np.linspace(1, 63, 24).round().astype(int)
    row, column = divmod(int(chosen[5]), 8)
    wave = np.outer(*(np.cos((2 * np.arange(8) + 1) * f * np.pi / 16) for f in (row, column)))
    wave /= np.linalg.norm(wave)
    for level, expected in ((2.0, 1.5), (100.0, 6.0)):
        means = BlockStatistics()(grey(np.tile(128 + level * wave, (4, 4)))).flatten()
        assert means[5].item() == pytest.approx(expected, rel=1e-3)
        assert means[HALF + 5].item() == 0


def test_every_other_block_is_looked_at() -> None:
    picture = torch.full((1, 3, 32, 32), 100.0)
    picture[..., 8:16, 8:16] = torch.randint(0, 256, (8, 8)).float()
    assert BlockStatistics()(picture).abs().max() < 1e-3


def test_fused_is_one_convolution_and_the_same(randomize: Randomize) -> None:
    statistics = BlockStatistics().eval()
    for picture in (torch.randint(0, 256, (2, 3, 72, 40)).float(), torch.rand(1, 3, 8, 8)):
        fused = fuse(statistics)
        torch.testing.assert_close(fused(picture), statistics(picture), rtol=1e-4, atol=1e-4)
    assert [type(m) for m in fused.children()] == [nn.Conv2d, nn.ReLU6, gate.SpatialMean]


def test_the_logit_is_its_definition() -> None:
    network, means = Gate(), torch.rand(3, gate.FILTERS, 1, 1)
    hidden = conv2d(means, network.hidden.weight, network.hidden.bias).clamp_min(0)
    expected = conv2d(hidden, network.logit.weight, network.logit.bias)
    assert torch.equal(network(means), expected) and expected.shape == (3, 1, 1, 1)


def test_steps_of_one_position_open_contrasts_and_steps_everywhere_do_not() -> None:
    hidden = Gate().hidden
    one, everywhere = torch.zeros(2, 1, gate.FILTERS, 1, 1)
    one[:, gate.COEFFICIENTS + 3] = 1.0
    everywhere[:, gate.COEFFICIENTS : HALF] = 1.0
    with torch.no_grad():
        (a, b) = (hidden(x).flatten()[:14] for x in (one, everywhere))
    assert a[3].item() == pytest.approx(2 * 6 / 7, rel=1e-5)
    torch.testing.assert_close(a[7:], torch.zeros(7))
    torch.testing.assert_close(b, torch.zeros(14), atol=1e-5, rtol=0)


def mean_statistics(photos: Path, degradation: Degradation | None) -> Tensor:
    """Of the middle of all pictures, both signs together: (FILTERS / 2,)."""
    pictures = [centre_crop(read_image(path), 128) for path in list_images(photos)]
    if degradation is not None:
        pictures = [degradation.apply(picture, 0) for picture in pictures]
    with torch.no_grad():
        means = [BlockStatistics()(batch(picture)).reshape(2, HALF).sum(0) for picture in pictures]
    return torch.stack(means).mean(0)


def test_compressed_photographs_answer_less_to_coefficients(photos: Path) -> None:
    """From the start, before any training. Measured: 0.22."""
    clean, compressed = (mean_statistics(photos, d)[: gate.COEFFICIENTS] for d in (None, Jpeg(10)))
    assert compressed.mean() < 0.6 * clean.mean()


def test_a_grid_that_begins_elsewhere_shows_in_the_steps_at_its_edges(photos: Path) -> None:
    """Of blocks that begin 4 pixels off, against the steps beside.

    Measured: 1.5 and 1.8; of clean pictures 1.05 and 1.01.
    """

    def prominence(degradation: Degradation | None) -> Tensor:
        steps = mean_statistics(photos, degradation)[gate.COEFFICIENTS :].reshape(2, gate.STEPS)
        return steps[:, 3] / steps[:, [2, 4]].mean(1)

    clean, compressed = prominence(None), prominence(Shifted(Jpeg(10), 4, 4))
    assert clean.max() < 1.25 < compressed.min()
