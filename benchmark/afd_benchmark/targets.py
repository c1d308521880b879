"""What is measured: the `.tflite` files of export folders, or files by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from afd_benchmark.file_cost import cost_of_file
from afd_mobile.artifacts import MANIFEST, InputRange, Scope, file_of, read_manifest, sha256
from afd_mobile.errors import InputError
from afd_mobile.litert import TensorContract, contracts
from afd_mobile.parity import Limits
from afd_mobile.terminal import printable

Pixels = NDArray[np.float32]
SEED = 0


@dataclass(frozen=True)
class GoldenPicture:
    """One picture with the outputs that the exporting host had for it.

    Attributes:
        image: (1, S, S, 3), as the manifest says, in real values.
        expected: in real values, of the output's shape.
    """

    name: str
    image: Pixels
    expected: Pixels


@dataclass(frozen=True)
class Target:
    """One file to measure.

    Attributes:
        name: of the export; the file's own where there is no manifest.
        path: None in a replay, which needs no model.
        golden: empty where nothing says what the outputs should be.
        limits: what the outputs may differ from the golden ones.
        classify: whether the outputs are logits.
        multiply_adds: from the file itself; None where it holds an operator of unknown cost.
    """

    name: str
    file: str
    path: Path | None
    sha256: str
    bytes: int
    precision: str | None
    input: TensorContract
    output: TensorContract
    golden: tuple[GoldenPicture, ...]
    limits: Limits | None
    classify: bool
    multiply_adds: int | None

    @property
    def timed_image(self) -> Pixels:
        """What is fed while it is timed: the first golden picture; without one, noise, 0 to 255."""
        if self.golden:
            return self.golden[0].image
        noise = np.random.default_rng(SEED).uniform(0, 255, self.input.shape)
        return noise.astype(np.float32)

    @property
    def local_path(self) -> Path:
        if self.path is None:
            raise InputError(f"{self.file} is not here: a replay does not run models")
        return self.path


def find_targets(path: Path) -> list[Target]:
    """The files of an export folder, one file, or all of a folder of several.

    Raises:
        InputError: nothing of the kind, a broken manifest, or a file that is not the exported one.
    """
    if path.suffix == ".tflite" and path.is_file():
        return [_target(path)]
    if not path.is_dir():
        raise InputError(
            f"{path} is no .tflite file and no folder; give one that afd-export made, or a file"
        )
    found = sorted(path.glob("*.tflite")) or sorted(path.glob("*/*.tflite"))
    if not found:
        raise InputError(f"{path} holds no .tflite file; give a folder that afd-export made")
    for file in found:
        if not file.is_file():
            raise InputError(f"{file} is no file; remove it, or give the files one by one")
    return [_target(file) for file in found]


def _target(path: Path) -> Target:
    digest = sha256(path)
    given, result = contracts(path)
    folder = path.parent
    entry: dict[str, Any] | None = None
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        with _well_formed(folder):
            entry = next((f for f in manifest["files"] if f["path"] == path.name), None)
    if entry is None:
        return Target(
            name=printable(path.stem), file=printable(path.name), path=path, sha256=digest,
            bytes=path.stat().st_size, precision=None, input=given, output=result, golden=(),
            limits=None, classify=False, multiply_adds=_multiply_adds(path),
        )  # fmt: skip
    with _well_formed(folder):
        if entry["sha256"] != digest:
            raise InputError(f"{path} is not the file that was exported; export again")
        precision = entry["precision"]
        limits = {stage["stage"]: stage["limits"] for stage in manifest["parity"]["stages"]}
        feed = _feed(manifest)
        return Target(
            name=msgspec.convert(manifest["name"], str),
            file=printable(path.name),
            path=path,
            sha256=digest,
            bytes=path.stat().st_size,
            precision=precision,
            input=given,
            output=result,
            golden=tuple(
                _picture(folder, record, precision, given, result, feed)
                for record in manifest["golden"]
            ),
            limits=Limits(**msgspec.convert(limits[f"tflite {precision}"], dict[str, float])),
            classify=Scope(manifest["scope"]) is Scope.CLASSIFIER,
            multiply_adds=_multiply_adds(path),
        )


def _multiply_adds(path: Path) -> int | None:
    try:
        return cost_of_file(path).multiply_adds
    except InputError:
        return None


def _feed(manifest: dict[str, Any]) -> Callable[[NDArray[np.uint8]], Pixels]:
    """How raw RGB becomes what the graph takes."""
    if InputRange(manifest["input_range"]) is InputRange.RGB255:
        return lambda rgb: rgb.astype(np.float32)
    mean, std = (np.asarray(manifest["backbone"][key], np.float32) for key in ("mean", "std"))
    if not ((np.abs(mean) <= 255).all() and ((std >= 1e-3) & (std <= 255)).all()):
        raise ValueError(
            f"backbone: mean {mean.tolist()}, std {std.tolist()} are no RGB statistics"
        )
    return lambda rgb: np.asarray((rgb / np.float32(255) - mean) / std, np.float32)


def _picture(
    folder: Path,
    record: dict[str, Any],
    precision: str,
    given: TensorContract,
    result: TensorContract,
    feed: Callable[[NDArray[np.uint8]], Pixels],
) -> GoldenPicture:
    rgb = np.fromfile(file_of(folder, record["input"]), np.uint8).reshape(given.shape)
    expected = np.fromfile(file_of(folder, record["outputs"][precision]), "<f4")
    quality = "clean" if record["quality"] is None else f"QF {record['quality']}"
    return GoldenPicture(
        f"{record['picture']} ({quality})", feed(rgb), expected.reshape(result.shape)
    )


@contextmanager
def _well_formed(folder: Path) -> Iterator[None]:
    """Turns what a hand-edited manifest lacks into one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise InputError(
            f"{folder / MANIFEST} does not fit its files ({type(error).__name__}: {error}); "
            "export again with afd-export"
        ) from error
