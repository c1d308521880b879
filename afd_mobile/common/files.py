"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from afd_mobile.common.errors import OutputError


def nearest_path(missing: Path, others: Iterable[Path] = ()) -> Path | None:
    """What was meant by a mistyped path: the most alike of what lies beside it and of `others`."""
    known = {path.name: path for path in others}
    with suppress(OSError):
        known |= {path.name: path for path in missing.parent.iterdir()}
    near = get_close_matches(missing.name, known, n=1)
    return known[near[0]] if near else None


def make_folder(folder: Path) -> None:
    """Makes it, with those above it, where it is not there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {folder}: {error.strerror}") from error


def is_special(path: Path) -> bool:
    """A link, or a device such as /dev/null: renaming over it would replace it."""
    return path.is_symlink() or (path.exists() and not (path.is_file() or path.is_dir()))


def check_writable(*paths: Path | None) -> None:
    """Refuses, before the work is done, what `write_whole` could not write.

    Raises:
        OutputError: as there.
    """
    for path in filter(None, paths):
        _check_place(path)
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; make it")
    if is_special(path):
        raise OutputError(f"cannot write {path}: it is a link or a device; give another file")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file")


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` beside `path` and renames it into place.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or a folder, link or
            device is in the way.
    """
    _check_place(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
