from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from afd_export.package.card import ModelCard
from afd_export.package.using_page import Finding, using_page
from afd_mobile.common.artifacts import read_manifest
from tests.afd_export.conftest import Exported

CARD = ModelCard(
    "tiny", "A tiny classifier.", "1.2.3", "Someone", "classifier's weights: mine", None
)
MEDIAPIPE = "ImageClassifier.createFromOptions"
PER_CHANNEL = {"scale": 0.018658, "zero_point": 114}


@pytest.fixture
def manifest(exported: Exported) -> dict[str, Any]:
    """A real one, of all four precisions; each test has its own."""
    return copy.deepcopy(read_manifest(exported.folder))


def file_of(manifest: dict[str, Any], precision: str) -> dict[str, Any]:
    (file,) = (f for f in manifest["files"] if f.get("precision") == precision)
    assert isinstance(file, dict)
    return file


def only(manifest: dict[str, Any], *precisions: str) -> None:
    manifest["files"] = [
        f for f in manifest["files"] if f.get("precision", precisions[0]) in precisions
    ]


def page_of(manifest: dict[str, Any], **options: Any) -> str:
    return using_page(manifest, CARD, **{"labelled": True, **options})


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def kotlin(page: str) -> list[str]:
    return re.findall(r"```kotlin\n(.*?)\n```", page, re.DOTALL)


# --- what every page holds -----------------------------------------------------------------------


def test_the_card_and_every_file_are_on_it(manifest: dict[str, Any]) -> None:
    page = page_of(manifest)
    assert page.startswith("# Using tiny\n\nA tiny classifier.\n")
    assert section(page, "Licence").strip() == "Classifier's weights: mine."
    rows = [line for line in section(page, "Which file").splitlines() if line.startswith("| `")]
    assert len(rows) == 4
    for precision, purpose in {
        "float32": "reference: ",
        "float16": "GPU |",
        "dynamic": "CPU (XNNPACK), where",
        "int8": "CPU (XNNPACK) |",
    }.items():
        file = file_of(manifest, precision)
        (row,) = (row for row in rows if file["path"] in row)
        assert f"| {purpose}" in row
        assert f"| {file['bytes'] / 1e6:.1f} MB |" in row
        assert f"| {'uint8' if precision == 'int8' else 'float32'} |" in row


def test_parity_is_the_manifests(manifest: dict[str, Any]) -> None:
    for stage in manifest["parity"]["stages"]:
        if stage["stage"] == "tflite int8":
            stage["parity"].update(pictures=1000, changed=["p.png (QF 7)"] * 123)
    manifest["parity"]["pictures"] = 4321
    files = section(page_of(manifest), "Which file")
    assert "against PyTorch, 4321 pictures" in files
    (row,) = (line for line in files.splitlines() if "_int8.tflite" in line)
    assert row.endswith("| same top-1 for 87.7% |")


def test_every_snippet_is_whole(manifest: dict[str, Any]) -> None:
    snippets = kotlin(page_of(manifest))
    assert len(snippets) == 5  # feeding, LiteRT, its int8 variant, MediaPipe, the check
    for text in snippets:
        for opening, closing in ("()", "[]", "{}"):
            assert text.count(opening) == text.count(closing)
        assert text.count('"') % 2 == 0
    imports = [line for text in snippets for line in text.splitlines() if "import " in line]
    assert len(imports) == len(set(imports)) == 13


def test_the_input_is_as_large_as_the_networks(manifest: dict[str, Any]) -> None:
    page = page_of(manifest)
    assert "Input `image`: 1x64x64x3" in page
    assert "const val SIZE = 64" in page
    assert "224" not in page


def test_the_output_is_described(manifest: dict[str, Any]) -> None:
    output = section(page_of(manifest), "Input and output")
    assert "Output `logits`: 1x10, logits of 10 classes, not probabilities" in output


def test_names_of_classes_only_where_there_are_labels(manifest: dict[str, Any]) -> None:
    with_labels, without = page_of(manifest), page_of(manifest, labelled=False)
    assert f"`unzip {file_of(manifest, 'int8')['path']} labels.txt`" in with_labels
    assert "categoryName()" in with_labels
    file_of(manifest, "int8")["path"] = "my mine_int8.tflite"
    assert "`unzip 'my mine_int8.tflite' labels.txt`" in page_of(manifest)
    for text in ("labels.txt", "categoryName()", "what their classes are called"):
        assert text not in without
    assert "${category.index()}" in without
    assert "\nafd-eval FOLDER --images DIR --labels FILE\n" in without


def test_blocks_matter_only_to_a_module(manifest: dict[str, Any]) -> None:
    assert "compressed at 64x64" in page_of(manifest)
    manifest["afd"] = None
    assert "8x8" not in page_of(manifest)


def test_the_golden_pictures_and_their_classes_are_listed(manifest: dict[str, Any]) -> None:
    manifest["golden_pictures"][0]["label"] = "cup|<b>"
    check = section(page_of(manifest), "Check the app")
    assert "64x64 pixels as PNG" in check
    rows = [line for line in check.splitlines() if line.startswith("| `")]
    assert len(rows) == 4
    top1 = manifest["golden_pictures"][0]["top1"]
    assert rows[0].startswith("| `golden/pictures/turned.jpg` | `golden/pictures/turned.png` | ")
    assert f"| {top1}, cup" in rows[0] and "<b>" not in rows[0]
    manifest["golden_pictures"][1]["top1"] = None
    assert "mirrored.png` | none |" in section(page_of(manifest), "Check the app")


# --- which file an example is shown with ---------------------------------------------------------


def test_float16_is_for_the_gpu_and_int8_for_mediapipe(manifest: dict[str, Any]) -> None:
    _, litert, litert_int8, mediapipe, _ = kotlin(page_of(manifest))
    assert file_of(manifest, "float16")["path"] in litert
    assert "litert-gpu" in litert
    assert re.search(
        r"val model = try \{\s+load\(Accelerator.GPU\)\s+"
        r"\} catch \(e: LiteRtException\) \{.*\s+load\(Accelerator.CPU\)\s+\}",
        litert,
    )
    assert "inputs[0].writeFloat(FloatArray(values.size) { values[it].toFloat() })" in litert
    assert litert_int8 == "inputs[0].writeInt8(ByteArray(values.size) { values[it].toByte() })"
    assert f'setModelAssetPath("{file_of(manifest, "int8")["path"]}")' in mediapipe


@pytest.mark.parametrize(
    ("precision", "accelerator"),
    [("float32", "GPU"), ("float16", "GPU"), ("dynamic", "CPU"), ("int8", "CPU")],
)
def test_a_single_file_is_enough(
    manifest: dict[str, Any], precision: str, accelerator: str
) -> None:
    only(manifest, precision)
    page = page_of(manifest)
    _, litert, mediapipe, _ = kotlin(page)
    path = file_of(manifest, precision)["path"]
    assert f'"{path}", CompiledModel.Options(accelerator)' in litert
    assert ("load(Accelerator.GPU)" in litert) == (accelerator == "GPU")
    assert "load(Accelerator.CPU)" in litert
    for text in ("litert-gpu", "LiteRtException"):
        assert (text in litert) == (accelerator == "GPU")
    assert ("writeInt8" in litert) == (precision == "int8")
    assert path in mediapipe
    assert len(set(re.findall(r"[\w.-]+\.tflite", page))) == 1


# --- other inputs --------------------------------------------------------------------------------


@pytest.fixture
def normalized(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["input_range"] = "normalized"
    file_of(manifest, "int8")["input"].update(PER_CHANNEL)
    return manifest


def test_normalised_pixels_are_explained_and_computed(normalized: dict[str, Any]) -> None:
    page = page_of(normalized)
    assert (
        "float32, pixels 0 to 255 as (pixel - mean) / std, mean 123.675 116.28 103.53 "
        "and std 58.395 57.12 57.375 for R G B."
    ) in page
    assert "the graph normalises" not in page
    litert = kotlin(page)[1]
    assert "(values[it] - mean[it % 3]) / std[it % 3]" in litert
    (mean,) = re.findall(r"val mean = floatArrayOf\((.*)\)", litert)
    numbers = [np.float32(text.removesuffix("f")) for text in mean.split(", ")]
    assert numbers == [np.float32(255 * m) for m in (0.485, 0.456, 0.406)]


def test_quantised_normalised_pixels_are_quantised(normalized: dict[str, Any]) -> None:
    page = page_of(normalized)
    assert "then quantised: round(value / 0.018658) + 114" in page
    int8 = kotlin(page)[2]
    assert (
        "val step = Math.round((values[it] - mean[it % 3]) / std[it % 3] / 0.018658f) + 114" in int8
    )
    assert "step.coerceIn(0, 255).toByte()" in int8


def test_mediapipe_cannot_normalise_channels_apart(normalized: dict[str, Any]) -> None:
    page = page_of(normalized)
    assert MEDIAPIPE not in page
    assert "Export with `--input rgb255`" in section(page, "MediaPipe Tasks")


def test_mediapipe_can_normalise_all_channels_alike(normalized: dict[str, Any]) -> None:
    normalized["backbone"].update(mean=[0.5] * 3, std=[0.5] * 3)
    page = section(page_of(normalized), "MediaPipe Tasks")
    assert f'setModelAssetPath("{file_of(normalized, "float16")["path"]}")' in page
    # Its bytes still stand for other values than the pixels'.
    assert f"It cannot use `{file_of(normalized, 'int8')['path']}`" in page
    file_of(normalized, "int8")["input"].update(scale=1 / 127.5, zero_point=127)
    assert "cannot use" not in page_of(normalized)


def test_a_dark_calibration_shows(manifest: dict[str, Any]) -> None:
    file_of(manifest, "int8")["input"]["scale"] = 0.5
    page = page_of(manifest)
    assert "uint8, pixels 0 to 255, then quantised: round(value / 0.5) + 0" in page
    assert "val step = Math.round(values[it] / 0.5f) + 0" in kotlin(page)[2]
    assert "It cannot use" in section(page, "MediaPipe Tasks")


# --- other outputs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "byte"), [("uint8", "(it.toInt() and 0xff)"), ("int8", "(it.toInt())")]
)
def test_a_quantised_output_is_dequantised(manifest: dict[str, Any], dtype: str, byte: str) -> None:
    file_of(manifest, "int8")["output"].update(dtype=dtype, scale=0.125, zero_point=17)
    page = page_of(manifest)
    assert f"{dtype}; the real value is (q - 17) * 0.125." in page
    assert f".map {{ ({byte} - 17) * 0.125f }}" in kotlin(page)[2]
    # MediaPipe dequantises uint8 by itself, and knows no int8.
    assert ("It cannot use" in page) == (dtype == "int8")


@pytest.mark.parametrize(
    ("by_operators", "shown"),
    [("2.15.0", "2.15.0"), ("2.4.0", "2.14.0"), ("2.9.0", "2.14.0"), (None, "unknown")],
)
def test_no_runtime_older_than_the_oldest_tested_is_promised(
    manifest: dict[str, Any], by_operators: str | None, shown: str
) -> None:
    file_of(manifest, "int8")["minimum_runtime"] = by_operators
    files = section(page_of(manifest), "Which file")
    (row,) = (line for line in files.splitlines() if line.startswith("| `") and "_int8." in line)
    assert row.split(" | ")[4] == shown
    assert "none before 2.14.0, the oldest tested" in files


@pytest.mark.parametrize(("operations", "warned"), [(0, False), (24, True)])
def test_files_that_quantise_at_run_time_carry_a_caution(
    manifest: dict[str, Any], operations: int, warned: bool
) -> None:
    file_of(manifest, "int8")["float_operations"] = operations
    page = page_of(manifest)
    for caution in ("SME", "TensorFlow Lite 2.16.1", "2.6.2 gave nothing but zeros"):
        assert (caution in page) == warned


def test_features_are_no_classes(manifest: dict[str, Any]) -> None:
    manifest["scope"] = "features"
    for file in manifest["files"]:
        if "precision" in file:
            file["output"].update(name="features", shape=[1, 32, 32, 16])
    for stage in manifest["parity"]["stages"]:
        stage["parity"].update(changed=None, changed_beyond_error=None, snr_db=41.6)
    page = page_of(manifest, labelled=False)
    assert "Output `features`: 1x32x32x16 (batch, rows, columns, channels)" in page
    assert "tinynet:make at act2" in page
    assert "| SNR 42 dB |" in page
    assert "val features = outputs[0].readFloat()" in page
    for text in ("logits", "probabilit", "val best", MEDIAPIPE, "afd-eval"):
        assert text not in page


# --- figures -------------------------------------------------------------------------------------


def test_without_figures_it_says_how_to_measure(manifest: dict[str, Any]) -> None:
    page = page_of(manifest)
    for title, command in (
        ("Accuracy", "\nafd-eval FOLDER --images DIR\n"),
        ("Accuracy", "\nafd-eval FOLDER --images DIR --compress before-scaling\n"),
        ("Latency", "\nafd-bench run FOLDER\n"),
    ):
        assert section(page, title).strip().startswith("Not measured for this folder.")
        assert command in section(page, title)
    figures = re.findall(r"[\d.]+ ms\b|[\d.]+ x as fast", page)
    assert figures == []


def test_a_shipped_modules_figures_are_pointed_at(manifest: dict[str, Any]) -> None:
    assert "models/" not in page_of(manifest)
    shipped = dataclasses.replace(CARD, figures="tiny.md")
    page = using_page(manifest, shipped, labelled=True)
    assert "`models/tiny.md` of afd-mobile" in section(page, "Accuracy")


def test_libraries_are_named_with_version_and_repository(manifest: dict[str, Any]) -> None:
    page = page_of(manifest)
    libraries = re.findall(r'implementation\("(.*)"\)', page)
    assert len(libraries) == 3
    assert all(re.fullmatch(r"[\w.]+:[\w-]+:\d+\.\d+\.\d+", library) for library in libraries)
    for title in ("LiteRT", "MediaPipe Tasks"):
        assert "`google()`" in section(page, title)


def test_figures_come_with_their_evidence(manifest: dict[str, Any]) -> None:
    page = page_of(
        manifest,
        accuracy=[Finding("top-1 83.4 % clean", "accuracy.md, 500 pictures")],
        latency=[Finding("9.3 ms", "bench.json"), Finding("ratio 1.18", "bench.json")],
    )
    assert section(page, "Accuracy").strip() == "- top-1 83.4 % clean (accuracy.md, 500 pictures)"
    assert section(page, "Latency").strip() == "- 9.3 ms (bench.json)\n- ratio 1.18 (bench.json)"
