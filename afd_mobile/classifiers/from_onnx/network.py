"""A classifier from an ONNX file, as PyTorch's layers, which answer as onnxruntime does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image, ImageOps
from torch import Tensor, fx, nn

from afd_mobile.classifiers.from_onnx.node import Call, Operation, UnknownOperatorError
from afd_mobile.classifiers.from_onnx.operators import layer_of
from afd_mobile.common.errors import InputError

# Of the largest logit, on two photographs. Measured on 21 files of 9 networks: up to 2e-6.
LIMIT = 1e-3


@dataclass(frozen=True)
class Scaling:
    """How a graph begins: with a * x + b for each channel of RGB.

    Attributes:
        full: what a white pixel is given as, 1 or 255.
        mean, std: the same as (rgb - mean) / std of RGB from 0 to 1.
    """

    full: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, a: NDArray[np.float64], b: NDArray[np.float64]) -> Scaling:
        """Of pictures from 0 to 1 no mean, and no usual deviation, is beyond 2."""
        full = 255 if max((1 / a).max(), (-b / a).max()) > 2 else 1
        return cls(full, tuple(-b / a / full), tuple(1 / (a * full)))


@dataclass(frozen=True)
class OnnxNetwork:
    """Attributes:
    network: normalised picture (N, 3, S, S) -> logits (N, classes).
    scaling: what the graph began with, and `network` no longer does; None if it began without.
    input_size: S; None if the graph takes any.
    softmax: whether the graph ended with one, which `network` does not.
    """

    path: Path
    network: fx.GraphModule
    scaling: Scaling | None
    input_size: int | None
    softmax: bool

    def check(self, normalize: nn.Module, size: int) -> None:
        """That it answers as onnxruntime does.

        Args:
            normalize: from RGB of 0 to 255 to what the network takes.
            size: S, of two photographs.

        Raises:
            InputError: it does not, or onnxruntime does not run the file.
        """
        pictures = torch.from_numpy(example_pictures(size)).permute(0, 3, 1, 2).float()
        given = normalize(pictures)
        with torch.no_grad():
            logits = self.network(given)
        found = (logits.softmax(1) if self.softmax else logits).numpy()
        if self.scaling is not None:
            given = pictures * (self.scaling.full / 255)
        try:
            expected = _run(self.path, given.numpy())
        except Exception as error:  # the runtime's own errors share no base class
            raise InputError(f"{self.path}: onnxruntime does not run it: {_line(error)}") from error
        if found.shape != expected.shape or not np.isfinite(found).all():
            what = found.shape if np.isfinite(found).all() else "no finite numbers"
            raise InputError(
                f"{self.path} gives {expected.shape} in onnxruntime, and {what} as imported"
            )
        error_share = float(abs(found - expected).max() / abs(expected).max())
        if error_share > LIMIT:
            raise InputError(
                f"{self.path} as imported answers otherwise than in onnxruntime, by "
                f"{error_share:.1%} of the largest logit; give the network as a factory: "
                "--backbone package.module:factory"
            )


def read_onnx(path: Path, input_size: int) -> OnnxNetwork:
    """Imports the graph.

    Args:
        input_size: of a graph that takes any.

    Raises:
        InputError: no ONNX file, or not a classifier of pictures (N, 3, S, S) that is known here.
    """
    model = _load(path)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for what, values in (("inputs", inputs), ("outputs", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise InputError(f"{path} has {len(values)} {what} ({names}); only one is taken")
    size, batch = _picture(path, inputs[0])
    nodes, result = list(graph.node), graph.output[0].name
    softmax = nodes[-1].op_type == "Softmax" and nodes[-1].output[0] == result
    if softmax:
        result = nodes.pop().input[0]
    picture = inputs[0].name
    scaling, picture, rest = _without_scaling(nodes, picture, constants)
    example = torch.zeros(batch, 3, size or input_size, size or input_size)
    importer = _Importer(path, model, constants, picture, example)
    network = importer.imported(rest, result)
    return OnnxNetwork(path, network, scaling, size, softmax)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no nodes")
    except Exception as error:  # protobuf's errors, and onnx's own
        raise InputError(f"{path} is no ONNX model: {_line(error)}") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise InputError(
            f"{path} keeps its weights in a file beside it, which cannot be read: {_line(error)}; "
            "copy both files together"
        ) from error
    return model


def _picture(path: Path, value: onnx.ValueInfoProto) -> tuple[int | None, int]:
    """S, if the graph fixes it, and the batch."""
    tensor = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    said = ", ".join(str(n or "any") for n in shape)
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(f"{path} takes {kind}; only float32 pictures are taken")
    if len(shape) == 4 and shape[3] == 3 and shape[1] != 3:
        raise InputError(
            f"{path} takes ({said}), channels last; only (N, 3, S, S) is taken: export it with "
            "channels first (tf2onnx: --inputs-as-nchw)"
        )
    if len(shape) != 4 or shape[1] not in (0, 3) or shape[2] != shape[3]:
        raise InputError(f"{path} takes ({said}); only square pictures (N, 3, S, S) are taken")
    return shape[2] or None, shape[0] or 1


# --- what it begins with ------------------------------------------------------------------------


def _without_scaling(
    nodes: list[onnx.NodeProto], picture: str, constants: Mapping[str, NDArray[Any]]
) -> tuple[Scaling | None, str, list[onnx.NodeProto]]:
    """The scaling, the value that is then the input, and the nodes behind it."""
    known = {**constants, **_constant_nodes(nodes)}
    a, b, left = np.ones(3), np.zeros(3), nodes
    begun = False
    while True:
        users = [node for node in left if picture in node.input]
        step = _linear(users[0], picture, known) if len(users) == 1 else None
        if step is None:
            break
        begun = begun or users[0].op_type != "Identity"
        a, b = a * step[0], b * step[0] + step[1]
        picture = users[0].output[0]
        left = [node for node in left if node is not users[0]]
    return (Scaling.of(a, b) if begun else None), picture, left


def _linear(
    node: onnx.NodeProto, picture: str, constants: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The factors and summands of a node that scales or shifts channels; factors above 0."""
    one, zero = np.ones(3), np.zeros(3)
    if node.op_type == "Identity":
        return one, zero
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    first = node.input[0] == picture
    value = constants.get(node.input[first])
    if value is None or (not first and node.op_type in ("Sub", "Div")):
        return None
    channels = _of_channels(value)
    if channels is None or (node.op_type in ("Mul", "Div") and channels.min() <= 0):
        return None
    match node.op_type:
        case "Add":
            return one, channels
        case "Sub":
            return one, -channels
        case "Mul":
            return channels, zero
        case _:
            return 1 / channels, zero


def _of_channels(value: NDArray[Any]) -> NDArray[np.float64] | None:
    """A constant as one number for each of three channels, if that is what it is."""
    if value.size == 1:
        return np.full(3, value.item(), np.float64)
    shape = value.shape[1:] if value.ndim == 4 and len(value) == 1 else value.shape
    return value.reshape(3).astype(np.float64) if shape == (3, 1, 1) else None


def _constant_nodes(nodes: list[onnx.NodeProto]) -> dict[str, NDArray[Any]]:
    return {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in nodes
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }


# --- the nodes ----------------------------------------------------------------------------------


class _Importer:
    """Node by node: constants are computed, and of all else an example, which tells its shape."""

    def __init__(
        self,
        path: Path,
        model: onnx.ModelProto,
        constants: Mapping[str, NDArray[Any]],
        picture: str,
        example: Tensor,
    ) -> None:
        self.path = path
        self.opsets = list(model.opset_import)
        self.values: dict[str, NDArray[Any] | Tensor] = {**constants, picture: example}
        self.batch = len(example)
        self.graph = fx.Graph()
        self.nodes = {picture: self.graph.placeholder("image")}
        self.layers = nn.Module()

    def imported(self, nodes: list[onnx.NodeProto], result: str) -> fx.GraphModule:
        for node, name in zip(nodes, _names(nodes), strict=True):
            self._add(node, name)
        if result not in self.nodes:
            raise InputError(f"{self.path} computes its output from no picture")
        self.graph.output(self.nodes[result])
        network = fx.GraphModule(self.layers, self.graph).eval().requires_grad_(False)
        network.graph.eliminate_dead_code()  # of what is computed for nothing
        network.delete_all_unused_submodules()
        network.recompile()
        return network

    def _add(self, node: onnx.NodeProto, name: str) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [self.values.get(key) if key else None for key in node.input]
        examples = [value for value in inputs if isinstance(value, Tensor)]
        try:
            if node.domain not in ("", "ai.onnx"):
                raise UnknownOperatorError(f"{node.op_type} of {node.domain}")
            if not examples:
                self._fold(node)
            elif node.op_type == "Shape":
                shape = np.array(examples[0].shape, np.int64)
                ends = (attributes.get("start", 0), attributes.get("end", len(shape)))
                self.values[node.output[0]] = shape[slice(*ends)]
            else:
                attributes.setdefault("outputs", len(node.output))
                layer = layer_of(Call(node.op_type, attributes, inputs, self.batch)).eval()
                with torch.no_grad():
                    self._keep(node, name, layer, layer(*examples))
        except UnknownOperatorError as error:
            raise InputError(
                f"{self.path} has an operator that is not known here: {error} (node {name}); give "
                "the network as a factory: --backbone package.module:factory"
            ) from error
        except Exception as error:  # whatever a node that does not fit raises
            raise InputError(
                f"{self.path} is broken at node {name}, {node.op_type}: {_line(error)}"
            ) from error

    def _fold(self, node: onnx.NodeProto) -> None:
        """By onnx's own definition."""
        self.values.update(_constant_nodes([node]))
        if node.output[0] in self.values:
            return
        given = {key: np.asarray(self.values[key]) for key in node.input if key}
        values = [
            onnx.helper.make_tensor_value_info(
                key, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for key, value in given.items()
        ]
        results = [onnx.ValueInfoProto(name=key) for key in node.output]
        graph = onnx.helper.make_graph([node], "constants", values, results)
        model = onnx.helper.make_model(graph, opset_imports=self.opsets)
        found = ReferenceEvaluator(model).run(None, given)
        self.values.update(zip(node.output, found, strict=True))

    def _keep(self, node: onnx.NodeProto, name: str, layer: nn.Module, result: object) -> None:
        self.layers.add_module(name, layer)
        given = [self.nodes[key] for key in node.input if key in self.nodes]
        call = self.graph.call_module(name, tuple(given))
        if isinstance(result, Tensor):
            self.values[node.output[0]], self.nodes[node.output[0]] = result, call
            return
        assert isinstance(result, tuple)
        for number, (key, part) in enumerate(zip(node.output, result, strict=True)):
            target = f"{name}_{number}"
            self.layers.add_module(target, _Part(number))
            self.values[key], self.nodes[key] = part, self.graph.call_module(target, (call,))


class _Part(Operation):
    def __init__(self, number: int) -> None:
        super().__init__(lambda parts: parts[number])


def _names(nodes: list[onnx.NodeProto]) -> Iterator[str]:
    """The nodes' own, or their outputs', of letters, digits and underscores; none twice."""
    taken: set[str] = set()
    for node in nodes:
        plain = re.sub(r"\W+", "_", node.name or node.output[0], flags=re.ASCII).strip("_")
        plain = plain if plain[:1].isalpha() else f"node_{plain}"
        name, number = plain, 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        yield name


# --- running ------------------------------------------------------------------------------------


def example_pictures(size: int) -> NDArray[np.uint8]:
    """Two photographs, (2, S, S, 3), RGB."""
    from skimage import data

    pictures = [Image.fromarray(picture()) for picture in (data.astronaut, data.chelsea)]
    return np.stack([np.asarray(ImageOps.fit(picture, (size, size))) for picture in pictures])


def _run(path: Path, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """onnxruntime's answers, with as many copies of a picture as the graph has in its batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it raises what it would log, in colours, with names
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    batch = given.shape[0] if isinstance(given.shape[0], int) else 1
    answers = [
        session.run(None, {given.name: np.repeat(picture[None], batch, axis=0)})[0][:1]
        for picture in pictures
    ]
    return np.concatenate(answers)


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
