"""The paper's figures 2, 4, 6, 7 and 8, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from afd_mobile.common.plotting import png
from afd_mobile.evaluation.drift import Curve, DriftMap, FeatureMaps


def draw_curves(curves: Sequence[Curve]) -> bytes:
    """Fig. 4 as PNG: drift over DCT angle, one colour a quality, dashed once corrected."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(curves)))
    for curve, colour in zip(curves, colours, strict=True):
        label = f"QF {curve.quality}, mean {curve.mean_before:.1f}°"
        axes.plot(curve.dct_angle, curve.before, marker=".", color=colour, label=label)
        if curve.after is not None:
            label = f"corrected, mean {curve.mean_after:.1f}°"
            axes.plot(curve.dct_angle, curve.after, "--", color=colour, label=label)
    axes.set_xlabel("angle between clean and compressed DCT coefficients of a block, degrees")
    axes.set_ylabel("feature drift angle, degrees")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return png(figure)


def draw_maps(maps: Sequence[DriftMap]) -> bytes:
    """Fig. 2 and 7 as PNG: a row a quality; the compressed picture, its drift before and after.

    All maps share one scale, up to the angle that one block in 200 exceeds.
    """
    rows = [[m.before] if m.after is None else [m.before, m.after] for m in maps]
    columns = 1 + len(rows[0])
    limit = np.nanpercentile(rows, 99.5)
    figure = Figure(figsize=(2.4 * columns + 0.8, 2.6 * len(maps)), dpi=150, layout="constrained")
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for axes, drift, row in zip(grid, maps, rows, strict=True):
        axes[0].imshow(drift.picture)
        axes[0].set_title(f"QF {drift.quality}")
        for cell, name, angle in zip(axes[1:], ("drift", "corrected"), row, strict=False):
            shown = cell.imshow(angle, vmin=0, vmax=limit, cmap="inferno", interpolation="nearest")
            cell.set_title(f"{name}, mean {np.nanmean(angle):.1f}°")
    for cell in grid.flat:
        cell.set_axis_off()
    label = "feature drift angle, degrees"
    figure.colorbar(shown, ax=grid, label=label, extend="max", aspect=15 * len(maps))
    return png(figure)


def draw_features(maps: FeatureMaps) -> bytes:
    """Fig. 6 and 8 as PNG: a row a channel; clean, compressed, corrected, and how far from clean.

    Above them stand the pictures, the module's own estimate of the drift, and the drift itself.
    Features share one scale in a row, differences another, around 0; both leave out the one value
    in 200 that is farthest off.
    """
    features = {"clean": maps.clean, "compressed": maps.compressed}
    if maps.corrected is not None:
        features["corrected"] = maps.corrected
    differences = {
        f"{name} - clean": values - maps.clean for name, values in list(features.items())[1:]
    }
    rows, columns = 1 + len(maps.channels), len(features) + len(differences)
    figure = Figure(figsize=(2.2 * columns + 1.4, 2.25 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    left, right = grid[:, : len(features)], grid[:, len(features) :]
    _draw_above(figure, left[0], right[0], maps)
    for axes, name in zip(grid[1], (*features, *differences), strict=True):
        axes.set_title(name)
    for row, channel in enumerate(maps.channels):
        shown = [values[row] for values in features.values()]
        low, high = np.percentile(shown, [0.5, 99.5])
        left[1 + row, 0].set_ylabel(f"channel {channel}")
        _draw_row(figure, left[1 + row], shown, (low, high), "viridis")
        apart = [values[row] for values in differences.values()]
        limit = np.percentile(np.abs(apart), 99.5)
        _draw_row(figure, right[1 + row], apart, (-limit, limit), "RdBu_r")
    for cell in grid.flat:
        cell.set(xticks=[], yticks=[])
    return png(figure)


def _draw_above(figure: Figure, left: Any, right: Any, maps: FeatureMaps) -> None:
    drift = maps.drift
    left[0].imshow(maps.clean_picture)
    left[0].set_title("clean picture")
    left[1].imshow(drift.picture)
    left[1].set_title(f"QF {drift.quality}")
    if maps.estimate is not None:
        left[2].imshow(maps.estimate, cmap="inferno", interpolation="nearest")
        left[2].set_title("estimated drift")
    angles_shown = [drift.before] if drift.after is None else [drift.before, drift.after]
    for axes, name, angle in zip(right, ("drift", "corrected"), angles_shown, strict=False):
        axes.set_title(f"{name}, mean {np.nanmean(angle):.1f}°")
    limits = (0.0, float(np.nanpercentile(angles_shown, 99.5)))
    _draw_row(figure, right, angles_shown, limits, "inferno", "degrees")


def _draw_row(
    figure: Figure,
    row: Any,
    shown: Sequence[NDArray[Any]],
    limits: tuple[float, float],
    colours: str,
    label: str = "",
) -> None:
    """Maps beside each other, all in the same colours, and what these mean."""
    low, high = limits
    for axes, values in zip(row, shown, strict=True):
        image = axes.imshow(values, vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    figure.colorbar(image, ax=row, label=label, aspect=12, pad=0.02)
