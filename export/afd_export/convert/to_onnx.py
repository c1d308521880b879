"""PyTorch -> ONNX -> simplified ONNX, and running both."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from afd_export.convert.worker import run_worker
from afd_mobile.common.artifacts import INPUT_NAME
from afd_mobile.common.errors import ConversionError

OPSET = 18
SIMPLIFY_TIMEOUT_S = 120.0


def export_onnx(graph: nn.Module, input_size: int, output_name: str, path: Path) -> None:
    """Writes the checked ONNX graph: NCHW, static shapes, names `image` and `output_name`.

    Raises:
        ConversionError: torch's exporter or onnx's checker refuses the graph.
    """
    example = torch.zeros(1, 3, input_size, input_size)
    chatter = io.StringIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(chatter), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[output_name],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        model = _without_debug_information(program.model_proto)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the exporter's errors have no common base
        raise ConversionError(
            f"torch cannot export this graph to ONNX: {str(error).splitlines()[0]}",
            chatter=f"{chatter.getvalue()}\n{error}",
        ) from error
    onnx.save_model(model, path)


def simplify_onnx(path: Path, simplified: Path) -> str | None:
    """Simplifies in a process of its own; returns why it could not, or None."""
    try:
        run_worker(
            "afd_export.convert.simplify_worker",
            {"onnx": str(path), "simplified": str(simplified)},
            path.parent,
            timeout_s=SIMPLIFY_TIMEOUT_S,
        )
    except ConversionError as error:
        return str(error)
    return None


def run_onnx(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """images (N, 3, S, S) -> outputs (N, ...), picture by picture."""
    session = open_session(path)
    return np.concatenate([session.run(None, {INPUT_NAME: image[None]})[0] for image in images])


def open_session(model: Path | bytes, *, optimized: bool = True) -> onnxruntime.InferenceSession:
    """A graph on the CPU, whose threads do not keep a core busy while they wait."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def input_and_output(path: Path) -> tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]:
    """(name, shape) of the graph's input and output."""
    graph = onnx.load(path, load_external_data=False).graph
    (given,), (result,) = graph.input, graph.output
    first, second = (
        (value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim))
        for value in (given, result)
    )
    return first, second


def _without_debug_information(model: onnx.ModelProto) -> onnx.ModelProto:
    """Source lines and stack traces carry this machine's paths; the file must not."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    return model
