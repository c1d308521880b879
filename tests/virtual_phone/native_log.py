"""What TFLite's benchmark_model prints, in the form of a build of today or of 2021.

As in `tensorflow/lite/tools/benchmark` and `stats_calculator.h`. The tool's own INFO and WARN go to
stdout; ERROR, FATAL and everything that the runtime and its delegates say go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

import numpy as np

_GARBAGE = b"\x00\xff\x1b#\xfe\x80@@"


class BenchmarkError(Exception):
    """What ends the tool with ERROR lines, its arguments, and exit code 1."""


class Log:
    """Line by line, at once.

    Args:
        old: no prefix before the tool's INFO and WARN, no percentiles.
        faults: names of `faults.FAULTS`; those of the log are injected here.
    """

    def __init__(self, *, old: bool, faults: Collection[str]) -> None:
        self.old = old
        self._faults = faults

    def tool(self, text: str, severity: str = "INFO") -> None:
        """The tool's own."""
        line = (text if self.old else f"{severity}: {text}").encode() + b"\n"
        if "garbled-log" in self._faults and ("count=" in text or "timings" in text):
            middle = len(line) // 2
            line = line[: middle - 4] + _GARBAGE + line[middle + 4 :]
        self._write(sys.stdout.fileno(), line)
        if "truncated-log" in self._faults and text.startswith("Initialized session"):
            os._exit(0)

    def runtime(self, text: str, severity: str = "INFO") -> None:
        """TFLite's or a delegate's; also the tool's ERROR and FATAL."""
        self._write(sys.stderr.fileno(), f"{severity}: {text}\n".encode())

    def fatal(self, text: str) -> NoReturn:
        """Aborts the tool."""
        self.runtime(text, "FATAL")
        os.abort()

    def replacing(self, delegate: str, delegated: int, total: int, subsets: int) -> None:
        """How many nodes a delegate took; the runtime is silent where there are none."""
        if not delegated:
            return
        if self.old:
            text = f"{delegated} node(s) with delegate ({delegate}) node, yielding {subsets}"
            self.runtime(f"Replacing {text} partitions.")
        else:
            text = f"{delegated} out of {total} node(s) with delegate ({delegate}) node, yielding"
            self.runtime(f"Replacing {text} {subsets} partitions for subgraph 0 (main).", "VERBOSE")

    def statistics(self, durations_us: Sequence[int]) -> None:
        """The count= line, and the empty one after it."""
        self.tool(statistics(durations_us, percentiles=not self.old) + "\n")

    def _write(self, descriptor: int, line: bytes) -> None:
        while line:
            line = line[os.write(descriptor, line) :]


def statistics(values: Sequence[int], *, percentiles: bool) -> str:
    """As `Stat::OutputToStream`: six significant digits for the average, integers elsewhere."""
    if not values:
        return "count=0"
    ordered = np.sort(np.array(values, np.int64))
    low, middle, high = (int(ordered[int(q * (len(ordered) - 1))]) for q in (0.05, 0.5, 0.95))
    tail = f" p5={low} median={middle} p95={high}" if percentiles else ""
    if len(values) == 1:
        return f"count=1 curr={values[-1]}{tail}"
    if ordered[0] == ordered[-1]:
        return f"count={len(values)} curr={values[-1]}(all same){tail}"
    return (
        f"count={len(values)} first={values[0]} curr={values[-1]} min={ordered[0]} "
        f"max={ordered[-1]} avg={average(values)} std={int(ordered.std())}{tail}"
    )


def average(values: Sequence[int]) -> str:
    """As C++ prints a double."""
    return f"{np.mean(values):g}" if values else "0"
