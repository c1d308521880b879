"""The table of networks that export: its attempts, their file, and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from afd_export import network_table
from afd_export.network_table import NETWORKS, Attempt, page, read_attempts, write_attempts
from afd_mobile.common.errors import InputError
from tests.commands import Outcome, run_here

FILE: dict[str, Any] = {
    "input_size": 224,
    "multiply_adds": 300_000_000,
    "operations": 70,
    "snr_db": 120.4,
    "places": 0,
    "placement": {"xnnpack": [70, 1], "gpu": [70, 1]},
}
PLAIN = Attempt("timm/a", False, 0, "", 60.0, 2000, FILE)
INSIDE = replace(
    PLAIN,
    corrected=True,
    peak_mib=2500,
    file=FILE
    | {"operations": 100, "places": 9, "placement": {"xnnpack": [98, 3], "gpu": [100, 1]}},
)
REFUSED = Attempt(
    "torchvision/b", False, 5, "b holds LOG, which | no delegate takes", 9.0, 900, None
)


def command(folder: Path, images: Path, *networks: str) -> Outcome:
    files = ("--out", folder / "networks.json", "--page", folder / "networks.md")
    return run_here(
        network_table.main, network_table.PROGRAM, "--images", images, *files, *networks
    )


def row(text: str, network: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {network} "))
    return [cell.strip() for cell in line.strip("|").replace("\\|", "").split("|")]


def test_the_project_names_sixty_of_many_families() -> None:
    assert len(NETWORKS) == len(set(NETWORKS)) >= 60


def test_the_page_says_how_each_ended() -> None:
    text = page([PLAIN, INSIDE, REFUSED, replace(REFUSED, corrected=True)])
    assert "2 classifiers of torchvision and timm" in text and ": 1 export with the" in text
    assert row(text, "timm/a") == [
        "timm/a", "224", "300 M", "120 dB", "120 dB", "9", "100 (+30)", "98 of 100 in 3", "all",
    ]  # fmt: skip
    assert row(text, "torchvision/b")[3:5] == ["refused (1)", "refused (1)"]
    assert "\n1. b holds LOG, which \\| no delegate takes\n" in text
    assert (
        "The largest exports, by resident memory of one process: a corrected 2,500 MiB, 60 s; "
        in text
    )


def test_a_network_that_only_exports_plain_is_told_apart() -> None:
    refused = replace(REFUSED, network="timm/a", corrected=True)
    cells = row(page([PLAIN, refused]), "timm/a")
    assert cells == ["timm/a", "224", "300 M", "120 dB", "refused (1)", "", "", "", ""]


def test_attempts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "networks.json"
    assert read_attempts(path) == []
    write_attempts(path, [PLAIN, REFUSED])
    assert read_attempts(path) == [PLAIN, REFUSED]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"versions": {}}, "was made with other versions of the tools; delete it"),
        ({"attempts": [{}]}, "holds no attempts: "),
        ({"attempts": 3}, "holds no attempts: "),
    ],
)
def test_attempts_of_others_are_refused(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "networks.json"
    write_attempts(path, [PLAIN])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=f"^{path} {reason}"):
        read_attempts(path)


def test_a_refusal_is_kept_with_its_reason_and_not_tried_again(
    tmp_path: Path, few_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(tmp_path, few_pictures, "timm/none_such")
    assert done.code == 0 and done.out == f"{tmp_path / 'networks.md'}\n"
    attempts = read_attempts(tmp_path / "networks.json")
    assert [(a.corrected, a.exit_code, a.file) for a in attempts] == [
        (False, 3, None), (True, 3, None),
    ]  # fmt: skip
    assert all(a.reason.startswith("unknown backbone 'timm/none_such'; nearest") for a in attempts)
    assert all(a.peak_mib > 100 and a.seconds > 0 for a in attempts)

    monkeypatch.setattr(network_table, "attempt", None)
    assert command(tmp_path, few_pictures, "timm/none_such").code == 0


@pytest.mark.long
def test_a_network_exports_plain_and_corrected(tmp_path: Path, few_pictures: Path) -> None:
    assert command(tmp_path, few_pictures, "timm/lcnet_050").code == 0
    cells = row((tmp_path / "networks.md").read_text(), "timm/lcnet_050")
    assert cells[1] == "224" and all(cell.endswith(" dB") for cell in cells[3:5])
    assert int(cells[5]) > 0 and "(+" in cells[6]
    assert all(cell == "all" or " of " in cell for cell in cells[7:]), cells
