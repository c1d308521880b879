"""What goes beside the models: the parity report and the golden inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_export.float16_hazards import Range
from afd_export.pictures import CONDITIONS, Picture, PictureSet
from afd_export.placement.place import GraphPlacement
from afd_export.source import ExportSource
from afd_export.verify import StageResult
from afd_mobile.common.artifacts import Precision, to_json
from afd_mobile.common.parity import Limits, Parity
from afd_mobile.common.terminal import in_markdown

# Measured: docs/runtimes.md.
_OTHER_PROCESSORS = [
    "## On a phone",
    "",
    "LiteRT with XNNPACK, the default on the CPU, computes wholly int8 operations bit for bit as "
    "here (measured on x86 and emulated arm64, with and without dot products), those that quantise "
    "at run time to about a step of the output, and the float files to 1e-6 of the range. Other "
    "CPU kernels (an old runtime, XNNPACK switched off) round differently, by one step in 0.1 to "
    "0.4 % of a convolution's values; through the graph that grows to about the file's own int8 "
    "error, so a picture near a decision may change class. GPUs and NPUs have kernels of their "
    "own, not measured here. On an emulated processor with SME, operations that quantise at run "
    "time came out wrong: replay golden/ on such a phone before shipping the int8 file there.",
]

_MARGINS = [
    "Top-1 changed: pictures for which the stage has another best class. Between two classes that "
    "are all but equally likely any rounding may decide for the other, so each is judged by the "
    "reference's margin, its best logit less that of the stage's best class. A picture's usual "
    "shift is how far the stage moved its five next best classes against each other (the median of "
    "their pairs); the error explains a margin of six times what nine pictures of ten stay below "
    "(margin explained, in logits). Beyond the error: changed although the margin was larger; in "
    "brackets the share of pictures that may.",
]


def write_placement(folder: Path, placements: dict[str, GraphPlacement]) -> None:
    """`placement.json`: which delegate takes which operation of each file, and why not."""
    content = {
        "schema_version": 1,
        "files": {name: placement.as_dict() for name, placement in placements.items()},
    }
    (folder / "placement.json").write_bytes(to_json(content))


def write_parity(
    folder: Path,
    results: list[StageResult],
    pictures: PictureSet,
    source: ExportSource,
    ranges: list[Range],
    not_published: dict[str, str],
    sections: list[list[str]],
) -> None:
    """`parity.json` and `parity.md`.

    Args:
        not_published: precision -> why; their stages are not among `results`.
        sections: lines of Markdown that follow there.
    """
    labels = [p.label for p in pictures.verification]
    stages = [r.as_dict(pictures.verification) for r in results]
    content = {
        "reference": _reference(source),
        "pictures": labels,
        "stages": stages,
        "float16_hazards": [r.as_dict() for r in ranges if r.hazard],
        "not_published": not_published,
    }
    (folder / "parity.json").write_bytes(to_json(content))
    if not_published:
        reasons = [f"- {precision}: {why}" for precision, why in not_published.items()]
        sections = [["## Not published", "", *reasons], *sections]
    paragraphs = [
        *_introduction(pictures, source),
        "\n".join(_parity_table(results, pictures)),
        *_MARGINS,
        *("\n".join(section) for section in (*sections, _OTHER_PROCESSORS)),
    ]
    (folder / "parity.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def _reference(source: ExportSource) -> str:
    what = "plain classifier" if source.afd is None else "multi-branch module"
    return f"{what} in PyTorch"


def _introduction(pictures: PictureSet, source: ExportSource) -> list[str]:
    return [
        f"# Parity of {source.name}",
        f"Every stage against the {_reference(source)}, on {len(pictures.verification)} "
        f"pictures ({in_markdown(pictures.source)}; clean and at QF "
        f"{', '.join(str(q) for q in CONDITIONS if q)}). In brackets: the limit. The ranges of "
        f"int8, and of float16's hazards, come from {pictures.calibrating} pictures "
        f"({len(pictures.calibration)} inputs).",
        *(f"**Note:** {notice}." for notice in source.notices),
    ]


def _parity_table(results: list[StageResult], pictures: PictureSet) -> list[str]:
    lines = [
        "| stage | max error / range | mean error / range | cosine | SNR dB "
        "| margin explained | top-1 changed | beyond the error | worst picture |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        p, limits = result.parity, result.limits
        scale = p.range or 1.0
        snr = "exact" if p.snr_db is None else f"{p.snr_db:.1f}"
        lines.append(
            f"| {result.stage} "
            f"| {p.max_abs_error / scale:.2e} ({limits.max_error:g}) "
            f"| {p.mean_abs_error / scale:.2e} ({limits.mean_error:g}) "
            f"| {p.min_cosine:.6f} ({limits.min_cosine:g}) "
            f"| {snr} ({limits.min_snr_db:g}) "
            f"| {_changes(p, limits)} "
            f"| {in_markdown(pictures.verification[p.worst_picture].label)} |"
        )
    return lines


def _changes(parity: Parity, limits: Limits) -> str:
    """Three cells of the table; empty for feature maps."""
    if parity.changed is None or parity.changed_beyond_error is None:
        return "| |"
    return (
        f"{parity.explained_margin:.2g} | {len(parity.changed)} "
        f"| {len(parity.changed_beyond_error)} ({limits.max_changed_beyond_error:.0%})"
    )


def write_golden(
    folder: Path,
    pictures: list[Picture],
    reference: NDArray[np.float32],
    outputs: dict[Precision, NDArray[np.float32]],
) -> list[dict[str, Any]]:
    """`golden/`: raw inputs and this host's outputs of every file, for replay on a phone.

    One picture for each condition, each of another source: the one whose class the trained module
    is surest of, so that another kernel's rounding is no reason for another top-1.
    Inputs are the pictures' uint8 RGB, (S, S, 3); outputs are float32 as the file gives them.

    Returns:
        one entry a picture, for the manifest.
    """
    golden = folder / "golden"
    golden.mkdir()
    entries = []
    for number, index in enumerate(_surest(pictures, reference)):
        picture = pictures[index]
        name = f"golden/{number}_input.bin"
        (folder / name).write_bytes(picture.rgb.tobytes())
        expected = {}
        for precision, values in outputs.items():
            path = f"golden/{number}_{precision.value}.bin"
            (folder / path).write_bytes(values[index].astype("<f4").tobytes())
            expected[precision.value] = path
        entries.append(
            {
                "picture": picture.name,
                "quality": picture.quality,
                "input": name,
                "outputs": expected,
            }
        )
    return entries


def _surest(pictures: list[Picture], reference: NDArray[np.float32]) -> list[int]:
    """For each condition the picture with the largest margin; no source twice, no class either,
    where that can be."""
    outputs = reference.reshape(len(pictures), -1)
    best_two = np.partition(outputs, -2, axis=1)[:, -2:]
    margins, classes = best_two[:, 1] - best_two[:, 0], outputs.argmax(axis=1)
    chosen: list[int] = []
    for condition in CONDITIONS:
        sources = {pictures[i].name for i in chosen}
        seen = {int(classes[i]) for i in chosen}

        def rank(i: int, sources: set[str] = sources, seen: set[int] = seen) -> Any:
            return pictures[i].name not in sources, int(classes[i]) not in seen, float(margins[i])

        candidates = [i for i, picture in enumerate(pictures) if picture.quality == condition]
        if candidates:
            chosen.append(max(candidates, key=rank))
    return chosen
