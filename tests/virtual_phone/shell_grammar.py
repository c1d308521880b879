"""The part of a POSIX shell's grammar that `small_shell` runs.

Lists with `;`, `&&`, `||` and newlines, `for`, quotes, `$NAME`, `${NAME##PATTERN}`, `$(LIST)`,
`>FILE` and `2>FILE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"""[^\s;&|<>()$'"\\`#~!{}]+""")  # of a word, outside quotes
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:##([^{}$'\"\\]*))?\})")


class RefusedError(Exception):
    """The command line needs the host's shell."""


@dataclass(frozen=True)
class Text:
    text: str
    quoted: bool


@dataclass(frozen=True)
class Variable:
    """Its value, without the longest beginning that matches `prefix`."""

    name: str
    prefix: str
    quoted: bool


@dataclass(frozen=True)
class Substitution:
    script: Script
    quoted: bool


Word = tuple[Text | Variable | Substitution, ...]


@dataclass(frozen=True)
class Simple:
    """A command; `redirected` holds files by descriptor, 1 or 2."""

    words: tuple[Word, ...]
    redirected: Mapping[int, Word]


@dataclass(frozen=True)
class For:
    name: str
    words: tuple[Word, ...]
    body: Script


# What has to be true of the exit code before: `;` nothing, `&&` that it is 0, `||` that it is not.
Script = tuple[tuple[str, Simple | For], ...]


def read_script(text: str) -> Script:
    """Raises: RefusedError."""
    return _Reader(text).script("")


class _Reader:
    """A command line's text, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def script(self, end: str) -> Script:
        """Up to `end`, which is `)`, `done`, or empty for the text's own."""
        commands: list[tuple[str, Simple | For]] = []
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

    def _command(self) -> Simple | For:
        if self._take(r"for[ \t]"):
            return self._for()
        words: list[Word] = []
        redirected: dict[int, Word] = {}
        while True:
            if sign := self._take(r"2?>(?![>&|])"):
                redirected[2 if sign[0] == "2" else 1] = self._required()
            elif word := self._word():
                words.append(word)
            else:
                break
        if not words:
            raise RefusedError
        return Simple(tuple(words), redirected)

    def _for(self) -> For:
        name = self._take(r"\w+(?=[ \t])")
        if name is None or not _NAME.fullmatch(name) or self._take(r"in[ \t]") is None:
            raise RefusedError
        words = []
        while word := self._word():
            words.append(word)
        if self._take(r"[;\n]") is None or self._take(r"do\s") is None:
            raise RefusedError
        return For(name, tuple(words), self.script("done"))

    def _required(self) -> Word:
        if word := self._word():
            return word
        raise RefusedError

    def _word(self) -> Word:
        """Empty where none begins here."""
        self._take("")
        parts: list[Text | Variable | Substitution] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if found := _PLAIN.match(self._text, self._at):
                if re.match(r"\d+$", found[0]) and self._text[found.end() :][:1] in ("<", ">"):
                    break  # a descriptor
                self._at = found.end()
                parts.append(Text(found[0], quoted=False))
            elif char == "'":
                end = self._text.find("'", self._at + 1)
                if end < 0:
                    raise RefusedError
                parts.append(Text(self._text[self._at + 1 : end], quoted=True))
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

    def _double_quoted(self) -> Word:
        parts: list[Text | Variable | Substitution] = [Text("", quoted=True)]
        while not self._text.startswith('"', self._at):
            if found := re.compile(r'[^"$`\\]+').match(self._text, self._at):
                self._at = found.end()
                parts.append(Text(found[0], quoted=True))
            elif self._text.startswith("$", self._at):
                parts.append(self._expansion(quoted=True))
            else:
                raise RefusedError
        self._at += 1
        return tuple(parts)

    def _expansion(self, *, quoted: bool) -> Variable | Substitution:
        if found := _VARIABLE.match(self._text, self._at):
            self._at = found.end()
            return Variable(found[1] or found[2], found[3] or "", quoted)
        if self._text.startswith("$(", self._at) and not self._text.startswith("$((", self._at):
            self._at += 2
            return Substitution(self.script(")"), quoted)
        raise RefusedError
