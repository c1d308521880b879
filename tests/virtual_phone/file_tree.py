"""The folder that acts as the phone's file system, and paths on either side of it.

The shell is the host's own, without a chroot, which would need root. So absolute paths of a phone
are mapped in the command's text, and the folder's name is taken out of what the command prints. A
script that was pushed keeps its paths: what it names is the host's.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

_PHONE_PATH = re.compile(
    r"(?<![\w./$}-])/(?=(?:data|sdcard|storage|sys|system|vendor|proc)(?![\w-]))"
)


class FileTree:
    """The phone's `/` on the host."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def host(self, path: str) -> Path:
        """Of a path on the phone; `..` does not lead out of the folder."""
        return self.root / posixpath.normpath(f"/{path}").lstrip("/")

    def writable(self, host_path: Path) -> bool:
        """Whether adb's shell user may write there."""
        parent = host_path.parent.resolve()
        return any(parent.is_relative_to(self.root / top) for top in ("data", "storage"))

    def host_command(self, text: str) -> str:
        """A shell command's text with the phone's paths mapped into the folder."""
        return _PHONE_PATH.sub(lambda _: f"{self.root}/", text)

    def phone_text(self, text: str) -> str:
        """What a command line says, in the phone's paths."""
        return text.replace(f"{self.root}/", "/").replace(str(self.root), "/")


class OutputFilter:
    """Takes the folder's name out of a command's output, also where a read cuts it in two."""

    def __init__(self, tree: FileTree) -> None:
        self._root = os.fsencode(tree.root)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        name = self._root + b"/"
        kept = next((n for n in range(len(name), 0, -1) if data.endswith(name[:n])), 0)
        self._held = data[len(data) - kept :]
        return self._mapped(data[: len(data) - kept])

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return self._mapped(held)

    def _mapped(self, data: bytes) -> bytes:
        return data.replace(self._root + b"/", b"/").replace(self._root, b"/")
