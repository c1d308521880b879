"""What every command line does with an error."""

from __future__ import annotations

import argparse
import importlib

import pytest

from afd_mobile.command import Parser, run_command


@pytest.mark.parametrize(("prog", "extra"), [("afd-bench", "bench"), ("afd-export", "export")])
def test_a_missing_dependency_is_one_line_with_the_remedy(
    prog: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> None:
        importlib.import_module("not_installed_here")

    monkeypatch.setattr("sys.argv", [prog])
    with pytest.raises(SystemExit) as ended:
        run_command(command, Parser(prog, "what it does"))
    assert ended.value.code == 3
    assert capsys.readouterr().err == (
        f"{prog}: error: not_installed_here is not installed; pip install 'afd-mobile[{extra}]'\n"
    )
