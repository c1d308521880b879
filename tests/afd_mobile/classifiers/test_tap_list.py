"""`--taps list`, by hand for the tiny classifier, whose pooled features are none."""

from __future__ import annotations

import pytest

from afd_export import cli as export_cli
from afd_mobile.cli import train
from afd_mobile.network.taps import nearest
from tests.afd_mobile import tiny_classifier
from tests.commands import run_here

# Of 224 x 224: maps 112 x 112 at stride 2, 28 x 28 at stride 8. A scale multiplies every value and
# has 32 weights a channel; a residual has at every position 9 C weights to each of 32 channels,
# and C back from each.
ROWS = {
    "stem": "8 2 0.10 32.11 single",  # 8 (32 + 112^2), 10 * 32 * 8 * 112^2
    "act": "8 2 0.10 32.11 single",
    "conv": "16 8 0.01 4.01 single",  # 16 (32 + 28^2), 10 * 32 * 16 * 28^2
    "act2": "16 8 0.01 4.01 single",
}


@pytest.mark.parametrize("command", ["afd-train", "afd-export"])
def test_every_node_with_channels_stride_and_cost(command: str) -> None:
    main = train.main if command == "afd-train" else export_cli.main
    done = run_here(main, command, "--backbone", tiny_classifier.NAME, "--taps", "list")
    assert (done.code, done.err) == (0, "")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["node", "channels", "stride", "scale", "residual", "path"]
    assert rows[len(ROWS)].startswith("scale, residual: multiply-adds")
    listed = dict(row.split(maxsplit=1) for row in rows[: len(ROWS)])
    assert {node: " ".join(row.split()) for node, row in listed.items()} == ROWS


def test_a_list_needs_a_classifier() -> None:
    done = run_here(export_cli.main, "afd-export", "--taps", "list")
    assert done.code == 2
    assert "--taps list needs --backbone" in done.err


def test_a_training_needs_pictures_and_a_place_for_its_checkpoint() -> None:
    done = run_here(train.main, "afd-train", "--backbone", "mobilenet_v2")
    assert done.code == 2
    assert "required: --images, --out" in done.err
    for asked, missing in (((), "--backbone, --images, --out"), (("--taps", "list"), "--backbone")):
        done = run_here(train.main, "afd-train", *asked)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert f"required: {missing}\n" in done.err


def test_nearest() -> None:
    known = ["layer1", "layer1.0", "layer2", "fc"]
    assert nearest("layer1.9", known) == "; nearest: layer1.0, layer1, layer2"
    assert nearest("layer1", known) == "; nearest: layer1, layer1.0, layer2"
    assert nearest("xyz", known) == ""
