"""Calling a command line in the tests' own process, which spares every case the imports."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def exit_code_of(main: Callable[[], None], name: str, *arguments: object) -> int:
    """Runs the entry point as `name ARGUMENTS`; 0 where it returns."""
    before = signal.getsignal(signal.SIGTERM)
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *map(str, arguments)])
        try:
            main()
        except SystemExit as error:
            code = error.code
        finally:
            signal.signal(signal.SIGTERM, before)
    assert isinstance(code, int)
    return code
