"""A run as data: there and back, and what a hand-edited cassette could hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest

from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import LocalFile
from afd_benchmark.phone.cassette import Player, Recorder
from afd_benchmark.run_request import RecordedRun, RunRequest, recorded, restored
from afd_mobile.common.errors import InputError
from tests.afd_benchmark.test_measure import A, B


class Blobs(dict[str, bytes]):
    """Where a cassette keeps pictures, and finds them again."""

    def keep(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self[digest] = content
        return digest

    def blob(self, digest: str) -> bytes:
        return self[digest]


def record(blobs: Blobs) -> RecordedRun:
    request = RunRequest(
        targets=(A,), against=(B,), backends=("cpu", "gpu"), threads=(1, 4),
        settings=Settings(repeats=7), host=False, phones=(), tool=Path("afd-harness.apk"),
        out=Path("out"), resume=False,
    )  # fmt: skip
    return recorded(request, LocalFile("sha"), {}, cast(Recorder, blobs))


def test_a_run_comes_back_as_it_was_recorded(tmp_path: Path) -> None:
    blobs = Blobs()
    content = msgspec.json.encode(record(blobs))
    again = restored(msgspec.json.decode(content, type=RecordedRun), cast(Player, blobs), tmp_path)
    assert (again.backends, again.threads, again.settings.repeats) == (("cpu", "gpu"), (1, 4), 7)
    (target,), (against,) = again.targets, again.against
    assert (target.sha256, against.sha256, target.limits) == (A.sha256, B.sha256, A.limits)
    for picture, original in zip(target.golden, A.golden, strict=True):
        assert picture.name == original.name and np.array_equal(picture.image, original.image)
        assert np.array_equal(picture.expected, original.expected)


def test_a_picture_that_is_no_array_is_one_line(tmp_path: Path) -> None:
    blobs = Blobs()
    found = record(blobs)
    blobs.update(dict.fromkeys(blobs, b"no array"))
    with pytest.raises(InputError, match="no array; record it again"):
        restored(found, cast(Player, blobs), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"repeats": 0}, {"runs": 0}, {"min_secs": -1}, {"warmup_runs": -1}, {"time_limit_secs": -0.1}],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(change))):
        msgspec.convert(change, Settings)
