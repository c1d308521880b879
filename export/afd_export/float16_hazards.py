"""What float16 arithmetic would do to a graph: ranges that it cannot hold, and a simulation.

GPU delegates compute in float16 by default, XNNPACK on phones that can where the file allows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from afd_export.convert.to_onnx import open_session
from afd_mobile.common.artifacts import INPUT_NAME

LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14  # 6.1e-5; GPUs may take anything smaller for zero
SMALLEST = 2.0**-24
# Where more of a tensor's energy than this lies below SMALLEST_NORMAL, it vanishes: 20 dB.
LOST_SHARE = 0.01

_SUMMING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceSum")
_AVERAGING = ("ReduceMean", "GlobalAveragePool", "AveragePool")


class Kind(str, Enum):
    """Where a number stands: in the file, between two operations, or inside one."""

    CONSTANT = "constant"
    TENSOR = "tensor"
    SUM = "sum"


@dataclass(frozen=True)
class Range:
    """The magnitudes of one constant, tensor or sum, over all pictures.

    Attributes:
        name: in the ONNX graph; of a sum, its operation's output.
        operator: what makes it; of a constant, "".
        peak: largest |value|; of a sum, the largest sum of |terms|, which no partial sum exceeds.
        energy: sum of squares; of a sum 0.
        lost_energy: of those values whose |value| is below SMALLEST_NORMAL.
    """

    name: str
    kind: Kind
    operator: str
    peak: float
    energy: float
    lost_energy: float

    @property
    def hazard(self) -> str | None:
        """What float16 does to it, in words; None where it holds it."""
        if not self.peak <= LARGEST:
            up_to = " up to" if self.kind is Kind.SUM else ""
            return f"reaches{up_to} {self.peak:.3g}, float16 ends at {LARGEST:g}"
        if 0 < self.peak < SMALLEST:
            return f"is at most {self.peak:.2g}, float16 begins at {SMALLEST:.2g}"
        if self.lost_energy > LOST_SHARE * self.energy:
            share = self.lost_energy / self.energy
            return f"has {share:.0%} of its energy below {SMALLEST_NORMAL:.2g}, float16's precision"
        return None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "operator": self.operator,
            "peak": self.peak,
            "lost_energy_share": self.lost_energy / self.energy if self.energy else 0.0,
            "hazard": self.hazard,
        }


def measure_ranges(onnx_path: Path, images: NDArray[np.float32]) -> list[Range]:
    """Every float constant, tensor and sum of a graph, computed in float32.

    Args:
        images: (N, 3, S, S) in the graph's input range.

    Returns:
        constants, then tensors, then sums, each in the graph's order.
    """
    model = onnx.load(onnx_path)
    ranges = [
        _range(t.name, Kind.CONSTANT, "", numpy_helper.to_array(t))
        for t in _float_constants(model.graph)
    ]
    shapes = _float_tensors(model)
    makers = {name: n.op_type for n in model.graph.node for name in n.output if name in shapes}
    sums = _add_sums(model.graph, shapes)
    published = {v.name for v in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (*makers, *sums)
        if name not in published
    )
    seen: dict[str, list[Range]] = {name: [] for name in (INPUT_NAME, *makers, *sums)}
    for values in _run(model, images):
        for name in (INPUT_NAME, *makers):
            found = _range(name, Kind.TENSOR, makers.get(name, ""), values[name])
            seen[name].append(found)
        for name, (tensor, terms) in sums.items():
            found = _range(tensor, Kind.SUM, makers[tensor], values[name] * np.float32(terms))
            seen[name].append(found)
    return ranges + [_merged(found) for found in seen.values()]


def run_float16(onnx_path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """images (N, 3, S, S) -> outputs (N, ...), every tensor rounded to float16 where it is made.

    Input, constants and every operation's result are rounded; inside an operation the arithmetic
    is float32's. What leaves float16's range becomes infinite.
    """
    model = onnx.load(onnx_path)
    for constant in _float_constants(model.graph):
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16).astype(np.float32)
        constant.CopyFrom(numpy_helper.from_array(rounded, constant.name))
    _round_tensors(model)
    (output,) = model.graph.output
    return np.concatenate([values[output.name] for values in _run(model, images)])


def hazard_section(ranges: list[Range]) -> list[str]:
    """A section for `parity.md`: what is named, and how far the rest stays from the limits."""
    named = [r for r in ranges if r.hazard is not None]
    lines = ["## float16", ""]
    lines += [f"- {r.kind.value} `{r.name}` {f'({r.operator}) ' * bool(r.operator)}{r.hazard}"
              for r in named]  # fmt: skip
    if not named:
        lines.append("No constant, tensor or sum leaves float16's range or vanishes in it.")
    for kind in Kind:
        of_kind = [r for r in ranges if r.kind is kind and r.peak <= LARGEST]
        if of_kind:
            largest = max(of_kind, key=lambda r: r.peak)
            lines += ["", f"Largest {kind.value} within: {largest.peak:.3g}, `{largest.name}`."]
    return lines


# --- magnitudes -------------------------------------------------------------------------------


def _range(name: str, kind: Kind, operator: str, values: Any) -> Range:
    magnitudes = np.abs(np.asarray(values, np.float32)).ravel()
    peak = float(magnitudes.max(initial=0))
    if kind is Kind.SUM:
        return Range(name, kind, operator, peak, 0.0, 0.0)
    energy = float(np.dot(magnitudes, magnitudes))
    small = magnitudes < SMALLEST_NORMAL
    # The small ones, the others zero, also infinity: three times as fast as to pick them.
    magnitudes = np.fmin(magnitudes, np.float32(SMALLEST_NORMAL), out=magnitudes) * small
    return Range(name, kind, operator, peak, energy, float(np.dot(magnitudes, magnitudes)))


def _merged(ranges: list[Range]) -> Range:
    first = ranges[0]
    return Range(
        first.name,
        first.kind,
        first.operator,
        peak=float(np.max([r.peak for r in ranges])),  # keeps NaN
        energy=sum(r.energy for r in ranges),
        lost_energy=sum(r.lost_energy for r in ranges),
    )


# --- the graph --------------------------------------------------------------------------------


def _float_constants(graph: Any) -> list[Any]:
    """Initialisers that an operation computes with; a Resize's scales only give its shape."""
    shaping = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    return [
        t for t in graph.initializer if t.data_type == TensorProto.FLOAT and t.name not in shaping
    ]


def _float_tensors(model: Any) -> dict[str, tuple[int, ...]]:
    """Float tensor -> shape, inputs and outputs included."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.input, *graph.value_info, *graph.output)
        if v.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _add_sums(graph: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[str, int]]:
    """Adds, for each operation that sums, the same on |inputs|, and the largest of its results.

    Returns:
        that largest result's name -> (tensor, by how many terms a mean was divided).
    """
    floats = {*shapes, *(t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT)}
    sums: dict[str, tuple[str, int]] = {}
    for node in list(graph.node):
        name = node.output[0]
        if node.op_type not in (*_SUMMING, *_AVERAGING) or name not in shapes:
            continue
        total = onnx.NodeProto()
        total.CopyFrom(node)
        total.name, total.output[0] = f"{name}/total", f"{name}/total"
        for number, given in enumerate(node.input):
            if given in floats:
                total.input[number] = f"{name}/magnitude{number}"
                graph.node.append(helper.make_node("Abs", [given], [total.input[number]]))
        largest = f"{name}/largest"
        graph.node.append(total)
        graph.node.append(helper.make_node("ReduceMax", [f"{name}/total"], [largest], keepdims=0))
        sums[largest] = (name, _averaged_terms(node, shapes))
    return sums


def _averaged_terms(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "AveragePool":
        (window,) = (a.ints for a in node.attribute if a.name == "kernel_shape")
        return int(np.prod(window))
    if node.op_type in _AVERAGING:
        given, made = shapes[node.input[0]], shapes[node.output[0]]
        return int(np.prod(given) // np.prod(made))
    return 1


def _round_tensors(model: Any) -> None:
    """Puts a cast to float16 and back behind the input and every float result."""
    graph, shapes = model.graph, _float_tensors(model)
    nodes = list(graph.node)
    del graph.node[:]
    rounded = f"{INPUT_NAME}/rounded"
    graph.node.extend(_casts(INPUT_NAME, rounded))
    for node in nodes:
        node.input[:] = [rounded if given == INPUT_NAME else given for given in node.input]
        made = [name for name in node.output if name in shapes]
        node.output[:] = [f"{name}/exact" if name in made else name for name in node.output]
        graph.node.append(node)
        for name in made:
            graph.node.extend(_casts(f"{name}/exact", name))


def _casts(given: str, made: str) -> list[Any]:
    return [
        helper.make_node("Cast", [given], [f"{made}/half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{made}/half"], [made], to=TensorProto.FLOAT),
    ]


def _run(model: Any, images: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """All outputs and the input, picture by picture; nothing fused, so every tensor is made."""
    session = open_session(model.SerializeToString(), optimized=False)
    names = [output.name for output in session.get_outputs()]
    for image in images:
        yield {INPUT_NAME: image[None]} | dict(
            zip(names, session.run(names, {INPUT_NAME: image[None]}), strict=True)
        )
