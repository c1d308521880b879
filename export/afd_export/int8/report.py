"""Where an int8 graph loses its precision: every tensor's signal-to-noise ratio, worst first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from afd_export.int8.editable_model import FlatModel
from afd_mobile.common.artifacts import to_json
from afd_mobile.common.plotting import png
from afd_mobile.tflite.litert import OPERATOR_NAMES, run_operations

PICTURES = 12
_LISTED = 20


@dataclass(frozen=True)
class LayerNoise:
    """One operation of the float32 graph, and the same in int8.

    Attributes:
        index: in the graph's order of execution.
        snr_db: of its output, int8 against float32, over all pictures and positions.
        input_snr_db: of its worst input; None at the graph's input.
    """

    index: int
    name: str
    operator: str
    snr_db: float
    input_snr_db: float | None

    @property
    def lost_db(self) -> float:
        """What the operation loses itself; it can win, where noise is averaged or cut off."""
        return (60.0 if self.input_snr_db is None else self.input_snr_db) - self.snr_db


def layer_noise(
    prepared: bytes, quantized: bytes, pictures: NDArray[np.float32]
) -> list[LayerNoise]:
    """Compares the graphs tensor by tensor, by name.

    Args:
        prepared: the float graph that was quantised, so that scales are the same on both sides.
        pictures: (N, S, S, 3) in the graph's input range.
    """
    model = FlatModel(prepared)
    names = [model.name(op) for op in model.operations]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    expected, actual = (run_operations(c, pictures) for c in (prepared, quantized))
    for reference, values in zip(expected, actual, strict=True):
        for name in signal.keys() & values.keys():
            signal[name] += float((reference[name] ** 2).sum())
            noise[name] += float(((values[name] - reference[name]) ** 2).sum())
    snr = {n: 10 * np.log10(signal[n] / noise[n]) for n in names if noise[n] > 0 and signal[n] > 0}
    producers = {op.outputs[0]: model.name(op) for op in model.operations}
    found = []
    for index, operation in enumerate(model.operations):
        name = names[index]
        if name in snr:
            inputs = [snr[n] for t in operation.inputs if (n := producers.get(t)) in snr]
            operator = OPERATOR_NAMES[model.code(operation)]
            found.append(
                LayerNoise(index, name, operator, float(snr[name]), min(inputs, default=None))
            )
    return sorted(found, key=lambda layer: -layer.lost_db)


def write_int8_report(folder: Path, layers: list[LayerNoise]) -> None:
    """`int8.json`, `int8.md` and `int8.png`."""
    content = [dataclasses.asdict(layer) | {"lost_db": layer.lost_db} for layer in layers]
    (folder / "int8.json").write_bytes(to_json(content))
    (folder / "int8.md").write_text(_table(layers), encoding="utf-8")
    (folder / "int8.png").write_bytes(png(_plot(layers)))


def _table(layers: list[LayerNoise]) -> str:
    lines = [
        "# Where int8 loses precision",
        "",
        f"Signal-to-noise ratio of every operation's output, int8 against float32, on {PICTURES} "
        "pictures; lost: that of its worst input less its own. Worst first; int8.json has all.",
        "",
        "| operation | operator | SNR dB | of its input | lost dB | output |",
        "|---|---|---|---|---|---|",
    ]
    for layer in layers[:_LISTED]:
        given = "" if layer.input_snr_db is None else f"{layer.input_snr_db:.1f}"
        lines.append(
            f"| {layer.index} | {layer.operator} | {layer.snr_db:.1f} | {given} "
            f"| {layer.lost_db:.1f} | {layer.name.split(';')[0]} |"
        )
    return "\n".join(lines) + "\n"


def _plot(layers: list[LayerNoise]) -> Figure:
    in_order = sorted(layers, key=lambda layer: layer.index)
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([x.index for x in in_order], [x.snr_db for x in in_order], ".-", color="tab:blue")
    for layer in layers[:5]:
        axes.plot(layer.index, layer.snr_db, "o", color="tab:red")
        axes.annotate(f"{layer.index}", (layer.index, layer.snr_db), textcoords="offset points",
                      xytext=(4, 6), fontsize=8)  # fmt: skip
    axes.set_xlabel("operation, in the order of execution; red: those that lose most themselves")
    axes.set_ylabel("int8 against float32, SNR in dB")
    axes.grid(alpha=0.3)
    return figure
