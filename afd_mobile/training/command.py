"""What the commands that train share: options, the files of a run, the bar.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from afd_mobile.common.command import positive
from afd_mobile.common.errors import OutputError, UsageError
from afd_mobile.common.files import check_writable
from afd_mobile.common.terminal import printable

DEFAULT_WORKERS = max(1, (os.cpu_count() or 2) - 1)


class Stepped(Protocol):
    """What a training says after an iteration: `said` holds notes on pictures, one line each."""

    @property
    def iteration(self) -> int: ...
    @property
    def said(self) -> list[str]: ...


P = TypeVar("P", bound=Stepped)

# --- options ------------------------------------------------------------------------------------


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="auto takes a GPU where there is one (default: %(default)s)",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=_workers,
        default=DEFAULT_WORKERS,
        metavar="N",
        help="processes that read and compress pictures (default: one less than the cores)",
    )


def _workers(text: str) -> int:
    """Far more processes than cores would take the machine down."""
    value, most = positive(text), 8 * (os.cpu_count() or 1)
    if value > most:
        raise argparse.ArgumentTypeError(f"{value} are too many for this machine; at most {most}")
    return value


def add_existing(parser: argparse.ArgumentParser, made: str) -> None:
    """--resume or --force.

    Args:
        made: what a finished training leaves, for the help.
    """
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="continue from the state beside --out"
    )
    existing.add_argument("--force", action="store_true", help=f"replace {made}, or such a state")


def check_crop(crop: int) -> None:
    if crop % 8:
        raise UsageError(f"--crop {crop} is not a multiple of 8")


def first_process() -> bool:
    """Whether this is the one, of those that `torchrun` started, that says what is going on."""
    return os.environ.get("RANK", "0") == "0"


# --- files --------------------------------------------------------------------------------------


def state_beside(out: Path, *, resume: bool, force: bool) -> Path:
    """Where the state of a training is saved, once it is sure that it may be, and `out` written.

    Raises:
        UsageError: `out` has another suffix than .safetensors.
        OutputError: one of the two cannot be written, or exists and was made by another training.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors")
    state = out.with_suffix(".state")
    check_writable(out, state)
    if resume or force:
        return state
    if out.exists():
        raise OutputError(f"output {out} exists; use --force to replace it, or another --out")
    if state.exists():
        raise OutputError(
            f"{state} is the state of an unfinished training; continue with --resume, or use "
            "--force to replace it, or another --out"
        )
    return state


@contextmanager
def resumable(state: Path) -> Iterator[None]:
    """Inside, an interruption names the state that the training can be continued from."""
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args or not state.exists():
            raise
        raise KeyboardInterrupt(f"a state is saved in {state}; continue with --resume") from error


def saved(iteration: int, state: Path) -> KeyboardInterrupt:
    """What ends a training that was asked to stop, once its state is saved."""
    return KeyboardInterrupt(f"iteration {iteration} is saved in {state}; continue with --resume")


# --- the bar ------------------------------------------------------------------------------------


def shown(
    steps: Iterator[P],
    iterations: int,
    postfix: Callable[[P], Mapping[str, Any]],
    *,
    silent: bool = False,
) -> P:
    """Runs the training to its end, under a bar, and returns what it said last.

    Args:
        postfix: figures for the bar's end.
    """
    from tqdm import tqdm

    # The delay: no bar before the first iteration, so that an error is one line.
    # In a log file a line every half minute is enough.
    often_s = 0.1 if sys.stderr.isatty() else 30.0
    with tqdm(total=iterations, unit="it", disable=silent, delay=0.01, mininterval=often_s) as bar:
        for step in steps:
            for line in () if silent else step.said:
                tqdm.write(f"note: left out: {printable(line)}", file=sys.stderr)
            bar.update(step.iteration - bar.n)
            bar.set_postfix(postfix(step), refresh=False)
    return step
