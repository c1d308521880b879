"""Cassettes without adb: what a phone answered is written down and played back."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afd_benchmark.phone.adb import (
    SHORT_S,
    AdbCommandError,
    AdbTimeoutError,
    DeviceLostError,
    InterruptedRunError,
    LocalFile,
    Phone,
    RefusedError,
    ShellOutput,
    checked,
)
from afd_benchmark.phone.cassette import BLOBS, EXCHANGES, Player, Recorder
from afd_mobile.common.errors import AfdError, InputError, OutputError

ODD = "tab\t null\0 bell\a \x0b\x0c\x1c\x85\u2028\u2029 line\r\n last \U0001f4f1 \ufffd"


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    targets: list[str]
    repeats: int


RUN = Run(["a.tflite"], 3)


class MemoryPhone:
    """Keeps pushed files, echoes commands, and raises what it is told to."""

    serial = "memory"

    def __init__(self) -> None:
        self.now_s = 0.0
        self.files: dict[str, bytes] = {}
        self.error: AfdError | None = None

    def _tick(self) -> None:
        self.now_s += 0.25
        if self.error:
            raise self.error

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        self._tick()
        text = command if isinstance(command, str) else shlex.join(command)
        return ShellOutput(len(text) % 256, f"{text}{ODD}", f"err {timeout_s:g}")

    def push(self, file: LocalFile, remote: str) -> None:
        self._tick()
        self.files[remote] = b"" if file.content is None else file.content

    def pull(self, remote: str) -> bytes:
        self._tick()
        return self.files[remote]

    def sleep(self, seconds: float) -> None:
        self._tick()
        self.now_s += seconds


def session(phone: Phone) -> list[object]:
    """What a runner does with it, and sees of it."""
    seen: list[object] = [phone.serial, phone.now_s]
    seen += [phone.shell(["dumpsys", "it's; odd"]), phone.now_s]
    seen += [phone.shell("for c in *; do :; done", timeout_s=3), phone.now_s]
    phone.push(LocalFile.of(bytes(range(256)) * 40), "/data/x.bin")
    seen += [phone.pull("/data/x.bin"), phone.now_s]
    phone.sleep(1.5)
    return [*seen, phone.now_s]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(MemoryPhone(), tmp_path / "deep" / "cassette")
    recorder.begin(RUN)
    yield recorder
    recorder.close()


@pytest.fixture
def folder(recorder: Recorder, tmp_path: Path) -> Path:
    """A recorded `session`."""
    session(recorder)
    recorder.close()
    return tmp_path / "deep" / "cassette"


def written(folder: Path) -> list[dict[str, Any]]:
    """The header and the exchanges, as another program reads them."""
    return [json.loads(line) for line in (folder / EXCHANGES).read_bytes().split(b"\n")[:-1]]


def edit(folder: Path, line: int, change: Callable[[dict[str, Any]], object]) -> None:
    lines = written(folder)
    change(lines[line])
    (folder / EXCHANGES).write_text("".join(json.dumps(content) + "\n" for content in lines))


def test_what_was_seen_is_seen_again_with_its_times(tmp_path: Path) -> None:
    direct = session(MemoryPhone())
    recorder = Recorder(MemoryPhone(), tmp_path)
    recorder.begin(RUN)
    assert session(recorder) == direct
    recorder.close()
    player = Player(tmp_path)
    assert session(player) == direct
    assert player.run(Run) == RUN
    with pytest.raises(DeviceLostError, match="ends before `shell ls`"):
        player.shell(["ls"])


def test_a_line_an_exchange_is_on_disk_as_soon_as_it_is_over(
    recorder: Recorder, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "cassette"
    assert len(written(folder)) == 1
    recorder.shell("first")
    recorder.shell("second")
    header, first, second = written(folder)
    assert header["schema_version"] == 1 and header["serial"] == "memory"
    assert header["run"] == {"targets": ["a.tflite"], "repeats": 3}
    assert {"afd-mobile", "adbutils"} <= set(header["versions"])
    assert [e["request"] for e in (first, second)] == ["first", "second"]
    assert [e["at_s"] for e in (first, second)] == [0.25, 0.5]


def test_what_is_pushed_is_known_by_its_hash_and_what_is_pulled_is_kept(folder: Path) -> None:
    content = bytes(range(256)) * 40
    digest = LocalFile.of(content).sha256
    assert [path.name for path in (folder / BLOBS).iterdir()] == [digest]
    assert (folder / BLOBS / digest).read_bytes() == content
    hashes = [e["sha256"] for e in written(folder) if e.get("kind") in ("push", "pull")]
    assert hashes == [digest] * 2


def test_the_same_blob_twice_is_kept_once(recorder: Recorder, tmp_path: Path) -> None:
    assert recorder.keep(b"pixels") == recorder.keep(b"pixels") != recorder.keep(b"")
    recorder.close()
    player = Player(tmp_path / "deep" / "cassette")
    assert player.blob(LocalFile.of(b"pixels").sha256) == b"pixels"
    assert player.blob(LocalFile.of(b"").sha256) == b""


# --- failures -------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Phone], object]] = {
    "shell": lambda phone: phone.shell("ls"),
    "push": lambda phone: phone.push(LocalFile.of(b"x"), "/x"),
    "pull": lambda phone: phone.pull("/x"),
    "sleep": lambda phone: phone.sleep(5),
}
ERRORS = [AdbTimeoutError, DeviceLostError, InterruptedRunError, RefusedError]
FAILURES = [(c, e) for c in CALLS for e in ERRORS if c != "sleep" or e is InterruptedRunError]


@pytest.mark.parametrize(("call", "error"), FAILURES)
def test_every_failure_of_every_call_comes_back_as_its_own_type(
    call: str, error: type[AfdError], tmp_path: Path
) -> None:
    phone = MemoryPhone()
    recorder = Recorder(phone, tmp_path)
    recorder.begin(RUN)
    phone.error = error(f"its own words{ODD}")
    with pytest.raises(error):
        CALLS[call](recorder)
    phone.error = None
    recorder.shell("tidy up")
    recorder.close()
    player = Player(tmp_path)
    with pytest.raises(error) as again:
        CALLS[call](player)
    assert type(again.value) is error and str(again.value) == f"its own words{ODD}"
    assert player.now_s == 0.25
    assert player.shell("tidy up").stdout == f"tidy up{ODD}"


def test_a_command_that_fails_is_an_answer(recorder: Recorder, tmp_path: Path) -> None:
    for play in (lambda: recorder, lambda: Player(tmp_path / "deep" / "cassette")):
        with pytest.raises(AdbCommandError, match="`rm x` ended with exit code 4") as failed:
            checked(play(), ["rm", "x"])
        assert failed.value.output.stderr == "err 20"


@pytest.mark.parametrize("what", ["header", "blob", "exchange"])
def test_a_full_disk_is_an_output_error(what: str, tmp_path: Path) -> None:
    (tmp_path / EXCHANGES).symlink_to("/dev/full")
    recorder = Recorder(MemoryPhone(), tmp_path)
    (tmp_path / BLOBS / LocalFile.of(b"x").sha256).symlink_to("/dev/full")
    steps: dict[str, Callable[[], object]] = {
        "header": lambda: recorder.begin(RUN),
        "blob": lambda: recorder.keep(b"x"),
        "exchange": lambda: recorder.shell("ls"),
    }
    try:
        with pytest.raises(OutputError):
            steps[what]()
    finally:
        with suppress(OSError, OutputError):  # what it could not write
            recorder.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the cassette"):
        Recorder(MemoryPhone(), tmp_path / "file" / "cassette")


# --- another run than the recorded one ------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.shell("ls"), "exchange 1 was `shell dumpsys"),
        (lambda p: p.pull("/data/x.bin"), "this version asks `pull /data/x.bin`"),
        (lambda p: p.sleep(1.5), "this version asks `sleep 1.5`"),
    ],
)
def test_another_question_is_refused(
    ask: Callable[[Phone], object], words: str, folder: Path
) -> None:
    player = Player(folder)
    with pytest.raises(InputError) as refused:
        ask(player)
    assert words in str(refused.value) and str(folder) in str(refused.value)


def test_another_pushed_file_is_refused(folder: Path) -> None:
    player = Player(folder)
    player.shell(["dumpsys", "it's; odd"])
    player.shell("for c in *; do :; done")
    with pytest.raises(InputError, match=r"another file was pushed to /data/x\.bin"):
        player.push(LocalFile.of(b"another"), "/data/x.bin")


@pytest.mark.parametrize("content", [None, b"", b"changed"])
def test_a_blob_that_is_gone_or_changed(content: bytes | None, folder: Path) -> None:
    (blob,) = (folder / BLOBS).iterdir()
    blob.unlink()
    if content is not None:
        blob.write_bytes(content)
    with pytest.raises(
        InputError, match="was changed" if content is not None else "cannot be read"
    ):
        session(Player(folder))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "/dev/zero", "../../x", "..", "a\0b", "", "A" * 64, "0" * 63, "0" * 65]
)
def test_a_blob_s_name_is_a_hash(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match=r"exchanges\.jsonl names a blob .* no SHA-256"):
        Player(folder).blob(name)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_blob_is_a_regular_file(kind: str, folder: Path) -> None:
    path = folder / BLOBS / ("0" * 64)
    if kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(InputError, match="no regular file"):
        Player(folder).blob(path.name)


def test_a_pull_without_a_hash(folder: Path) -> None:
    edit(folder, 4, lambda exchange: exchange.pop("sha256"))
    with pytest.raises(InputError, match="names a blob ''"):
        session(Player(folder))


# --- what is no cassette --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}", b"[]\n", b"\xff\xfe\n", b'{"schema_version": 1}\n', b"\0" * 40]
)
def test_what_is_no_cassette(content: bytes, folder: Path) -> None:
    (folder / EXCHANGES).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a cassette"):
        Player(folder)


def test_no_folder_and_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(InputError) as refused:
            Player(path)
        assert str(refused.value).count(str(path)) == 1
        assert "which only runs on phones have" in str(refused.value)


@pytest.mark.parametrize("line", [0, 1])
def test_an_unknown_key_is_refused(line: int, folder: Path) -> None:
    edit(folder, line, lambda content: content.update(colour="red"))
    with pytest.raises(InputError, match="colour"):
        Player(folder)


def test_another_version_is_refused(folder: Path) -> None:
    edit(folder, 0, lambda header: header.update(schema_version=2))
    with pytest.raises(InputError, match="schema version 2, expected 1"):
        Player(folder)


def test_a_run_of_another_shape_is_refused(folder: Path) -> None:
    edit(folder, 0, lambda header: header["run"].update(colour="red"))
    with pytest.raises(InputError, match="is of another version"):
        Player(folder).run(Run)
