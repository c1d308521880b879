from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from afd_mobile.classifiers.backbones import Backbone, Normalize, classifier, load_backbone
from afd_mobile.experiments import baselines
from afd_mobile.experiments.baselines import FineTuned, Mixed, PictureNorm, vanishing_shares
from afd_mobile.experiments.variant import Setup
from afd_mobile.network.corrections import Guide
from afd_mobile.pictures.datasets import nchw
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import read_image
from afd_mobile.training.recipe import CPU
from tests.afd_mobile.experiments.conftest import SETTINGS
from tests.afd_mobile.tiny_blocks import FACTORY, SIZE

# --- fine-tuning ----------------------------------------------------------------------------------


def test_fine_tuning_moves_every_weight_behind_the_tap_and_no_statistics(
    setup: Setup, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = FineTuned(tiny)
    monkeypatch.setattr(baselines, "FineTuned", lambda _: tuned)
    before = copy.deepcopy(tiny.tail.state_dict())
    logits = baselines.fine_tuned(setup, gated=False)
    after = tuned.tail.state_dict()
    weights = dict(tuned.tail.named_parameters())
    assert len(weights) > 20
    for key, value in before.items():
        assert torch.equal(tiny.tail.state_dict()[key], value)
        assert torch.equal(after[key], value) == (key not in weights), key
    picture = read_image(setup.pictures[0])[None]
    assert not torch.equal(logits(picture), classifier(tiny, None, CPU)(picture))


def guide_of(*gates: float) -> Guide:
    gate = torch.tensor(gates).reshape(-1, 1, 1, 1)
    return Guide(gate, gate, {})


def test_the_gate_says_how_much_of_the_tuned_network_there_is() -> None:
    class Both(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.factor * x.mean((2, 3)), self.factor * x

    x = torch.ones(3, 2, 4, 4)
    mixed = Mixed(Both(1.0), Both(5.0), gated=True)
    for out in mixed(x, guide_of(0.0, 0.25, 1.0)):
        assert [float(picture.unique()) for picture in out] == [1.0, 2.0, 5.0]
    logits, features = Mixed(Both(1.0), Both(5.0), gated=False)(x, guide_of(0.0, 0.25, 1.0))
    assert float(logits.unique()) == float(features.unique()) == 5.0


def test_a_gated_classifier_is_mixed_picture_by_picture(
    setup: Setup, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrained, and with a closed gate, it is the plain one."""

    def closed(_: Setup, tuned: FineTuned, *__: object) -> None:
        assert tuned.guide.gate.logit.bias is not None
        with torch.no_grad():
            tuned.guide.gate.logit.bias.fill_(-1e9)
            next(tuned.tail.parameters()).add_(1.0)
        tuned.eval()

    monkeypatch.setattr(Setup, "fit", closed)
    picture = read_image(setup.pictures[0])[None]
    logits = baselines.fine_tuned(setup, gated=True)(picture)
    torch.testing.assert_close(logits, classifier(tiny, None, CPU)(picture))


# --- statistics of the one picture ----------------------------------------------------------------


def norm_of(kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    norm = kind(3)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm.eval()


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("prior", [0, 3, 1e9])
def test_a_pictures_own_statistics_by_hand(kind: type[nn.BatchNorm2d], prior: float) -> None:
    norm, x = norm_of(kind), torch.randn(2, 3, 5, 4) + 1
    assert norm.running_mean is not None and norm.running_var is not None
    expected = torch.empty_like(x)
    for n in range(2):
        for c in range(3):
            own = x[n, c].flatten()
            mean = (own.mean() + prior * norm.running_mean[c]) / (1 + prior)
            variance = (own.var(correction=0) + prior * norm.running_var[c]) / (1 + prior)
            normalized = (x[n, c] - mean) / (variance + norm.eps).sqrt()
            expected[n, c] = normalized * norm.weight[c] + norm.bias[c]
    if kind is BatchNormAct2d:
        expected = expected.relu()
    with torch.no_grad():
        actual = PictureNorm(norm, prior)(x)
        torch.testing.assert_close(actual, expected)
        if prior > 1e6:
            torch.testing.assert_close(actual, norm(x))


def test_the_whole_classifier_takes_the_pictures_statistics(setup: Setup, tiny: Backbone) -> None:
    pictures = np.stack([read_image(path) for path in setup.pictures[:2]])
    plain = classifier(tiny, None, CPU)(pictures)
    trained = baselines.with_own_statistics(setup, 1e9)(pictures)
    torch.testing.assert_close(trained, plain, rtol=1e-3, atol=1e-3)
    own = baselines.with_own_statistics(setup, 0)(pictures)
    assert (own - plain).abs().max() > 0.1
    assert any(isinstance(m, nn.BatchNorm2d) for m in tiny.tail.modules())  # itself as before


# --- pooled features, re-centred ------------------------------------------------------------------


def test_features_are_moved_by_the_means_at_their_quality(setup: Setup) -> None:
    pooled = load_backbone(FACTORY, tap="adaptive_avg_pool2d", input_size=SIZE)
    own = Setup(pooled, setup.pictures, SETTINGS)
    logits = baselines.recentred(own)
    clean = [read_image(path) for path in setup.pictures]
    by_quality = {q: np.stack([jpeg(crop, q) for crop in clean]) for q in (None, *QUALITIES)}
    normalize = Normalize(pooled.mean, pooled.std)

    def features(quality: int | None) -> torch.Tensor:
        with torch.no_grad():
            image = nchw(torch.from_numpy(by_quality[quality]))
            result: torch.Tensor = pooled.head(normalize(image))
        return result

    for quality in (None, 25, 7):  # far enough apart that every picture is recognised
        moved = features(quality) + features(None).mean(0) - features(quality).mean(0)
        with torch.no_grad():
            expected = pooled.tail(moved)
        torch.testing.assert_close(logits(by_quality[quality]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("mobilenet_v2", "adaptive_avg_pool2d"),
        ("mobilenet_v3_small", "avgpool"),  # not the pools beside its paths
        ("squeezenet1_1", None),  # its logits are pooled
        ("repvgg_a2", None),  # within its last leaf
    ],
)
def test_where_features_are_pooled(name: str, node: str | None) -> None:
    backbone = load_backbone(name, weights="random", input_size=64)
    assert baselines.pooled_node(backbone) == node


def test_more_coefficients_vanish_at_lower_qualities(setup: Setup) -> None:
    crop = read_image(setup.pictures[0])
    pictures = np.stack([jpeg(crop, quality) for quality in (None, *QUALITIES)])
    shares = vanishing_shares()(pictures)
    assert shares.shape == (6, 192) and shares.min() >= 0 and shares.max() <= 1
    means = shares.mean(1).tolist()
    assert means == sorted(means) and means[0] < 0.5 < means[-1]
