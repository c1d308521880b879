"""What goes beside the models: the parity report and the golden inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afd_export.pictures import CONDITIONS, Picture, PictureSet
from afd_export.source import ExportSource
from afd_export.verify import StageResult
from afd_mobile.artifacts import Precision, to_json

GOLDEN_PICTURES = 6


def write_parity(
    folder: Path, results: list[StageResult], pictures: PictureSet, source: ExportSource
) -> None:
    """`parity.json` and `parity.md`."""
    labels = [p.label for p in pictures.verification]
    stages = [r.as_dict(pictures.verification) for r in results]
    content = {"reference": "multi-branch module in PyTorch", "pictures": labels, "stages": stages}
    (folder / "parity.json").write_bytes(to_json(content))
    (folder / "parity.md").write_text(_parity_table(results, pictures, source), encoding="utf-8")


def _parity_table(results: list[StageResult], pictures: PictureSet, source: ExportSource) -> str:
    lines = [
        f"# Parity of {source.name}",
        "",
        f"Every stage against the multi-branch module in PyTorch, on {len(pictures.verification)} "
        f"pictures ({pictures.source}; clean and at QF "
        f"{', '.join(str(q) for q in CONDITIONS if q)}). In brackets: the limit.",
        "",
        *(f"**Note:** {notice}." for notice in source.notices),
        "",
        "| stage | max error / range | mean error / range | cosine | SNR dB | top-1 agreement "
        "| worst picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        p, limits = result.parity, result.limits
        scale = p.range or 1.0
        snr = "exact" if p.snr_db is None else f"{p.snr_db:.1f}"
        top1 = "" if p.top1_agreement is None else f"{p.top1_agreement:.1%}"
        lines.append(
            f"| {result.stage} "
            f"| {p.max_abs_error / scale:.2e} ({limits.max_error:g}) "
            f"| {p.mean_abs_error / scale:.2e} ({limits.mean_error:g}) "
            f"| {p.min_cosine:.6f} ({limits.min_cosine:g}) "
            f"| {snr} ({limits.min_snr_db:g}) "
            f"| {top1} ({limits.min_top1_agreement:.0%}) "
            f"| {pictures.verification[p.worst_picture].label} |"
        )
    return "\n".join(lines) + "\n"


def write_golden(
    folder: Path,
    pictures: list[Picture],
    outputs: dict[Precision, NDArray[np.float32]],
) -> list[dict[str, Any]]:
    """`golden/`: raw inputs and this host's outputs of every file, for replay on a phone.

    Inputs are the pictures' uint8 RGB, (S, S, 3); outputs are float32 as the file gives them.

    Returns:
        one entry a picture, for the manifest.
    """
    golden = folder / "golden"
    golden.mkdir()
    entries = []
    for number in range(min(GOLDEN_PICTURES, len(pictures))):
        # Another source picture each time, and another condition.
        source = number * (len(pictures) // len(CONDITIONS)) // GOLDEN_PICTURES
        index = source * len(CONDITIONS) + number % len(CONDITIONS)
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
