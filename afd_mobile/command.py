"""What every command line of the project shares: errors as one line, documented exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from afd_mobile.errors import AfdError, ConversionError

EXIT_CODES = """exit codes:
  0 done    2 usage    3 input (checkpoint, weights, tap, pictures)    4 parity
  5 conversion    6 output (exists, not writable, disk full)    130 interrupted"""


def run_command(
    command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser
) -> None:
    """Parses the arguments, runs the command and exits with its code.

    SIGTERM is treated as Ctrl-C, so that half-made output is cleared away on both.
    """
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command(arguments)
    except AfdError as error:
        if isinstance(error, ConversionError) and error.chatter:
            print("\n".join(error.chatter.splitlines()[-30:]), file=sys.stderr)
        message = " ".join(str(error).split())
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing was published", file=sys.stderr)
        sys.exit(130)


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value
