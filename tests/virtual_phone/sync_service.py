"""adb's `sync:`: files to and from the phone, versions 1 and 2, as in AOSP's `SYNC.TXT`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tests.virtual_phone.adb_protocol import Stream
from tests.virtual_phone.file_tree import FileTree

_CHUNK = 1 << 16
_STAT_2 = struct.Struct("<IQQIIIIQqqq")


class SyncService:
    """One `sync:` stream.

    Args:
        full: whether the phone's storage is full right now.
        data_came: called after every part of a file that arrived.
    """

    def __init__(
        self,
        stream: Stream,
        tree: FileTree,
        full: Callable[[], bool],
        data_came: Callable[[], None],
    ) -> None:
        self._stream, self._tree, self._full, self._data_came = stream, tree, full, data_came

    async def serve(self) -> None:
        """Request after request, until QUIT or the host leaves."""
        while True:
            kind, name = await self._request()
            if kind == b"QUIT":
                return
            path = self._tree.host(name)
            if kind == b"STAT":
                await self._stream.write(kind + _stat_1(path))
            elif kind in (b"STA2", b"LST2"):
                await self._stream.write(kind + _stat_2(path, follow=kind == b"STA2"))
            elif kind == b"LIST":
                await self._list(path, b"DENT", _stat_1, 16)
            elif kind == b"LIS2":
                await self._list(path, b"DNT2", _stat_2, _STAT_2.size + 4)
            elif kind == b"SEND":
                name, _, mode = name.rpartition(",")
                await self._receive(self._tree.host(name), int(mode))
            elif kind == b"SND2":
                _, mode_2, _ = struct.unpack("<4sII", await self._stream.reader.readexactly(12))
                await self._receive(path, mode_2)
            elif kind in (b"RECV", b"RCV2"):
                if kind == b"RCV2":
                    await self._stream.reader.readexactly(8)  # no compression was announced
                await self._send(path)
            else:
                await self._fail(f"unknown command {kind.decode(errors='replace')}")
                return

    async def _request(self) -> tuple[bytes, str]:
        kind, length = await self._head()
        return kind, (await self._stream.reader.readexactly(length)).decode()

    async def _head(self) -> tuple[bytes, int]:
        kind, number = struct.unpack("<4sI", await self._stream.reader.readexactly(8))
        return kind, number

    async def _fail(self, reason: str) -> None:
        await self._stream.write(b"FAIL" + struct.pack("<I", len(reason)) + reason.encode())

    async def _list(
        self, folder: Path, kind: bytes, describe: Callable[[Path], bytes], padding: int
    ) -> None:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        for entry in entries:
            name = os.fsencode(entry.name)
            await self._stream.write(kind + describe(entry) + struct.pack("<I", len(name)) + name)
        await self._stream.write(b"DONE" + bytes(padding))

    async def _receive(self, path: Path, mode: int) -> None:
        """One file, or one symbolic link whose target is the content; whole, or not at all."""
        try:
            content = self._create(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                await self._take(None)
            await self._fail(f"couldn't create file: {os.strerror(error.errno or 0)}")
            return
        try:
            with content:
                modified_s = await self._take(content)
            _finish(path, mode, modified_s)
        except BaseException as error:  # also where the host leaves in the middle
            path.unlink()
            if not isinstance(error, OSError):
                raise
            await self._fail(f"write failed: {os.strerror(error.errno or 0)}")
        else:
            await self._stream.write(b"OKAY" + bytes(4))

    def _create(self, path: Path) -> BinaryIO:
        if not self._tree.writable(path):
            raise OSError(errno.EROFS, "")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.open("wb")

    async def _take(self, content: BinaryIO | None) -> int:
        """All data of one file; returns when it was last changed, in seconds since 1970.

        Raises:
            OSError: it could not be written; everything was read nevertheless.
            asyncio.IncompleteReadError: the host left in the middle.
        """
        full = False
        while True:
            kind, number = await self._head()
            if kind == b"DONE":
                break
            if kind != b"DATA":
                raise OSError(errno.EBADMSG, "")
            data = await self._stream.reader.readexactly(number)
            full = full or self._full()
            if content is not None and not full:
                content.write(data)
            self._data_came()
        if full:
            raise OSError(errno.ENOSPC, "")
        return number

    async def _send(self, path: Path) -> None:
        try:
            with path.open("rb") as content:
                while data := content.read(_CHUNK):
                    await self._stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
        except OSError as error:
            await self._fail(f"open failed: {os.strerror(error.errno or 0)}")
            return
        await self._stream.write(b"DONE" + bytes(4))


def _finish(path: Path, mode: int, modified_s: int) -> None:
    if stat.S_ISLNK(mode):
        target = path.read_bytes().rstrip(b"\0").decode()
        path.unlink()
        path.symlink_to(target)
        return
    path.chmod(mode & 0o777)
    os.utime(path, (modified_s, modified_s))


def _stat_1(path: Path) -> bytes:
    """Zeros where there is no such file."""
    try:
        found = path.lstat()
    except OSError:
        return bytes(12)
    return struct.pack("<III", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _stat_2(path: Path, *, follow: bool = False) -> bytes:
    try:
        found = path.stat() if follow else path.lstat()
    except OSError as error:
        return _STAT_2.pack(error.errno or errno.EIO, *(0,) * 10)
    return _STAT_2.pack(
        0, found.st_dev, found.st_ino, found.st_mode, found.st_nlink, 2000, 2000, found.st_size,
        int(found.st_atime), int(found.st_mtime), int(found.st_ctime),
    )  # fmt: skip
