"""Code for the developer of an app: a picture into a file, its answer out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afd_export.package.metadata import bytes_are_pixels, pixel_normalization
from afd_mobile.common.artifacts import InputRange, Precision, Scope

_LITERT = "com.google.ai.edge.litert:litert:2.3.0"
_LITERT_GPU = "com.google.ai.edge.litert:litert-gpu:2.3.0"
_MEDIAPIPE = "com.google.mediapipe:tasks-vision:1.0.0"
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

# Which file an example is shown with: the first that there is.
_FOR_LITERT = (Precision.FLOAT16, Precision.FLOAT32, Precision.INT8, Precision.DYNAMIC)
FOR_CPU = (Precision.INT8, Precision.FLOAT16, Precision.FLOAT32, Precision.DYNAMIC)


class Folder:
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


def values_line(folder: Folder, file: dict[str, Any]) -> str:
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


def bitmap_code(folder: Folder) -> list[str]:
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


def litert_code(folder: Folder) -> list[str]:
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


def _write(folder: Folder, file: dict[str, Any]) -> list[str]:
    """Kotlin: `values` (pixels) into `inputs[0]`, in the file's own range and type."""
    given = file["input"]
    lines, value = [], "values[it]"
    if folder.range is InputRange.NORMALIZED:
        lines = [
            f"val mean = floatArrayOf({floats(folder.mean)})",
            f"val std = floatArrayOf({floats(folder.std)})",
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


def _read(folder: Folder, file: dict[str, Any]) -> list[str]:
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


def mediapipe_code(folder: Folder) -> list[str]:
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
    file = next(taken[p] for p in FOR_CPU if p in taken)
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


def floats(values: Sequence[float]) -> str:
    return ", ".join(_float(v) for v in values)


def _float(value: float) -> str:
    """A Kotlin literal that gives the same float32."""
    return f"{value:.9g}f"
