"""The lines of a `benchmark_model` log as they come: from the tool itself, or through logcat."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from afd_mobile.common.errors import InputError

_SHOWN = 160  # characters of a line in a message


@dataclass(frozen=True)
class Line:
    """One message.

    Attributes:
        source: "stdout" or "stderr"; empty where the two are mixed.
        number: from 1; 0 for a log without any line.
        raw: as it was given.
        text: without time, process, tag, level and colours.
        level: V, D, I, W, E or F; None where the line does not say.
        process: the process id in logcat; empty elsewhere.
        logcat: it came through logcat, which gives every line of a message its level.
        ended: a line break follows, so that nothing of it is cut off.
    """

    source: str
    number: int
    raw: str
    text: str
    level: str | None
    process: str
    logcat: bool
    ended: bool


class LogError(InputError):
    """A log or profile that holds no figures to be trusted.

    Attributes:
        line, number: the offending line as it was given, and its number from 1.
    """

    def __init__(self, problem: str, line: Line) -> None:
        place = f"{line.source} line {line.number}" if line.source else f"line {line.number}"
        shown = line.raw if len(line.raw) <= _SHOWN else f"{line.raw[:_SHOWN]}..."
        super().__init__(f"{place}: {problem}: {shown!r}")
        self.line = line.raw
        self.number = line.number


_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_DATE, _TIME = r"(?:\d{4}-)?\d\d-\d\d", r"\d\d:\d\d:\d\d\.\d{3,9}(?: [+-]\d{4})?"
_WHEN = rf"(?:{_DATE} {_TIME}|\s*\d+\.\d{{3,9}})"  # `-v epoch` and `-v monotonic` count seconds
_LEVEL, _TAG = "(?P<level>[VDIWEFA])", r"(?P<tag>[^:(]{0,64}?)\s{0,64}"
_TEXT = "(?P<text>.*)"
_LOGCAT = [
    re.compile(form)
    for form in (
        # threadtime, perhaps with the user
        rf"{_WHEN}\s+(?:\w+\s+)?(?P<pid>\d+)\s+\d+ {_LEVEL} {_TAG}: ?{_TEXT}",
        # brief and time, perhaps with the user
        rf"(?:{_WHEN} )?{_LEVEL}/{_TAG}\((?:\s*\w+:)?\s*(?P<pid>\d+)\): ?{_TEXT}",
        # process and thread
        rf"(?:{_WHEN} )?{_LEVEL}\(\s*(?P<pid>\d+)(?::\s*\d+)?\) {_TEXT}  \((?P<tag>[^()]*)\)",
        rf"(?:{_WHEN} )?{_LEVEL}\(\s*(?P<pid>\d+):\s*\d+\) {_TEXT}(?P<tag>)",
        # Android Studio's old columns
        rf"{_DATE} {_TIME} (?P<pid>\d+)-\d+/\S+ {_LEVEL}/{_TAG}: ?{_TEXT}",
        # Android Studio's new ones
        rf"{_DATE} {_TIME}\s+(?P<pid>\d+)-\d+\s+(?P<tag>\S+)\s+\S+\s+{_LEVEL}\s\s?{_TEXT}",
        # the same without ids, without the package, and its compact view
        rf"{_DATE} {_TIME}\s+(?P<tag>\S+)\s+(?:\S+\s+)?{_LEVEL}\s\s?{_TEXT}(?P<pid>)",
        rf"{_TIME}\s+{_LEVEL}\s\s?{_TEXT}(?P<tag>)(?P<pid>)",
        # tag
        rf"(?:{_WHEN} )?{_LEVEL}/{_TAG}: ?{_TEXT}(?P<pid>)",
    )
]
_LONG = re.compile(rf"\[ {_DATE} {_TIME}\s+(?P<pid>\d+):\s*\d+ {_LEVEL}/(?P<tag>.*?)\s*\]")
# What CI systems set before a line; GitLab adds the stream's number and letter.
_CI_STAMP = re.compile(
    r"\[?(?:\d{4}[-/]\d\d[-/]\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?:? +"
    r"(?:\d\d[EO][ +]|(?:stdout|stderr) [FP] )?"
    # `gh run view`, syslog, docker compose
    r"|[^\t]{1,200}\t[^\t]{1,200}\t"
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ [^\s\[:]+(?:\[\d+\])?: "
    r"|[\w.-]{1,64} +\| "
)
_MOST_STAMPS = 3
# Of the process and thread formats, which end with the tag or have none, and of the compact view.
_TAGS = {"", "tflite", "litert", "tflite_benchmarkmodelactivity"}
_PREFIX = re.compile(
    r"(?P<level>VERBOSE|DEBUG|INFO|WARNING|WARN|ERROR|FATAL): ?"
    r"|\[?(?P<loud>ERROR|FATAL)\]? (?=\S)"
    # absl's and glog's: level and day, time, thread, place
    r"|(?P<letter>[IWEF])\d{4}(?:\d{4})? [\d:.]+ +(?:\d+ )?\S+:\d+\] ?"
)
_LOCATION = re.compile(r"\[[\w./-]+:\d+\] ?")  # as LiteRT prints


def read_lines(text: str, source: str = "") -> list[Line]:
    """What the tool said, logcat's other tags left out except a process's crash."""
    lines = []
    process, level, ours, logcat = "", None, True, False
    broken = text.removeprefix("\ufeff").replace("\r", "").split("\n")
    for number, raw in enumerate(broken, start=1):
        ended = number < len(broken)
        plain = _COLOUR.sub("", raw).rstrip()
        if not plain or plain.startswith("--------- "):
            continue
        header, match = _in_logcat(plain)
        for _ in range(_MOST_STAMPS):
            if match is not None or not (stamp := _CI_STAMP.match(plain)):
                break
            plain = plain[stamp.end() :]
            header, match = _in_logcat(plain)
        if match:
            logcat = True
            process, level, tag = match["pid"], match["level"], match["tag"]
            ours = tag.lower() in _TAGS or level == "F" or (tag, level) == ("AndroidRuntime", "E")
            level = "F" if tag == "AndroidRuntime" else level
        if ours and not header:
            message = match["text"] if match else plain
            said, message = _without_prefix(message.strip())
            lines.append(Line(source, number, raw, message, said or level, process, logcat, ended))
    return lines


def decode_log(content: bytes) -> str:
    """A log as programs and shells store it; PowerShell's `>` writes UTF-16."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    elif content[1::2].count(0) > len(content) / 4:
        text = content.decode("utf-16-le", errors="replace")
    elif content[::2].count(0) > len(content) / 4:
        text = content.decode("utf-16-be", errors="replace")
    else:
        text = content.decode("utf-8-sig", errors="replace")
    return text.replace("\0", "")


def _in_logcat(line: str) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    """Its header where message and header have lines of their own; what else matches."""
    header = _LONG.fullmatch(line)
    return header, header or next(filter(None, (form.fullmatch(line) for form in _LOGCAT)), None)


def _without_prefix(message: str) -> tuple[str | None, str]:
    level = None
    prefix = _PREFIX.match(message)
    if prefix:
        level = (prefix["level"] or prefix["loud"] or prefix["letter"])[0]
        message = message[prefix.end() :]
    return level, _LOCATION.sub("", message, count=1) if message.startswith("[") else message


# In the order of a run. A step of the head that comes once more begins the next run.
_STEPS = [
    re.compile(start)
    for start in (
        r"STARTING!|Running TensorFlow Lite benchmark with args",
        r"Unconsumed cmdline flags",
        r"Log parameter values verbosely",
        r"(?:Min num|Num) runs: ",
        r"Graph: \[",
        r"Loaded model |Loading model from: ",
        r"Initialized session in",
        r"count=",
        r"Inference timings in us|Average inference timings in us|Inference \(avg\):",
    )
]
_HEAD = 5  # how many of them come before anything is loaded


def split_runs(lines: Iterable[Line]) -> list[list[Line]]:
    """Every run's lines, in the order of their beginnings; what is no run is left out."""
    processes: dict[str, list[Line]] = {}
    for line in lines:
        processes.setdefault(line.process, []).append(line)
    runs = [run for mixed in processes.values() for run in _runs_of_one_process(mixed)]
    return sorted(runs, key=lambda run: run[0].number)


def _runs_of_one_process(lines: Sequence[Line]) -> Iterator[list[Line]]:
    run: list[Line] = []
    first = reached = -1
    for line in lines:
        step = next((n for n, s in enumerate(_STEPS) if s.match(line.text)), -1)
        # Logs whose heads were left out go on with the next run's first line that is there; where
        # there are heads, such a line is of another run that got mixed in.
        headless = _HEAD <= first == step and reached == len(_STEPS) - 1
        if 0 <= step <= reached and (step < _HEAD or headless):
            yield run
            run, first, reached = [], -1, -1
        run.append(line)
        first = step if first < 0 else first
        reached = max(reached, step)
    if reached >= 0:
        yield run
