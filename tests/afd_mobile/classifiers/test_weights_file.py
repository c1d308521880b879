"""What is read of a file of weights, and what is never run of it."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from afd_mobile.classifiers.weights_file import read_weights_file
from afd_mobile.common.errors import InputError


def refusal(path: Path) -> str:
    """The message that this file is refused with."""
    with pytest.raises(InputError) as caught:
        read_weights_file(path)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and str(path) in message
    return message


# --- what is read -------------------------------------------------------------------------------


def test_every_dictionary_with_tensors_is_found(tmp_path: Path) -> None:
    weights, averaged, state = ({name: torch.randn(2)} for name in ("w", "a", "s"))
    content = {
        "epoch": 3,
        "model": {**weights, "ema": averaged},
        "optimizer": {"state": {0: state}, "names": ["w"]},
    }
    content["itself"] = content
    torch.save(content, tmp_path / "nested.pth")
    found = read_weights_file(tmp_path / "nested.pth").states
    assert list(found) == ["model", "model.ema"]
    assert torch.equal(found["model"]["w"], weights["w"])
    assert torch.equal(found["model.ema"]["a"], averaged["a"])


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights.pth"])
def test_the_content_tells_safetensors_not_the_suffix(tmp_path: Path, name: str) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / name, {"format": "pt"})
    file = read_weights_file(tmp_path / name)
    assert list(file.states[""]) == ["w"] and file.metadata == {"format": "pt"}


def test_the_content_tells_a_pth_not_the_suffix(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert list(read_weights_file(tmp_path / "weights.safetensors").states[""]) == ["w"]


def test_files_of_old_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert list(read_weights_file(path).states[""]) == ["w"]


def test_options_beside_the_weights_do_not_keep_them_from_being_read(tmp_path: Path) -> None:
    """timm and torchvision save argparse's, many scripts numpy's numbers."""
    options = argparse.Namespace(lr=0.1, data=Path("pictures"), cutoff=np.float64(0.5))
    content = {"args": options, "best": np.float32(91.2), "model": {"w": torch.ones(2)}}
    torch.save(content, tmp_path / "options.pth")
    states = read_weights_file(tmp_path / "options.pth").states
    assert list(states) == ["model"] and torch.equal(states["model"]["w"], torch.ones(2))


# --- what is never run --------------------------------------------------------------------------


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


class EvilState(Evil):
    """Unpickling its state makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return EvilState, (self.folder,), {"folder": str(self.folder)}

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["folder"]).mkdir()


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path, writer: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pth"
    if writer == "torch":
        torch.save({"weight": Evil(victim)}, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps({"weight": Evil(victim)}, protocol=2))
        pickle.loads(path.read_bytes())
    assert victim.is_dir()  # the file does what it says, where it is trusted
    victim.rmdir()
    assert "not unpickled" in refusal(path)
    assert not victim.exists()


def test_a_class_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pth"
    torch.save({"w": torch.ones(2), "options": EvilState(victim)}, path)
    torch.load(path, weights_only=False)
    assert victim.is_dir()
    victim.rmdir()
    assert list(read_weights_file(path).states[""]) == ["w"]
    assert not victim.exists()


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "a whole list"),
        ({}, "nothing"),
        ({"epoch": 3}, "entries epoch"),
        ({"state_dict": {}, **dict.fromkeys("abcdefg")}, "entries state_dict, a, b, c, d and 3"),
        (torch.zeros(2), "a whole Tensor"),
        ({1: torch.zeros(2)}, "entries 1"),
        (nn.Sequential(), "a whole torch.nn.modules.container.Sequential"),
        (
            {"model": nn.Sequential(), "epoch": 3},
            "entries model (a whole torch.nn.modules.container.Sequential), epoch",
        ),
    ],
)
def test_a_pth_without_a_state_dict_says_what_it_holds(
    tmp_path: Path, content: object, found: str
) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    said = refusal(path)
    assert f"holds no state dict but {found}" in said
    assert "torch.save(model.state_dict(), " in said and "--backbone package.module:fac" in said


def test_an_old_file_of_a_whole_network_names_its_class(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(nn.Sequential(), path, _use_new_zipfile_serialization=False)
    assert (
        "holds more than weights and was not unpickled (Unsupported global: GLOBAL "
        "torch.nn.modules.container.Sequential); give weights alone"
    ) in refusal(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TorchScript", "a TorchScript archive"),
        ("export", "an exported program (torch.export)"),
        ("ONNX", "an ONNX model, which goes to --backbone"),
        ("TFLite", "a TFLite model"),
        ("arrays", "a zip archive, but not torch.save's"),
    ],
)
def test_what_holds_a_whole_network_is_known_by_its_content(
    tmp_path: Path, kind: str, name: str
) -> None:
    path = tmp_path / "mine.pth"
    if kind == "TorchScript":
        torch.jit.save(torch.jit.script(nn.Identity()), path)
    elif kind == "export":  # what torch.export.save writes, but for most of it; it takes seconds
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mine/data/weights/weight_0", bytes(8))
            archive.writestr("mine/models/model.json", "{}")
            archive.writestr("mine/archive_format", "pt2")
    elif kind == "ONNX":
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
        onnx.save(onnx.helper.make_model(graph), path)
    elif kind == "TFLite":
        path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(40))
    else:
        with path.open("wb") as file:
            np.savez(file, w=np.ones(2))
    said = refusal(path)
    assert said.startswith(
        f"{path} is {name}; give weights alone, as torch.save(model.state_dict()"
    )
    assert "--backbone package.module:factory" in said


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 5, 100, -50])
def test_a_truncated_file_is_an_input_error(tmp_path: Path, suffix: str, keep: int) -> None:
    whole, truncated = tmp_path / f"whole{suffix}", tmp_path / f"truncated{suffix}"
    state = {f"layer.{i}": torch.randn(9) for i in range(9)}
    if suffix == ".pth":
        torch.save(state, whole)
    else:
        save_file(state, whole)
    truncated.write_bytes(whole.read_bytes()[:keep])
    assert refusal(truncated).endswith("; is it truncated?")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("start", [b"", b"PK", b"\x80", b"\x08\x07\x12"])
def test_random_bytes_are_an_input_error(tmp_path: Path, start: bytes) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.pth"
    for size in (1, 2, 7, 40, 1000) * 20:
        path.write_bytes(start + rng.bytes(size))
        refusal(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        assert "no such file" in refusal(path)
