"""Measures on a phone, with whichever tool: every start between two looks at the phone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from afd_benchmark.latency_stats import outliers
from afd_benchmark.measure import Settings
from afd_benchmark.phone.adb import Phone
from afd_benchmark.phone.facts import api_level, read_device
from afd_benchmark.phone.session import PhoneSession, open_session
from afd_benchmark.phone.tool import PhoneTool
from afd_benchmark.plan import GPU, NNAPI, PlannedCase
from afd_benchmark.results import ProfiledOperation, Repeat
from afd_benchmark.targets import Pixels, Target
from afd_mobile.common.errors import AfdError


class PhoneRunner:
    """One phone. Cases run inside `session`."""

    def __init__(
        self,
        phone: Phone,
        tool: PhoneTool,
        settings: Settings,
        notice: Callable[[str], None],
        progress: Callable[[str], None],
    ) -> None:
        """Reads what the phone is; takes and changes nothing yet."""
        self._phone = phone
        self._tool = tool
        self._settings = settings
        self._notice = notice
        self._progress = progress
        self._session: PhoneSession | None = None
        self.device = read_device(phone)

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def tool(self) -> str:
        return self._tool.name

    def refuses(self, backend: str, threads: int) -> str | None:
        if threads > len(self.device.cores):
            return f"{threads} threads on {len(self.device.cores)} cores"
        if backend == GPU and self.device.gpu is None:
            return "the phone names no GPU"
        if backend == NNAPI and 0 < api_level(self.device) < 27:
            return f"NNAPI came with API 27; this is {self.device.system}"
        return self._tool.refuses(backend)

    @contextmanager
    def session(self, owner: str) -> Iterator[None]:
        """Takes the phone, and leaves it as it was.

        Raises:
            DeviceError: another run has it, or it does not take the tool.
        """
        with open_session(self._phone, self.device, owner, self._notice) as session:
            self._session = session
            try:
                self._tool.begin(session)
                yield
            finally:
                with suppress(AfdError):  # the phone may be gone
                    self._tool.end()
        self._session = None

    def outputs(self, case: PlannedCase, target: Target, log: str) -> list[Pixels]:
        return self._tool.outputs(case, target, log)

    def repeat(self, case: PlannedCase, target: Target, log: str) -> Repeat:
        assert self._session is not None, "cases run inside session()"
        before = self._session.cool_down(self._settings.cool_down_secs, self._progress)
        timing = self._tool.time(case, target, log)
        return Repeat(
            init_ms=timing.init_ms,
            first_ms=timing.first_ms,
            warmup_ms=timing.warmup_ms,
            samples_ms=timing.samples_ms,
            median_ms=timing.median_ms,
            statistic=timing.statistic,
            runs=timing.runs,
            outliers=outliers(timing.samples_ms),
            delegation=timing.delegation,
            runtime=timing.runtime,
            peak_memory_bytes=timing.peak_memory_bytes,
            before=before,
            after=self._session.after_repeat(),
            log=log,
            log_sha256=hashlib.sha256(timing.raw).hexdigest(),
        )

    def profile(self, case: PlannedCase, target: Target, log: str) -> list[ProfiledOperation]:
        return self._tool.profile(case, target, log)
