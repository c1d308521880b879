"""Cassettes: every exchange with a phone, recorded, and played back without one.

A folder: `exchanges.jsonl`, first a header line, then one line an exchange; `blobs/` holds what was
pulled, and what a replay needs of the targets, by SHA-256. What was pushed is known by hash only.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from afd_benchmark.phone.adb import (
    SHORT_S,
    AdbTimeoutError,
    DeviceLostError,
    InterruptedRunError,
    LocalFile,
    Phone,
    RefusedError,
    ShellOutput,
)
from afd_benchmark.results import NotNegative
from afd_mobile.common.artifacts import versions_of
from afd_mobile.common.errors import AfdError, InputError, OutputError, reason_of

T = TypeVar("T")

CASSETTE_SCHEMA_VERSION = 1
EXCHANGES, BLOBS = "exchanges.jsonl", "blobs"
_ERRORS: dict[str, type[AfdError]] = {
    error.__name__: error
    for error in (AdbTimeoutError, DeviceLostError, InterruptedRunError, RefusedError)
}


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One request and what came of it.

    Attributes:
        at_s: when it ended.
        request: the shell command, the remote path, or the seconds slept.
        sha256: of what was pushed or pulled.
        error, message: the kind of failure, and its words.
    """

    at_s: NotNegative
    kind: str
    request: str
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    sha256: str = ""
    error: str = ""
    message: str = ""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes: `run` is what the command line needs to start the same run again, as JSON."""

    schema_version: int
    serial: str
    versions: dict[str, str]
    run: msgspec.Raw


class Recorder:
    """A phone whose exchanges are written down as they happen."""

    def __init__(self, phone: Phone, folder: Path) -> None:
        """`begin` writes the header, before any exchange."""
        self._phone = phone
        self._folder = folder
        self.serial = phone.serial
        with self._writable():
            (folder / BLOBS).mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = (folder / EXCHANGES).open("wb")

    def begin(self, run: msgspec.Struct) -> None:
        """Writes what the run is."""
        versions = versions_of("afd-mobile", "adbutils")
        content = msgspec.Raw(msgspec.json.encode(run))
        self._write(Header(CASSETTE_SCHEMA_VERSION, self.serial, versions, content))

    @property
    def now_s(self) -> float:
        return self._phone.now_s

    def keep(self, content: bytes) -> str:
        """Stores a blob; returns its hash."""
        digest = hashlib.sha256(content).hexdigest()
        with self._writable():
            (self._folder / BLOBS / digest).write_bytes(content)
        return digest

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        request = _text(command)
        try:
            output = self._phone.shell(request, timeout_s=timeout_s)
        except AfdError as error:
            self._failed("shell", request, error)
            raise
        self._done("shell", request, exit_code=output.exit_code,
                   stdout=output.stdout, stderr=output.stderr)  # fmt: skip
        return output

    def push(self, file: LocalFile, remote: str) -> None:
        try:
            self._phone.push(file, remote)
        except AfdError as error:
            self._failed("push", remote, error)
            raise
        self._done("push", remote, sha256=file.sha256)

    def pull(self, remote: str) -> bytes:
        try:
            content = self._phone.pull(remote)
        except AfdError as error:
            self._failed("pull", remote, error)
            raise
        self._done("pull", remote, sha256=self.keep(content))
        return content

    def sleep(self, seconds: float) -> None:
        try:
            self._phone.sleep(seconds)
        except AfdError as error:
            self._failed("sleep", f"{seconds:g}", error)
            raise
        self._done("sleep", f"{seconds:g}")

    def close(self) -> None:
        self._file.close()

    def _done(
        self, kind: str, request: str, *, exit_code: int = 0, stdout: str = "", stderr: str = "",
        sha256: str = "",
    ) -> None:  # fmt: skip
        self._write(Exchange(self.now_s, kind, request, exit_code, stdout, stderr, sha256))

    def _failed(self, kind: str, request: str, error: AfdError) -> None:
        name = type(error).__name__
        self._write(Exchange(self.now_s, kind, request, error=name, message=str(error)))

    def _write(self, line: Exchange | Header) -> None:
        with self._writable():
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write the cassette {self._folder}: {error.strerror}"
            ) from error


class Player:
    """A recorded phone: answers what it answered then, as long as it is asked the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / EXCHANGES
        try:
            first, *rest = path.read_bytes().splitlines()
            self.header = msgspec.json.decode(first, type=Header)
            self._exchanges = [msgspec.json.decode(line, type=Exchange) for line in rest]
        except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise InputError(
                f"{path} cannot be read as a cassette: {reason_of(error)}; give a folder "
                "that `afd-bench run` wrote under cassettes/, which only runs on phones have"
            ) from error
        if self.header.schema_version != CASSETTE_SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema version {self.header.schema_version}, "
                f"expected {CASSETTE_SCHEMA_VERSION}"
            )
        self.serial = self.header.serial
        self.now_s = 0.0
        self._next = 0

    def run(self, kind: type[T]) -> T:
        """What the recorded run was."""
        try:
            return msgspec.json.decode(self.header.run, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InputError(f"{self._folder} is of another version: {error}") from error

    def blob(self, digest: str) -> bytes:
        """What was stored under this hash.

        Raises:
            InputError: it is missing or was changed, or the cassette names no file of its own.
        """
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise InputError(
                f"{self._folder / EXCHANGES} names a blob {digest[:80]!r}, which is no SHA-256; "
                "record it again"
            )
        path = self._folder / BLOBS / digest
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is no regular file; record the cassette again")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{path} was changed: its hash is another")
        return content

    def shell(self, command: Sequence[str] | str, *, timeout_s: float = SHORT_S) -> ShellOutput:
        exchange = self._take("shell", _text(command))
        return ShellOutput(exchange.exit_code, exchange.stdout, exchange.stderr)

    def push(self, file: LocalFile, remote: str) -> None:
        exchange = self._take("push", remote)
        if exchange.sha256 != file.sha256:
            raise InputError(f"{self._folder}: another file was pushed to {remote} then")

    def pull(self, remote: str) -> bytes:
        return self.blob(self._take("pull", remote).sha256)

    def sleep(self, seconds: float) -> None:
        self._take("sleep", f"{seconds:g}")

    def _take(self, kind: str, request: str) -> Exchange:
        if self._next == len(self._exchanges):
            raise DeviceLostError(f"{self.serial}: the cassette ends before `{kind} {request}`")
        exchange = self._exchanges[self._next]
        if (exchange.kind, exchange.request) != (kind, request):
            raise InputError(
                f"{self._folder}: exchange {self._next + 1} was `{exchange.kind} "
                f"{exchange.request}`, but this version asks `{kind} {request}`; replay it with "
                f"the version that recorded it ({self.header.versions})"
            )
        self._next += 1
        self.now_s = exchange.at_s
        if exchange.error:
            raise _ERRORS.get(exchange.error, RefusedError)(exchange.message)
        return exchange


def _text(command: Sequence[str] | str) -> str:
    return command if isinstance(command, str) else shlex.join(command)
