"""A phone that the real adb server connects to, for tests.

    with VirtualPhone("snapdragon-865", folder, faults=("hang@2",)) as phone:
        adb connect 127.0.0.1:{phone.port}

By hand: `python -m tests.virtual_phone --profile snapdragon-865 --port 5600`, then

    adb connect 127.0.0.1:5600
    adb push tests/virtual_phone/benchmark_model model.tflite /data/local/tmp/
    adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/model.tflite
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.virtual_phone import stand_ins
from tests.virtual_phone.adb_protocol import Connection, Greeting, Service, Stream
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.phone_state import Invocation, PhoneState
from tests.virtual_phone.profile import Profile, load_profile
from tests.virtual_phone.shell_service import answer_plain, answer_v2, run_plain, run_v2
from tests.virtual_phone.small_shell import SmallShell
from tests.virtual_phone.sync_service import SyncService

_LIMIT_S = 60
_REPOSITORY = Path(__file__).resolve().parents[2]
_STAND_IN = Path(__file__).parent / "bin" / "stand_in"
# The host's own, under toybox's names. Nothing else of the host is on the phone's path.
_HOST_TOOLS = (
    "basename", "cat", "chmod", "cp", "cut", "dirname", "du", "echo", "env", "expr", "false",
    "find", "grep", "head", "kill", "ln", "ls", "md5sum", "mkdir", "mktemp", "mv", "nohup", "od",
    "printf", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sha1sum",
    "sha256sum", "sleep", "sort", "split", "stat", "sync", "tail", "tee", "test", "timeout",
    "touch", "tr", "true", "truncate", "uniq", "wc", "xargs",
)  # fmt: skip


class VirtualPhone:
    """The daemon, in a thread of its own while the `with` block lasts.

    Args:
        profile: one of `profile.PROFILES`.
        root: an empty folder that becomes the phone's file system.
        faults: NAME or NAME@N of `faults.FAULTS`; ValueError names one that there is not.
        port: 0 for a free one.

    Attributes:
        state: the phone's, in full.
    """

    def __init__(
        self, profile: str, root: Path, *, faults: Sequence[str] = (), port: int = 0
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.state = PhoneState(load_profile(profile), FileTree(root))
        self.state.set_faults(faults)
        self.port = port
        self._control_port = 0
        self._connections: set[Connection] = set()
        self._programs: set[asyncio.StreamWriter] = set()  # each a stand-in that asks
        self._tasks: set[asyncio.Task[None]] = set()
        self._shell = SmallShell(self.state, self._environment)
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"virtual phone {profile}")

    def __enter__(self) -> Self:
        self._make_folders()
        self._thread.start()
        self._ready.result(timeout=_LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._stopping is not None
        for package in self.state.packages.names:
            self.state.packages.stop(package)
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=_LIMIT_S)
        assert not self._thread.is_alive(), "the virtual phone does not end"

    @property
    def profile(self) -> Profile:
        return self.state.profile

    @property
    def root(self) -> Path:
        """Its `/` on the host."""
        return self.state.tree.root

    @property
    def commands(self) -> list[str]:
        """Every command line that came over adb."""
        return self.state.commands

    @property
    def invocations(self) -> list[Invocation]:
        """Every start of benchmark_model."""
        return self.state.invocations

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.state.faults)

    @faults.setter
    def faults(self, texts: Sequence[str]) -> None:
        self.state.set_faults(texts)

    def answers(self, command: str) -> bool:
        """Whether it takes no shell of the host's."""
        return self._shell.read(command) is not None

    def plug_in(self) -> None:
        """After the faults `unplugged` and `unplugged-in-push`."""
        assert self._loop is not None and self._server is not None
        if not self._server.is_serving():
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=_LIMIT_S)

    # --- the daemon -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        control = await asyncio.start_server(self._control, "127.0.0.1", 0)
        self._control_port = control.sockets[0].getsockname()[1]
        await self._listen()
        self._ready.set_result(None)
        try:
            await self._stopping.wait()
        finally:
            control.close()
            self._unplug()
            for writer in self._programs:
                writer.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._attend, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _unplug(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.drop()

    def _unplug_in_push(self) -> None:
        if self.state.once("unplugged-in-push"):
            self._unplug()

    def _keep(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One adb server."""
        self._keep(asyncio.current_task())
        greeting = Greeting.ACCEPT
        if self.state.has("unauthorized"):
            greeting = Greeting.ASK
        elif self.state.has("offline"):
            greeting = Greeting.SILENCE
        connection = Connection(reader, writer, self._banner(), greeting, self._service)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _banner(self) -> str:
        properties = self.profile.properties
        keys = ("ro.product.name", "ro.product.model", "ro.product.device")
        known = "".join(f"{k}={properties[k]};" for k in keys)
        return f"device::{known}features={','.join(self.profile.features)}"

    def _service(self, name: str) -> Service | None:
        kind, _, rest = name.partition(":")
        kind, *options = kind.split(",")
        if kind == "sync":
            return self._sync
        if kind not in ("shell", "exec"):
            return None
        if rest:
            self.state.commands.append(rest)
        self.state.write_files()
        v2, terminal = "v2" in options, "pty" in options
        if (program := self._shell.read(rest)) is not None:
            answer = partial(answer_v2, terminal=terminal) if v2 else answer_plain
            return partial(answer, program=program)
        self._install()
        run = partial(run_v2, terminal=terminal) if v2 else run_plain
        return partial(run, command=rest, tree=self.state.tree, environment=self._environment())

    async def _sync(self, stream: Stream) -> None:
        self.state.write_files()
        await SyncService(
            stream, self.state.tree, lambda: self.state.has("storage-full"), self._unplug_in_push
        ).serve()

    # --- its programs -----------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        root = self.root
        return {
            "PATH": f"{root}/system/bin",
            "HOME": str(root),
            "TMPDIR": f"{root}/data/local/tmp",
            "ANDROID_DATA": f"{root}/data",
            "EXTERNAL_STORAGE": f"{root}/sdcard",
            "VIRTUAL_PHONE": f"127.0.0.1:{self._control_port}",
            "PYTHONPATH": f"{_REPOSITORY}:{_REPOSITORY}/export",
        }

    def _make_folders(self) -> None:
        for name in ("data/local/tmp", "storage/emulated/0", "system/bin", "vendor/lib64"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "sdcard").symlink_to("storage/emulated/0")
        self.state.write_files()

    def _install(self) -> None:
        """Programs in /system/bin, for the host's shell; what the daemon answers needs none."""
        folder = self.root / "system/bin"
        if (folder / "sh").exists():
            return
        for tool in _HOST_TOOLS:
            # Copies rather than links: what writes to /system/bin/cat must not reach the host's.
            shutil.copy(shutil.which(tool) or tool, folder / tool)
        programs = {"python3": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
        source = _STAND_IN.read_text(encoding="utf-8")
        programs |= dict.fromkeys(stand_ins.COMMANDS, f"#!{sys.executable} -IS\n{source}")
        for name, text in programs.items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stand-in asks once; benchmark_model stays connected until it ends."""
        self._keep(asyncio.current_task())
        self._programs.add(writer)
        try:
            request: dict[str, Any] = json.loads(await reader.readline())
            if "pid" not in request:
                await _say(writer, dataclasses.asdict(
                    stand_ins.answer(self.state, request["arguments"])))  # fmt: skip
                return
            invocation = self.state.start(request["arguments"], request["pid"])
            if self.state.once("unplugged"):
                self._unplug()
            await _say(writer, self._plan())
            with contextlib.suppress(ConnectionError):
                await reader.read()
            invocation.running = False
        except ConnectionError:
            pass  # killed before it was answered
        finally:
            self._programs.discard(writer)
            writer.close()

    def _plan(self) -> dict[str, Any]:
        """What benchmark_model has to know of the phone that it runs on."""
        names = {f.name for f in self.state.faults}
        return {
            "start": len(self.state.invocations),
            "faults": sorted(n for n in names if self.state.has(n)),
            "log": self.profile.log,
            "gpu": self.profile.gpu_delegate,
            "nnapi": self.profile.nnapi_accelerators,
            "external": self.profile.external_delegate,
        }


async def _say(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    writer.write(json.dumps(value).encode() + b"\n")
    await writer.drain()
