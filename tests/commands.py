"""Command lines in the tests' own process, which spares them the imports, and other Pythons."""

from __future__ import annotations

import contextlib
import io
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def exit_code_of(main: Callable[[], None], name: str, *arguments: object) -> int:
    """Runs the entry point as `name ARGUMENTS`; 0 where it returns."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *map(str, arguments)])
        try:
            main()
        except SystemExit as error:
            code = error.code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert isinstance(code, int)
    return code


def run_here(main: Callable[[], None], name: str, *arguments: object) -> Outcome:
    """The same, with what it printed; for fixtures, which cannot have a test's `capfd`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = exit_code_of(main, name, *arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


def python_of(engine: str) -> Path:
    """The interpreter of the environment that `make ENGINE-env` sets up; fails without it."""
    python = Path(__file__).resolve().parents[1] / f".venv-{engine}" / "bin" / "python"
    if not python.is_file():
        pytest.fail(f"needs `make {engine}-env`", pytrace=False)
    return python


def free_port() -> int:
    """One that nothing listens on, below those that the kernel gives to outgoing connections.

    One of these could take it while a server that is restarted is down.
    """
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
