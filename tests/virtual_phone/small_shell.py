"""The phone's shell inside the daemon, which spares what `afd-bench` sends its processes.

A part of POSIX's: lists with `;`, `&&`, `||` and newlines, `for`, quotes, `$NAME`,
`${NAME##PATTERN}`, `$(LIST)`, patterns of paths, `>FILE` and `2>FILE`; Android's own commands
(`stand_ins`), some for files, and benchmark_model. `read` refuses the rest, which is for the host's
`sh` in `shell_service`. Both know files by the host's paths, see `file_tree`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import hashlib
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.virtual_phone import stand_ins
from tests.virtual_phone.file_tree import OutputFilter
from tests.virtual_phone.phone_state import PhoneState

TOOL = Path(__file__).parent / "benchmark_model"
_CHUNK = 1 << 16
_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"""[^\s;&|<>()$'"\\`#~!{}]+""")  # of a word, outside quotes
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:##([^{}$'\"\\]*))?\})")

Write = Callable[[bytes], Awaitable[None]]
Program = Callable[
    [Write, Write], Coroutine[Any, Any, int]
]  # standard output and error -> exit code


class RefusedError(Exception):
    """The command line needs the host's shell."""


# --- grammar --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    text: str
    quoted: bool


@dataclass(frozen=True)
class _Variable:
    """Its value, without the longest beginning that matches `prefix`."""

    name: str
    prefix: str
    quoted: bool


@dataclass(frozen=True)
class _Substitution:
    script: _Script
    quoted: bool


_Word = tuple[_Text | _Variable | _Substitution, ...]


@dataclass(frozen=True)
class _Simple:
    """A command; `redirected` holds files by descriptor, 1 or 2."""

    words: tuple[_Word, ...]
    redirected: Mapping[int, _Word]


@dataclass(frozen=True)
class _For:
    name: str
    words: tuple[_Word, ...]
    body: _Script


# What has to be true of the exit code before: `;` nothing, `&&` that it is 0, `||` that it is not.
_Script = tuple[tuple[str, _Simple | _For], ...]


class _Reader:
    """A command line's text, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def script(self, end: str) -> _Script:
        """Up to `end`, which is `)`, `done`, or empty for the text's own."""
        commands: list[tuple[str, _Simple | _For]] = []
        operator = ";"
        while not (operator == ";" and self._ends(end)):
            commands.append((operator, self._command()))
            if found := self._take(r"&&|\|\||;"):
                operator = found
            elif not (operator := ";" if self._take(r"\n") else ""):
                if self._ends(end):
                    break
                raise RefusedError
        return tuple(commands)

    def _ends(self, end: str) -> bool:
        while self._take(r"\n"):
            pass
        if end == "":
            return self._at == len(self._text)
        return self._take(r"\)" if end == ")" else rf"{end}(?![^\s;])") is not None

    def _take(self, pattern: str) -> str | None:
        """What matches here, behind blanks."""
        found = re.compile(rf"[ \t]*({pattern})").match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[1]

    def _command(self) -> _Simple | _For:
        if self._take(r"for[ \t]"):
            return self._for()
        words: list[_Word] = []
        redirected: dict[int, _Word] = {}
        while True:
            if sign := self._take(r"2?>(?![>&|])"):
                redirected[2 if sign[0] == "2" else 1] = self._required()
            elif word := self._word():
                words.append(word)
            else:
                break
        if not words:
            raise RefusedError
        return _Simple(tuple(words), redirected)

    def _for(self) -> _For:
        name = self._take(r"\w+(?=[ \t])")
        if name is None or not _NAME.fullmatch(name) or self._take(r"in[ \t]") is None:
            raise RefusedError
        words = []
        while word := self._word():
            words.append(word)
        if self._take(r"[;\n]") is None or self._take(r"do\s") is None:
            raise RefusedError
        return _For(name, tuple(words), self.script("done"))

    def _required(self) -> _Word:
        if word := self._word():
            return word
        raise RefusedError

    def _word(self) -> _Word:
        """Empty where none begins here."""
        self._take("")
        parts: list[_Text | _Variable | _Substitution] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if found := _PLAIN.match(self._text, self._at):
                if re.match(r"\d+$", found[0]) and self._text[found.end() :][:1] in ("<", ">"):
                    break  # a descriptor
                self._at = found.end()
                parts.append(_Text(found[0], quoted=False))
            elif char == "'":
                end = self._text.find("'", self._at + 1)
                if end < 0:
                    raise RefusedError
                parts.append(_Text(self._text[self._at + 1 : end], quoted=True))
                self._at = end + 1
            elif char == '"':
                self._at += 1
                parts += self._double_quoted()
            elif char == "$":
                parts.append(self._expansion(quoted=False))
            elif char in " \t\n;&|)>":
                break
            else:
                raise RefusedError
        return tuple(parts)

    def _double_quoted(self) -> _Word:
        parts: list[_Text | _Variable | _Substitution] = [_Text("", quoted=True)]
        while not self._text.startswith('"', self._at):
            if found := re.compile(r'[^"$`\\]+').match(self._text, self._at):
                self._at = found.end()
                parts.append(_Text(found[0], quoted=True))
            elif self._text.startswith("$", self._at):
                parts.append(self._expansion(quoted=True))
            else:
                raise RefusedError
        self._at += 1
        return tuple(parts)

    def _expansion(self, *, quoted: bool) -> _Variable | _Substitution:
        if found := _VARIABLE.match(self._text, self._at):
            self._at = found.end()
            return _Variable(found[1] or found[2], found[3] or "", quoted)
        if self._text.startswith("$(", self._at) and not self._text.startswith("$((", self._at):
            self._at += 2
            return _Substitution(self.script(")"), quoted)
        raise RefusedError


# --- running --------------------------------------------------------------------------------------


class SmallShell:
    """The shell of one phone; `environment` is benchmark_model's."""

    def __init__(self, state: PhoneState, environment: Callable[[], dict[str, str]]) -> None:
        self._state = state
        self._root = state.tree.root
        self._environment = environment

    def read(self, command: str) -> Program | None:
        """What runs the command; None where it takes the host's shell."""
        try:
            script = _Reader(self._state.tree.host_command(command)).script("")
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

    def _check(self, script: _Script) -> None:
        for _, command in script:
            if isinstance(command, _For):
                self._check(command.body)
            elif not self._knows([_literal(word) for word in command.words]):
                raise RefusedError
            for word in command.words:
                for part in word:
                    if isinstance(part, _Substitution):
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
        if name in _FILE_COMMANDS:
            options = [w for w in rest if w is not None and w.startswith("-")]
            return bool(rest) and set(options) <= _FILE_COMMANDS[name].options
        if name == "echo":
            return not any(w is not None and (w in ("-n", "-e") or "\\" in w) for w in rest)
        if name == "command":
            return rest[:1] == ["-v"] and len(rest) == 2 and rest[1] in stand_ins.COMMANDS
        return (name in stand_ins.COMMANDS and name != "date") or self._is_tool(name)

    def _is_tool(self, name: str) -> bool:
        path = Path(name)
        if not path.is_absolute() or not os.access(path, os.X_OK) or not path.is_file():
            return False
        return path.stat().st_mode & 0o100 != 0 and path.read_bytes() == TOOL.read_bytes()

    async def _script(
        self, script: _Script, out: Write, err: Write, variables: dict[str, str]
    ) -> int:
        code = 0
        for operator, command in script:
            if operator != ";" and (code == 0) != (operator == "&&"):
                continue
            if isinstance(command, _Simple):
                code = await self._simple(command, out, err, variables)
                continue
            code = 0
            for value in await self._expanded(command.words, err, variables):
                variables[command.name] = value
                code = await self._script(command.body, out, err, variables)
        return code

    async def _simple(
        self, command: _Simple, out: Write, err: Write, variables: dict[str, str]
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
        if name in _FILE_COMMANDS:
            options = {w for w in rest if w in _FILE_COMMANDS[name].options}
            names = [w for w in rest if w not in options]
            found, wrong = _FILE_COMMANDS[name].run(self._root, names, options)
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
        self, words: Sequence[_Word], err: Write, variables: dict[str, str]
    ) -> list[str]:
        return [field for word in words for field in await self._fields(word, err, variables)]

    async def _fields(self, word: _Word, err: Write, variables: dict[str, str]) -> list[str]:
        """What expands unquoted is split at blanks; patterns become the paths that they match."""
        text, pattern, quoted = "", "", False
        for part in word:
            if isinstance(part, _Text):
                found = part.text
            else:
                if isinstance(part, _Variable):
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

    async def _output(self, script: _Script, err: Write, variables: dict[str, str]) -> str:
        parts: list[bytes] = []

        async def keep(data: bytes) -> None:
            parts.append(data)

        await self._script(script, keep, err, dict(variables))
        return os.fsdecode(b"".join(parts)).rstrip("\n")


def _literal(word: _Word) -> str | None:
    texts = [part.text for part in word if isinstance(part, _Text)]
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


# --- commands for files ---------------------------------------------------------------------------
# Each: the root, names, options given -> output, and a line for each that went wrong.


@dataclass(frozen=True)
class _FileCommand:
    run: Callable[[Path, Sequence[str], set[str]], tuple[bytes, list[str]]]
    options: frozenset[str] = frozenset()


def _each(
    action: Callable[[Path, str], bytes], wrong: str = "{name}: {reason}"
) -> Callable[[Path, Sequence[str]], tuple[bytes, list[str]]]:
    """The action for every name."""

    def run(root: Path, names: Sequence[str]) -> tuple[bytes, list[str]]:
        outputs, failed = [], []
        for name in names:
            try:
                outputs.append(action(root / name, name))
            except OSError as error:
                failed.append(wrong.format(name=name, reason=error.strerror))
        return b"".join(outputs), failed

    return run


def _cat(root: Path, names: Sequence[str], _: set[str]) -> tuple[bytes, list[str]]:
    return _each(lambda path, _: path.read_bytes())(root, names)


def _sha256sum(root: Path, names: Sequence[str], _: set[str]) -> tuple[bytes, list[str]]:
    def digest(path: Path, name: str) -> bytes:
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode()

    return _each(digest)(root, names)


def _ls(root: Path, names: Sequence[str], options: set[str]) -> tuple[bytes, list[str]]:
    def entry(path: Path, name: str) -> bytes:
        path.lstat()
        if path.is_dir() and "-d" not in options:
            shown = sorted(p.name for p in path.iterdir() if p.name[0] != ".")
            return "".join(f"{child}\n" for child in shown).encode()
        return f"{name}\n".encode()

    return _each(entry, "cannot access '{name}': {reason}")(root, names)


def _mkdir(root: Path, names: Sequence[str], options: set[str]) -> tuple[bytes, list[str]]:
    def make(path: Path, _: str) -> bytes:
        path.mkdir(parents="-p" in options, exist_ok="-p" in options)
        return b""

    return _each(make, "cannot create directory '{name}': {reason}")(root, names)


def _rm(root: Path, names: Sequence[str], options: set[str]) -> tuple[bytes, list[str]]:
    forced, deep = options & {"-f", "-rf"}, options & {"-r", "-rf"}

    def remove(path: Path, _: str) -> bytes:
        if forced and not os.path.lexists(path):
            return b""
        if path.is_dir() and not path.is_symlink() and deep:
            shutil.rmtree(path)
        else:
            path.unlink()
        return b""

    return _each(remove, "cannot remove '{name}': {reason}")(root, names)


def _chmod(root: Path, names: Sequence[str], _: set[str]) -> tuple[bytes, list[str]]:
    mode, *rest = names

    def change(path: Path, _: str) -> bytes:
        path.chmod(int(mode, 8))
        return b""

    return _each(change, "cannot access '{name}': {reason}")(root, rest)


_FILE_COMMANDS = {
    "cat": _FileCommand(_cat),
    "chmod": _FileCommand(_chmod),
    "ls": _FileCommand(_ls, frozenset({"-d"})),
    "mkdir": _FileCommand(_mkdir, frozenset({"-p"})),
    "rm": _FileCommand(_rm, frozenset({"-f", "-r", "-rf"})),
    "sha256sum": _FileCommand(_sha256sum),
}
