"""`USING.md`: what the developer of an app needs to know about an export folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afd_export.package.card import ModelCard
from afd_export.package.metadata import bytes_are_pixels, pixel_normalization
from afd_mobile.common.artifacts import InputRange, Precision, Scope, Stage
from afd_mobile.common.labels import LABELS
from afd_mobile.common.terminal import in_markdown

USING = "USING.md"

_LITERT = "com.google.ai.edge.litert:litert:2.3.0"
_LITERT_GPU = "com.google.ai.edge.litert:litert-gpu:2.3.0"
_MEDIAPIPE = "com.google.mediapipe:tasks-vision:1.0.0"
# The oldest TensorFlow Lite that has been tested: docs/runtimes.md.
_OLDEST_TESTED = "2.14.0"

_REPOSITORY = (
    "Its library comes from Google's repository: `google()` among the `repositories` of "
    "`settings.gradle.kts`."
)
_MODEL_ON_GPU = [
    "val model = try {",
    "    load(Accelerator.GPU)",
    "} catch (e: LiteRtException) { // a phone without a usable GPU",
    "    load(Accelerator.CPU)",
    "}",
]

_PURPOSE = {
    Precision.FLOAT32: "reference: what the others are compared with",
    Precision.FLOAT16: "GPU",
    Precision.DYNAMIC: "CPU (XNNPACK), where int8 loses too much",
    Precision.INT8: "CPU (XNNPACK)",
}
# Which file an example is shown with: the first that there is.
_FOR_LITERT = (Precision.FLOAT16, Precision.FLOAT32, Precision.INT8, Precision.DYNAMIC)
_FOR_CPU = (Precision.INT8, Precision.FLOAT16, Precision.FLOAT32, Precision.DYNAMIC)


@dataclass(frozen=True)
class Finding:
    """Something measured, in words with its unit, and where it can be checked."""

    statement: str
    evidence: str


def using_page(
    manifest: dict[str, Any],
    card: ModelCard,
    *,
    labelled: bool,
    accuracy: Sequence[Finding] = (),
    latency: Sequence[Finding] = (),
) -> str:
    """The page, in Markdown.

    Args:
        manifest: with at least one TFLite file.
        labelled: whether the files' metadata name the classes.
        accuracy, latency: what is known; without, the page says how to measure.
    """
    folder = _Folder(manifest, labelled)
    sections = [
        [f"# Using {card.name}", "", card.description],
        _files(folder),
        _contract(folder),
        _bitmap(folder),
        _litert(folder),
        _mediapipe(folder),
        _check(folder),
        _measured("Accuracy", accuracy, _how_to_measure_accuracy(folder, card)),
        _measured("Latency", latency, _how_to_measure_latency()),
        ["## Licence", "", f"{card.licence[0].upper()}{card.licence[1:]}."],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


class _Folder:
    """The manifest, as this page needs it."""

    def __init__(self, manifest: dict[str, Any], labelled: bool) -> None:
        backbone = manifest["backbone"]
        self.manifest = manifest
        self.labelled = labelled
        self.corrected = manifest["afd"] is not None
        self.classifier = manifest["scope"] == Scope.CLASSIFIER.value
        self.range = InputRange(manifest["input_range"])
        self.classes: int = backbone["classes"]
        self.size: int = backbone["input_size"]
        self.mean, self.std = pixel_normalization(self.range, backbone["mean"], backbone["std"])
        self.files = {Precision(f["precision"]): f for f in manifest["files"] if "precision" in f}
        self.result: dict[str, Any] = next(iter(self.files.values()))["output"]

    def first(self, order: Sequence[Precision]) -> Precision:
        return next(p for p in order if p in self.files)

    def takes_pixels(self, file: dict[str, Any]) -> bool:
        """Whether the input tensor's values are the pixels' own, 0 to 255."""
        given = file["input"]
        if given["scale"] is None:
            return self.range is InputRange.RGB255
        return bytes_are_pixels(given["scale"], given["zero_point"], self.mean, self.std)

    def mediapipe_takes(self, file: dict[str, Any]) -> bool:
        """It normalises all channels alike, copies pixels into bytes, and knows two types."""
        if not {file["input"]["dtype"], file["output"]["dtype"]} <= {"float32", "uint8"}:
            return False
        if file["input"]["scale"] is None:
            return len(set(self.mean)) == 1 and len(set(self.std)) == 1
        return self.takes_pixels(file)


def _files(folder: _Folder) -> list[str]:
    parity = {s["stage"]: s["parity"] for s in folder.manifest["parity"]["stages"]}
    pictures = folder.manifest["parity"]["pictures"]
    lines = [
        "## Which file",
        "",
        f"| file | size | for | input | runtime from | against PyTorch, {pictures} pictures |",
        "|---|---|---|---|---|---|",
    ]
    for precision, file in folder.files.items():
        stage = parity[f"{Stage.TFLITE.value} {precision.value}"]
        if stage["changed"] is not None:
            close = f"same top-1 for {1 - len(stage['changed']) / stage['pictures']:.1%}"
        else:
            close = "exact" if stage["snr_db"] is None else f"SNR {stage['snr_db']:.0f} dB"
        lines.append(
            f"| `{file['path']}` | {file['bytes'] / 1e6:.1f} MB | {_PURPOSE[precision]} "
            f"| {file['input']['dtype']} | {_runtime(file)} | {close} |"
        )
    cost = folder.manifest["cost"]["graph"]["deployed"]
    return [
        *lines,
        "",
        f"{cost['parameters'] / 1e6:.2f} M parameters (as PyTorch has them; the files, which "
        "`afd-bench cost` counts, hold batch normalisations folded into convolutions), "
        f"{cost['multiply_adds'] / 1e6:.0f} M multiply-adds a picture. `parity.md` says which "
        "pictures, and has all other figures; `placement.json` says which delegate takes which "
        "operation. Runtime: the version of TensorFlow Lite that has all operators, but none "
        f"before {_OLDEST_TESTED}, the oldest tested.",
        *_caution(folder),
    ]


def _runtime(file: dict[str, Any]) -> str:
    """The operators' versions alone do not tell: docs/runtimes.md has one that loads and fails."""
    needed: str | None = file["minimum_runtime"]
    if needed is None:
        return "unknown"
    return max(_OLDEST_TESTED, needed, key=lambda release: [int(n) for n in release.split(".")])


def _caution(folder: _Folder) -> list[str]:
    """What is known to go wrong with convolutions that quantise their input at run time."""
    int8 = folder.files.get(Precision.INT8)
    if int8 is None or not int8["float_operations"]:
        return []
    return [
        "",
        f"For `{int8['path']}` take LiteRT, as below: TensorFlow Lite 2.16.1, the last on Maven "
        "Central, runs such a file a hundred times slower (measured on x86), since its XNNPACK "
        "does not take the convolutions that quantise their input at run time; 2.6.2 gave nothing "
        "but zeros.",
        "",
        f"On a processor with SME (some phones from 2025 on) check `{int8['path']}` with `golden/` "
        "before you ship it: in an emulation of SME its results were wrong, and it is not known "
        "whether real processors do the same.",
    ]


def _contract(folder: _Folder) -> list[str]:
    size, shape = folder.size, "x".join(str(n) for n in folder.result["shape"])
    lines = [
        "## Input and output",
        "",
        f"Input `image`: 1x{size}x{size}x3, rows from the top, R G B for every pixel.",
    ]
    for file in folder.files.values():
        lines.append(f"- `{file['path']}`: {_values(folder, file)}.")
    lines.append("")
    if folder.classifier:
        lines += [
            f"Output `{folder.result['name']}`: {shape}, logits of {folder.classes} classes, not "
            "probabilities: the largest is the best, negative ones count, softmax over all of them "
            "gives probabilities.",
        ]
        if folder.labelled:
            example = folder.files[folder.first(_FOR_CPU)]["path"]
            lines.append(
                f"The classes' names, one a line in the order of the logits, lie in every file: "
                f"`unzip {shlex.quote(example)} {LABELS}`."
            )
    else:
        lines += [
            f"Output `{folder.result['name']}`: {shape} (batch, rows, columns, channels), the "
            f"features of {folder.manifest['backbone']['name']} at "
            f"{folder.manifest['backbone']['tap']}, for a network of your own to go on from.",
        ]
    for file in folder.files.values():
        result = file["output"]
        if result["scale"] is not None:
            lines.append(
                f"- `{file['path']}`: {result['dtype']}; the real value is "
                f"(q - {result['zero_point']}) * {result['scale']:.9g}."
            )
    return lines


def _values(folder: _Folder, file: dict[str, Any]) -> str:
    given = file["input"]
    if folder.takes_pixels(file):
        inside = "; the graph normalises by itself" if folder.range is InputRange.RGB255 else ""
        return f"{given['dtype']}, 0 to 255{inside}"
    text = f"{given['dtype']}, pixels 0 to 255"
    if folder.range is InputRange.NORMALIZED:
        mean, std = (" ".join(f"{v:.6g}" for v in values) for values in (folder.mean, folder.std))
        text += f" as (pixel - mean) / std, mean {mean} and std {std} for R G B"
    if given["scale"] is not None:
        text += (
            f", then quantised: round(value / {given['scale']:.9g}) + {given['zero_point']}, "
            "cut to the type's range"
        )
    return text


def _bitmap(folder: _Folder) -> list[str]:
    size, short = folder.size, round(folder.size * 256 / 224)
    lines = [
        "## Feed a bitmap",
        "",
        "Upright (by EXIF's orientation), `ARGB_8888`, no hardware bitmap. Scaling and crop are "
        f"those of the verification: the short side to {short}, then the middle. Where a photo "
        "shrinks, pixels are averaged; `createScaledBitmap` alone would leave most of them out.",
    ]
    if folder.corrected:
        lines += [
            "",
            "JPEG works on blocks of 8x8 pixels, and the module has been verified on pictures that "
            f"were compressed at {size}x{size}, after cropping. Give it such pictures as they are "
            "decoded: scaling moves the blocks, and what the correction is worth then, measure on "
            "your own pictures.",
        ]
    lines += [
        "",
        "```kotlin",
        "import android.graphics.Bitmap",
        "import android.graphics.Canvas",
        "import android.graphics.Matrix",
        "import android.graphics.Paint",
        "",
        f"const val SIZE = {size}",
        f"const val SHORT = {short} // the short side, before the middle is taken",
        "",
        "fun square(photo: Bitmap): Bitmap {",
        "    if (photo.width == SIZE && photo.height == SIZE) return photo",
        "    var half = photo",
        "    while (minOf(half.width, half.height) >= 2 * SHORT) {",
        "        half = Bitmap.createScaledBitmap(half, half.width / 2, half.height / 2, true)",
        "    }",
        "    val scale = SHORT / minOf(photo.width, photo.height).toFloat()",
        "    val width = maxOf(SHORT, Math.round(photo.width * scale))",
        "    val height = maxOf(SHORT, Math.round(photo.height * scale))",
        "    val square = Bitmap.createBitmap(SIZE, SIZE, Bitmap.Config.ARGB_8888)",
        "    val middle = Matrix().apply {",
        "        setScale(width / half.width.toFloat(), height / half.height.toFloat())",
        "        postTranslate(-((width - SIZE) / 2).toFloat(), -((height - SIZE) / 2).toFloat())",
        "    }",
        "    Canvas(square).drawBitmap(half, middle, Paint(Paint.FILTER_BITMAP_FLAG))",
        "    return square",
        "}",
        "",
        "/** R, G, B of every pixel, 0 to 255. */",
        "fun pixels(bitmap: Bitmap): IntArray {",
        "    val argb = IntArray(SIZE * SIZE)",
        "    bitmap.getPixels(argb, 0, SIZE, 0, 0, SIZE, SIZE)",
        "    return IntArray(3 * argb.size) { argb[it / 3] shr (16 - 8 * (it % 3)) and 0xff }",
        "}",
        "```",
        "",
        "To check the feeding: `golden/N_input.bin` holds such pixels as bytes, `golden/N_*.bin` "
        "what each file made of them on the exporting host, as little-endian float32.",
    ]
    return lines


def _check(folder: _Folder) -> list[str]:
    """How an app checks its own decoding, scaling and cropping."""
    lines = [
        "## Check the app",
        "",
        "App and Python most often disagree because they decode, turn, scale or crop differently. "
        "`golden/pictures/` holds photographs as phones leave them, and what Python makes of each: "
        f"{folder.size}x{folder.size} pixels as PNG.",
        "",
        "| photograph | pixels | best class |",
        "|---|---|---|",
    ]
    for golden in folder.manifest["golden_pictures"]:
        best = "none" if golden["top1"] is None else str(golden["top1"])
        if golden["label"] is not None:
            best += f", {in_markdown(golden['label'])}"
        lines.append(f"| `{golden['jpeg']}` | `{golden['pixels']}` | {best} |")
    return [
        *lines,
        "",
        "Have the app open the JPEG files in its own way, as far as the bitmap that it gives to "
        "`square`, and compare (files pushed to `folder`):",
        "",
        "```kotlin",
        "import android.graphics.BitmapFactory",
        "import java.io.File",
        "import kotlin.math.abs",
        "",
        "/** Mean difference of a pixel from Python's, 0 to 255. */",
        "fun difference(folder: File, name: String, open: (File) -> Bitmap): Double {",
        '    val own = pixels(square(open(File(folder, "$name.jpg"))))',
        '    val expected = pixels(BitmapFactory.decodeFile(File(folder, "$name.png").path))',
        "    return own.indices.sumOf { abs(own[it] - expected[it]) } / own.size.toDouble()",
        "}",
        "```",
        "",
        "Up to 3 is rounding and another scaling filter, and the best class is the same. 10 and "
        "more is another picture: lying on its side, mirrored, squeezed, or with red and blue "
        "exchanged.",
    ]


def _litert(folder: _Folder) -> list[str]:
    precision = folder.first(_FOR_LITERT)
    file = folder.files[precision]
    on_gpu = precision in (Precision.FLOAT16, Precision.FLOAT32)
    lines = [
        "## LiteRT",
        "",
        f"`context` and `photo` are the app's. {_REPOSITORY}",
        "",
        "```kotlin",
        f'// dependencies {{ implementation("{_LITERT}") }}',
        *([f'// for the GPU:    implementation("{_LITERT_GPU}")'] if on_gpu else []),
        "import com.google.ai.edge.litert.Accelerator",
        "import com.google.ai.edge.litert.CompiledModel",
        *(["import com.google.ai.edge.litert.LiteRtException"] if on_gpu else []),
        "",
        "fun load(accelerator: Accelerator) = CompiledModel.create(",
        f'    context.assets, "{file["path"]}", CompiledModel.Options(accelerator))',
        "",
        *(_MODEL_ON_GPU if on_gpu else ["val model = load(Accelerator.CPU)"]),
        "val inputs = model.createInputBuffers()",
        "val outputs = model.createOutputBuffers()",
        "",
        "val values = pixels(square(photo))",
        *_write(folder, file),
        "model.run(inputs, outputs)",
        *_read(folder, file),
        "```",
    ]
    int8 = folder.files.get(Precision.INT8)
    if int8 is not None and int8 is not file:
        lines += [
            "",
            f"The same with `{int8['path']}` and `load(Accelerator.CPU)`, but for these lines:",
            "",
            "```kotlin",
            *_write(folder, int8),
            *(_read(folder, int8) if int8["output"]["scale"] is not None else []),
            "```",
        ]
    lines += [
        "",
        "Create the model once and keep it; `close()` it and its buffers at the end.",
    ]
    return lines


def _write(folder: _Folder, file: dict[str, Any]) -> list[str]:
    """Kotlin: `values` (pixels) into `inputs[0]`, in the file's own range and type."""
    given = file["input"]
    lines, value = [], "values[it]"
    if folder.range is InputRange.NORMALIZED:
        lines = [
            f"val mean = floatArrayOf({_floats(folder.mean)})",
            f"val std = floatArrayOf({_floats(folder.std)})",
        ]
        value = "(values[it] - mean[it % 3]) / std[it % 3]"
    if given["scale"] is None:
        if folder.range is InputRange.RGB255:
            value = "values[it].toFloat()"
        return [*lines, f"inputs[0].writeFloat(FloatArray(values.size) {{ {value} }})"]
    if folder.takes_pixels(file):
        return ["inputs[0].writeInt8(ByteArray(values.size) { values[it].toByte() })"]
    low, high = (0, 255) if given["dtype"] == "uint8" else (-128, 127)
    return [
        *lines,
        "inputs[0].writeInt8(ByteArray(values.size) {",
        f"    val step = Math.round({value} / {_float(given['scale'])}) + {given['zero_point']}",
        f"    step.coerceIn({low}, {high}).toByte()",
        "})",
    ]


def _read(folder: _Folder, file: dict[str, Any]) -> list[str]:
    """Kotlin: `outputs[0]` as real values, and the best class of a classifier."""
    result = file["output"]
    if result["scale"] is None:
        lines = [f"val {result['name']} = outputs[0].readFloat()"]
    else:
        step = "it.toInt() and 0xff" if result["dtype"] == "uint8" else "it.toInt()"
        lines = [
            f"val {result['name']} = outputs[0].readInt8()",
            f"    .map {{ (({step}) - {result['zero_point']}) * {_float(result['scale'])} }}",
        ]
    if folder.classifier:
        lines.append(f"val best = {result['name']}.indices.maxBy {{ {result['name']}[it] }}")
    return lines


def _mediapipe(folder: _Folder) -> list[str]:
    title = ["## MediaPipe Tasks", ""]
    if not folder.classifier:
        return [*title, "No: its ImageClassifier takes classifiers, and these files give features."]
    taken = {p: f for p, f in folder.files.items() if folder.mediapipe_takes(f)}
    if not taken:
        return [
            *title,
            "No: its ImageClassifier normalises all channels alike and copies pixels into "
            "quantised inputs as they are, so it cannot feed these files. Export with "
            "`--input rgb255`.",
        ]
    file = next(taken[p] for p in _FOR_CPU if p in taken)
    what = "categoryName" if folder.labelled else "index"
    names = " and what their classes are called" if folder.labelled else ""
    others = [f"`{f['path']}`" for p, f in folder.files.items() if p not in taken]
    refused = [f"It cannot use {' and '.join(others)}; see their input and output above.", ""]
    return [
        *title,
        f"The files say themselves how they are fed{names}. It squeezes whole pictures into the "
        "square, so crop before. Scores are logits, best first; leave the score threshold unset, "
        f"or set it as a logit. {_REPOSITORY}",
        "",
        *(refused if others else []),
        "```kotlin",
        f'// dependencies {{ implementation("{_MEDIAPIPE}") }}',
        "import com.google.mediapipe.framework.image.BitmapImageBuilder",
        "import com.google.mediapipe.tasks.core.BaseOptions",
        "import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier",
        "",
        "val options = ImageClassifier.ImageClassifierOptions.builder()",
        f'    .setBaseOptions(BaseOptions.builder().setModelAssetPath("{file["path"]}").build())',
        "    .setMaxResults(3)",
        "    .build()",
        "val classifier = ImageClassifier.createFromOptions(context, options)",
        "val result = classifier.classify(BitmapImageBuilder(square(photo)).build())",
        "for (category in result.classificationResult().classifications()[0].categories()) {",
        f'    println("${{category.{what}()}} ${{category.score()}}")',
        "}",
        "```",
    ]


def _measured(title: str, findings: Sequence[Finding], otherwise: list[str]) -> list[str]:
    known = [f"- {finding.statement} ({finding.evidence})" for finding in findings]
    return [f"## {title}", "", *(known or otherwise)]


def _how_to_measure_accuracy(folder: _Folder, card: ModelCard) -> list[str]:
    if not folder.classifier:
        return ["Not measured: features have none of their own."]
    named = "" if folder.labelled else " --labels FILE"
    lines = [
        "Not measured for this folder. On your own pictures, in folders named by class, clean and "
        "as JPEG:",
        "",
        "```sh",
        f"afd-eval FOLDER --images DIR{named}",
        f"afd-eval FOLDER --images DIR{named} --compress before-scaling",
        "```",
        "",
        "The first compresses what the network gets, the second the picture files, before they are "
        "scaled and cropped, as an app meets them.",
    ]
    if card.figures is not None:
        lines += ["", f"Measured when it was trained: `models/{card.figures}` of afd-mobile."]
    return lines


def _how_to_measure_latency() -> list[str]:
    return [
        "Not measured for this folder. On this machine, and on connected phones:",
        "",
        "```sh",
        "afd-bench run FOLDER",
        "afd-bench run FOLDER --device all --backend cpu gpu",
        "```",
    ]


def _floats(values: Sequence[float]) -> str:
    return ", ".join(_float(v) for v in values)


def _float(value: float) -> str:
    """A Kotlin literal that gives the same float32."""
    return f"{value:.9g}f"
