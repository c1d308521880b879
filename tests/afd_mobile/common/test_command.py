"""What every command line does with an error."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from afd_mobile.common.command import Parser, check_interrupted, run_command
from afd_mobile.common.errors import ConversionError, InputError


@pytest.mark.parametrize(("prog", "extra"), [("afd-bench", "bench"), ("afd-export", "export")])
def test_a_missing_dependency_is_one_line_with_the_remedy(
    prog: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> None:
        importlib.import_module("not_installed_here")

    monkeypatch.setattr("sys.argv", [prog])
    with pytest.raises(SystemExit) as ended:
        run_command(command, Parser(prog, "what it does"))
    assert ended.value.code == 3
    assert capsys.readouterr().err == (
        f"{prog}: error: not_installed_here is not installed; in the clone: "
        f"pip install '.[{extra}]'\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_got_lost_ends_the_command_at_its_next_step(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> None:
        check_interrupted()
        with contextlib.suppress(KeyboardInterrupt):  # as in a destructor
            signal.raise_signal(number)
        sys.stdout.write("goes on\n")
        check_interrupted()
        sys.stdout.write("to its end\n")

    monkeypatch.setattr("sys.argv", ["some-program"])
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for _ in range(2):  # the second one knows nothing of the first one's
            with pytest.raises(SystemExit) as ended:
                run_command(command, Parser("some-program", "what it does"))
            assert ended.value.code == 130
            captured = capsys.readouterr()
            assert captured.out == "goes on\n"
            assert captured.err == "some-program: interrupted; nothing is half-written\n"
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


@pytest.mark.parametrize("text", ["a\x1b[31mb\nc", "\u202e\x07"])
@pytest.mark.parametrize("failure", [InputError, lambda m: ConversionError("x", chatter=m)])
def test_no_message_commands_the_terminal(
    text: str, failure: Callable[[str], Exception], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def command(_: argparse.Namespace) -> None:
        raise failure(text)

    monkeypatch.setattr("sys.argv", ["some-program"])
    with pytest.raises(SystemExit):
        run_command(command, Parser("some-program", "what it does"))
    said = capsys.readouterr().err
    assert said.isprintable() or set("".join(c for c in said if not c.isprintable())) == {"\n"}
    assert "\\x1b[31mb" in said or "\\u202e\\x07" in said


@pytest.mark.parametrize(
    ("program", "own"),
    [
        ("afd-train", []),
        ("afd-eval", []),
        ("afd-eval drift", []),
        ("afd-export", ["4", "5"]),
        ("afd-bench", ["5", "7", "8"]),
        ("afd-bench run", ["5", "7", "8"]),
    ],
)
def test_the_help_lists_the_programs_own_exit_codes(program: str, own: list[str]) -> None:
    _, listed = Parser(program, "what it does").format_help().split("exit codes:\n")
    codes = [line.split()[0] for line in listed.splitlines()]
    assert codes == sorted(["0", "2", "3", "6", "130", *own], key=int)


PROGRAMS = (
    "afd_export.cli:main", "afd_benchmark.cli:main", "afd_mobile.cli.train:main",
    "afd_mobile.cli.evaluate:main",
)  # fmt: skip


LOG = Path(__file__).resolve().parents[2] / "afd_benchmark" / "logs" / "studio_new.txt"


@pytest.mark.parametrize(
    ("program", "arguments", "buffered"),
    [
        *((program, ["--help"], True) for program in PROGRAMS),
        # What is printed as it comes fails in mid-command.
        ("afd_benchmark.cli:main", ["parse", str(LOG), "--json"], False),
    ],
)
def test_a_reader_that_has_gone_ends_a_program_in_silence(
    program: str, arguments: list[str], buffered: bool
) -> None:
    """As `| head` leaves it: nothing reads what is still to come."""
    module, _, function = program.partition(":")
    source = f"import sys; from {module} import {function} as main; main()"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONUNBUFFERED": "" if buffered else "1",
    }
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments], stdout=gone, stderr=subprocess.PIPE,
            timeout=120, check=False, env=environment,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
