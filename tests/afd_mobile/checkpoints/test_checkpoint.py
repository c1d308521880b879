from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from afd_mobile.checkpoints.checkpoint import (
    FORMAT,
    INSIDE_FORMAT,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from afd_mobile.common.errors import InputError
from afd_mobile.common.resources import models_dir
from afd_mobile.network.afd_module import MAX_CHANNELS, AfdConfig, AfdModule
from afd_mobile.network.corrections import InsideConfig, InsideModule, Place
from tests.afd_mobile.single_tap import single_tap_config

CONFIG = single_tap_config("mobile", channels=8, stride=2, activation="relu6")


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(AfdModule(CONFIG), "mobilenet_v2", "features.0", {"iterations": 3})


@pytest.fixture
def path(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(tmp_path / "afd.safetensors", checkpoint)
    return tmp_path / "afd.safetensors"


def with_metadata(path: Path, **changes: str) -> None:
    """Rewrites the checkpoint's metadata."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = dict(file.metadata())
    save_file(load_file(path), path, {**metadata, **changes})


def with_state(path: Path, state: dict[str, Tensor]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = dict(file.metadata())
    save_file(state, path, metadata)


def refusal(path: Path) -> str:
    """The message that this file is refused with."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def test_what_is_saved_comes_back(path: Path, checkpoint: Checkpoint) -> None:
    loaded = load_checkpoint(path)
    assert loaded.module.config == CONFIG
    assert (loaded.backbone, loaded.tap) == ("mobilenet_v2", "features.0")
    assert dict(loaded.training) == {"iterations": 3}
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    saved = checkpoint.module.state_dict()
    assert loaded.module.state_dict().keys() == saved.keys()
    for key, value in loaded.module.state_dict().items():
        assert torch.equal(value, saved[key]), key


def test_channels_last_weights_are_saved_too(tmp_path: Path, checkpoint: Checkpoint) -> None:
    checkpoint.module.to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "last.safetensors", checkpoint)
    loaded = load_checkpoint(tmp_path / "last.safetensors").module.state_dict()
    for key, value in checkpoint.module.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_the_configuration_lies_in_the_metadata(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert AfdConfig.from_dict(json.loads(metadata["config"])) == CONFIG


INSIDE = InsideConfig(
    (Place("scale", "a", 5, 16, 0), Place("residual", "b", 6, 32, 4)),
    fde_widths=(8, 4),
    summary=3,
)


def test_several_places_come_back_from_a_format_of_their_own(tmp_path: Path) -> None:
    path, module = tmp_path / "inside.safetensors", InsideModule(INSIDE)
    save_checkpoint(path, Checkpoint(module, "mobilenet_v2", "features.6", {}))
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == INSIDE_FORMAT == "afd-mobile/2"
    loaded = load_checkpoint(path)
    assert (loaded.module.config, loaded.tap) == (INSIDE, "features.6")
    saved, found = module.state_dict(), loaded.module.state_dict()
    assert found.keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in found.items())


@pytest.mark.parametrize(
    "places", [[], "abc", [1], [{}], [{**dataclasses.asdict(INSIDE.places[0]), "kind": "pooled"}]]
)
def test_broken_places_are_refused(tmp_path: Path, places: object) -> None:
    path = tmp_path / "inside.safetensors"
    save_checkpoint(path, Checkpoint(InsideModule(INSIDE), None, None, {}))
    with_metadata(path, config=json.dumps({**dataclasses.asdict(INSIDE), "places": places}))
    assert "broken configuration" in refusal(path)


def test_a_configuration_under_the_other_formats_name_is_refused(path: Path) -> None:
    with_metadata(path, format=INSIDE_FORMAT)
    assert "AFD configuration with keys" in refusal(path)


def test_everything_that_does_not_fit_is_listed_in_one_error(path: Path) -> None:
    state = load_file(path)
    missing, reshaped = sorted(state)[:2]
    del state[missing]
    state[reshaped] = torch.zeros(2, 3)
    state["stranger"] = torch.zeros(1)
    with_state(path, state)
    message = refusal(path)
    assert f"1 missing: {missing}" in message
    assert "1 unexpected: stranger" in message
    assert f"1 of another shape: {reshaped} has shape (2, 3), expected" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(path: Path, value: float) -> None:
    state = load_file(path)
    key = sorted(state)[0]
    state[key].view(-1)[0] = value
    with_state(path, state)
    assert key in refusal(path)


def test_safetensors_without_metadata_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert refusal(path) == (
        f"{path} is no AFD checkpoint: looked for metadata of afd-mobile/1 or afd-mobile/2 or the "
        "authors' key layout, found 1 other entries, such as x; a classifier's weights go to "
        "--backbone-weights, and afd-train makes checkpoints"
    )


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "null",
        "[]",
        "{}",
        json.dumps({**dataclasses.asdict(CONFIG), "stride": 16}),
        json.dumps({**dataclasses.asdict(CONFIG), "channels": "8"}),
        json.dumps({**dataclasses.asdict(CONFIG), "fe_widths": 3}),
        json.dumps({**dataclasses.asdict(CONFIG), "architecture": "paper", "fe_widths": [40]}),
        json.dumps({**dataclasses.asdict(CONFIG), "channels": 8.5}),
        json.dumps({**dataclasses.asdict(CONFIG), "channels": 10**30}),
        json.dumps({**dataclasses.asdict(CONFIG), "stride": True}),
        "[" * 300_000,
    ],
)
def test_a_broken_configuration_is_an_input_error(path: Path, config: str) -> None:
    with_metadata(path, config=config)
    assert "broken configuration in the metadata" in refusal(path)


def test_nothing_is_allocated_that_the_file_does_not_hold(path: Path) -> None:
    """The paper's network would need 144 GiB for the last convolution at this many channels."""
    config = single_tap_config("paper", channels=MAX_CHANNELS, stride=2, activation="relu6")
    with_metadata(path, config=json.dumps(dataclasses.asdict(config)))
    assert "do not fit" in refusal(path)


def test_broken_records_are_an_input_error(path: Path) -> None:
    with_metadata(path, training="{not json")
    with pytest.raises(InputError):
        load_checkpoint(path)
    with_metadata(path, training='{"held_out": {"verdict": "excellent"}}')
    assert refusal(path).startswith(f"{path}: broken training in the metadata: held_out is not")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.safetensors")


def test_a_path_is_found_and_an_unknown_name_lists_those_shipped(path: Path) -> None:
    assert find_checkpoint(str(path)) == path
    with pytest.raises(InputError, match="'nowhere'") as caught:
        find_checkpoint("nowhere")
    shipped = sorted(p.stem for p in models_dir().glob("*.safetensors"))
    assert (", ".join(shipped) or "none") in str(caught.value)
    for name in shipped:
        assert find_checkpoint(name) == models_dir() / f"{name}.safetensors"


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Five keys of metadata in an order of chance would agree once in a million times."""
    contents = set()
    for _ in range(4):
        save_checkpoint(tmp_path / "again.safetensors", checkpoint)
        contents.add((tmp_path / "again.safetensors").read_bytes())
    assert len(contents) == 1
    (content,) = contents
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert list(metadata) == sorted(metadata)
    state = load_file(tmp_path / "again.safetensors")
    for key, value in checkpoint.module.state_dict().items():
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("backbone", "[1]"),
        ("tap", "{}"),
        ("backbone", "3"),
        ("training", "[3]"),
        ("backbone", "[" * 300_000),
        ("tap", "[" * 300_000),
        ("training", "[" * 300_000),
    ],
)
def test_metadata_of_another_type_are_refused(path: Path, what: str, value: str) -> None:
    with_metadata(path, **{what: value})
    assert f"broken {what} in the metadata" in refusal(path)
