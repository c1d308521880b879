"""What `afd-bench` takes: its sub-commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from afd_mobile.common.command import Parser, positive

HOST = "host"

Command = Callable[[argparse.Namespace], None]


def parser_of(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser, whose result has the chosen one of these commands as `command`.

    Args:
        commands: by name, as COMMANDS has them.
    """
    parser = Parser(
        "afd-bench",
        "Measure exported TFLite files on this host and on phones, each figure with its evidence.",
    )
    added = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, (what, add_options) in COMMANDS.items():
        own = added.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        add_options(own)
        own.set_defaults(command=commands[name])
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_targets(parser)
    add = parser.add_argument
    add(
        "--device",
        nargs="+",
        default=[HOST],
        metavar="host|SERIAL|all",
        help="this machine, phones by their serials, or all connected phones (default: host)",
    )
    add(
        "--backend",
        nargs="+",
        default=["cpu"],
        type=_backend,
        metavar="cpu|gpu|nnapi|external:LIB",
        help="external:LIB is a TFLite external delegate, such as Qualcomm's QNN (default: cpu)",
    )
    add(
        "--delegate-option",
        nargs="+",
        default=[],
        type=_option,
        metavar="K=V",
        help="for the external delegate",
    )
    add(
        "--full-delegation",
        action="store_true",
        help="INVALID where the asked backend leaves operations to the CPU (default: SUSPECT)",
    )
    add(
        "--input-shape",
        type=_shape,
        metavar="N,H,W,C",
        help="for files whose input may have any size, such as 1,224,224,3",
    )
    _add_how_long(parser)
    add(
        "--against",
        metavar="TARGET",
        help="measure in turn with this, and give the ratio",
    )
    add("--profile", action="store_true", help="the time of every operation, too (phones)")
    add(
        "--tool",
        type=Path,
        metavar="PATH",
        help="what measures on the phones: the harness app (.apk; default: as `make apk` built it) "
        "or TFLite's benchmark_model for Android",
    )
    _add_servers(parser)
    add("--resume", action="store_true", help="go on in --out: finished cases are not repeated")
    add("--out", type=Path, metavar="DIR", help="(default: benchmarks/DATE-TIME)")


def _add_how_long(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--threads", nargs="+", type=positive, default=[1], metavar="N", help="(default: 1)")
    add("--runs", type=positive, default=50, metavar="N", help="at least, a repeat (default: 50)")
    add(
        "--min-secs",
        type=_seconds,
        default=0.5,
        metavar="S",
        help="at least, a repeat (default: 0.5)",
    )
    add(
        "--repeats",
        type=positive,
        default=10,
        metavar="N",
        help="processes or starts; an interval needs 6 (default: 10)",
    )
    add(
        "--time-limit",
        type=_seconds,
        default=240.0,
        metavar="S",
        help="a process or start that takes longer is ended, and its case INVALID (default: 240)",
    )
    add(
        "--cool-down",
        type=_seconds,
        default=300.0,
        metavar="S",
        help="how long to wait at most for a phone to be as cool as at the start (default: 300)",
    )


def _add_cost(parser: argparse.ArgumentParser) -> None:
    _add_targets(parser)
    parser.add_argument("--operations", action="store_true", help="every operation, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_parse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="`-`: standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="a folder that `afd-bench run` wrote, or its results.json",
    )
    parser.add_argument(
        "--accuracy",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="what `afd-eval --json` wrote, to show accuracy against latency",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="by its ending: .html .md .json .csv, or .png: recovered share against latency, the "
        "paper's Fig. 9 (default: %(default)s)",
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "cassette",
        type=Path,
        metavar="CASSETTE",
        help="a folder that `afd-bench run` wrote under cassettes/, one for each phone",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: benchmarks/DATE-TIME)")


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="an export folder, a .tflite file, a folder of several, or peer:NAME or peer:all, "
        "the networks of the paper's Table VII",
    )


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adb-server",
        nargs="+",
        default=[],
        metavar="HOST:PORT",
        help="adb servers of other hosts (default: this machine's own)",
    )


def _backend(text: str) -> str:
    from afd_benchmark.plan import CPU, EXTERNAL, GPU, NNAPI

    if text in (CPU, GPU, NNAPI) or (text.startswith(EXTERNAL) and text != EXTERNAL):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of cpu, gpu, nnapi, external:LIB")


def _option(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form K=V")
    return key, value


def _shape(text: str) -> tuple[int, ...]:
    sides = text.split(",")
    if not all(side.isdecimal() and 0 < int(side) < 2**31 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 1,224,224,3")
    return tuple(map(int, sides))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


COMMANDS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("measure files, and check their outputs first", _add_run),
    "devices": ("what is connected, and what it cannot do", _add_servers),
    "cost": ("parameters, multiply-adds, memory, from the files", _add_cost),
    "parse": ("read logs that benchmark_model wrote elsewhere", _add_parse),
    "report": ("one page from one or several results", _add_report),
    "replay": ("run a recorded session again, without the phone", _add_replay),
}
