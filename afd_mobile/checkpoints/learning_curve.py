"""The learning curve that a training leaves in its checkpoint: checked, as a table, drawn.

A point holds the number of `crops` seen, the running mean of the `loss`, and of held-out pictures,
by condition, the corrected `agreement` and the `direct_agreement` with the plain classifier on the
clean picture, with the mean `recovered_share` of it; `kl_removed`, the share of the mean KL
divergence from the clean picture's answer that the correction removes, by quality, and `clean_kl`,
what it adds on clean pictures. `training_kl_removed` and `training_clean_kl` say the same of as
many pictures that are trained on: where these do better, the module overfits. Curves of earlier
versions have no KL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from afd_mobile.common.terminal import aligned

Point = dict[str, Any]

_BY_CONDITION = ("agreement", "direct_agreement")
_KL_BY_QUALITY = ("kl_removed", "training_kl_removed")
_EARLIER = {"crops", "loss", "recovered_share", *_BY_CONDITION}
_KEYS = _EARLIER | {"clean_kl", "training_clean_kl", *_KL_BY_QUALITY}


def checked(points: Any) -> list[Point]:
    """A curve from a file, as it is.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise ValueError("no learning curve")
    return points


def _is_point(point: Any) -> bool:
    if not isinstance(point, dict) or set(point) not in (_EARLIER, _KEYS):
        return False
    by_name = [point[key] for key in (*_BY_CONDITION, *_KL_BY_QUALITY) if key in point]
    if not all(isinstance(values, dict) and values for values in by_name):
        return False
    others = [v for k, v in point.items() if k != "crops" and not isinstance(v, dict)]
    figures = [*others, *(value for values in by_name for value in values.values())]
    return (
        type(point["crops"]) is int
        and "clean" in point["agreement"]
        and all(type(figure) is float and math.isfinite(figure) for figure in figures)
    )


def mean_removed(point: Point, key: str = "kl_removed") -> float | None:
    """The mean over the qualities of the share of KL that is removed; None of earlier versions."""
    return mean(point[key].values()) if key in point else None


# --- for people ---------------------------------------------------------------------------------

_COLUMNS = ("crops", "loss", "KL removed, held out", "trained on", "recovered", "clean")


def text_table(curve: Sequence[Point]) -> list[str]:
    """A line for every point; means over the qualities, `-` for what is unknown."""
    return aligned([_COLUMNS, *map(_cells, curve)], left=0)


def _cells(point: Point) -> list[str]:
    return [
        f"{point['crops']:,}",
        f"{point['loss']:.3f}",
        *(_percent(mean_removed(point, key)) for key in _KL_BY_QUALITY),
        _percent(point["recovered_share"]),
        _percent(point["agreement"]["clean"]),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def draw(curves: Mapping[str, Sequence[Point]]) -> bytes:
    """As PNG, over the crops seen: the KL removed, where it is known, and the recovered share.

    Args:
        curves: by the name of the checkpoint.
    """
    # Only this function needs it, and it takes half a second to import.
    from matplotlib.figure import Figure

    from afd_mobile.common.plotting import png

    figure = Figure(figsize=(9.5, 4.4), dpi=120, layout="constrained")
    with_kl = any("kl_removed" in point for curve in curves.values() for point in curve)
    *kl, recovered = figure.subplots(1, 1 + with_kl, squeeze=False)[0]
    for number, (name, curve) in enumerate(curves.items()):
        colour, held_out, trained = f"C{number}", f"held out: {name}", f"trained on: {name}"
        removed, of_trained = ([mean_removed(p, key) for p in curve] for key in _KL_BY_QUALITY)
        for axes in kl:
            _plot(axes, curve, removed, color=colour, label=held_out)
            _plot(axes, curve, of_trained, color=colour, label=trained, linestyle="--")
            axes.set_title("KL divergence removed")
        _plot(recovered, curve, [p["recovered_share"] for p in curve], color=colour, label=held_out)
    recovered.set_title("recovered share of top-1 agreement")
    for axes in (*kl, recovered):
        axes.set_xlabel("crops seen")
        axes.set_ylabel("mean of the qualities, in %")
        axes.grid(alpha=0.3)
    # One legend for both, below them: names are long, and lines may be anywhere.
    shown = {label: handle for axes in figure.axes for handle, label in _legend(axes)}
    legend = figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=2, fontsize="small"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png(figure)


def _plot(axes: Any, curve: Sequence[Point], shares: Sequence[float | None], **style: str) -> None:
    known = [(p["crops"], 100 * s) for p, s in zip(curve, shares, strict=True) if s is not None]
    if known:
        axes.plot(*zip(*known, strict=True), marker=".", **style)


def _legend(axes: Any) -> Iterator[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)
