"""`results.json` of a run that is going on: what is finished, in the plan's order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from afd_benchmark.measure import skipped
from afd_benchmark.plan import PlannedCase
from afd_benchmark.results import (
    RESULTS,
    RESULTS_SCHEMA_VERSION,
    Case,
    Device,
    Results,
    read_results,
    write_results,
)
from afd_benchmark.run_request import RunRequest, tool_name
from afd_benchmark.targets import SEED
from afd_mobile.common.artifacts import sha256, versions_of
from afd_mobile.common.errors import InputError, OutputError


class Listener(Protocol):
    """Who is told how a run goes on; called from several threads."""

    def planned(self, devices: Sequence[Device], cases: Sequence[PlannedCase]) -> None: ...
    def progress(self, device: str, text: str) -> None: ...
    def notice(self, device: str, text: str) -> None: ...
    def kept(self, case: Case) -> None: ...
    def finished(self, case: Case) -> None: ...


class RunBook:
    """`results.json`, written anew after every case."""

    def __init__(self, request: RunRequest, listener: Listener) -> None:
        self._path = request.out / RESULTS
        self._listener = listener
        self._lock = threading.Lock()
        self._done: dict[tuple[object, ...], Case] = {}
        self.lost: dict[str, str] = {}
        settings = _settings(request)
        if request.resume:
            before = read_results(self._path)
            if before.settings != settings:
                changed = sorted(k for k in settings if before.settings.get(k) != settings[k]) or [
                    "their names"
                ]
                raise InputError(
                    f"{self._path} was measured with other settings ({', '.join(changed)}); "
                    "resume with the same, or give another --out"
                )
            self._done = {case.key: case for case in before.cases if case.tool is not None}
        elif self._path.exists():
            raise OutputError(f"{self._path} exists; give --resume, or another --out")
        try:
            request.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {request.out}: {error.strerror}") from error
        self._results = Results(
            schema_version=RESULTS_SCHEMA_VERSION,
            started_at=_now(),
            finished_at=None,
            settings=settings,
            seed=SEED,
            versions=versions_of("afd-mobile", "ai-edge-litert", "numpy", "adbutils")
            | ({tool_name(request.tool): f"sha256 {sha256(request.tool)}"} if request.tool else {}),
            devices=[],
            cases=[],
        )

    def open(self, devices: list[Device], cases: list[PlannedCase]) -> None:
        self._order = [case.key for case in cases]
        self._listener.planned(devices, cases)
        self._results = msgspec.structs.replace(self._results, devices=devices)
        before = set(self._done)
        for case in cases:
            if case.skipped is not None and not self.has(case):
                self._done[case.key] = skipped(case)
        self._write()
        for done in self._results.cases:
            if done.key in before:
                self._listener.kept(done)

    def has(self, case: PlannedCase) -> bool:
        return case.key in self._done

    def add(self, cases: list[Case]) -> None:
        with self._lock:
            for case in cases:
                self._done[case.key] = case
            self._write()
        for case in cases:
            self._listener.finished(case)

    def close(self) -> Results:
        self._results = msgspec.structs.replace(self._results, finished_at=_now())
        self._write()
        return self._results

    def _write(self) -> None:
        """In the plan's order, each followed by what was measured in turn with it.

        An earlier run of this folder may have had more targets: those come last.
        """
        place = {key: number for number, key in enumerate(self._order)}

        def rank(case: Case) -> tuple[int, bool]:
            in_turn = case.in_turn_with is not None
            main = (case.in_turn_with, *case.key[1:4], None) if in_turn else case.key
            return place.get(main, len(place)), in_turn

        cases = sorted(self._done.values(), key=rank)
        self._results = msgspec.structs.replace(self._results, cases=cases)
        write_results(self._path, self._results)


def _settings(request: RunRequest) -> dict[str, str]:
    settings = {
        name: str(value) for name, value in msgspec.structs.asdict(request.settings).items()
    }
    against = ", ".join(f"{t.file} ({t.sha256[:12]})" for t in request.against)
    shapes = {",".join(map(str, t.input_shape)) for t in request.targets if t.input_shape}
    return settings | {"against": against, "input_shape": " ".join(sorted(shapes))}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
