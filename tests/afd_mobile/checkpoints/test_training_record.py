"""afd-train --show: what checkpoints record of their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.checkpoints.fit import record_of
from afd_mobile.checkpoints.learning_curve import text_table
from afd_mobile.classifiers.backbones import load_backbone
from tests.afd_mobile.checkpoints.test_held_out import HARMFUL
from tests.afd_mobile.checkpoints.test_learning_curve import CURVE
from tests.afd_mobile.conftest import AfdTrain
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.tiny_classifier import FACTORY, NAME, TAP, make_module

SHIPPED = "afd-squeezenet1_1-mobile"  # of format 1, from before there was a KL or a verdict


def write(path: Path, record: dict[str, Any]) -> Path:
    save_checkpoint(path, Checkpoint(make_module(), NAME, TAP, record))
    return path


def test_record_curve_and_verdict_of_a_checkpoint(tmp_path: Path, afd_train: AfdTrain) -> None:
    """Of format 2; its factory is not run."""
    backbone = load_backbone(FACTORY, tap=TAP)
    module = inside_module(backbone, "scale:conv", "residual:act2")
    record = {
        "pictures": 800, "objective": "distill\x1b[31m", "init": None, "crop": 160,
        "held_out": HARMFUL.as_dict(), "curve": CURVE,
    }  # fmt: skip
    mine = tmp_path / "mine.safetensors"
    trained = Checkpoint(module, "elsewhere:make", TAP, record, record_of(backbone, module))
    save_checkpoint(mine, trained)
    done = afd_train("--show", mine)
    assert (done.code, done.err) == (0, "")
    name, *lines = done.out.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert name == str(mine) and facts["classifier"] == "elsewhere:make"
    assert facts["places"] == "scale:conv residual:act2" and facts["architecture"] == "inside"
    assert (facts["pictures"], facts["crop"], facts["init"]) == ("800", "160", "none")
    assert facts["objective"] == "distill\\x1b[31m"
    assert lines[len(lines) - 4 :] == [*text_table(CURVE), HARMFUL.text()]


def test_several_are_shown_and_drawn_in_one_picture(tmp_path: Path, afd_train: AfdTrain) -> None:
    """Also one that has no curve, and says so."""
    mine, other = (
        write(tmp_path / f"{n}.safetensors", r) for n, r in (("a", {"curve": CURVE}), ("b", {}))
    )
    plot = tmp_path / "curve.png"
    done = afd_train("--show", mine, SHIPPED, other, "--plot", plot)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    first, second, third = (lines.index(str(name)) for name in (mine, SHIPPED, other))
    assert first == 0 and lines[second - 3 : second] == text_table(CURVE)
    assert lines[third - 1].split()[0] == "128,000"
    assert lines[-2:] == ["no learning curve", f"  {plot}"]
    with Image.open(plot) as image:
        image.load()


def test_where_nothing_can_be_drawn_that_is_said(tmp_path: Path, afd_train: AfdTrain) -> None:
    mine, plot = write(tmp_path / "mine.safetensors", {"held_out": None}), tmp_path / "curve.png"
    done = afd_train("--show", mine, "--plot", plot)
    assert done.code == 0 and not plot.exists()
    assert done.err == f"note: no {plot}: there is no learning curve to draw\n"
    assert done.out.endswith("so nothing says how good it is; afd-eval does\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none-such"], 3, "no checkpoint 'none-such': neither a file nor shipped; "),
        ([SHIPPED, "--backbone", "mobilenet_v2"], 2, "--show trains nothing: leave out --backbone"),
        ([SHIPPED, "--images", "x", "--out", "y"], 2, "leave out --images, --out"),
        ([SHIPPED, "--plot", "x.pdf"], 2, "--plot x.pdf must end in .png"),
        ([SHIPPED, "--plot", "/none/x.png"], 6, "there is no folder"),
        ([], 2, "expected at least one argument"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    arguments: list[str], code: int, said: str, afd_train: AfdTrain
) -> None:
    done = afd_train("--show", *arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1)
    assert said in done.err


def test_a_broken_curve_is_one_line(tmp_path: Path, afd_train: AfdTrain) -> None:
    mine = write(tmp_path / "mine.safetensors", {"curve": [1]})
    done = afd_train("--show", SHIPPED, mine)
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        f"afd-train: error: checkpoint {mine} holds a broken learning curve; train again\n"
    )
