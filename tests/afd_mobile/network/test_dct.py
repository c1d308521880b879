"""The DCT front-end against scipy and colour arithmetic written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dctn

from afd_mobile.network import dct

Array = NDArray[np.float64]


def reference(rgb: Array) -> Array:
    """(H, W, 3), 0 to 255 -> (192, H / 8, W / 8) by the definition, block by block."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (y - 128, (b - y) / 1.772, (r - y) / 1.402)
    scale = dct.coefficient_scale().numpy()
    rows, columns = rgb.shape[0] // 8, rgb.shape[1] // 8
    out = np.empty((192, rows, columns))
    for c, plane in enumerate(planes):
        for i in range(rows):
            for j in range(columns):
                block = plane[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                coefficients = dctn(block, type=2, norm="ortho") * scale[c]
                out[64 * c : 64 * c + 64, i, j] = coefficients.reshape(-1)
    return out


def exact(front: dct.DctFrontEnd) -> dct.DctFrontEnd:
    """The same in float64, from the basis before it was rounded."""
    front.kernel, front.bias = front.exact_kernel_and_bias()
    return front


@pytest.fixture
def picture() -> Array:
    return np.random.default_rng(3).integers(0, 256, (24, 40, 3)).astype(np.float64)


def to_batch(picture: Array) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def test_equals_scipy_in_every_block(picture: Array) -> None:
    actual = exact(dct.DctFrontEnd())(to_batch(picture))[0].numpy()
    assert actual.shape == (192, 3, 5)
    # JFIF prints the colour matrix with 9 decimals, which is what is left.
    np.testing.assert_allclose(actual, reference(picture), rtol=0, atol=1e-5)


def test_float32_is_close_to_float64(picture: Array) -> None:
    actual = dct.DctFrontEnd()(to_batch(picture).float())[0].numpy()
    np.testing.assert_allclose(actual, reference(picture), rtol=0, atol=1e-4)


def test_a_normalised_picture_gives_the_same_coefficients(picture: Array) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normalised = (picture / 255 - np.array(mean)) / np.array(std)
    actual = exact(dct.DctFrontEnd(mean, std))(to_batch(normalised))
    expected = exact(dct.DctFrontEnd())(to_batch(picture))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("u", "v"), [(0, 0), (0, 3), (5, 0), (2, 7)])
def test_channels_are_component_then_vertical_then_horizontal(u: int, v: int) -> None:
    basis = dct.dct_matrix().numpy()
    grey = 128 + 50 * np.outer(basis[u], basis[v])
    out = exact(dct.DctFrontEnd())(to_batch(np.repeat(grey[..., None], 3, axis=2)))[0, :, 0, 0]
    expected = torch.zeros(192, dtype=torch.float64)
    expected[8 * u + v] = 50 * (1 + u + v) / 256
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_red_is_seen_in_cr_and_blue_in_cb() -> None:
    for rgb, channel in (((0, 0, 255), 64), ((255, 0, 0), 128)):
        picture = np.tile(np.array(rgb, dtype=np.float64), (8, 8, 1))
        out = exact(dct.DctFrontEnd())(to_batch(picture))[0, :, 0, 0]
        assert out[channel].item() == pytest.approx(127.5 * 8 / 64, abs=1e-5)


@pytest.mark.parametrize("size", [4, 8])
def test_the_basis_is_orthonormal(size: int) -> None:
    basis = dct.dct_matrix(size)
    torch.testing.assert_close(
        basis @ basis.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-14
    )


def test_a_checkpoint_does_not_hold_the_fixed_kernel() -> None:
    assert dct.DctFrontEnd().state_dict() == {}


def test_the_pixel_front_end_is_the_blocks_pixels(picture: Array) -> None:
    actual = exact(dct.PixelFrontEnd())(to_batch(picture))[0].numpy()
    expected = np.empty((192, 3, 5))
    for i in range(3):
        for j in range(5):
            block = picture[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            expected[:, i, j] = (block.transpose(2, 0, 1).reshape(-1) - 128) / 64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_shuffling_keeps_every_blocks_coefficients(picture: Array) -> None:
    image = to_batch(picture).float()
    plain, shuffled = dct.DctFrontEnd()(image), dct.ShuffledDctFrontEnd()(image)
    assert torch.equal(shuffled.sort(dim=1).values, plain.sort(dim=1).values)
    assert ((shuffled != plain).float().mean(dim=1) > 0.9).all()
    assert torch.equal(shuffled, dct.ShuffledDctFrontEnd()(image))


def test_shuffling_orders_every_block_differently() -> None:
    block = np.random.default_rng(3).uniform(0, 255, (8, 8, 3))
    image = to_batch(np.tile(block, (3, 5, 1))).float()
    blocks = dct.ShuffledDctFrontEnd()(image)[0].flatten(1).T.numpy()
    assert len(np.unique(blocks, axis=0)) == 15
    assert len(np.unique(np.sort(blocks, axis=1), axis=0)) == 1


def test_shuffling_does_the_same_to_every_picture_of_a_batch(picture: Array) -> None:
    image = to_batch(picture).float()
    one, two = dct.ShuffledDctFrontEnd()(torch.cat([image, image]))
    assert torch.equal(one, two)
