"""The device's side of adb's protocol: messages, the greeting, streams.

As in AOSP's `packages/modules/adb/protocol.txt`, with one WRITE at a time in each direction of a
stream and without TLS.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

VERSION = 0x01000001  # from here on, checksums are left out after the greeting
MAX_PAYLOAD = 1 << 20
_HEADER = struct.Struct("<6I")
_TOKEN, _PUBLIC_KEY = 1, 3


class ProtocolError(Exception):
    """Bytes that are no adb message."""


class Command(Enum):
    """What a message is; the value is its four letters as a little-endian number."""

    CNXN = int.from_bytes(b"CNXN", "little")
    AUTH = int.from_bytes(b"AUTH", "little")
    OPEN = int.from_bytes(b"OPEN", "little")
    OKAY = int.from_bytes(b"OKAY", "little")
    WRTE = int.from_bytes(b"WRTE", "little")
    CLSE = int.from_bytes(b"CLSE", "little")


@dataclass(frozen=True)
class Message:
    """One message; what the two numbers mean depends on the command."""

    command: Command
    arg0: int
    arg1: int
    payload: bytes = b""

    def pack(self) -> bytes:
        code = self.command.value
        header = _HEADER.pack(
            code, self.arg0, self.arg1, len(self.payload), _sum(self.payload), code ^ 0xFFFFFFFF
        )
        return header + self.payload


def _sum(payload: bytes) -> int:
    return sum(payload) & 0xFFFFFFFF


async def read_message(reader: asyncio.StreamReader, *, check: bool) -> Message:
    """The next message.

    Args:
        check: whether the payload's checksum counts.

    Raises:
        ProtocolError: magic, command, length or checksum are wrong.
        asyncio.IncompleteReadError: the peer is gone.
    """
    header = await reader.readexactly(_HEADER.size)
    code, arg0, arg1, length, checksum, magic = _HEADER.unpack(header)
    if code ^ 0xFFFFFFFF != magic:
        raise ProtocolError(f"magic {magic:#x} of command {code:#x}")
    if length > MAX_PAYLOAD:
        raise ProtocolError(f"payload of {length} bytes, at most {MAX_PAYLOAD}")
    try:
        command = Command(code)
    except ValueError:
        raise ProtocolError(f"command {code:#x}") from None
    payload = await reader.readexactly(length)
    # A host that reconnects leaves it out: it knows the device's version.
    if check and checksum not in (0, _sum(payload)):
        raise ProtocolError(f"checksum {checksum:#x} of {command.name}")
    return Message(command, arg0, arg1, payload)


class Stream:
    """One opened service: bytes from the host in `reader`, bytes to the host through `write`.

    Attributes:
        closed: set once the host has closed the stream or is gone.
    """

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.reader = asyncio.StreamReader()
        self.closed = asyncio.Event()
        self._connection = connection
        self._local, self._remote = local, remote
        self._writable = asyncio.Event()
        self._writing = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Sends, and waits until the host has taken everything.

        Raises:
            ConnectionError: the host has closed the stream.
        """
        async with self._writing:
            for start in range(0, len(data), self._connection.max_payload):
                if self.closed.is_set():  # nobody will acknowledge
                    raise ConnectionResetError("stream closed by the host")
                self._writable.clear()
                part = data[start : start + self._connection.max_payload]
                self.send(Command.WRTE, part)
                await self._writable.wait()
                if self.closed.is_set():
                    raise ConnectionResetError("stream closed by the host")

    def send(self, command: Command, payload: bytes = b"") -> None:
        self._connection.send(Message(command, self._local, self._remote, payload))

    def acknowledged(self) -> None:
        self._writable.set()

    def end(self) -> None:
        self.closed.set()
        self._writable.set()
        self.reader.feed_eof()


Service = Callable[[Stream], Awaitable[None]]


class Greeting(Enum):
    """What a host that connects gets: a phone, a question on its screen for ever, or silence."""

    ACCEPT = "accept"
    ASK = "ask"
    SILENCE = "silence"


class Connection:
    """One adb server that talks to this device.

    Args:
        banner: `device::ro.product.name=...;...;features=...`.
        find_service: what serves streams opened under a name; None refuses them.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        banner: str,
        greeting: Greeting,
        find_service: Callable[[str], Service | None],
    ) -> None:
        self.max_payload = MAX_PAYLOAD
        self._reader, self._writer = reader, writer
        self._banner, self._greeting, self._find_service = banner, greeting, find_service
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until the host is gone, or says something that is no adb."""
        try:
            await self._greet()
            while True:
                self._handle(await read_message(self._reader, check=False))
                await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ProtocolError):
            pass
        finally:
            self.drop()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """As when the cable is pulled."""
        self._writer.close()
        for stream in self._streams.values():
            stream.end()

    def send(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(message.pack())

    async def _greet(self) -> None:
        hello = await read_message(self._reader, check=True)
        if hello.command is not Command.CNXN:
            raise ProtocolError(f"{hello.command.name} before CNXN")
        if self._greeting is Greeting.SILENCE:
            await self._reader.read()
            raise ConnectionResetError("the host gave up")
        while self._greeting is Greeting.ASK:
            # A new token for every key that the host tries; after the last one the host sends its
            # public key, and the question stays on the phone's screen.
            self.send(Message(Command.AUTH, _TOKEN, 0, secrets.token_bytes(20)))
            answer = await read_message(self._reader, check=False)
            while answer.arg0 == _PUBLIC_KEY:
                answer = await read_message(self._reader, check=False)
        self.max_payload = min(hello.arg1, MAX_PAYLOAD)
        self.send(Message(Command.CNXN, VERSION, MAX_PAYLOAD, self._banner.encode()))

    def _handle(self, message: Message) -> None:
        if message.command is Command.OPEN:
            self._open(message.payload.rstrip(b"\0").decode(), message.arg0)
        elif (stream := self._streams.get(message.arg1)) is not None:
            if message.command is Command.WRTE:
                stream.reader.feed_data(message.payload)
                stream.send(Command.OKAY)
            elif message.command is Command.OKAY:
                stream.acknowledged()
            elif message.command is Command.CLSE:
                stream.end()

    def _open(self, name: str, remote: int) -> None:
        service = self._find_service(name)
        if service is None:
            self.send(Message(Command.CLSE, 0, remote))
            return
        local = next(self._ids)
        stream = self._streams[local] = Stream(self, local, remote)
        stream.send(Command.OKAY)
        task = asyncio.create_task(self._run(service, local, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, service: Service, local: int, stream: Stream) -> None:
        try:
            await service(stream)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the host left in the middle
        finally:
            stream.send(Command.CLSE)
            del self._streams[local]
