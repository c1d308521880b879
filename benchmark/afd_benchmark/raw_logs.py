"""Raw logs: the evidence behind a figure, each written once under a name of its own."""

from __future__ import annotations

from pathlib import Path

from afd_mobile.common.errors import OutputError
from afd_mobile.common.files import write_whole


def keep_log(path: Path, content: bytes) -> None:
    """Raises: OutputError, as when the disk is full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror}") from error
    write_whole(path, content)
