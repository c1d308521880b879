"""The phone's shell inside the daemon, which spares what `afd-bench` sends its processes.

It knows a part of POSIX's grammar (`shell_grammar`), Android's own commands (`stand_ins`), some for
files (`file_commands`), and benchmark_model. `read` refuses the rest, which is for the host's `sh`
in `shell_service`. Both know files by the host's paths, see `file_tree`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests.virtual_phone import stand_ins
from tests.virtual_phone.file_commands import FILE_COMMANDS
from tests.virtual_phone.file_tree import OutputFilter
from tests.virtual_phone.phone_state import PhoneState
from tests.virtual_phone.shell_grammar import (
    For,
    RefusedError,
    Script,
    Simple,
    Substitution,
    Text,
    Variable,
    Word,
    read_script,
)

TOOL = Path(__file__).parent / "benchmark_model"
_CHUNK = 1 << 16

Write = Callable[[bytes], Awaitable[None]]
# Standard output and error -> exit code.
Program = Callable[[Write, Write], Coroutine[Any, Any, int]]


class SmallShell:
    """The shell of one phone; `environment` is benchmark_model's."""

    def __init__(self, state: PhoneState, environment: Callable[[], dict[str, str]]) -> None:
        self._state = state
        self._root = state.tree.root
        self._environment = environment

    def read(self, command: str) -> Program | None:
        """What runs the command; None where it takes the host's shell."""
        try:
            script = read_script(self._state.tree.host_command(command))
            self._check(script)
        except RefusedError:
            return None
        if not script:  # commands come on stdin
            return None

        async def program(out: Write, err: Write) -> int:
            shown = [OutputFilter(self._state.tree), OutputFilter(self._state.tree)]

            def through(names: OutputFilter, write: Write) -> Write:
                async def filtered(data: bytes) -> None:
                    if ready := names.feed(data):
                        await write(ready)

                return filtered

            code = await self._script(script, through(shown[0], out), through(shown[1], err), {})
            for names, write in zip(shown, (out, err), strict=True):
                if rest := names.finish():
                    await write(rest)
            return code

        return program

    # What is refused is refused before anything happens.

    def _check(self, script: Script) -> None:
        for _, command in script:
            words = [*command.words]
            if isinstance(command, For):
                self._check(command.body)
            elif self._knows([_literal(word) for word in words]):
                words += command.redirected.values()
            else:
                raise RefusedError
            for word in words:
                for part in word:
                    if isinstance(part, Substitution):
                        self._check(part.script)

    def _knows(self, words: Sequence[str | None]) -> bool:
        """Args: words: None for those that are not known before they are expanded."""
        if not words:
            return False
        name, *rest = words
        if name is None:
            return False
        if name == "taskset":  # becomes another command
            return len(rest) > 1 and self._knows(rest[1:])
        if name in FILE_COMMANDS:
            options = [w for w in rest if w is not None and w.startswith("-")]
            return bool(rest) and set(options) <= FILE_COMMANDS[name].options
        if name == "echo":
            return not any(w is not None and (w in ("-n", "-e") or "\\" in w) for w in rest)
        if name == "command":
            return rest[:1] == ["-v"] and len(rest) == 2 and rest[1] in stand_ins.COMMANDS
        return (name in stand_ins.COMMANDS and name != "date") or self._is_tool(name)

    def _is_tool(self, name: str) -> bool:
        path = Path(name)
        found = path.is_absolute() and path.is_file() and path.stat().st_mode & 0o100 != 0
        return found and path.read_bytes() == TOOL.read_bytes()

    async def _script(
        self, script: Script, out: Write, err: Write, variables: dict[str, str]
    ) -> int:
        code = 0
        for operator, command in script:
            if operator != ";" and (code == 0) != (operator == "&&"):
                continue
            if isinstance(command, Simple):
                code = await self._simple(command, out, err, variables)
                continue
            code = 0
            for value in await self._expanded(command.words, err, variables):
                variables[command.name] = value
                code = await self._script(command.body, out, err, variables)
        return code

    async def _simple(
        self, command: Simple, out: Write, err: Write, variables: dict[str, str]
    ) -> int:
        words = await self._expanded(command.words, err, variables)
        writes = {1: out, 2: err}
        for descriptor, word in command.redirected.items():
            (name,) = await self._expanded((word,), err, variables)
            try:
                writes[descriptor] = _into(self._root / name)
            except OSError as error:
                what = "Directory nonexistent" if error.errno == 2 else error.strerror
                await err(f"/system/bin/sh: 1: cannot create {name}: {what}\n".encode())
                return 2
        return await self._run(words, writes[1], writes[2])

    async def _run(self, words: Sequence[str], out: Write, err: Write) -> int:
        name, *rest = words
        if name in FILE_COMMANDS:
            options = {w for w in rest if w in FILE_COMMANDS[name].options}
            names = [w for w in rest if w not in options]
            found, wrong = FILE_COMMANDS[name].run(self._root, names, options)
            await out(found)
            await err("".join(f"{name}: {line}\n" for line in wrong).encode())
            return (2 if name == "ls" else 1) if wrong else 0
        if name == "echo":
            await out(os.fsencode(" ".join(rest) + "\n"))
            return 0
        if name == "command":
            await out(f"{self._root}/system/bin/{rest[1]}\n".encode())
            return 0
        if name not in stand_ins.COMMANDS:
            return await self._start(words, out, err)
        answer = stand_ins.answer(self._state, list(words))
        await out(answer.stdout.encode())
        await err(answer.stderr.encode())
        return await self._run(answer.run, out, err) if answer.run else answer.code

    async def _start(self, words: Sequence[str], out: Write, err: Write) -> int:
        """benchmark_model, which is a process of its own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=self._root, env=self._environment(),
            stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            await asyncio.gather(_pump(process.stdout, out), _pump(process.stderr, err))
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code < 0:
            await err(f"{signal.strsignal(-code)}\n".encode())
        return code if code >= 0 else 128 - code

    async def _expanded(
        self, words: Sequence[Word], err: Write, variables: dict[str, str]
    ) -> list[str]:
        return [field for word in words for field in await self._fields(word, err, variables)]

    async def _fields(self, word: Word, err: Write, variables: dict[str, str]) -> list[str]:
        """What expands unquoted is split at blanks; patterns become the paths that they match."""
        text, pattern, quoted = "", "", False
        for part in word:
            if isinstance(part, Text):
                found = part.text
            else:
                if isinstance(part, Variable):
                    found = _without(variables.get(part.name, ""), part.prefix)
                else:
                    found = await self._output(part.script, err, variables)
                if not part.quoted:
                    found = re.sub(r"\s+", "\0", found)
            quoted |= part.quoted
            text += found
            pattern += glob.escape(found) if part.quoted else found
        pieces = zip(text.split("\0"), pattern.split("\0"), strict=True)
        return [path for piece in pieces if piece[0] or quoted for path in self._matching(*piece)]

    def _matching(self, text: str, pattern: str) -> list[str]:
        if not glob.has_magic(pattern):
            return [text]
        # pathlib would write the paths anew, `//` and `./` left out.
        return sorted(glob.glob(pattern, root_dir=self._root)) or [text]  # noqa: PTH207

    async def _output(self, script: Script, err: Write, variables: dict[str, str]) -> str:
        parts: list[bytes] = []

        async def keep(data: bytes) -> None:
            parts.append(data)

        await self._script(script, keep, err, dict(variables))
        return os.fsdecode(b"".join(parts)).rstrip("\n")


def _literal(word: Word) -> str | None:
    texts = [part.text for part in word if isinstance(part, Text)]
    return "".join(texts) if len(texts) == len(word) else None


def _without(value: str, prefix: str) -> str:
    ends = (n for n in range(len(value), 0, -1) if fnmatch.fnmatchcase(value[:n], prefix))
    return value[next(ends, 0) :]


def _into(path: Path) -> Write:
    """Raises: OSError where the file cannot be made."""
    if path != Path(os.devnull):
        path.write_bytes(b"")

    async def write(data: bytes) -> None:
        if path != Path(os.devnull):
            with path.open("ab") as file:
                file.write(data)

    return write


async def _pump(source: asyncio.StreamReader, write: Write) -> None:
    while data := await source.read(_CHUNK):
        await write(data)
