"""Peers trained as preprocessing: patches, loss, state, and the classifier behind them."""

from __future__ import annotations

import copy
import itertools
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from afd_export.peers import networks as peers
from afd_export.peers import restored
from afd_export.peers import train as train_peer
from afd_export.peers.restored import RestoredClassifier
from afd_export.peers.train import CROP, PATCH, Settings, train
from afd_mobile.classifiers.backbones import Backbone, classifier, load_backbone
from afd_mobile.classifiers.names import Factory
from afd_mobile.common.errors import InputError
from afd_mobile.pictures.augment import FIELD
from afd_mobile.pictures.datasets import CompressedCrops
from afd_mobile.pictures.degrade import RGB
from afd_mobile.pictures.picture_files import list_images, split
from tests.afd_mobile.tiny_classifier import random_picture
from tests.commands import Outcome, run_here

CPU = torch.device("cpu")
SETTINGS = Settings("arcnn", iterations=4, batch=2, seed=0, pictures=7)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight, the last of which is held out."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        random_picture(number, 200).save(folder / f"{number}.png")
    return folder


def small() -> nn.Module:
    """Stands for a peer: it has what they have, convolutions and BatchNorm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))


def trained(photos: Path, state: Path, *, resume: bool = False, until: int = 99) -> nn.Module:
    network = small()
    count = itertools.count(1)
    for _ in train(
        network, split(list_images(photos))[0], SETTINGS, state,
        resume=resume, device=CPU, workers=0, stop=lambda: next(count) >= until,
    ):  # fmt: skip
        pass
    return network


def command(photos: Path, out: Path, *more: object) -> Outcome:
    options = ("--images", photos, "--out", out, "--iterations", 2, "--batch", 2, "--device", "cpu")
    return run_here(train_peer.main, "afd_export.peers.train", "arcnn", *options, *more)


# --- training -----------------------------------------------------------------------------------


def test_the_loss_is_the_error_of_patches_of_the_modules_own_crops(
    photos: Path, tmp_path: Path
) -> None:
    """Those that `afd-train` draws, of the same pictures, a window of each batch."""
    images = split(list_images(photos))[0]
    assert [path.name for path in images] == [f"{n}.png" for n in range(7)]
    network = small()
    before = copy.deepcopy(network).train()
    state = tmp_path / "s"
    steps = train(network, images, SETTINGS, state, resume=False, device=CPU, workers=0)
    first = next(steps)
    crops = CompressedCrops(images, CROP, FIELD, seed=0)
    top, left = np.random.default_rng((0, 1)).integers(0, CROP - PATCH + 1, size=2)
    pair = [crops[0], crops[1]]
    assert not np.array_equal(pair[0].clean, pair[0].compressed)

    def patches(whole: list[RGB]) -> Tensor:
        cut = np.stack(whole)[:, top : top + 64, left : left + 64].transpose(0, 3, 1, 2)
        return torch.from_numpy(cut / 255).float()

    with torch.no_grad():
        output = before(patches([crop.compressed for crop in pair]))
        error = (output - patches([crop.clean for crop in pair])).square().mean()
    assert first.iteration == 1 and first.loss == pytest.approx(float(error), rel=1e-5)
    # Adam's first step is its learning rate, here after a quarter of the training.
    moved = network.state_dict()["0.weight"] - before.state_dict()["0.weight"]
    rate = train_peer.LEARNING_RATE * (1 + math.cos(math.pi / 4)) / 2
    assert float(moved.abs().max()) == pytest.approx(rate, rel=0.01)


def test_a_resumed_training_ends_as_if_it_had_gone_on(photos: Path, tmp_path: Path) -> None:
    state = tmp_path / "s"
    whole = trained(photos, state)
    assert not state.exists() and not whole.training
    stopped = trained(photos, state, until=2)
    assert state.exists() and stopped.training
    resumed = trained(photos, state, resume=True)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())
    assert not torch.equal(stopped.state_dict()["0.weight"], expected["0.weight"])


def test_a_state_that_is_missing_broken_or_anothers_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    state = tmp_path / "s"
    with pytest.raises(InputError, match="nothing to resume: no "):
        trained(photos, state, resume=True)
    state.write_bytes(b"no state")
    with pytest.raises(InputError, match="cannot be read; delete it"):
        trained(photos, state, resume=True)
    trained(photos, state, until=2)
    other = Settings("arcnn", iterations=4, batch=2, seed=1, pictures=7)
    images = list_images(photos)
    steps = train(small(), images, other, state, resume=True, device=CPU, workers=0)
    with pytest.raises(InputError, match="is of another run"):
        next(steps)


def test_psnr_by_hand() -> None:
    clean = torch.zeros(1, 3, 4, 4)
    assert train_peer._psnr(clean + 0.1, clean) == pytest.approx(20, abs=1e-4)
    assert train_peer._psnr(clean, clean) == pytest.approx(100)


def test_a_network_that_changes_nothing_restores_nothing(photos: Path) -> None:
    paths = list_images(photos)[:1]
    found = train_peer.held_out_psnr(nn.Identity(), paths, CPU)
    assert found is not None and found[0] == found[1] and 15 < found[0] < 40
    assert train_peer.held_out_psnr(nn.Identity(), [], CPU) is None


# --- the command --------------------------------------------------------------------------------


def test_the_command_writes_a_classifier_with_a_trained_peer_before_it(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "arcnn.safetensors"
    done = command(photos, out)
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    said, held_out = done.out.splitlines()
    assert said == f"{out}  (arcnn before mobilenet_v2)"
    assert held_out.startswith("held out, mean of QF 25 18 15 10 7: PSNR degraded ")
    loaded = load_backbone(
        Factory("afd_export.peers.restored:arcnn"), weights=str(out), mean=(0, 0, 0), std=(1, 1, 1)
    )
    assert loaded.classes == 1000
    fresh = restored.arcnn().state_dict()
    weights = loaded.head.state_dict() | loaded.tail.state_dict()
    assert not torch.equal(weights["restore.0.weight"], fresh["restore.0.weight"])
    kept = [key for key in fresh if key.startswith("classify.")]
    assert len(kept) > 200 and all(torch.equal(weights[key], fresh[key]) for key in kept)


def test_an_interrupted_command_names_its_state_and_is_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, state = tmp_path / "arcnn.safetensors", tmp_path / "arcnn.state"
    with monkeypatch.context() as patch:
        patch.setattr(train_peer, "deferred_interruption", lambda: nullcontext(lambda: True))
        done = command(photos, out)
    assert done.code == 130 and not out.exists()
    assert f"iteration 1 is saved in {state}; continue with --resume" in done.err
    assert command(photos, out).code == 6
    assert command(photos, out, "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_another_training_made_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "arcnn.safetensors"
    out.write_bytes(b"weights")
    done = command(photos, out)
    assert done.code == 6 and f"{out} exists; use --force to replace it" in done.err
    assert out.read_bytes() == b"weights"
    done = command(photos, tmp_path / "arcnn.pth")
    assert done.code == 2 and "must end in .safetensors" in done.err


# --- restore, then classify ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobilenet() -> Backbone:
    return load_backbone("mobilenet_v2")


def behind(restore: nn.Module) -> RestoredClassifier:
    return RestoredClassifier(nn.ModuleDict({"restore": restore}))


class Brighter(nn.Module):
    def forward(self, picture: Tensor) -> Tensor:
        return picture + 2


@pytest.mark.parametrize("restore", [nn.Identity(), Brighter()])
def test_the_classifier_sees_what_the_peer_makes_as_a_picture(
    restore: nn.Module, mobilenet: Backbone
) -> None:
    """Beyond white is white."""
    picture = np.array(random_picture(3))[None]
    seen = picture if isinstance(restore, nn.Identity) else np.full_like(picture, 255)
    expected = classifier(mobilenet, None, CPU)(seen)
    with torch.no_grad():
        logits = behind(restore)(torch.from_numpy(picture / 255).float().permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", sorted(train_peer.PEERS))
def test_a_peer_leaves_the_picture_alone_until_it_has_learnt_something(name: str) -> None:
    """And it is the network that is measured; every layer can learn."""
    network = train_peer.PEERS[name]().restore.train()
    measured = getattr(peers, name)().get_submodule("restore").state_dict()
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        key: value.shape for key, value in measured.items()
    }
    picture = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network(picture), picture, rtol=0, atol=1e-5)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):  # the last layer first, then those before it
        optimizer.zero_grad()
        (network(picture) - picture.flip(3)).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
