"""Commands for files, as GNU's print them in the C locale, in the daemon itself."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileCommand:
    """Attributes:
    run: root, names, options given -> output, and a line for each name that went wrong.
    options: those that it knows; all others are the host's.
    """

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


FILE_COMMANDS = {
    "cat": FileCommand(_cat),
    "chmod": FileCommand(_chmod),
    "ls": FileCommand(_ls, frozenset({"-d"})),
    "mkdir": FileCommand(_mkdir, frozenset({"-p"})),
    "rm": FileCommand(_rm, frozenset({"-f", "-r", "-rf"})),
    "sha256sum": FileCommand(_sha256sum),
}
