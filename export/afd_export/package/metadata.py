"""Standard TFLite metadata: how to feed a file and what its outputs are called.

Android's stock image classifiers (MediaPipe Tasks, the older Task library) read it. A flatbuffer
of the published schema lies in the model's `TFLITE_METADATA` buffer; the labels lie in a zip behind
the model, where zip readers look for it: at the file's end.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from afd_export.package import schema as fb
from afd_export.package.card import ModelCard
from afd_mobile.common.artifacts import InputRange
from afd_mobile.common.errors import ConversionError, InputError
from afd_mobile.common.labels import LABELS

_ENTRY = b"TFLITE_METADATA"
_MODEL_IDENTIFIER = b"TFL3"
_METADATA_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"  # the fields below have been in the schema from the start
_BUFFER_ALIGNMENT = 16
_EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_PIXEL_TOLERANCE = 0.01 * 255


def with_metadata(
    model: bytes,
    card: ModelCard,
    *,
    input_range: InputRange,
    mean: Sequence[float],
    std: Sequence[float],
    labels: Sequence[str] | None,
) -> bytes:
    """The `.tflite` file with metadata, in place of any that it has.

    Constants are aligned to 16 bytes as the runtime's schema asks, which TensorFlow's converter
    does not always do. The same arguments give the same bytes.

    Args:
        model: one graph, one input (1, S, S, 3), one output.
        mean, std: the classifier's normalisation of 0-to-1 RGB.
        labels: in the order of the logits; None where there are none, and for features.

    Raises:
        ConversionError: it is no such TFLite model.
        InputError: there are not as many labels as logits.
    """
    unpacked, given, result = _read(model)
    if labels is not None and list(result.shape) != [1, len(labels)]:
        raise InputError(
            f"{len(labels)} labels do not fit the output {_times(result.shape)} of {card.name}; "
            "give one for every class"
        )
    metadata = fb.ModelMetadataT(
        name=card.name,
        description=card.description,
        version=card.version,
        author=card.author,
        license=card.licence,
        minParserVersion=_MIN_PARSER_VERSION,
        subgraphMetadata=[
            fb.SubGraphMetadataT(
                inputTensorMetadata=[_input(given, input_range, mean, std)],
                outputTensorMetadata=[_output(result, labels)],
            )
        ],
    )
    _attach(unpacked, _packed(metadata, _METADATA_IDENTIFIER))
    content = _packed(unpacked, _MODEL_IDENTIFIER)
    return content if labels is None else _with_file(content, LABELS, "\n".join(labels) + "\n")


def pixel_normalization(
    input_range: InputRange, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """(mean, std) so that (pixel - mean) / std is what the graph takes; pixels are 0 to 255.

    Args:
        mean, std: the classifier's normalisation of 0-to-1 RGB.
    """
    if input_range is InputRange.RGB255:
        return [0.0], [1.0]
    return [255 * m for m in mean], [255 * s for s in std]


def bytes_are_pixels(
    scale: float, zero_point: int, mean: Sequence[float], std: Sequence[float]
) -> bool:
    """Whether a uint8 input's bytes are the pixels' own, up to 1 % of their range.

    Image readers take that for granted: they copy pixels and look at no quantisation.

    Args:
        mean, std: from `pixel_normalization`.
    """
    return all(
        abs(scale * (byte - zero_point) * s + m - byte) <= _PIXEL_TOLERANCE
        for m, s in zip(mean, std, strict=True)
        for byte in (0, 255)
    )


def _read(model: bytes) -> tuple[Any, Any, Any]:
    """The model, its input and its output tensor."""
    if model[4:8] != _MODEL_IDENTIFIER:
        raise ConversionError("no TFLite model: the file identifier TFL3 is missing")
    unpacked = schema.ModelT.InitFromPackedBuf(model)
    if any(buffer.offset > 1 for buffer in unpacked.buffers):
        raise ConversionError("models whose constants lie outside the flatbuffer are not supported")
    graph, *others = unpacked.subgraphs
    if others or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ConversionError("the TFLite model has more than one graph, input or output")
    return unpacked, graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]


def _input(
    tensor: Any, input_range: InputRange, mean: Sequence[float], std: Sequence[float]
) -> Any:
    means, stds = pixel_normalization(input_range, mean, std)
    quantized = tensor.type == schema.TensorType.UINT8
    if input_range is InputRange.RGB255:
        how = "RGB, 0 to 255; the graph normalises by itself"
    else:
        how = "RGB, normalised by the caller: (pixel - mean) / std, pixels 0 to 255"
    is_image = True
    if quantized:
        scale, zero_point = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
        is_image = bytes_are_pixels(scale, zero_point, means, stds)
        if not is_image:
            # Declared as an image it would be fed with pixels, and be wrong without a word.
            how += f"; then quantised: round(value / {scale:.7g}) + {zero_point}"
    return fb.TensorMetadataT(
        name="image",
        description=f"{how}. {_times(tensor.shape)}, rows from the top.",
        content=_content(
            fb.ContentProperties.ImageProperties,
            fb.ImagePropertiesT(colorSpace=fb.ColorSpaceType.RGB),
        )
        if is_image
        else _content(fb.ContentProperties.FeatureProperties, fb.FeaturePropertiesT()),
        processUnits=[
            fb.ProcessUnitT(
                optionsType=fb.ProcessUnitOptions.NormalizationOptions,
                options=fb.NormalizationOptionsT(mean=means, std=stds),
            )
        ],
        stats=fb.StatsT(
            min=[0.0] if quantized else [(0 - m) / s for m, s in zip(means, stds, strict=True)],
            max=[255.0] if quantized else [(255 - m) / s for m, s in zip(means, stds, strict=True)],
        ),
    )


def _output(tensor: Any, labels: Sequence[str] | None) -> Any:
    classifier = len(tensor.shape) == 2
    described = (
        f"Logits of {tensor.shape[-1]} classes, not probabilities: the largest is the best, "
        "negative ones count, softmax over all of them gives probabilities."
        if classifier
        else f"Features at the tap, corrected: {_times(tensor.shape)}, channels last."
    )
    files = [
        fb.AssociatedFileT(
            name=LABELS,
            description="One label a line, in the order of the logits.",
            type=fb.AssociatedFileType.TENSOR_AXIS_LABELS,
        )
    ]
    return fb.TensorMetadataT(
        name="logits" if classifier else "features",
        description=described,
        content=_content(fb.ContentProperties.FeatureProperties, fb.FeaturePropertiesT()),
        associatedFiles=None if labels is None else files,
    )


def _content(kind: int, properties: Any) -> Any:
    return fb.ContentT(contentPropertiesType=kind, contentProperties=properties)


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)


class _AlignedBuffer:
    """A constant that starts at a multiple of 16 bytes.

    The schema says so (`force_align`); flatbuffers' generated Python passes over it.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - flatbuffers calls it so
        vector = None
        if self._data is not None:
            builder.Prep(_BUFFER_ALIGNMENT, len(self._data))
            vector = builder.CreateByteVector(bytes(self._data))
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _attach(model: Any, metadata: bytes) -> None:
    """Puts `metadata` into the model's buffer for it, and has all buffers aligned."""
    constants = [buffer.data for buffer in model.buffers]
    entries = model.metadata or []
    index = next((entry.buffer for entry in entries if entry.name == _ENTRY), None)
    if index is None:
        model.metadata = [*entries, schema.MetadataT(name=_ENTRY, buffer=len(constants))]
        constants.append(metadata)
    else:
        constants[index] = metadata
    model.buffers = [_AlignedBuffer(data) for data in constants]


def _packed(table: Any, identifier: bytes) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(table.Pack(builder), identifier)
    return bytes(builder.Output())


def _with_file(model: bytes, name: str, text: str) -> bytes:
    """`model` and behind it a zip with one file, its offsets counted from the model's first byte.

    Uncompressed: readers on the phone take the text from where it lies.
    """
    file = io.BytesIO()
    file.write(model)
    # Not "a": that would first look for a zip among the weights.
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name, _EARLIEST_ZIP_DATE), text)
    return file.getvalue()
