"""python -m afd_mobile.experiments, in the tests' own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from afd_mobile.experiments import __main__, results, tables
from afd_mobile.experiments.results import read_rows
from tests.afd_mobile.tiny_blocks import NAME
from tests.commands import Outcome, run_here


def experiments(*arguments: object) -> Outcome:
    return run_here(__main__.main, "experiments", *arguments)


@pytest.fixture
def options(pictures: Path, tmp_path: Path) -> list[object]:
    """Of two steps, into a folder that is not there yet."""
    text = f"--backbone {NAME} --steps 2 --batch 2 --crop 32 --workers 1"
    return [*text.split(), "--images", pictures, "--out", tmp_path / "out" / "short"]


def test_what_is_there_is_not_trained_again(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what another table has; and all of it makes a page."""
    trained: list[str] = []
    measured = results.Run.measured

    def counted(*arguments: object) -> results.Row:
        row = measured(*arguments)  # type: ignore[arg-type]
        trained.append(row["variant"])
        return row

    monkeypatch.setattr(results.Run, "measured", counted)
    monkeypatch.setattr(tables, "PICTURES", (2,))
    first = experiments("pictures", *options)
    assert first.code == 0, first.err
    out = tmp_path / "out" / "short"
    assert trained == ["auto, 2 pictures", "auto"]
    results.write_rows(out, read_rows(out)[:1])  # as if it had been interrupted
    again = experiments("pictures", *options)
    assert trained == ["auto, 2 pictures", "auto", "auto"]
    assert again.out == first.out and len(again.out.splitlines()) == 3

    kept = read_rows(out)[1]
    monkeypatch.setattr(results.Run, "measured", lambda _, v, __: kept | {"variant": v.name})
    assert experiments("kinds", *options).code == 0
    whole_design = [row for row in read_rows(out) if row["variant"] == "auto"]
    assert whole_design == [kept, kept | {"table": "kinds"}]

    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    done = experiments("page", "--out", out)
    assert (done.code, done.out) == (0, "docs/experiments.md\n"), done.err
    assert (tmp_path / "docs" / "experiments.md").read_text().count("## ") == 2


def test_results_of_other_settings_are_refused(options: list[object], tmp_path: Path) -> None:
    out = tmp_path / "out" / "short"
    out.mkdir(parents=True)
    row = {"table": "map", "variant": "auto", "settings": {"steps": 300}, "kl_removed": None}
    results.write_rows(out, [row])
    done = experiments("map", *options)
    assert (done.code, done.out) == (3, "")
    assert done.err.endswith(
        f"error: {out} holds results of other settings or pictures; give another --out\n"
    )
    assert read_rows(out) == [row]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["all"], 2, "invalid choice: 'all'"),
        (["map"], 2, "--images, --out"),
        (["map", "--images", "none", "--out", "."], 3, "no such image folder: none"),
        (["map", "--images", "none", "--out", ".", "--crop", "30"], 2, "is not a multiple of 8"),
        (["map", "--images", "none", "--out", "file/out"], 6, "cannot make folder file/out"),
        (["page", "--out", "."], 6, "there is no folder docs"),
        (["page", "--out", "docs"], 3, "no results in docs"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    if "docs" in arguments:
        (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    done = experiments(*arguments)
    assert done.code == code and said in done.err
    assert len(done.err.splitlines()) == 1
