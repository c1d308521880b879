"""A classifier small enough to export in seconds, and one real export of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afd_export import cli
from afd_export.request import ExportRequest
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.names import Factory
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.common.artifacts import Precision
from tests.commands import Outcome, run_here

TINYNET = '''
"""Three convolutions; the last layer is wide enough apart that pictures get different classes."""

import torch
from torch import nn


def make() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 16, 3, stride=2, padding=1))
    model.add_module("act1", nn.ReLU())
    model.add_module("depthwise", nn.Conv2d(16, 16, 3, padding=1, groups=16))
    model.add_module("act2", nn.ReLU())
    model.add_module("conv", nn.Conv2d(16, 32, 3, stride=2, padding=1))
    model.add_module("act3", nn.ReLU())
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("classes", nn.Linear(32, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.normal_(model.classes.weight, std=3.0)
    return model
'''
# What every export of the tiny classifier is asked for, and places of an untrained module for it.
TINY = ("--backbone", "tinynet:make", "--backbone-weights", "random", "--input-size", "64")
PLACES = ("scale:act2", "residual:act3")
RANDOM = ("--checkpoint", "random", *TINY, "--taps", *PLACES)
# The paper's module, with its single tap.
PAPER = ("--checkpoint", "random", *TINY, "--preset", "paper", "--taps", "act1")


@dataclass(frozen=True)
class Exported:
    """An export folder, what its files are called, and what the command printed."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def stem(self) -> str:
        (onnx,) = self.folder.glob("*.onnx")
        return onnx.stem

    def tflite(self, precision: str) -> Path:
        return self.folder / f"{self.stem}_{precision}.tflite"


def afd_export(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own."""
    return subprocess.run(
        command_line(*arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def export_here(*arguments: object, cwd: Path) -> Outcome:
    """The same in this process, which spares it the imports."""
    with contextlib.chdir(cwd):
        return run_here(cli.main, "afd-export", *arguments)


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "afd_export.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tinynet.py`, from where `--backbone tinynet:make` works."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tinynet.py").write_text(TINYNET, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def exported(tiny_dir: Path, made_once: Callable[..., Path]) -> Exported:
    """One real export of the tiny classifier in all four precisions."""

    def make(folder: Path) -> None:
        (folder / "exports").mkdir()
        precisions = [p.value for p in Precision]
        asked = ("--explain-int8", "--precision", *precisions, "--out", folder / "exports/first")
        done = afd_export("--fuse", *RANDOM, *asked, cwd=tiny_dir)
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)
        (folder / "stderr").write_text(done.stderr)

    folder = made_once("exported", make)
    out, err = (folder / "stdout").read_text(), (folder / "stderr").read_text()
    return Exported(folder / "exports" / "first", out, err)


@pytest.fixture
def in_tiny_dir(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_dir)
    return tiny_dir


@pytest.fixture
def backbone(in_tiny_dir: Path) -> Backbone:
    with torch.random.fork_rng():
        return load_backbone(Factory("tinynet:make"), tap="act1", weights="random", input_size=64)


@pytest.fixture
def few_pictures(tmp_path: Path) -> Path:
    """A folder with two readable pictures."""
    folder = tmp_path / "few"
    write_pictures(folder, 2)
    return folder


@pytest.fixture
def make_request(
    in_tiny_dir: Path, few_pictures: Path, tmp_path: Path
) -> Callable[..., ExportRequest]:
    """An in-process export request of the tiny classifier on two pictures, with changes."""

    def make(**changes: object) -> ExportRequest:
        request = ExportRequest(
            checkpoint="random",
            classifier=ClassifierOptions(Factory("tinynet:make"), "random", input_size=64),
            taps=PLACES,
            fused=True,
            precisions=(Precision.FLOAT32,),
            images=few_pictures,
            out=tmp_path / "parent" / "out",
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    return make


def write_pictures(folder: Path, count: int) -> None:
    """Smooth random pictures, 80x72, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        coarse.resize((80, 72), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
