"""The guides of docs/guides/ do what they say: each command is run, in the order of the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from afd_export import cli as export_cli
from afd_mobile.cli import evaluate, train
from afd_mobile.common.resources import models_dir
from tests.commands import Outcome, run_here

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
PROJECT = f"{models_dir().parent}/"
COMMANDS: dict[str, Callable[[], None]] = {
    "afd-export": export_cli.main,
    "afd-eval": evaluate.main,
    "afd-train": train.main,
}
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IN_A_TABLE = re.compile(r"^\|.*\| `(afd-[^`]+)` \|$", re.MULTILINE)
# Differs between machines.
MEASURED = re.compile(r"[-+]?\d+\.\d+(e[-+]\d+)?|\d+(?=%| dB)")


@dataclass(frozen=True)
class Command:
    """A command line, and the lines that the page shows of what it prints."""

    line: str
    shown: list[str]


def steps(page: str) -> Iterator[Command | tuple[str, str]]:
    """What the page has its reader run, or save: (name, content) of a file."""
    places = [*BLOCK.finditer(page), *IN_A_TABLE.finditer(page)]
    for place in sorted(places, key=lambda found: found.start()):
        if place.re is IN_A_TABLE:
            yield Command(place[1], [])
        elif place[1] == "python":
            name = place[2].splitlines()[0].removeprefix("# ")
            yield name, place[2]
        else:
            for command in place[2].removeprefix("$ ").split("\n$ "):
                line, *shown = command.splitlines()
                yield Command(line, [text for text in shown if text != "..."])


def run(line: str) -> Outcome:
    """The project's commands in this process, anything else as a program."""
    name, *arguments = shlex.split(line)
    if name in COMMANDS:
        return run_here(COMMANDS[name], name, *arguments)
    program = line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    done = subprocess.run(program, shell=True, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def comparable(line: str) -> str:
    """Without figures that differ, and without the widths of columns that follow from these."""
    text = MEASURED.sub("N", line.replace(PROJECT, ""))
    # How many pictures a stage changes, at the end of its line.
    return " ".join(re.sub(r"(?<=N dB)\s+\d+\s+\d+$", " N N", text).split())


@pytest.mark.long
@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda guide: guide.stem)
def test_each_command_of_a_guide_prints_what_it_shows(
    guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFD_WEIGHTS_DIR", raising=False)
    for step in steps(guide.read_text(encoding="utf-8")):
        if isinstance(step, tuple):
            name, content = step
            Path(name).write_text(content, encoding="utf-8")
            continue
        done = run(step.line)
        printed = f"{done.out}\n{done.err}"
        refused = any(": error: " in line for line in step.shown)
        assert (done.code != 0) == refused, f"{step.line}\n{printed}"
        lines = {comparable(line) for line in printed.splitlines()}
        missing = [line for line in step.shown if comparable(line) not in lines]
        assert not missing, f"{step.line}\n{printed}"
