"""What a run is asked to do; also as data, so that a cassette can run it again without files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import Connected, LocalFile
from afd_benchmark.phone.cassette import Player, Recorder
from afd_benchmark.phone.session import owner_name
from afd_benchmark.results import AtLeastOne, Count
from afd_benchmark.targets import GoldenPicture, Target
from afd_mobile.common.errors import InputError
from afd_mobile.common.parity import Limits
from afd_mobile.tflite.litert import TensorContract


@dataclass(frozen=True)
class RunRequest:
    """What is measured, where, and how.

    Attributes:
        phones: connected ones, in whatever state.
        host: whether this machine is measured, too.
        tool: for the phones: the harness app's .apk, or `benchmark_model`.
    """

    targets: tuple[Target, ...]
    against: tuple[Target, ...]
    backends: tuple[str, ...]
    threads: tuple[int, ...]
    settings: Settings
    host: bool
    phones: tuple[Connected, ...]
    tool: Path | None
    out: Path
    resume: bool


class _Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes: `image` and `expected` are the hashes of .npy blobs."""

    name: str
    image: str
    expected: str


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    file: str
    sha256: str
    bytes: AtLeastOne
    precision: str | None
    input: TensorContract
    output: TensorContract
    golden: list[_Golden]
    limits: Limits | None
    classify: bool
    multiply_adds: Count | None
    input_shape: tuple[AtLeastOne, ...] | None = None


class RecordedRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes: `libraries` are external delegates: their paths as given, and their hashes."""

    targets: list[_Target]
    against: list[_Target]
    backends: list[str]
    threads: list[AtLeastOne]
    settings: Settings
    owner: str
    tool: str
    tool_sha256: str
    libraries: dict[str, str]


def tool_name(path: Path | None) -> str:
    """Which of the two a file is: apps end in .apk."""
    return "harness" if path is not None and path.suffix == ".apk" else "benchmark_model"


def recorded(
    request: RunRequest, tool: LocalFile, libraries: Mapping[str, LocalFile], recorder: Recorder
) -> RecordedRun:
    """The request as data; its pictures become blobs of the cassette."""
    return RecordedRun(
        targets=[_recorded(target, recorder) for target in request.targets],
        against=[_recorded(target, recorder) for target in request.against],
        backends=list(request.backends),
        threads=list(request.threads),
        settings=request.settings,
        owner=owner_name(),
        tool=tool_name(request.tool),
        tool_sha256=tool.sha256,
        libraries={path: file.sha256 for path, file in libraries.items()},
    )


def restored(record: RecordedRun, player: Player, out: Path) -> RunRequest:
    """The request again; its targets have no files."""
    return RunRequest(
        targets=tuple(_restored(target, player) for target in record.targets),
        against=tuple(_restored(target, player) for target in record.against),
        backends=tuple(record.backends),
        threads=tuple(record.threads),
        settings=record.settings,
        host=False,
        phones=(),
        tool=None,
        out=out,
        resume=False,
    )


def _recorded(target: Target, recorder: Recorder) -> _Target:
    golden = [
        _Golden(p.name, recorder.keep(_npy(p.image)), recorder.keep(_npy(p.expected)))
        for p in target.golden
    ]
    scalars = {k: getattr(target, k) for k in _Target.__struct_fields__ if k != "golden"}
    return _Target(**scalars, golden=golden)


def _restored(record: _Target, player: Player) -> Target:
    golden = tuple(
        GoldenPicture(g.name, _array(player.blob(g.image)), _array(player.blob(g.expected)))
        for g in record.golden
    )
    return Target(path=None, **(msgspec.structs.asdict(record) | {"golden": golden}))


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _array(content: bytes) -> NDArray[np.float32]:
    try:
        array: NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError("a picture of the cassette is no array; record it again") from error
    return array
