from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from afd_mobile.classifiers.backbones import Backbone, classifier
from afd_mobile.common.errors import InputError
from afd_mobile.experiments.report import page, text_table
from afd_mobile.experiments.results import RESULTS, Row, Run, cost_of, read_rows, write_rows
from afd_mobile.experiments.variant import Setup, Variant
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.fusion import fuse
from afd_mobile.pictures.datasets import nchw
from afd_mobile.pictures.picture_files import list_images
from afd_mobile.training.recipe import CPU
from afd_mobile.training.validation import Logits
from tests.afd_mobile.experiments.conftest import SETTINGS
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_blocks import FACTORY

# --- cost -----------------------------------------------------------------------------------------


def test_cost_by_hand() -> None:
    conv, norm, last = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval(), nn.Linear(4, 5)

    @torch.no_grad()
    def logits(pictures: NDArray[np.uint8]) -> Tensor:
        x = norm(conv(nchw(torch.from_numpy(pictures)))).relu()
        result: Tensor = last((x * x.mean((2, 3), keepdim=True)).mean((2, 3)))
        return result

    # permute, convolution, mean, mul, mean, addmm
    assert cost_of(logits, 8) == (6 * 6 * 4 * 27 + 4 * 5, 6)


def test_the_cost_of_the_single_tap_is_what_its_card_says(mobilenet: Backbone) -> None:
    """59.1 M multiply-adds; the exported file has 19 operations more."""
    config = single_tap_config(
        "mobile",
        channels=mobilenet.channels,
        stride=mobilenet.stride,
        activation=mobilenet.activation,
    )
    module = fuse(AfdModule(config).eval())
    own, plain = (cost_of(classifier(mobilenet, m, CPU), 224) for m in (module, None))
    assert (own[0] - plain[0]) / 1e6 == pytest.approx(59.1, abs=0.05)
    assert own[1] - plain[1] == 18


# --- a run ----------------------------------------------------------------------------------------


def test_what_diverges_has_no_figures(run: Run) -> None:
    def make(setup: Setup) -> Logits:
        own = classifier(setup.backbone, None, CPU)
        return lambda pictures: own(pictures) * torch.nan

    row = run.measured(Variant("x", make), lambda: None)
    assert row["kl_removed"] is row["training_kl_removed"] is row["clean_kl"] is None
    assert row["recovered_share"] is None and row["multiply_adds"] == 0
    assert "diverged" in text_table([row])[1]


def test_a_loss_that_is_not_finite_ends_a_training(setup: Setup) -> None:
    class Broken(nn.Module):
        def forward(self, *_: Tensor) -> Tensor:
            losses.append(1)
            return weight.weight.sum() * torch.inf

    losses: list[int] = []
    weight = nn.Linear(1, 1)
    setup.fit(weight, Broken())
    assert len(losses) == 1 and not weight.training


def test_training_pictures_are_those_that_are_trained_on(run: Run) -> None:
    """The two that a variant of two sees, evenly spread."""
    seen: list[Setup] = []

    def make(setup: Setup) -> Logits:
        seen.append(setup)
        return classifier(setup.backbone, None, CPU)

    run.measured(Variant("x", make, pictures=2), lambda: None)
    assert [path.stem for path in seen[0].pictures] == ["0", "3"]


def test_without_held_out_pictures_there_is_no_run(pictures: Path) -> None:
    with pytest.raises(InputError, match="7 pictures are too few: none of them is held out"):
        Run(FACTORY, list_images(pictures)[:7], SETTINGS)


# --- the file and the page ------------------------------------------------------------------------

SETTINGS_ROW = {
    "backbone": "mobilenet_v2", "tap": "features.6", "steps": 300, "batch": 32, "crop": 160,
    "seed": 0, "pictures": 4000, "held_out": 571,
}  # fmt: skip


def row(table: str, variant: str, **values: Any) -> Row:
    removed = {"25": 0.2, "18": 0.25, "15": 0.3, "10": 0.35, "7": 0.4}
    return {
        "table": table, "variant": variant, "settings": SETTINGS_ROW, "multiply_adds": 35_860_512,
        "operations": 59, "kl_removed": removed, "training_kl_removed": dict.fromkeys(removed, 0.5),
        "clean_kl": 0.0125, "recovered_share": 0.21,
    } | values  # fmt: skip


ROWS = [row("kinds", "auto"), row("depths", "one at a_b"), row("kinds", "x", kl_removed=None)]


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    write_rows(tmp_path, ROWS)
    assert read_rows(tmp_path) == ROWS
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 3


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"table"', "\xff"])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    lines = f"{json.dumps(ROWS[0])}\n{content}"
    (tmp_path / RESULTS).write_bytes(lines.encode("latin1"))
    with pytest.raises(InputError, match=r"results\.jsonl cannot be read: .*; give another --out"):
        read_rows(tmp_path)


def test_the_table_on_the_terminal() -> None:
    header, line, _ = (" ".join(line.split()) for line in text_table([ROWS[0], ROWS[2]]))
    assert header == (
        "variant multiply-adds, M operations QF 25 QF 15 QF 10 QF 7 mean training pictures "
        "recovered clean KL"
    )
    assert line == "auto 35.9 59 20.0 30.0 35.0 40.0 30.0 50.0 21.0 0.0125"


def test_the_page_has_the_tables_in_their_order() -> None:
    text = page(ROWS)
    depths, kinds = text.index("## Where the corrections sit"), text.index("## Which kinds")
    assert depths < kinds and text.count("## ") == 2
    cells = "| 35.9 | 59 | 20.0 | 30.0 | 35.0 | 40.0 | 30.0 | 50.0 | 21.0 | 0.0125 |"
    assert f"| one at a_b {cells}" in text[depths:kinds]
    assert f"| auto {cells}\n| x | 35.9 | 59 | diverged |" in text[kinds:]
    assert "`kinds`: mobilenet_v2 cut at features.6, 300 steps of 32 crops of 160 pixels" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {12}
