"""What every command line of the project shares: errors as one line, documented exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import NoReturn, TypeVar

from afd_mobile import __version__
from afd_mobile.common.errors import AfdError, ConversionError, InputError, UsageError
from afd_mobile.common.terminal import printable

E = TypeVar("E", bound=Enum)

_EXIT_CODES = {
    0: "done",
    2: "usage",
    3: "input (checkpoint, weights, tap, pictures, state)",
    4: "parity",
    5: "conversion",
    6: "output (exists, no folder for it, not writable, disk full)",
    7: "device (gone, unauthorised, busy, full)",
    8: "a measurement is INVALID",
    130: "interrupted",
}
# Of these, not of every program: afd-bench has its peers exported.
_ENDS = {4: ["afd-export"], 5: ["afd-export", "afd-bench"], 7: ["afd-bench"], 8: ["afd-bench"]}


class Parser(argparse.ArgumentParser):
    """argparse, with its errors on one line and the program's exit codes under the help."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=_exit_codes(prog.split()[0]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"afd-mobile {__version__}")

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {printable(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(UsageError.exit_code)


def _exit_codes(program: str) -> str:
    own = {c: what for c, what in _EXIT_CODES.items() if program in _ENDS.get(c, [program])}
    return "\n".join(["exit codes:", *(f"  {code} {what}" for code, what in own.items())])


def run_command(
    command: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    given: Sequence[str] | None = None,
) -> None:
    """Parses the arguments, those of this process unless others are given, and runs the command.

    It exits with the command's code.

    SIGTERM is treated as Ctrl-C, so that half-made output is cleared away on both. Where whoever
    reads the output has gone (`| head`), it ends in silence, with the code that a shell gives for
    SIGPIPE.
    """
    try:
        try:
            _run(command, parser, given)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _run(
    command: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    given: Sequence[str] | None,
) -> None:
    arguments = parser.parse_args(given)
    _interruptions.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        command(arguments)
    except AfdError as error:
        if isinstance(error, ConversionError) and error.chatter:
            for line in error.chatter.splitlines()[-30:]:
                print(printable(line), file=sys.stderr)
        print(f"{parser.prog}: error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = "bench" if parser.prog == "afd-bench" else "export"
        print(
            f"{parser.prog}: error: {error.name} is not installed; "
            f"in the clone: pip install '.[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt as error:
        said = str(error) or "nothing is half-written"
        print(f"{parser.prog}: interrupted; {printable(said)}", file=sys.stderr)
        sys.exit(130)


_interruptions: list[int] = []
_deferring = False


def _interrupt(number: int, _: FrameType | None) -> None:
    _interruptions.append(number)
    if not _deferring or len(_interruptions) > 1:
        raise KeyboardInterrupt


@contextmanager
def deferred_interruption() -> Iterator[Callable[[], bool]]:
    """Inside, the first interruption raises nothing, and a second one does.

    Yields:
        Whether there was one: the command then ends at its next good place.
    """
    global _deferring
    _deferring = True
    try:
        yield lambda: bool(_interruptions)
    finally:
        _deferring = False


def check_interrupted() -> None:
    """Raises KeyboardInterrupt, between two steps of a command, where one got lost.

    It is raised wherever Python happens to be. In a destructor or a callback out of a library's
    native code it is printed and forgotten, and the command would go on to its end.
    """
    if _interruptions:
        raise KeyboardInterrupt


def one_of(vocabulary: type[E]) -> Callable[[str], E]:
    """An argparse type: a member of the enum, by its value."""

    def parse(text: str) -> E:
        try:
            return vocabulary(text)
        except ValueError:
            known = ", ".join(str(member.value) for member in vocabulary)
            raise argparse.ArgumentTypeError(f"{text!r} is none of {known}") from None

    return parse


def seed(text: str) -> int:
    """An argparse type: what numpy and torch both take."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to 2**63 - 1")
    return value


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value
