"""What the commands say and write in the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from afd_mobile.common.errors import UsageError
from afd_mobile.common.files import write_whole
from afd_mobile.common.terminal import printable

_SHOWN = 5  # pictures that cannot be read


def write(path: Path, content: bytes) -> None:
    write_whole(path, content)
    print(f"  {printable(str(path))}")


def say(notices: Iterable[str]) -> None:
    for line in notices:
        print(printable(f"note: {line}"), file=sys.stderr)


def say_left_out(unreadable: list[str]) -> None:
    """Five of them; --json names the others."""
    more = [f"{len(unreadable) - _SHOWN} more"] * (len(unreadable) > _SHOWN)
    say(f"left out: {line}" for line in [*unreadable[:_SHOWN], *more])


def check_plot(plot: Path | None) -> None:
    if plot and plot.suffix != ".png":
        raise UsageError(f"--plot {plot} must end in .png")
