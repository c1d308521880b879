"""Worker process: onnx2tf to a TensorFlow function, and TensorFlow's converter from there."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from afd_export.convert.channel_shuffle import convolve_shuffled
from afd_export.convert.flattened_features import convolve_flattened
from afd_export.convert.left_over import check_operators, reorders
from afd_export.convert.same_padding import say_same
from afd_export.convert.worker import forbid_network, save_array
from afd_export.int8 import passes
from afd_export.int8.editable_model import FlatModel
from afd_mobile.common.artifacts import INPUT_NAME, Precision
from afd_mobile.common.errors import ConversionError


def main(request_path: Path) -> None:
    request = json.loads(request_path.read_text(encoding="utf-8"))
    model = onnx.load(request["onnx"])
    for simplification in (convolve_flattened, convolve_shuffled, say_same):
        model = simplification(model)
    saved_model = _to_saved_model(model, request["output_name"])
    calibration, may_transpose = np.load(request["calibration"]), reorders(model)

    for target in request["targets"]:
        try:
            _convert(saved_model, calibration, Path(request["prepared"]), target, may_transpose)
        except Exception as error:  # the converters' errors have no common base
            traceback.print_exc()
            failure = {
                "message": str(error) if isinstance(error, ConversionError) else None,
                "chatter": traceback.format_exc(),
            }
            Path(target["failure"]).write_text(json.dumps(failure), encoding="utf-8")


def _convert(
    saved_model: str,
    calibration: NDArray[np.float32],
    prepared_path: Path,
    target: dict[str, Any],
    may_transpose: bool,
) -> None:
    """Writes the candidates of one precision."""
    precision = Precision(target["precision"])
    graph = _converted(saved_model, target["optimize"], precision is Precision.FLOAT16)
    path = prepared_path if precision is Precision.INT8 else Path(target["candidates"][0]["path"])
    path.write_bytes(graph)
    check_operators(path, reorders=may_transpose)  # before int8's calibration, which takes long
    if precision is Precision.INT8:
        prepared = passes.prepare(graph, calibration)
        prepared_path.write_bytes(prepared)
        _write_int8(prepared, target["candidates"])


@functools.cache  # float32's graph is also what int8 is made of
def _converted(saved_model: str, optimize: bool, float16: bool) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def _write_int8(prepared: bytes, candidates: list[dict[str, Any]]) -> None:
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    model = FlatModel(prepared)
    operations = [model.name(operation) for operation in model.operations]
    for candidate in candidates:
        first, late, after = candidate["float_span"]
        end = len(operations) - after
        in_float = operations[:first] + operations[max(first, end - late) : end]
        quantized = mlir_quantize(prepared, input_data_type=tf.uint8, denylisted_nodes=in_float)
        Path(candidate["path"]).write_bytes(passes.finish(quantized))


def _to_saved_model(graph: onnx.ModelProto, output_name: str) -> str:
    """A frozen SavedModel in NHWC with one named signature; its folder."""
    import onnx2tf
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    onnx_path = Path("prepared.onnx")
    onnx.save_model(graph, onnx_path)
    # onnx2tf downloads this file for a check of its own if it is not there.
    sample = np.zeros((20, 128, 128, 3), np.float32)
    save_array(Path("calibration_image_sample_data_20x128x128x3_float32.npy"), sample)
    model = onnx2tf.convert(
        input_onnx_file_path=str(onnx_path),
        output_folder_path="onnx2tf",
        not_use_onnxsim=True,
        # Its trial and error per operator takes half a minute; the export's own verification
        # compares every file with the trained module anyhow.
        disable_strict_mode=True,
        disable_model_save=True,
        verbosity="error",
    )
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name=INPUT_NAME)]
    traced = tf.function(model, input_signature=signature).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    module = tf.Module()
    module.serve = tf.function(
        lambda image: {output_name: frozen(image)[0]}, input_signature=signature
    )
    tf.saved_model.save(module, "saved_model", signatures={"serving_default": module.serve})
    return "saved_model"


if __name__ == "__main__":
    forbid_network()
    main(Path(sys.argv[1]))
