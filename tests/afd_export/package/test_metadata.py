"""The metadata inside a TFLite file, read with the published schema, zipfile and LiteRT."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from afd_export.package import schema as fb
from afd_export.package.card import ModelCard
from afd_export.package.metadata import bytes_are_pixels, pixel_normalization, with_metadata
from afd_mobile.common.artifacts import InputRange, Precision
from afd_mobile.common.errors import ConversionError, InputError
from afd_mobile.common.labels import LABELS
from tests.afd_export.conftest import Exported

PRECISIONS = [p.value for p in Precision]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = [f"class {i}, größer" for i in range(10)]
CARD = ModelCard("tiny", "What it is.", "1.2.3", "Someone", "None", None)


def describe(model: bytes, **changes: Any) -> bytes:
    options = {
        "input_range": InputRange.RGB255, "mean": MEAN, "std": STD, "labels": NAMES, **changes
    }  # fmt: skip
    return with_metadata(model, CARD, **options)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(exported: Exported, precision: str) -> bytes:
    return exported.tflite(precision).read_bytes()


@pytest.fixture
def float32(exported: Exported) -> bytes:
    return exported.tflite("float32").read_bytes()


def unpacked(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(model)


def repacked(model: Any) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def metadata_of(model: bytes) -> Any:
    tree = unpacked(model)
    (entry,) = (e for e in tree.metadata if e.name == b"TFLITE_METADATA")
    content = bytes(tree.buffers[entry.buffer].data)
    assert content[4:8] == b"M001"
    return fb.ModelMetadataT.InitFromPackedBuf(content)


def input_of(model: bytes) -> Any:
    (graph,) = metadata_of(model).subgraphMetadata
    (given,) = graph.inputTensorMetadata
    return given


def output_of(model: bytes) -> Any:
    (graph,) = metadata_of(model).subgraphMetadata
    (result,) = graph.outputTensorMetadata
    return result


def kind_of_input(model: bytes) -> int:
    return int(input_of(model).content.contentPropertiesType)


# --- the model stays what it is ------------------------------------------------------------------


def outputs(model: bytes, picture: NDArray[np.uint8]) -> NDArray[Any]:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], picture[None].astype(given["dtype"]))
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(result["index"]))


def test_outputs_are_identical(exported: Exported, model: bytes) -> None:
    described = describe(model)
    for path in sorted(exported.folder.glob("golden/*_input.bin")):
        picture = np.fromfile(path, np.uint8).reshape(64, 64, 3)
        np.testing.assert_array_equal(outputs(described, picture), outputs(model, picture))


def test_the_signature_stays(model: bytes) -> None:
    assert Interpreter(model_content=describe(model)).get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }


def plain(tree: Any) -> Any:
    """A flatbuffer's object tree as lists, dicts and bytes, to be compared."""
    if isinstance(tree, np.ndarray):
        return tree.tolist()
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    if hasattr(tree, "__dict__"):
        return {key: plain(value) for key, value in vars(tree).items()}
    return tree


def without_metadata(model: bytes) -> Any:
    tree = unpacked(model)
    for entry in [e for e in tree.metadata if e.name == b"TFLITE_METADATA"]:
        tree.metadata.remove(entry)
        assert entry.buffer == len(tree.buffers) - 1
        del tree.buffers[entry.buffer]
    return plain(tree)


def test_nothing_else_changes(model: bytes) -> None:
    assert without_metadata(describe(model)) == without_metadata(model)


def test_constants_start_at_multiples_of_16_bytes(model: bytes) -> None:
    described = describe(model)
    root = schema.Model.GetRootAs(described, 0)
    buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
    data_field = 4
    starts = [b._tab.Vector(b._tab.Offset(data_field)) for b in buffers if not b.DataIsNone()]
    assert len(starts) > 10
    assert {start % 16 for start in starts} == {0}
    assert described[4:8] == b"TFL3"
    # Labels, texts, and at most 16 bytes of padding for every constant.
    assert abs(len(described) - len(model)) < 4096 + 16 * len(starts)


# --- what it says --------------------------------------------------------------------------------


def test_the_card_is_in_it(float32: bytes) -> None:
    metadata = metadata_of(describe(float32))
    assert (metadata.name, metadata.description) == (b"tiny", b"What it is.")
    assert (metadata.version, metadata.author, metadata.license) == (b"1.2.3", b"Someone", b"None")
    assert metadata.minParserVersion == b"1.0.0"


def test_raw_rgb_is_fed_as_it_is(model: bytes) -> None:
    given = input_of(describe(model))
    assert given.name == b"image"
    assert given.content.contentPropertiesType == fb.ContentProperties.ImageProperties
    assert given.content.contentProperties.colorSpace == fb.ColorSpaceType.RGB
    (unit,) = given.processUnits
    assert unit.optionsType == fb.ProcessUnitOptions.NormalizationOptions
    assert (list(unit.options.mean), list(unit.options.std)) == ([0], [1])
    assert (list(given.stats.min), list(given.stats.max)) == ([0], [255])


def test_normalisation_is_told_in_pixels(float32: bytes) -> None:
    given = input_of(describe(float32, input_range=InputRange.NORMALIZED))
    (unit,) = given.processUnits
    np.testing.assert_allclose(unit.options.mean, [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(unit.options.std, [58.395, 57.12, 57.375], rtol=1e-6)
    # ImageNet's darkest and brightest values, as everybody knows them.
    np.testing.assert_allclose(given.stats.min, [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(given.stats.max, [2.2489, 2.4286, 2.6400], atol=1e-4)
    assert given.content.contentPropertiesType == fb.ContentProperties.ImageProperties


def test_outputs_are_called_logits(model: bytes) -> None:
    result = output_of(describe(model))
    assert result.name == b"logits"
    assert b"10 classes, not probabilities" in result.description
    assert result.content.contentPropertiesType == fb.ContentProperties.FeatureProperties
    (file,) = result.associatedFiles
    assert (file.name, file.locale) == (b"labels.txt", None)
    assert file.type == fb.AssociatedFileType.TENSOR_AXIS_LABELS


def test_features_are_not_called_logits(float32: bytes) -> None:
    tree = unpacked(float32)
    tree.subgraphs[0].tensors[tree.subgraphs[0].outputs[0]].shape = [1, 4, 4, 16]
    described = describe(repacked(tree), labels=None)
    result = output_of(described)
    assert (result.name, result.associatedFiles) == (b"features", None)
    assert b"1x4x4x16" in result.description
    assert not zipfile.is_zipfile(io.BytesIO(described))


# --- a quantised input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "zero_point", "mean", "std", "expected"),
    [
        (1.0, 0, [0], [1], True),
        (254 / 255, 0, [0], [1], True),  # calibrated on pictures without pure white: 1 too dark
        (0.78, 0, [0], [1], False),
        (1.0, 3, [0], [1], False),
        (1 / 127.5, 128, [127.5] * 3, [127.5] * 3, True),
        (2.64 / 255, 0, [127.5] * 3, [127.5] * 3, False),
        (0.0187, 113, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False),
    ],
)
def test_when_bytes_are_pixels(
    scale: float, zero_point: int, mean: list[float], std: list[float], expected: bool
) -> None:
    assert bytes_are_pixels(scale, zero_point, mean, std) is expected


def test_bytes_that_are_no_pixels_are_not_declared_as_an_image(
    exported: Exported, float32: bytes
) -> None:
    int8 = exported.tflite("int8").read_bytes()
    normalized = InputRange.NORMALIZED
    assert kind_of_input(describe(int8)) == fb.ContentProperties.ImageProperties
    changed = describe(int8, input_range=normalized)
    assert kind_of_input(changed) == fb.ContentProperties.FeatureProperties
    assert b"then quantised: round(value / " in input_of(changed).description
    # What a float file takes can always be said.
    changed = describe(float32, input_range=normalized)
    assert kind_of_input(changed) == fb.ContentProperties.ImageProperties


def test_a_dark_calibration_is_noticed(exported: Exported) -> None:
    tree = unpacked(exported.tflite("int8").read_bytes())
    graph = tree.subgraphs[0]
    graph.tensors[graph.inputs[0]].quantization.scale = [0.7]
    assert kind_of_input(describe(repacked(tree))) == fb.ContentProperties.FeatureProperties


def test_pixel_normalization() -> None:
    assert pixel_normalization(InputRange.RGB255, MEAN, STD) == ([0.0], [1.0])
    mean, std = pixel_normalization(InputRange.NORMALIZED, (0.5, 0.25, 0), (0.5, 1, 2))
    assert (mean, std) == ([127.5, 63.75, 0], [127.5, 255, 510])


# --- the labels ----------------------------------------------------------------------------------


def test_labels_lie_uncompressed_behind_the_model(float32: bytes, tmp_path: Path) -> None:
    described = describe(float32)
    path = tmp_path / "tiny.tflite"
    path.write_bytes(described)
    with zipfile.ZipFile(path) as archive:
        (info,) = archive.infolist()
        text = archive.read(LABELS)
    assert text.decode("utf-8") == "".join(f"{name}\n" for name in NAMES)
    assert info.filename == LABELS
    assert info.compress_type == zipfile.ZIP_STORED
    assert info.date_time == (1980, 1, 1, 0, 0, 0)
    assert described[info.header_offset + 30 + len(LABELS) :].startswith(text)
    # The offsets as written, which zipfile would mend: counted from the model's first byte.
    (directory,) = struct.unpack("<I", described[-6:-2])
    (header,) = struct.unpack("<I", described[directory + 42 : directory + 46])
    assert described[directory:].startswith(b"PK\x01\x02")
    assert described[header:].startswith(b"PK\x03\x04")


def test_without_labels_there_is_no_zip(float32: bytes) -> None:
    described = describe(float32, labels=None)
    assert not zipfile.is_zipfile(io.BytesIO(described))
    assert output_of(described).associatedFiles is None
    assert output_of(described).name == b"logits"


@pytest.mark.parametrize("names", [NAMES[:9], [*NAMES, "one more"], []])
def test_as_many_labels_as_classes(float32: bytes, names: list[str]) -> None:
    with pytest.raises(InputError, match=f"{len(names)} labels do not fit the output 1x10 of tiny"):
        describe(float32, labels=names)


# --- once more, and what is refused --------------------------------------------------------------


def test_twice_gives_the_same_bytes(model: bytes) -> None:
    assert describe(model) == describe(model)


def test_metadata_is_replaced_not_repeated(model: bytes) -> None:
    others = describe(model, labels=[name.upper() for name in NAMES])
    assert others != describe(model)
    assert describe(others) == describe(model)
    assert describe(others, labels=None) == describe(model, labels=None)


def test_what_is_no_model_is_refused() -> None:
    for content in (b"", b"TFL3", b"no model, but longer than a header"):
        with pytest.raises(ConversionError, match="TFL3 is missing"):
            describe(content)


def test_a_second_output_is_refused(float32: bytes) -> None:
    tree = unpacked(float32)
    tree.subgraphs[0].outputs = [*tree.subgraphs[0].outputs, tree.subgraphs[0].inputs[0]]
    with pytest.raises(ConversionError, match="more than one graph, input or output"):
        describe(repacked(tree))


def test_constants_outside_the_flatbuffer_are_refused(float32: bytes) -> None:
    tree = unpacked(float32)
    tree.buffers[3].offset = 4096
    with pytest.raises(ConversionError, match="outside the flatbuffer"):
        describe(repacked(tree))
