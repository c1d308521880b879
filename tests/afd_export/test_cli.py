from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from afd_export import cli
from afd_mobile.checkpoints.checkpoint import FORMAT, Checkpoint, save_checkpoint
from afd_mobile.network.afd_module import AfdModule
from tests.afd_export.conftest import PAPER, PLACES, RANDOM, TINY, command_line, environment
from tests.afd_mobile.single_tap import single_tap_config
from tests.commands import Outcome, exit_code_of

ERROR = "afd-export: error: "


class OneLine(Outcome):
    @property
    def error(self) -> str:
        """The one line that says what is wrong; nothing but notes may stand beside it."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith(ERROR), self.err
        return lines[0].removeprefix(ERROR)


Afd = Callable[..., OneLine]


@pytest.fixture
def afd(in_tiny_dir: Path, capfd: pytest.CaptureFixture[str]) -> Afd:
    """The command line in this process."""

    def run(*arguments: object) -> OneLine:
        code = exit_code_of(cli.main, "afd-export", *arguments)
        captured = capfd.readouterr()
        return OneLine(code, captured.out, captured.err)

    return run


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """An empty folder that must be empty after every failure."""
    folder = tmp_path / "parent"
    folder.mkdir()
    return folder


def make_module() -> AfdModule:
    return AfdModule(single_tap_config("mobile", channels=16, stride=2, activation="relu"))


def write_checkpoint(
    path: Path, *, backbone: str | None = "tinynet:make", tap: str = "act1"
) -> Path:
    save_checkpoint(path, Checkpoint(make_module(), backbone, tap, {}))
    return path


# --- imports and usage ---------------------------------------------------------------------------


def test_the_command_line_imports_nothing_heavy() -> None:
    program = (
        "import afd_export.cli, sys; "
        "print(*{'torch', 'tensorflow', 'onnx', 'numpy', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_help_lists_the_exit_codes(afd: Afd) -> None:
    outcome = afd("--help")
    assert outcome.code == 0
    for line in ("exit codes:", "4 parity", "130 interrupted", "float32 float16 dynamic int8"):
        assert line in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--precision", "int4"),
        ("--precision",),
        ("--scope", "logits"),
        ("--input", "bgr"),
        ("--preset", "huge"),
        ("--input-size", "0"),
        ("--input-size", "sixty"),
        ("--mean", "0.5"),
        ("--no-such-option",),
    ],
    ids=" ".join,
)
def test_a_wrong_option_ends_with_2(afd: Afd, arguments: tuple[str, ...]) -> None:
    outcome = afd(*arguments)
    assert outcome.code == 2
    assert ERROR in outcome.err
    assert arguments[0] in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "random"), "give --backbone NAME"),
        (("--checkpoint", "none"), "give --backbone NAME"),
        ((*RANDOM, "--input-size", "60"), "use --input-size 56 or 64"),
        (
            ("--checkpoint", "random", *TINY, "--taps", "act1"),
            "NODE goes with --preset paper",
        ),
        (("--preset", "paper", *RANDOM), "--preset paper takes one plain NODE"),
        (("--checkpoint", "none", *TINY, "--taps", "act1"), "add --scope features"),
        (
            ("--checkpoint", "none", *TINY, "--scope", "features", "--taps", *PLACES),
            "takes one plain",
        ),
        ((*RANDOM, "--scope", "features"), "take a module with a single tap (--preset paper)"),
    ],
)
def test_options_that_do_not_go_together_end_with_2(
    afd: Afd, parent: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = afd(*arguments, "--out", parent / "out")
    assert outcome.code == 2
    assert message in outcome.error
    assert not list(parent.iterdir())


# --- checkpoints ---------------------------------------------------------------------------------


class Malicious:
    """Unpickling it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def broken_checkpoint(how: str, folder: Path) -> Path:
    path = folder / (how + (".safetensors" if "safetensors" in how else ".pth"))
    whole = folder / "whole.safetensors"
    write_checkpoint(whole)
    module = make_module()
    config = json.dumps(dataclasses.asdict(module.config))
    torch.save(module.state_dict(), folder / "whole.pth")
    content = (folder / ("whole" + path.suffix)).read_bytes()
    match how:
        case "truncated-safetensors" | "truncated-pth":
            path.write_bytes(content[: len(content) // 2])
        case "empty-safetensors" | "empty-pth":
            path.write_bytes(b"")
        case "garbage-safetensors" | "garbage-pth":
            path.write_bytes(b"no weights at all, but some text\n" * 9)
        case "malicious-pickle":
            path.write_bytes(pickle.dumps(Malicious(folder / "executed")))
        case "malicious-zip":
            torch.save({"state_dict": Malicious(folder / "executed")}, path)
        case "other-network":
            torch.save({"layer.weight": torch.zeros(3)}, path)
        case "numbered-keys":
            torch.save({0: torch.zeros(3)}, path)
        case "broken-metadata-safetensors":
            metadata = {"format": FORMAT, "config": config, "backbone": "no JSON"}
            path.write_bytes(save(module.state_dict(), metadata))
        case "no-state-dict":
            torch.save([1, 2, 3], path)
        case _:
            raise AssertionError(how)
    return path


@pytest.mark.parametrize(
    "how",
    [
        "truncated-safetensors",
        "empty-safetensors",
        "garbage-safetensors",
        "truncated-pth",
        "empty-pth",
        "garbage-pth",
        "malicious-pickle",
        "malicious-zip",
        "other-network",
        "numbered-keys",
        "broken-metadata-safetensors",
        "no-state-dict",
    ],
)
def test_a_broken_checkpoint_ends_with_3(afd: Afd, tmp_path: Path, parent: Path, how: str) -> None:
    path = broken_checkpoint(how, tmp_path)
    outcome = afd("--checkpoint", path, *TINY, "--out", parent / "out")
    assert outcome.code == 3
    assert str(path) in outcome.error
    assert not (tmp_path / "executed").exists()
    assert not list(parent.iterdir())


def test_the_malicious_pickle_would_have_worked(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_classifiers_weights_are_no_checkpoint(afd: Afd, tmp_path: Path, parent: Path) -> None:
    path = tmp_path / "my10.pth"
    torch.save(torch.nn.Linear(2, 10).state_dict(), path)
    done = afd("--checkpoint", path, "--out", parent / "out")
    assert done.code == 3
    assert "2 other entries, such as weight; a classifier's weights go to --back" in done.error


def test_a_missing_checkpoint_ends_with_3(afd: Afd, parent: Path) -> None:
    outcome = afd("--checkpoint", "no-such-thing", "--out", parent / "out")
    assert outcome.code == 3
    assert "no checkpoint 'no-such-thing'" in outcome.error
    assert not list(parent.iterdir())


def test_a_checkpoint_for_another_backbone_ends_with_3(
    afd: Afd, tmp_path: Path, parent: Path
) -> None:
    path = write_checkpoint(tmp_path / "mine.safetensors", backbone="resnet50")
    outcome = afd("--checkpoint", path, *TINY, "--out", parent / "out")
    assert outcome.code == 3
    assert f"{path} is for backbone resnet50, not tinynet:make" in outcome.error
    assert not list(parent.iterdir())


def test_a_checkpoint_knows_its_tap(afd: Afd, tmp_path: Path, parent: Path) -> None:
    path = write_checkpoint(tmp_path / "mine.safetensors", tap="act2")
    outcome = afd("--checkpoint", path, *TINY, "--taps", "act1", "--out", parent / "out")
    assert outcome.code == 2
    assert outcome.error == f"--taps: checkpoint {path} says where it corrects; leave it out"


def test_a_checkpoint_for_other_channels_ends_with_3(
    afd: Afd, tmp_path: Path, parent: Path
) -> None:
    path = write_checkpoint(tmp_path / "mine.safetensors", tap="act3")
    outcome = afd("--checkpoint", path, *TINY, "--out", parent / "out")
    assert outcome.code == 3
    assert "channels 16, but tap act3 of tinynet:make has 32" in outcome.error
    assert not list(parent.iterdir())


# --- labels and the int8 report ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("cat\ndog\n", "2"), ("cat\n" * 10, "cat"), (None, "No such file")],
)
def test_labels_that_do_not_fit_end_with_3(
    afd: Afd, tmp_path: Path, parent: Path, content: str | None, complaint: str
) -> None:
    labels = tmp_path / "labels.txt"
    if content is not None:
        labels.write_text(content, encoding="utf-8")
    outcome = afd(*RANDOM, "--labels", labels, "--out", parent / "out")
    assert outcome.code == 3
    assert str(labels) in outcome.error
    assert complaint in outcome.error
    assert not list(parent.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--explain-int8", "--precision", "float32"),
        ("--labels", "any.txt", "--scope", "features"),
    ],
)
def test_what_the_export_has_no_use_for_ends_with_2(
    afd: Afd, parent: Path, arguments: tuple[str, ...]
) -> None:
    outcome = afd(*PAPER, *arguments, "--out", parent / "out")
    assert outcome.code == 2
    assert arguments[0] in outcome.error
    assert not list(parent.iterdir())


# --- backbones -----------------------------------------------------------------------------------


def test_a_wrong_tap_ends_with_3_and_the_nearest_names(afd: Afd, parent: Path) -> None:
    arguments = [*PAPER]
    arguments[arguments.index("act1")] = "act9"
    outcome = afd(*arguments, "--out", parent / "out")
    assert outcome.code == 3
    assert "no node 'act9'" in outcome.error
    nearest = outcome.error.partition("nearest: ")[2].partition("; ")[0]
    assert set(nearest.split(", ")) == {"act1", "act2", "act3"}
    assert not list(parent.iterdir())


def test_a_tap_behind_the_feature_maps_ends_with_3(afd: Afd, parent: Path) -> None:
    arguments = [*PAPER]
    arguments[arguments.index("act1")] = "flatten"
    outcome = afd(*arguments, "--out", parent / "out")
    assert outcome.code == 3
    assert "choose an earlier tap" in outcome.error


@pytest.mark.parametrize("name", ["no_such_module:make", "tinynet:no_such_factory", "tinynet:nn"])
def test_a_broken_factory_ends_with_3(afd: Afd, parent: Path, name: str) -> None:
    outcome = afd("--checkpoint", "random", "--backbone", name, "--out", parent / "out")
    assert outcome.code == 3
    assert f"backbone factory {name} failed" in outcome.error
    assert not list(parent.iterdir())


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such image folder"),
        ({}, "no pictures"),
        ({"readme.txt": b"text"}, "no pictures"),
        ({"a.png": b"", "b.jpg": b"text"}, "none of the pictures"),
    ],
    ids=["missing", "empty", "no-pictures", "unreadable"],
)
def test_pictures_that_cannot_be_used_end_with_3(
    afd: Afd, tmp_path: Path, parent: Path, content: dict[str, bytes] | None, message: str
) -> None:
    images = tmp_path / "images"
    if content is not None:
        images.mkdir()
        for name, data in content.items():
            (images / name).write_bytes(data)
    outcome = afd(*RANDOM, "--images", images, "--out", parent / "out")
    assert outcome.code == 3
    assert message in outcome.error
    assert str(images) in outcome.error
    assert not list(parent.iterdir())


# --- output --------------------------------------------------------------------------------------


def test_an_existing_output_ends_with_6_and_stays(afd: Afd, parent: Path) -> None:
    (parent / "out").mkdir()
    (parent / "out" / "manifest.json").write_text("mine", encoding="utf-8")
    outcome = afd(*RANDOM, "--out", parent / "out")
    assert outcome.code == 6
    assert "use --force" in outcome.error
    assert tree(parent) == {"out/manifest.json": b"mine"}


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["without --force", "--force"])
@pytest.mark.parametrize("out", ["out", "out/thesis.tex"])
def test_what_is_no_export_is_never_replaced(
    afd: Afd, parent: Path, out: str, force: tuple[str, ...]
) -> None:
    (parent / "out").mkdir()
    (parent / "out" / "thesis.tex").write_text("mine", encoding="utf-8")
    outcome = afd(*RANDOM, *force, "--out", parent / out)
    assert outcome.code == 6
    assert outcome.error == f"output {parent / out} is no export folder; choose another --out"
    assert tree(parent) == {"out/thesis.tex": b"mine"}


def test_force_keeps_the_old_export_if_the_new_one_fails(
    afd: Afd, tmp_path: Path, parent: Path
) -> None:
    (parent / "out").mkdir()
    (parent / "out" / "manifest.json").write_text("old", encoding="utf-8")
    outcome = afd(*RANDOM, "--force", "--images", tmp_path / "none", "--out", parent / "out")
    assert outcome.code == 3
    assert tree(parent) == {"out/manifest.json": b"old"}


@pytest.mark.parametrize("below", ["out", "deep/out"])
def test_a_file_in_the_way_ends_with_6(afd: Afd, parent: Path, below: str) -> None:
    (parent / "file").write_text("mine", encoding="utf-8")
    outcome = afd(*RANDOM, "--out", parent / "file" / below)
    assert outcome.code == 6
    assert f"cannot write {parent / 'file' / below}" in outcome.error
    assert tree(parent) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize(
    "megabytes",
    [
        pytest.param(0.1, id="at-onnx"),
        pytest.param(6, id="in-the-converter", marks=pytest.mark.long),
    ],
)
def test_a_full_disk_ends_with_6(afd: Afd, tmp_path: Path, megabytes: float) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1e6)}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        outcome = afd("--fuse", *RANDOM, "--precision", "float32", "--out", disk / "out")
        assert outcome.code == 6
        assert re.search("disk is full|No space left", outcome.error)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- interruption --------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGTERM, "multi-branch"), (signal.SIGINT, "simpl")],
    ids=["sigterm", "ctrl-c-in-the-converter"],
)
def test_an_interruption_leaves_nothing(
    tiny_dir: Path, few_pictures: Path, parent: Path, number: signal.Signals, after: str
) -> None:
    arguments = ("--fuse", *RANDOM, "--images", few_pictures, "--out", parent / "out")
    with subprocess.Popen(
        command_line(*arguments),
        cwd=tiny_dir,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith(after):
                break
        assert list(parent.iterdir())  # it was in the middle of writing
        process.send_signal(number)
        process.wait()
        errors = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert [e for e in errors if not e.startswith("note: ")] == [
        "afd-export: interrupted; nothing is half-written"
    ]
    assert not list(parent.iterdir())


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` and its content."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
