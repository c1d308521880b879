"""What is to be exported.

torch-free, so that a command line can take its defaults before it imports anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afd_mobile.classifiers.options import AS_RECORDED, ClassifierOptions
from afd_mobile.common.artifacts import InputRange, Precision, Scope
from afd_mobile.common.resources import DEFAULT_CHECKPOINT


@dataclass(frozen=True)
class ExportRequest:
    """What `afd-export` is asked for; see its `--help`."""

    checkpoint: str = DEFAULT_CHECKPOINT
    classifier: ClassifierOptions = AS_RECORDED
    taps: tuple[str, ...] = ()
    preset: str = "mobile"
    fused: bool = False
    scope: Scope = Scope.CLASSIFIER
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.FLOAT16, Precision.INT8)
    input_range: InputRange = InputRange.RGB255
    images: Path | None = None
    labels: Path | tuple[str, ...] | None = None
    explain_int8: bool = False
    out: Path | None = None
    seed: int = 0
    force: bool = False
