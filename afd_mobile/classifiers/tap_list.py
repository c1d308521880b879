"""What `--taps list` prints: the nodes of a classifier that can be corrected, and at what cost."""

from __future__ import annotations

from afd_mobile.classifiers.backbones import whole_network
from afd_mobile.classifiers.choose import FDE_WIDTHS, SUMMARY, residual_cost
from afd_mobile.classifiers.names import BackboneName
from afd_mobile.classifiers.places import Step, stride_of
from afd_mobile.network.corrections import STRIDES

HEADING = "{node:<{width}}  {channels:>8}  {stride:>6}  {scale:>7}  {residual:>8}  {path}"


def tap_list(name: BackboneName, input_size: int | None) -> list[str]:
    """A line for every feature map, in the order of computation.

    Raises:
        InputError: an unknown network, or one that cannot be traced.
    """
    network, size = whole_network(name, input_size=input_size)
    steps = [s for s in network.steps if s.size > 1 and s.node.op != "placeholder"]
    width = max((len(step.qualname) for step in steps), default=4)
    heading = HEADING.format(
        **{k: k for k in ("node", "channels", "stride", "scale", "residual", "path")},
        width=width,
    )
    return [
        heading,
        *(_line(step, size, width) for step in steps),
        "scale, residual: multiply-adds of this correction, in millions; path: single",
        "where all that follows is computed from this node, as --preset paper and the cut need it",
    ]


def _line(step: Step, size: int, width: int) -> str:
    channels, stride = step.shape[1], stride_of(step.shape, size)
    residual = residual_cost(step, FDE_WIDTHS[-1])
    return HEADING.format(
        node=step.qualname,
        channels=channels,
        stride=stride,
        scale=_millions(channels * (SUMMARY + step.size**2)),
        residual=_millions(residual) if stride in STRIDES else "-",
        path="single" if step.only_path else "",
        width=width,
    ).rstrip()


def _millions(multiply_adds: int) -> str:
    return f"{multiply_adds / 1e6:.2f}"
