from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from afd_mobile import training
from afd_mobile.afd_module import AfdConfig, AfdModule
from afd_mobile.backbones import Backbone, load_backbone
from afd_mobile.checkpoint import load_checkpoint
from afd_mobile.datasets import list_images
from afd_mobile.errors import InputError
from afd_mobile.training import Settings, train, with_deeper_features

SETTINGS = Settings("distill", iterations=4, batch=2, crop=64, seed=0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("mobilenet_v2")


def new_module(backbone: Backbone, preset: str = "mobile", seed: int = 0) -> AfdModule:
    torch.manual_seed(seed)
    config = AfdConfig.preset(
        preset,
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
    )
    module = AfdModule(config)
    module.reset_to_identity()
    return module


def snapshot(module: AfdModule) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def interrupted_state(
    path: Path, backbone: Backbone, photos: Path, settings: Settings, after: int
) -> None:
    """Leaves at `path` the state of a training that was stopped."""
    steps = train(new_module(backbone), backbone, list_images(photos), settings, path, resume=False)
    for progress in steps:
        if progress.iteration == after:
            break
    steps.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("objective", ["distill", "feature-mse"])
def test_resuming_continues_exactly(
    objective: str,
    tmp_path: Path,
    photos: Path,
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, images = dataclasses.replace(SETTINGS, objective=objective), list_images(photos)
    whole = new_module(backbone)
    start = snapshot(whole)
    losses = [
        p.loss for p in train(whole, backbone, images, settings, tmp_path / "a", resume=False)
    ]
    assert len(losses) == 4 and all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert not whole.training
    assert any(not torch.equal(v, start[k]) for k, v in whole.state_dict().items())

    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
    state = tmp_path / "b.state"
    interrupted_state(state, backbone, photos, settings, after=2)
    resumed = new_module(backbone, seed=9)  # everything must come from the state
    steps = list(train(resumed, backbone, images, settings, state, resume=True))
    assert [p.iteration for p in steps] == [3, 4]
    assert [p.loss for p in steps] == losses[2:]
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"iterations": 5}, {"crop": 32}, {"objective": "feature-mse"}]
)
def test_a_state_of_other_settings_is_refused(
    change: dict[str, int | str],
    tmp_path: Path,
    photos: Path,
    backbone: Backbone,
    finished_state: Path,
) -> None:
    settings = dataclasses.replace(SETTINGS, **change)  # type: ignore[arg-type]
    steps = train(
        new_module(backbone), backbone, list_images(photos), settings, finished_state, resume=True
    )
    with pytest.raises(InputError, match="is of another run"):
        next(steps)


@pytest.fixture(scope="module")
def finished_state(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, backbone: Backbone
) -> Path:
    path = tmp_path_factory.mktemp("state") / "finished.state"
    images = list_images(photos)
    list(train(new_module(backbone), backbone, images, SETTINGS, path, resume=False))
    return path


def test_a_state_of_another_architecture_is_refused(
    photos: Path, backbone: Backbone, finished_state: Path
) -> None:
    module = new_module(backbone, preset="paper")
    steps = train(module, backbone, list_images(photos), SETTINGS, finished_state, resume=True)
    with pytest.raises(InputError):
        next(steps)


def test_missing_and_corrupt_states_are_input_errors(
    tmp_path: Path, photos: Path, backbone: Backbone, finished_state: Path
) -> None:
    truncated = tmp_path / "truncated"
    truncated.write_bytes(finished_state.read_bytes()[:1000])
    foreign = tmp_path / "foreign"
    torch.save({"x": torch.zeros(1)}, foreign)
    for path in (tmp_path / "none", truncated, foreign):
        steps = train(
            new_module(backbone), backbone, list_images(photos), SETTINGS, path, resume=True
        )
        with pytest.raises(InputError, match=path.name):
            next(steps)


def test_an_unreadable_picture_ends_the_training_before_it_starts(
    tmp_path: Path, photos: Path, backbone: Backbone
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = [*list_images(photos), tmp_path / "broken.png"]
    steps = train(new_module(backbone), backbone, images, SETTINGS, tmp_path / "s", resume=False)
    with pytest.raises(InputError, match=r"broken\.png"):
        next(steps)
    assert not (tmp_path / "s").exists()


def test_deeper_features_are_the_tails_own(backbone: Backbone) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone.head(x)
        logits, *deeper = with_deeper_features(backbone.tail, features)(features)
        assert torch.equal(logits, backbone.tail(features))
    assert [d.shape[-1] for d in deeper] == [16, 8, 4, 2]


def afd_train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from afd_mobile.cli import train_main; train_main()", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_command_writes_a_checkpoint_and_no_rest(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "afd.safetensors"
    options = f"--backbone mobilenet_v2 --images {photos} --out {out} --iterations 2 --batch 2"
    done = afd_train(*options.split(), "--crop", "64")
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    checkpoint = load_checkpoint(out)
    assert (checkpoint.backbone, checkpoint.tap) == ("mobilenet_v2", "features.0")
    assert checkpoint.training["pictures"] == 3 and checkpoint.training["iterations"] == 2
    assert list(tmp_path.iterdir()) == [out]


def test_a_missing_picture_folder_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train("--backbone", "mobilenet_v2", "--images", "/none", "--out", str(out))
    assert done.returncode == 3
    assert done.stderr == "afd-train: error: no such image folder: /none\n"
    assert not out.exists()


@pytest.mark.parametrize("options", [["--out", "x.pth"], ["--out", "x.safetensors", "--crop", "9"]])
def test_wrong_options_are_exit_code_2(options: list[str]) -> None:
    done = afd_train("--backbone", "mobilenet_v2", "--images", "/none", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
