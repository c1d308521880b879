"""Real exports of what the project ships, made once through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tests.conftest import PHOTOGRAPHS


def export(out: Path, *arguments: object) -> Path:
    """`afd-export --fuse ARGUMENTS --out OUT`, which must succeed."""
    command = [sys.executable, "-m", "afd_export.cli", "--fuse", *map(str, arguments)]
    command += ["--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if k != "AFD_WEIGHTS_DIR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def export_fused() -> Callable[..., Path]:
    """`export_fused(OUT, ARGUMENT, ...)` makes one more."""
    return export


@pytest.fixture(scope="session")
def photographs() -> Path:
    """500 ImageNet photographs; where they are not there, its tests are left out."""
    return PHOTOGRAPHS


@pytest.fixture(scope="session")
def few_pictures(made_once: Callable[..., Path]) -> Path:
    """Two of scikit-image's photographs, for what does not depend on how many there are."""

    def save(folder: Path) -> None:
        for name in ("astronaut", "coffee"):
            Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")

    return made_once("few_pictures", save)


@pytest.fixture(scope="session")
def corrected(made_once: Callable[..., Path]) -> Path:
    """The shipped checkpoint in all default precisions."""
    return made_once("corrected", lambda folder: export(folder / "out")) / "out"


@pytest.fixture(scope="session")
def squeezenet(made_once: Callable[..., Path]) -> Path:
    """The shipped checkpoint for SqueezeNet in all default precisions."""

    def make(folder: Path) -> None:
        export(folder / "out", "--checkpoint", "afd-squeezenet1_1-mobile")

    return made_once("squeezenet", make) / "out"


@pytest.fixture(scope="session")
def lite0(made_once: Callable[..., Path]) -> Path:
    """The shipped checkpoint for EfficientNet-Lite0 in all default precisions."""

    def make(folder: Path) -> None:
        export(folder / "out", "--checkpoint", "afd-tf_efficientnet_lite0-mobile")

    return made_once("lite0", make) / "out"
