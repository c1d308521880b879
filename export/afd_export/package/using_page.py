"""`USING.md`: what the developer of an app needs to know about an export folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afd_export.package.app_code import (
    FOR_CPU,
    Folder,
    bitmap_code,
    litert_code,
    mediapipe_code,
    values_line,
)
from afd_export.package.card import ModelCard
from afd_mobile.common.artifacts import Precision, Stage
from afd_mobile.common.labels import LABELS
from afd_mobile.common.terminal import in_markdown

USING = "USING.md"

# The oldest TensorFlow Lite that has been tested: docs/runtimes.md.
_OLDEST_TESTED = "2.14.0"

_PURPOSE = {
    Precision.FLOAT32: "reference: what the others are compared with",
    Precision.FLOAT16: "GPU",
    Precision.DYNAMIC: "CPU (XNNPACK), where int8 loses too much",
    Precision.INT8: "CPU (XNNPACK)",
}


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
    folder = Folder(manifest, labelled)
    sections = [
        [f"# Using {card.name}", "", card.description],
        _files(folder),
        _contract(folder),
        bitmap_code(folder),
        litert_code(folder),
        mediapipe_code(folder),
        _check(folder),
        _measured("Accuracy", accuracy, _how_to_measure_accuracy(folder, card)),
        _measured("Latency", latency, _how_to_measure_latency()),
        ["## Licence", "", f"{card.licence[0].upper()}{card.licence[1:]}."],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _files(folder: Folder) -> list[str]:
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


def _caution(folder: Folder) -> list[str]:
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


def _contract(folder: Folder) -> list[str]:
    size, shape = folder.size, "x".join(str(n) for n in folder.result["shape"])
    lines = [
        "## Input and output",
        "",
        f"Input `image`: 1x{size}x{size}x3, rows from the top, R G B for every pixel.",
    ]
    for file in folder.files.values():
        lines.append(f"- `{file['path']}`: {values_line(folder, file)}.")
    lines.append("")
    if folder.classifier:
        lines += [
            f"Output `{folder.result['name']}`: {shape}, logits of {folder.classes} classes, not "
            "probabilities: the largest is the best, negative ones count, softmax over all of them "
            "gives probabilities.",
        ]
        if folder.labelled:
            example = folder.files[folder.first(FOR_CPU)]["path"]
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


def _check(folder: Folder) -> list[str]:
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


def _measured(title: str, findings: Sequence[Finding], otherwise: list[str]) -> list[str]:
    known = [f"- {finding.statement} ({finding.evidence})" for finding in findings]
    return [f"## {title}", "", *(known or otherwise)]


def _how_to_measure_accuracy(folder: Folder, card: ModelCard) -> list[str]:
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
