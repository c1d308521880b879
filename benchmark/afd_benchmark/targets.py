"""What is measured: the `.tflite` files of export folders, or files by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from afd_benchmark.file_cost import cost_of_file
from afd_mobile.common.artifacts import MANIFEST, InputRange, Scope, file_of, read_manifest, sha256
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import nearest_path
from afd_mobile.common.parity import Limits
from afd_mobile.common.terminal import printable
from afd_mobile.tflite.litert import TensorContract, contracts

Pixels = NDArray[np.float32]
SEED = 0
_MOST_VALUES = 10**8  # of an input whose size a person chooses


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
        input_shape: what a person chose for an input of any size; None where it has its own.
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
    input_shape: tuple[int, ...] | None = None

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


def target_files(path: Path) -> list[Path]:
    """One file, those of an export folder, or all of a folder of several.

    Raises:
        InputError: nothing of the kind.
    """
    if path.suffix == ".tflite" and path.is_file():
        return [path]
    if not path.exists():
        near = nearest_path(path)
        remedy = f"is it {near}?" if near else "give an export folder or a .tflite file"
        raise InputError(f"{path} does not exist; {remedy}")
    if not path.is_dir():
        raise InputError(
            f"{path} is no .tflite file and no folder; give one that afd-export made, or a file"
        )
    every = sorted(path.glob("*.tflite")) or sorted(path.glob("*/*.tflite"))
    found = [file for file in every if not file.name.startswith(".")]
    if not found:
        raise InputError(f"{path} holds no .tflite file; give a folder that afd-export made")
    return found


def read_target(path: Path, input_shape: tuple[int, ...] | None = None) -> Target:
    """One file, with what the manifest beside it says of it.

    Args:
        input_shape: for an input of any size; of another it must be its own.

    Raises:
        InputError: it is no TFLite file, not the exported one, or has a broken manifest, or
            `input_shape` is missing or does not fit.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; remove it")
    digest = sha256(path)
    given, result = contracts(path)
    folder = path.parent
    entry: dict[str, Any] | None = None
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        with _well_formed(folder):
            entry = next((f for f in manifest["files"] if f["path"] == path.name), None)
    chosen = _chosen_shape(path, given.shape, input_shape)
    if entry is None:
        name = path.stem + (f" at {'x'.join(map(str, chosen))}" if chosen else "")
        return Target(
            name=printable(name), file=printable(path.name), path=path, sha256=digest,
            bytes=path.stat().st_size, precision=None,
            input=replace(given, shape=chosen or given.shape), output=result, golden=(),
            limits=None, classify=False,
            multiply_adds=None if chosen else _multiply_adds(path), input_shape=chosen,
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


def _chosen_shape(
    path: Path, shape: tuple[int, ...], asked: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """For an input of any size, the one to measure; None where it has its own."""
    sides = ",".join("?" if side < 0 else str(side) for side in shape)
    if asked is None and -1 not in shape:
        return None
    if asked is None:
        raise InputError(
            f"{path} takes inputs of any size ({sides}); choose one: afd-bench run --input-shape "
            "1,224,224,3"
        )
    if math.prod(asked) > _MOST_VALUES:
        raise InputError(
            f"{path}: --input-shape {','.join(map(str, asked))} are {math.prod(asked):.1e} values, "
            f"at most {_MOST_VALUES:.0e} are measured"
        )
    fits = len(asked) == len(shape) and all(s in (-1, a) for s, a in zip(shape, asked, strict=True))
    if not fits:
        remedy = "" if -1 in shape else ", the file's own shape; leave the option out"
        raise InputError(f"{path}: --input-shape {','.join(map(str, asked))} is no {sides}{remedy}")
    return asked if -1 in shape else None


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
