"""A whole run: plan, measure on every device, and keep `results.json` current as cases finish."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from afd_benchmark.benchmark_model.runner import NativeTool
from afd_benchmark.harness.app import HarnessApp
from afd_benchmark.host.runner import HOST, HostRunner
from afd_benchmark.measure import Settings, measure
from afd_benchmark.phone.adb import AdbPhone, LocalFile, Phone
from afd_benchmark.phone.cassette import Player, Recorder
from afd_benchmark.phone.facts import identity
from afd_benchmark.phone.runner import PhoneRunner
from afd_benchmark.phone.session import owner_name
from afd_benchmark.phone.tool import PhoneTool
from afd_benchmark.plan import EXTERNAL, PlannedCase, plan
from afd_benchmark.results import Results
from afd_benchmark.run_request import RecordedRun, RunRequest, recorded, restored, tool_name
from afd_benchmark.unfinished_results import Listener, RunBook
from afd_mobile.common.artifacts import sha256
from afd_mobile.common.errors import DeviceError, MeasurementError, UsageError

Runners = HostRunner | PhoneRunner


@dataclass(frozen=True)
class Outcome:
    """Attributes: `lost` holds the devices that could not be measured to the end, and why."""

    results: Results
    lost: dict[str, str]


def run(request: RunRequest, listener: Listener) -> Outcome:
    """Measures everything that was not measured yet.

    Raises:
        UsageError, InputError, OutputError: before anything is measured.
        DeviceError: there is nothing to measure on.
        KeyboardInterrupt: after the phones were put back; finished cases are kept.
    """
    if request.phones and request.tool is None:
        raise UsageError(
            "the harness app is not built: run `make apk`, or give --tool PATH, the app's .apk or "
            "TFLite's benchmark_model for Android"
        )
    book = RunBook(request, listener)
    stop = threading.Event()
    runners: list[Runners] = []
    if request.host:
        runners.append(HostRunner(request.settings, request.out))
        if request.settings.profile:
            listener.notice(HOST, "LiteRT's Python runtime has no profiler; afd-bench cost instead")
    with _phone_runners(request, listener, stop, book.lost) as phones:
        runners += phones
        if not runners:
            raise DeviceError("; ".join(book.lost.values()))
        cases = plan(request.targets, runners, request.backends, request.threads, request.against)
        devices = [runner.device for runner in runners]
        book.open(devices, cases)
        for runner in runners:
            if isinstance(runner, HostRunner):
                _measure_all(runner, cases, request.settings, book, listener)
        with ThreadPoolExecutor(max(1, len(phones))) as pool:
            tasks = [
                pool.submit(_measure_phone, phone, owner_name(), cases, request, book, listener)
                for phone in phones
            ]
            _wait(tasks, stop)
    return Outcome(book.close(), book.lost)


def replay(cassette: Path, out: Path, listener: Listener) -> Outcome:
    """Runs the whole runner against a cassette, without phone and without models.

    Raises:
        InputError: it is no cassette, or of a run that this version would not do so.
    """
    player = Player(cassette)
    record = player.run(RecordedRun)
    request = restored(record, player, out)
    book = RunBook(request, listener)
    libraries = {path: LocalFile(digest) for path, digest in record.libraries.items()}
    tool = _tool(record.tool, LocalFile(record.tool_sha256), libraries, request)
    phone = PhoneRunner(
        player, tool, request.settings,
        notice=lambda text: listener.notice(player.serial, text),
        progress=lambda text: listener.progress(player.serial, text),
    )  # fmt: skip
    cases = plan(request.targets, [phone], request.backends, request.threads, request.against)
    book.open([phone.device], cases)
    _measure_phone(phone, record.owner, cases, request, book, listener)
    return Outcome(book.close(), book.lost)


@contextmanager
def _phone_runners(
    request: RunRequest, listener: Listener, stop: threading.Event, lost: dict[str, str]
) -> Iterator[list[PhoneRunner]]:
    """Every phone that answers, with its cassette; the others are in `lost`."""
    runners: list[PhoneRunner] = []
    recorders: list[Recorder] = []
    seen: dict[tuple[str, ...], str] = {}
    libraries = {
        path: LocalFile(sha256(Path(path)), Path(path))
        for backend in request.backends
        if backend.startswith(EXTERNAL) and Path(path := backend.removeprefix(EXTERNAL)).is_file()
    }
    if request.tool is not None:
        file = LocalFile(sha256(request.tool), request.tool)
    try:
        for device in request.phones:
            tool = _tool(tool_name(request.tool), file, libraries, request)

            def notice(text: str, name: str = device.name) -> None:
                listener.notice(name, text)

            def progress(text: str, name: str = device.name) -> None:
                listener.progress(name, text)

            try:
                if device.problem is not None:
                    raise DeviceError(device.problem)
                phone: Phone = AdbPhone(device, stop)
                same = seen.setdefault(identity(phone), device.name)
                if same != device.name:
                    listener.notice(device.name, f"is the same phone as {same}; measured there")
                    continue
                recorder = Recorder(phone, _free_folder(request.out, device.name))
                recorders.append(recorder)
                recorder.begin(recorded(request, file, libraries, recorder))
                runners.append(PhoneRunner(recorder, tool, request.settings, notice, progress))
            except (DeviceError, MeasurementError) as error:
                lost[device.name] = str(error)
                listener.notice(device.name, str(error))
        yield runners
    finally:
        for recorder in recorders:
            recorder.close()


def _tool(
    name: str, file: LocalFile, libraries: Mapping[str, LocalFile], request: RunRequest
) -> PhoneTool:
    if name == HarnessApp.name:
        return HarnessApp(file, request.settings, request.out)
    return NativeTool(file, libraries, request.settings, request.out)


def _free_folder(out: Path, name: str) -> Path:
    """`cassettes/NAME`, or with a number where an earlier run of the same folder has one."""
    base = "".join(c if c.isalnum() or c in "-._" else "_" for c in name)
    number = 1
    while (folder := out / "cassettes" / (base if number == 1 else f"{base}-{number}")).exists():
        number += 1
    return folder


def _measure_phone(
    phone: PhoneRunner,
    owner: str,
    cases: Sequence[PlannedCase],
    request: RunRequest,
    book: RunBook,
    listener: Listener,
) -> None:
    """One failing phone does not stop the others."""
    try:
        with phone.session(owner):
            _measure_all(phone, cases, request.settings, book, listener)
    except (DeviceError, MeasurementError) as error:
        book.lost[phone.name] = str(error)
        listener.notice(phone.name, str(error))


def _measure_all(
    runner: Runners,
    cases: Sequence[PlannedCase],
    settings: Settings,
    book: RunBook,
    listener: Listener,
) -> None:
    for case in cases:
        if case.device == runner.name and case.skipped is None and not book.has(case):
            label = f"{case.target.file} {case.backend} x{case.threads}"

            def progress(text: str, label: str = label) -> None:
                listener.progress(runner.name, f"{label}: {text}")

            book.add(measure(runner, case, settings, progress))


def _wait(tasks: list[Future[None]], stop: threading.Event) -> None:
    """Ctrl-C reaches the main thread only: it tells the others, and waits until they tidied up."""
    try:
        wait(tasks)
    except KeyboardInterrupt:
        stop.set()
        wait(tasks)
        raise
    for task in tasks:
        task.result()
