"""Whether a stage still computes what was trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from afd_export.pictures import Picture
from afd_mobile.common.errors import ParityError
from afd_mobile.common.parity import Limits, Parity, compare

_BATCH = 8


@dataclass(frozen=True)
class StageResult:
    """One stage's parity with the multi-branch module, and the limits that it kept."""

    stage: str
    parity: Parity
    limits: Limits

    def as_dict(self, pictures: list[Picture]) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        content["parity"]["worst_picture"] = pictures[self.parity.worst_picture].label
        for which in ("changed", "changed_beyond_error"):
            indices = content["parity"][which]
            if indices is not None:
                content["parity"][which] = [pictures[i].label for i in indices]
        return content


class Judge:
    """Compares every stage with the reference on the same pictures.

    Args:
        reference: (N, ...) outputs of the multi-branch module in PyTorch.
        classify: whether they are logits.
    """

    def __init__(
        self, reference: NDArray[np.float32], pictures: list[Picture], *, classify: bool
    ) -> None:
        self.reference, self.pictures, self.classify = reference, pictures, classify

    def check(self, stage: str, actual: NDArray[np.float32], limits: Limits) -> StageResult:
        """The stage's parity.

        Raises:
            ParityError: a limit is crossed, a shape is wrong or a value is not finite; the
                message names the stage and the picture.
        """
        try:
            parity = compare(
                self.reference, actual, [p.label for p in self.pictures], classify=self.classify
            )
        except ParityError as error:
            raise ParityError(f"stage {stage}: {error}") from error
        violations = parity.violations(limits)
        if violations:
            worst = self.pictures[parity.worst_picture].label
            changed = [self.pictures[i].label for i in parity.changed_beyond_error or ()]
            raise ParityError(
                f"stage {stage} does not compute what was trained: {'; '.join(violations)}; "
                f"largest error on {worst}"
                + (f"; another top-1 on {', '.join(changed[:5])}" if changed else "")
                + f" ({len(self.pictures)} pictures)"
            )
        return StageResult(stage, parity, limits)


def check_contract(
    stage: str, actual: tuple[str, tuple[int, ...]], expected: tuple[str, tuple[int, ...]]
) -> None:
    """Name and shape of an input or output, before any value is compared."""
    if actual != expected:
        raise ParityError(f"stage {stage}: has {actual}, expected {expected}")


def run_torch(graph: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """images (N, S, S, 3) -> outputs (N, ...), in the order of PyTorch (NCHW)."""
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        outputs = [graph(nchw[i : i + _BATCH]) for i in range(0, len(nchw), _BATCH)]
    result: NDArray[np.float32] = torch.cat(outputs).numpy()
    return result
