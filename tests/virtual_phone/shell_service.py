"""adb's `shell:`, `shell,v2:` and `exec:`: a command in the phone's shell, its bytes both ways."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from tests.virtual_phone.adb_protocol import Stream
from tests.virtual_phone.file_tree import FileTree, OutputFilter
from tests.virtual_phone.small_shell import Program, Write

_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK = 1 << 16
# `adb exec-in` leaves after its last byte, which the command may still have to read.
_GRACE_S = 30.0


async def run_plain(
    stream: Stream, command: str, tree: FileTree, environment: dict[str, str]
) -> None:
    """`shell:` and `exec:`: both streams in one, no exit code."""
    process = await _start(command, tree, environment, merged=True)

    async def feed(stdin: asyncio.StreamWriter) -> None:
        while data := await stream.reader.read(_CHUNK):
            stdin.write(data)
            await stdin.drain()
        stdin.close()

    pumps = [_pump(process.stdout, stream.write, tree)]
    await _attend(stream, process, pumps, feed, grace_s=_GRACE_S)


async def run_v2(
    stream: Stream, command: str, tree: FileTree, environment: dict[str, str], *, terminal: bool
) -> None:
    """`shell,v2`: packets of stdin, stdout, stderr and the exit code.

    Args:
        terminal: as with `adb shell -t`: one stream. There is no terminal behind it.
    """
    process = await _start(command, tree, environment, merged=terminal)

    async def feed(stdin: asyncio.StreamWriter) -> None:
        while True:
            kind, length = _PACKET.unpack(await stream.reader.readexactly(_PACKET.size))
            data = await stream.reader.readexactly(length)
            if kind == _STDIN:
                stdin.write(data)
                await stdin.drain()
            elif kind == _CLOSE_STDIN:
                stdin.close()

    pumps = [_pump(process.stdout, _writer(stream, _STDOUT), tree)]
    if not terminal:
        pumps.append(_pump(process.stderr, _writer(stream, _STDERR), tree))
    code = await _attend(stream, process, pumps, feed, grace_s=0)
    # As a shell says it of its child: 128 plus the signal.
    await _writer(stream, _EXIT)(bytes([code if code >= 0 else 128 - code]))


async def answer_plain(stream: Stream, program: Program) -> None:
    """As `run_plain`, by the daemon's own shell."""
    await _until_closed(stream, program(stream.write, stream.write))


async def answer_v2(stream: Stream, program: Program, *, terminal: bool) -> None:
    """As `run_v2`, by the daemon's own shell."""
    out = _writer(stream, _STDOUT)
    code = await _until_closed(stream, program(out, out if terminal else _writer(stream, _STDERR)))
    await _writer(stream, _EXIT)(bytes([code]))


async def _until_closed(stream: Stream, running: Coroutine[Any, Any, int]) -> int:
    """Raises: ConnectionError where the host closes the stream first; nothing runs on then."""
    task = asyncio.ensure_future(running)
    gone = asyncio.ensure_future(stream.closed.wait())
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionResetError("stream closed by the host")
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _writer(stream: Stream, kind: int) -> Write:
    """What sends packets of this kind."""
    return lambda data: stream.write(_PACKET.pack(kind, len(data)) + data)


async def _start(
    command: str, tree: FileTree, environment: dict[str, str], *, merged: bool
) -> Process:
    """Without a command the shell reads commands from stdin."""
    # The second line keeps the shell from becoming the command: so it says how that was killed.
    arguments = ["-c", f"{tree.host_command(command)}\nexit $?"] if command else []
    return await asyncio.create_subprocess_exec(
        "/system/bin/sh", *arguments, executable="/bin/sh", cwd=tree.root, env=environment,
        stdin=PIPE, stdout=PIPE, stderr=STDOUT if merged else PIPE, start_new_session=True,
    )  # fmt: skip


async def _attend(
    stream: Stream,
    process: Process,
    pumps: Sequence[Awaitable[None]],
    feed: Callable[[asyncio.StreamWriter], Awaitable[None]],
    *,
    grace_s: float,
) -> int:
    """The exit code, once the command's output has ended.

    Args:
        grace_s: how long the command may go on once the host has left.

    Raises:
        ConnectionError: the host closed the stream; the command and its children are dead then.
    """
    assert process.stdin is not None
    feeding = asyncio.ensure_future(_until_broken(feed(process.stdin)))
    output: asyncio.Future[Any] = asyncio.gather(*pumps)
    gone: asyncio.Future[Any] = asyncio.ensure_future(stream.closed.wait())
    try:
        await asyncio.wait([output, gone], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([output], timeout=grace_s)
        if not output.done() or output.exception() is not None:
            raise ConnectionResetError("stream closed by the host")
        return await process.wait()
    finally:
        if not output.done() or process.returncode is None:
            # adbd hangs up on the session; nothing here is to survive that.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for task in (feeding, gone, output):
            task.cancel()
        await asyncio.gather(feeding, gone, output, return_exceptions=True)
        process.stdin.close()
        await process.wait()


async def _until_broken(feeding: Awaitable[None]) -> None:
    """Until the command closes its stdin, or the host its side of the stream."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await feeding


async def _pump(source: asyncio.StreamReader | None, write: Write, tree: FileTree) -> None:
    assert source is not None
    names = OutputFilter(tree)
    while data := await source.read(_CHUNK):
        if ready := names.feed(data):
            await write(ready)
    if rest := names.finish():
        await write(rest)
