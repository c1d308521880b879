"""How far compression makes features drift: the paper's Fig. 2, 4, 6, 7 and 8.

Drift is an angle in degrees between what the clean and the compressed picture give. Every 8x8
block of a picture counts, where the paper samples 10,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from afd_mobile.classifiers.backbones import Backbone, Normalize
from afd_mobile.classifiers.places import observed_place, up_to_place
from afd_mobile.common.errors import InputError
from afd_mobile.network.corrections import AnyModule, InsideModule
from afd_mobile.network.dct import BLOCK, DctFrontEnd, coefficient_scale
from afd_mobile.network.fusion import fuse
from afd_mobile.pictures.datasets import centre_crop, nchw
from afd_mobile.pictures.degrade import RGB, jpeg

QUALITIES = (10, 25, 50, 60)  # Fig. 4's
BIN_DEGREES = 2.5
MIN_BLOCKS = 50
# Of the feature maps that are drawn.
FEATURE_QUALITY = 10
CHANNELS = 4

Angles = NDArray[np.float64]  # degrees
Features = NDArray[np.float32]


@dataclass(frozen=True)
class DriftMap:
    """One picture at one quality.

    Attributes:
        quality: JPEG's.
        picture: (S, S, 3), compressed.
        dct_angle: (S / 8, S / 8), eq. 1 of every block.
        before: (S / 8, S / 8), eq. 2 of every block; NaN where no position of the features lies.
        after: the same once the module has corrected; None without a module.
    """

    quality: int
    picture: RGB
    dct_angle: Angles
    before: Angles
    after: Angles | None


@dataclass(frozen=True)
class Curve:
    """All blocks of many pictures at one quality, in bins of BIN_DEGREES of their DCT angle.

    Bins with fewer than MIN_BLOCKS blocks are left out of the B bins, not out of the means.

    Attributes:
        quality: JPEG's.
        blocks: (B,), how many a bin holds.
        dct_angle: (B,), mean of eq. 1 in the bin.
        before: (B,), mean of eq. 2 in the bin.
        after: (B,), the same once the module has corrected; None without a module.
        mean_before, mean_after: of all blocks.
    """

    quality: int
    blocks: NDArray[np.int64]
    dct_angle: Angles
    before: Angles
    after: Angles | None
    mean_before: float
    mean_after: float | None


@dataclass(frozen=True)
class FeatureMaps:
    """The K channels of one picture that drift most, where features are looked at.

    Attributes:
        clean_picture: (S, S, 3).
        drift: of every block, with the compressed picture.
        estimate: (S / 8, S / 8), mean magnitude of FDE-Net's drift map; None without a module.
        channels: K indices, the one that drifts most first.
        clean, compressed: (K, h, w).
        corrected: the same once the module has corrected; None without a module.
    """

    clean_picture: RGB
    drift: DriftMap
    estimate: Features | None
    channels: list[int]
    clean: Features
    compressed: Features
    corrected: Features | None


@dataclass(frozen=True)
class _Observed:
    """What the classifier makes of one picture, clean and at Q qualities.

    Attributes:
        pictures: the clean one, then the Q compressed ones.
        features: (1 + Q, C, h, w), of them in this order.
        corrected: (Q, C, h, w); None without a module.
        stride: picture pixels per position.
    """

    pictures: list[RGB]
    features: Tensor
    corrected: Tensor | None
    stride: int


# --- arithmetic ---------------------------------------------------------------------------------


def angles(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Angles between vectors along `dim`, which disappears: degrees, float64.

    arccos(<a, b> / |a| |b|), computed as 2 atan2(|u - v|, |u + v|) of the vectors brought to one
    length, which is exact for small angles as well. Two zero vectors are at 0 degrees; a zero
    vector and another are at 90.
    """
    a, b = a.double(), b.double()
    length_a, length_b = a.norm(dim=dim, keepdim=True), b.norm(dim=dim, keepdim=True)
    u, v = a * length_b, b * length_a
    degrees = torch.rad2deg(2 * torch.atan2((u - v).norm(dim=dim), (u + v).norm(dim=dim)))
    one_is_zero = ((length_a == 0) != (length_b == 0)).squeeze(dim)
    return degrees.masked_fill(one_is_zero, 90.0)


def block_dct(image: RGB) -> Tensor:
    """Every block's DCT vector (eq. 3): (H, W, 3) RGB -> (192, H / 8, W / 8), float64.

    Unscaled orthonormal coefficients of Y - 128, Cb and Cr, which JPEG quantises. Without the
    level shift all vectors would point along Y's mean, and their angles tell of brightness.
    """
    scaled: Tensor = DctFrontEnd().double()(_batch([image]).double())[0]
    return scaled / coefficient_scale().reshape(-1, 1, 1)


def block_angles(
    features: Tensor, reference: Tensor, stride: int, blocks: tuple[int, int]
) -> Tensor:
    """Mean angle between channel vectors in every block (eq. 2).

    Args:
        features, reference: (C, h, w); position (i, j) belongs to the block that holds the pixel
            (stride i, stride j), above stride 8 to all blocks up to the next position's.
        stride: pixels per position: 1, 2, 4, 8 or a multiple of 8.
        blocks: the picture's (H / 8, W / 8).

    Returns:
        (H / 8, W / 8), degrees. Features may be one position short of H / stride: the last blocks
        then average what they have, and are NaN where that is nothing (from stride 8 on).

    Raises:
        InputError: features that do not cover these blocks in this way.
    """
    rows, columns = blocks
    per_block = BLOCK // stride if stride and BLOCK % stride == 0 else 0
    per_position = stride // BLOCK if stride % BLOCK == 0 else 0
    needed = [per_block * n or -(-n // max(1, per_position)) for n in blocks]
    short = [n - size for n, size in zip(needed, features.shape[1:], strict=True)]
    if not (per_block or per_position) or not all(n in (0, 1) for n in short):
        raise InputError(
            f"features of {features.shape[1]}x{features.shape[2]} at stride {stride} do not cover "
            f"{rows}x{columns} blocks of {BLOCK}x{BLOCK} pixels; choose another tap"
        )
    angle = angles(features, reference, dim=0)
    padding = (0, short[1], 0, short[0])
    if not per_block:
        spread = pad(angle, padding, value=float("nan"))
        spread = spread.repeat_interleave(per_position, 0).repeat_interleave(per_position, 1)
        return spread[:rows, :columns]
    total, count = (
        pad(x, padding).reshape(rows, per_block, columns, per_block).sum(dim=(1, 3))
        for x in (angle, torch.ones_like(angle))
    )
    return total / count


# --- measuring ----------------------------------------------------------------------------------


def drift_maps(
    backbone: Backbone, module: AnyModule | None, image: RGB, qualities: Sequence[int]
) -> list[DriftMap]:
    """Where the features of one picture drift, at every quality: at the tap, or, of a module
    inside the classifier, at the deepest place of feature maps.

    Args:
        module: what corrects them, in eval mode; it is fused first.
        image: (H, W, 3), any size; its centre crop is used.

    Raises:
        InputError: the tap's features do not fit 8x8 blocks, or are not finite.
    """
    fused = None if module is None else fuse(module)
    return _drift_maps(_observe(backbone, fused, image, qualities), qualities)


def feature_maps(
    backbone: Backbone, module: AnyModule | None, image: RGB, quality: int = FEATURE_QUALITY
) -> FeatureMaps:
    """The CHANNELS channels of one picture whose features compression changes most.

    Args, Raises: as of `drift_maps`, with a single quality.
    """
    fused = None if module is None else fuse(module)
    seen = _observe(backbone, fused, image, [quality])
    clean, compressed = seen.features
    order = (compressed - clean).square().mean((1, 2)).argsort(descending=True, stable=True)
    channels = order[:CHANNELS]
    (drift,) = _drift_maps(seen, [quality])
    return FeatureMaps(
        clean_picture=seen.pictures[0],
        drift=drift,
        estimate=None if fused is None else _estimate(fused, drift.picture),
        channels=channels.tolist(),
        clean=clean[channels].numpy(),
        compressed=compressed[channels].numpy(),
        corrected=None if seen.corrected is None else seen.corrected[0, channels].numpy(),
    )


@torch.inference_mode()
def _estimate(fused: AnyModule, picture: RGB) -> Features:
    result: Features = fused.fde_net(_batch([picture]))[0].abs().mean(0).numpy()
    return result


def measure_drift(
    backbone: Backbone,
    module: AnyModule | None,
    images: Iterable[RGB],
    qualities: Sequence[int] = QUALITIES,
) -> list[Curve]:
    """One curve a quality, in their order, over all blocks of all pictures' centre crops.

    Blocks without any position of the features do not count.

    Args:
        module: what corrects the features, in eval mode; it is fused first.

    Raises:
        InputError: no picture, or features that do not fit.
    """
    fused = None if module is None else fuse(module)
    bins = int(180 / BIN_DEGREES) + 1
    sums = np.zeros((len(qualities), 4, bins))
    for image in images:
        maps = _drift_maps(_observe(backbone, fused, image, qualities), qualities)
        for i, drift in enumerate(maps):
            sums[i] += _binned(drift, bins)
    if not sums.any():
        raise InputError("no picture to measure drift on")
    return [
        _curve(quality, s, corrected=fused is not None)
        for quality, s in zip(qualities, sums, strict=True)
    ]


def _binned(drift: DriftMap, bins: int) -> Angles:
    """(4, bins): number of blocks, sums of the DCT angle, and of eq. 2 before and after."""
    after = drift.before if drift.after is None else drift.after
    counts = np.isfinite(drift.before)
    dct_angle = drift.dct_angle[counts]
    bin_of = (dct_angle / BIN_DEGREES).astype(np.int64)
    weights = (np.ones_like(dct_angle), dct_angle, drift.before[counts], after[counts])
    return np.stack([np.bincount(bin_of, w, bins) for w in weights])


def _curve(quality: int, sums: Angles, *, corrected: bool) -> Curve:
    number, *totals = sums
    kept = number >= MIN_BLOCKS
    dct_angle, before, after = (total[kept] / number[kept] for total in totals)
    _, mean_before, mean_after = (float(total.sum() / number.sum()) for total in totals)
    return Curve(
        quality=quality,
        blocks=number[kept].astype(np.int64),
        dct_angle=dct_angle,
        before=before,
        after=after if corrected else None,
        mean_before=mean_before,
        mean_after=mean_after if corrected else None,
    )


@torch.inference_mode()
def _observe(
    backbone: Backbone, fused: AnyModule | None, image: RGB, qualities: Sequence[int]
) -> _Observed:
    clean = centre_crop(image, backbone.input_size)
    pictures = [clean, *(jpeg(clean, quality) for quality in qualities)]
    batch = _batch(pictures)
    features = backbone.head(Normalize(backbone.mean, backbone.std)(batch))
    stride, corrected = backbone.stride, None
    if isinstance(fused, InsideModule):
        place = observed_place(fused)
        plain, inside = up_to_place(backbone.tail, fused, place)
        corrected = inside(features[1:], fused(batch[1:]))
        features, stride = plain(features), place.stride
    elif fused is not None:
        corrected = fused(features[1:], batch[1:])
    for values in (features, corrected):
        if values is not None and not values.isfinite().all():
            raise InputError(f"tap {backbone.tap} of {backbone.name} gives NaN or infinity")
    return _Observed(pictures, features, corrected, stride)


@torch.inference_mode()
def _drift_maps(seen: _Observed, qualities: Sequence[int]) -> list[DriftMap]:
    clean, *pictures = seen.pictures
    reference, *drifted = seen.features
    size = len(clean) // BLOCK

    def drift(values: Tensor) -> Angles:
        return _numpy(block_angles(values, reference, seen.stride, (size, size)))

    clean_dct = block_dct(clean)
    return [
        DriftMap(
            quality=quality,
            picture=picture,
            dct_angle=_numpy(angles(block_dct(picture), clean_dct, dim=0)),
            before=drift(drifted[i]),
            after=None if seen.corrected is None else drift(seen.corrected[i]),
        )
        for i, (quality, picture) in enumerate(zip(qualities, pictures, strict=True))
    ]


def _batch(pictures: list[RGB]) -> Tensor:
    """(N, 3, H, W), 0 to 255."""
    return nchw(torch.from_numpy(np.stack(pictures)))


def _numpy(values: Tensor) -> Angles:
    result: Angles = values.numpy()
    return result
