"""Names beside points, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from afd_benchmark.report.chart_output import MUTED

_DISTANCES = (5.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 90.0, 110.0, 135.0, 165.0, 200.0)
_WITH_LEADER = 12.0  # from this distance on a line leads to the point
# The sides first, then corners, then what lies between; a name is anchored at its nearest edge.
_DIRECTIONS = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (
    0, 180, 90, 270, 45, 135, 315, 225, 22, 158, 338, 202, 67, 113, 293, 247,
)]  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A rectangle in units of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def label_points(
    axes: Any,
    points: Sequence[tuple[str, float, float, float, bool]],
    lines: Sequence[Any] = (),
    *,
    size: float = 10.5,
) -> list[Box]:
    """Writes each point's name as near to it as room allows; the emphasised choose first.

    The layout has to be settled, with the axes' limits.

    Args:
        points: name, x, y in data, radius in units, whether it is emphasised.
        lines: of the axes, to be kept clear as well.

    Returns:
        The names' rectangles, in the points' order.
    """
    inside = _box(axes.get_window_extent())
    centres = [tuple(axes.transData.transform((x, y))) for _, x, y, _, _ in points]
    taken = [
        Box(x - r - 1, y - r - 1, x + r + 1, y + r + 1)
        for (x, y), (*_, r, _) in zip(centres, points, strict=True)
    ]
    taken += [_box(line.get_window_extent().padded(2)) for line in lines]
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: (not points[i][4], -points[i][2])):
        name, x, y, radius, emphasised = points[index]
        text = axes.annotate(
            name, (x, y), (0, 0), textcoords="offset points", fontsize=size, annotation_clip=False,
            fontweight="bold" if emphasised else "normal", ha="center", va="center",
            linespacing=1.05,
        )  # fmt: skip
        extent = _box(text.get_window_extent())
        half = (extent.right - extent.left) / 2 + 1, (extent.top - extent.bottom) / 2 + 1
        distance, box = min(
            _candidates(centres[index], half, radius),
            key=lambda c: (_hidden(c[1], taken, inside), c[0]),
        )
        taken.append(box)
        boxes[index] = box
        middle = (box.left + box.right) / 2, (box.bottom + box.top) / 2
        text.set_position((middle[0] - centres[index][0], middle[1] - centres[index][1]))
        if distance >= _WITH_LEADER:
            near = (
                min(max(centres[index][0], box.left), box.right),
                min(max(centres[index][1], box.bottom), box.top),
            )
            ends = axes.transData.inverted().transform([centres[index], near])
            axes.plot(*zip(*ends, strict=True), color=MUTED, lw=0.8, zorder=1)
    return [boxes[index] for index in range(len(points))]


def _candidates(
    centre: tuple[float, ...], half: tuple[float, float], radius: float
) -> Iterator[tuple[float, Box]]:
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            # Straight above or below, the name is centred; else it stands beside the direction.
            x = centre[0] + right * (radius + distance) + _sign(right) * half[0]
            y = centre[1] + up * (radius + distance) + _sign(up) * half[1]
            yield distance, Box(x - half[0], y - half[1], x + half[0], y + half[1])


def _sign(value: float) -> float:
    return 0.0 if abs(value) < 1e-9 else math.copysign(1.0, value)


def _hidden(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """How much of the name is covered, or out of the axes."""
    outside = box.area - box.overlap(inside)
    return outside + sum(box.overlap(other) for other in taken)


def _box(extent: Any) -> Box:
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)
