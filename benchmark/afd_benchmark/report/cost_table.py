"""What files cost, for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from afd_benchmark.file_cost import FileCost
from afd_mobile.common.terminal import printable


def cost_table(costs: Mapping[str, FileCost], *, operations: bool) -> str:
    """A line a file; with `operations`, one for each of its operations as well."""
    names = [printable(name) for name in costs]
    width = max(map(len, names), default=0)
    lines = [
        f"{'file':<{width}}  {'parameters':>10}  {'multiply-adds':>13}  {'file':>9}  "
        f"{'peak activations':>16}  {'FLOP/byte':>9}"
    ]
    for name, cost in zip(names, costs.values(), strict=True):
        lines.append(
            f"{name:<{width}}  {cost.parameters / 1e6:>8.3f} M  {cost.multiply_adds / 1e6:>11.1f} M"
            f"  {cost.file_bytes / 1e6:>6.2f} MB  {cost.peak_activation_bytes / 1e6:>13.2f} MB"
            f"  {cost.arithmetic_intensity:>9.1f}"
        )
        if operations:
            lines += [
                f"  {o.index:>4} {o.operator:<22} {'x'.join(map(str, o.shape)):<16} "
                f"{o.parameters:>9} {o.multiply_adds / 1e6:>9.2f} M {o.bytes_moved / 1e3:>9.1f} kB "
                f"{o.arithmetic_intensity:>7.1f}  {printable(o.name)}"
                for o in cost.operations
            ]
    return "\n".join(lines)


def cost_json(costs: Mapping[str, FileCost]) -> str:
    """{file: every figure}."""
    return json.dumps(
        {
            name: dataclasses.asdict(cost) | {"arithmetic_intensity": cost.arithmetic_intensity}
            for name, cost in costs.items()
        },
        indent=2,
    )
