"""afd-bench: the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from afd_benchmark.arguments import HOST, parser_of
from afd_mobile import __version__
from afd_mobile.common.command import run_command
from afd_mobile.common.errors import DeviceError, InputError, MeasurementError, UsageError
from afd_mobile.common.terminal import printable

if TYPE_CHECKING:
    from afd_benchmark.phone.adb import Connected
    from afd_benchmark.plan import PlannedCase
    from afd_benchmark.results import Case, Device
    from afd_benchmark.run import Outcome
    from afd_benchmark.targets import Target

ALL = "all"
PEER = "peer:"


def main() -> None:
    """Entry point of the console script."""
    commands = {
        "run": _run,
        "devices": _devices,
        "cost": _cost,
        "parse": _parse,
        "report": _report,
        "replay": _replay,
    }
    run_command(lambda arguments: arguments.command(arguments), parser_of(commands))


# --- run ------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> None:
    from afd_benchmark.measure import Settings
    from afd_benchmark.plan import EXTERNAL
    from afd_benchmark.run import run
    from afd_benchmark.run_request import RunRequest

    options = dict(arguments.delegate_option)
    if options and not any(b.startswith(EXTERNAL) for b in arguments.backend):
        raise UsageError("--delegate-option goes with --backend external:LIB")
    if arguments.resume and arguments.out is None:
        raise UsageError("--resume needs --out, the folder of the run to go on with")
    if arguments.tool is not None and not arguments.tool.is_file():
        raise InputError(f"--tool {arguments.tool} is no file")
    host, phones = _chosen(arguments.device, arguments.adb_server)
    targets, peers, broken = _targets(arguments.targets, arguments.input_shape)
    against, _, unusable = (
        _targets([arguments.against], arguments.input_shape) if arguments.against else ((), {}, [])
    )
    broken += unusable
    request = RunRequest(
        targets=targets,
        against=against,
        backends=tuple(dict.fromkeys(arguments.backend)),
        threads=tuple(dict.fromkeys(arguments.threads)),
        settings=Settings(
            repeats=arguments.repeats,
            runs=arguments.runs,
            min_secs=arguments.min_secs,
            full_delegation=arguments.full_delegation,
            profile=arguments.profile,
            delegate_options=options,
            time_limit_secs=arguments.time_limit,
            cool_down_secs=arguments.cool_down,
        ),
        host=host,
        phones=phones,
        tool=arguments.tool or (_built_apk() if phones else None),
        out=arguments.out or _dated_folder(),
        resume=arguments.resume,
    )
    outcome = run(request, _Printer())
    if peers:
        _write_table7(peers, outcome, request.out)
    _conclude(outcome, request.out)
    _refuse(broken)


def _replay(arguments: argparse.Namespace) -> None:
    from afd_benchmark.run import replay

    out = arguments.out or _dated_folder()
    _conclude(replay(arguments.cassette, out, _Printer()), out)


def _conclude(outcome: Outcome, out: Path) -> None:
    """Writes the report, and ends with an error where a figure is missing."""
    from afd_benchmark.report.page import render_html
    from afd_benchmark.results import RESULTS, Verdict
    from afd_mobile.common.files import write_whole

    write_whole(out / "report.html", render_html([outcome.results]))
    for name in (RESULTS, "report.html"):
        print(f"  {printable(str(out / name))}")
    cases = outcome.results.cases
    if cases and all(case.verdict is Verdict.SKIPPED for case in cases):
        reasons = {f"{c.device}, {c.backend}: {c.reasons[0]}": None for c in cases}
        raise UsageError(f"nothing was measured, both hold reasons only: {'; '.join(reasons)}")
    if outcome.lost:
        raise DeviceError("; ".join(outcome.lost.values()))
    invalid = [c.file for c in outcome.results.cases if c.verdict is Verdict.INVALID]
    if invalid:
        raise MeasurementError(f"{len(invalid)} INVALID: {', '.join(dict.fromkeys(invalid))}")


def _chosen(wanted: Sequence[str], servers: Sequence[str]) -> tuple[bool, tuple[Connected, ...]]:
    """Whether the host is wanted, and the phones."""
    serials = [name for name in dict.fromkeys(wanted) if name != HOST]
    if not serials:
        return True, ()
    from afd_benchmark.phone.adb import connected, local_server, parse_server

    found = connected([parse_server(text) for text in servers] or [local_server()])
    if ALL in serials:
        if not found:
            raise DeviceError("no phone is connected; plug one in and allow USB debugging")
        return HOST in wanted, tuple(found)
    chosen = []
    for serial in serials:
        matching = [c for c in found if serial in (c.serial, c.name)]
        if len(matching) != 1:
            known = ", ".join(c.name for c in found) or "no phone at all"
            raise DeviceError(f"--device {serial}: not connected; adb lists {known}")
        chosen += matching
    return HOST in wanted, tuple(chosen)


def _write_table7(peers: Mapping[str, Target], outcome: Outcome, out: Path) -> None:
    """Table VII and its figures, of the first device and backend."""
    from afd_benchmark.file_cost import cost_of_file
    from afd_benchmark.paper import table7
    from afd_benchmark.paper.networks import CLASSIFIER
    from afd_mobile.common.files import write_whole

    by_hash = {case.sha256: case for case in reversed(outcome.results.cases)}
    cases = {name: by_hash[t.sha256] for name, t in peers.items() if t.sha256 in by_hash}
    costs = {name: cost_of_file(target.local_path) for name, target in peers.items()}
    rows = table7.rows(costs, cases)
    table = table7.table7(rows)
    print(table)
    write_whole(out / "table7.md", table.encode())
    if any(row.median_ms is not None and row.name != CLASSIFIER for row in rows):
        write_whole(out / "figure9.png", table7.figure9(rows))
        write_whole(out / "figure10.png", table7.figure10(rows))


def _targets(
    texts: Sequence[str], input_shape: tuple[int, ...] | None = None
) -> tuple[tuple[Target, ...], dict[str, Target], list[str]]:
    """Every file once, in the order given; the peers among them by name; what cannot be used.

    Raises:
        InputError: none can.
    """
    from afd_benchmark.paper.networks import PEERS, peer_folder
    from afd_benchmark.targets import read_target, target_files

    found: dict[str, Target] = {}
    peers = {}
    broken: list[str] = []
    every = [f"{PEER}{name}" for name in PEERS]
    for text in (t for given in texts for t in (every if given == f"{PEER}{ALL}" else [given])):
        name = text.removeprefix(PEER) if text.startswith(PEER) else None
        for path in target_files(peer_folder(name) if name is not None else Path(text)):
            try:
                target = read_target(path, input_shape)
            except InputError as error:
                broken.append(str(error))
                continue
            same = found.setdefault(target.sha256, target)
            if same.local_path.resolve() != target.local_path.resolve():
                said = f"note: {path} is the same file as {same.local_path}; measured once"
                print(printable(said), file=sys.stderr)
            if name is not None:
                peers[name] = target
    if not found:
        raise InputError(broken[0])
    for text in broken:
        print(f"note: left out: {printable(text)}", file=sys.stderr)
    return tuple(found.values()), peers, broken


def _refuse(broken: Sequence[str]) -> None:
    """At the end, so that the others are measured."""
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"left out: {broken[0]}{more}")


def _built_apk() -> Path | None:
    """The harness app of this checkout; None where it is not built."""
    folder = Path(__file__).resolve().parents[2] / "android_app" / "target"
    path = folder / f"afd-harness-{__version__}.apk"
    return path if path.is_file() else None


def _dated_folder() -> Path:
    return Path("benchmarks") / datetime.now().strftime("%Y-%m-%d-%H%M%S")


class _Printer:
    """Tells a person how a run goes on: a line a case, and on a terminal what goes on now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._terminal = sys.stderr.isatty()

    def planned(self, devices: Sequence[Device], cases: Sequence[PlannedCase]) -> None:
        from afd_benchmark.report.terminal_lines import describe

        for device in devices:
            print(f"{printable(device.name)}: {describe(device)}")
        files = [printable(case.target.file) for case in cases]
        width = max(map(len, files), default=0)
        for file, case in zip(files, cases, strict=True):
            against = f"in turn with {case.against.file}" if case.against else ""
            what = f"skipped: {case.skipped}" if case.skipped else against
            where = f"{case.device} {case.backend} x{case.threads}"
            print(f"  {file:<{width}}  {printable(f'{where}  {what}'.rstrip())}")
        sys.stdout.flush()

    def progress(self, device: str, text: str) -> None:
        if self._terminal:
            with self._lock:
                print(
                    f"\r\x1b[K{printable(f'{device}: {text}')}", end="", file=sys.stderr, flush=True
                )

    def notice(self, device: str, text: str) -> None:
        named = text.startswith((f"{device} ", f"{device}: "))
        self._lines(sys.stderr, f"note: {text}" if named else f"note: {device}: {text}")

    def kept(self, case: Case) -> None:
        """Measured by the run that this one resumes."""
        from afd_benchmark.report.terminal_lines import case_line, reason_lines

        self._lines(sys.stdout, f"{case_line(case)}  kept", *reason_lines(case))

    def finished(self, case: Case) -> None:
        from afd_benchmark.report.terminal_lines import case_line, reason_lines

        self._lines(sys.stdout, case_line(case), *reason_lines(case))

    def _lines(self, stream: TextIO, *texts: str) -> None:
        with self._lock:
            if self._terminal:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            for text in texts:
                print(printable(text), file=stream, flush=True)


# --- the others -----------------------------------------------------------------------------------


def _devices(arguments: argparse.Namespace) -> None:
    from afd_benchmark.phone.adb import AdbPhone, connected, local_server, parse_server
    from afd_benchmark.phone.facts import read_condition, read_device
    from afd_benchmark.report.terminal_lines import describe, describe_condition

    servers = [parse_server(text) for text in arguments.adb_server] or [local_server()]
    found = connected(servers)
    if not found:
        print("no phone is connected; plug one in and allow USB debugging")
    for device in found:
        if device.problem is not None:
            print(printable(device.problem))
            continue
        phone = AdbPhone(device, threading.Event())
        print(f"{printable(device.name)}: {describe(read_device(phone))}")
        condition = read_condition(phone)
        print(f"  now: {describe_condition(condition)}")


def _cost(arguments: argparse.Namespace) -> None:
    from afd_benchmark.file_cost import cost_of_file
    from afd_benchmark.paper import table7
    from afd_benchmark.report.cost_table import cost_json, cost_table

    targets, peers, broken = _targets(arguments.targets)
    repeated = len({t.file for t in targets}) < len(targets)
    names = {t.sha256: str(t.local_path) if repeated else t.file for t in targets}
    costs = {names[t.sha256]: cost_of_file(t.local_path) for t in targets}
    if arguments.json:
        print(cost_json(costs))
    else:
        print(cost_table(costs, operations=arguments.operations))
        if peers:
            of_peers = {name: costs[names[target.sha256]] for name, target in peers.items()}
            print(f"\n{table7.table7(table7.rows(of_peers, {}))}")
    _refuse(broken)


def _parse(arguments: argparse.Namespace) -> None:
    from afd_benchmark.benchmark_model.lines import LogError
    from afd_benchmark.benchmark_model.log import parse_logs

    runs = []
    failed = []
    for path in arguments.logs:
        in_log = parse_logs(_read_log(path))
        if not in_log:
            failed.append(f"{path} is no log of benchmark_model")
        for found in in_log:
            if isinstance(found, LogError):
                failed.append(f"{path}: {found}")
            else:
                runs.append({"log": str(path), **dataclasses.asdict(found)})
    if arguments.json:
        print(json.dumps(runs, indent=2))
    else:
        for number, run in enumerate(runs):
            if number:
                print()
            known = {k: v for k, v in run.items() if v is not None and v != ()}
            for key, value in known.items():
                print(f"{key:<18}{printable(str(value))}")
    if failed:
        raise InputError("; ".join(failed))


def _read_log(path: Path) -> str:
    from afd_benchmark.benchmark_model.lines import decode_log

    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return decode_log(content)


def _report(arguments: argparse.Namespace) -> None:
    from afd_benchmark.report.accuracy import read_accuracy
    from afd_benchmark.report.as_csv import render_csv
    from afd_benchmark.report.as_markdown import render_markdown
    from afd_benchmark.report.page import render_html
    from afd_benchmark.report.recovered_chart import recovered_chart
    from afd_benchmark.results import read_results
    from afd_mobile.common.files import check_writable, write_whole

    check_writable(arguments.out)
    results = [read_results(path) for path in arguments.results]
    accuracy = [read_accuracy(path) for path in arguments.accuracy]
    renderings = {
        ".html": lambda: render_html(results, accuracy),
        ".md": lambda: render_markdown(results, accuracy).encode(),
        ".csv": lambda: render_csv(results).encode(),
        ".json": lambda: msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n",
        ".png": lambda: recovered_chart(results, accuracy),
    }
    out = arguments.out
    if out.suffix not in renderings:
        raise UsageError(f"--out {out}: its ending is none of {' '.join(renderings)}")
    write_whole(out, renderings[out.suffix]())
    print(f"  {printable(str(out))}")


if __name__ == "__main__":
    main()
