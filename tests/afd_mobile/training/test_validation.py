from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from afd_mobile.checkpoints.held_out import Verdict
from afd_mobile.classifiers.backbones import Backbone, classifier
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.corrections import AnyModule
from afd_mobile.pictures.datasets import centre_crop, spread_crops
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import list_images, read_image
from afd_mobile.training import validation
from afd_mobile.training.validation import Likeness, Logits, Validation
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_blocks import SIZE, make

CPU = torch.device("cpu")
CONDITIONS = ["clean", *map(str, QUALITIES)]


@pytest.fixture(scope="module")
def images(photos: Path) -> list[Path]:
    return list_images(photos)


@pytest.fixture(scope="module")
def three(tiny_blocks: Backbone, images: list[Path]) -> Validation:
    return Validation(tiny_blocks, spread_crops(images, 3, SIZE)[0], CPU)


def new_module(backbone: Backbone) -> AfdModule:
    torch.manual_seed(0)
    return AfdModule(
        single_tap_config(
            "mobile",
            channels=backbone.channels,
            stride=backbone.stride,
            activation=backbone.activation,
        )
    ).eval()


def test_direct_figures_are_the_whole_classifiers(
    three: Validation, tiny_blocks: Backbone, images: list[Path]
) -> None:
    network, top1 = make(), np.empty((3, 6), dtype=np.int64)
    log_p = np.empty((3, 6, 10))
    for i, path in enumerate(images):
        crop = centre_crop(read_image(path), SIZE)
        for j, quality in enumerate((None, *QUALITIES)):
            x = (jpeg(crop, quality) / 255 - np.array(tiny_blocks.mean)) / np.array(tiny_blocks.std)
            with torch.no_grad():
                logits = network(torch.from_numpy(x).permute(2, 0, 1)[None].float())
            top1[i, j] = logits.argmax()
            log_p[i, j] = logits.double().log_softmax(1)[0]
    expected = (top1 == top1[:, :1]).mean(axis=0)
    assert three.direct.agreement == dict(zip(CONDITIONS, expected, strict=True))
    assert three.direct.agreement["clean"] == 1 and min(three.direct.agreement.values()) < 1
    clean = log_p[:, :1]
    kl = (np.exp(clean) * (clean - log_p)).sum(axis=2).mean(axis=0)
    assert list(three.direct.kl) == CONDITIONS
    np.testing.assert_allclose(list(three.direct.kl.values()), kl, rtol=1e-4, atol=1e-6)
    assert three.direct.kl["clean"] == 0 < min(kl[1:])


def test_no_correction_agrees_as_direct(three: Validation, tiny_blocks: Backbone) -> None:
    module = new_module(tiny_blocks)
    module.reset_to_identity()
    assert three.corrected(module) == three.direct
    assert three.recovered_share(three.direct) == 0
    assert set(three.kl_removed(three.direct).values()) == {0}


def test_the_correction_is_applied(three: Validation, tiny_blocks: Backbone) -> None:
    module = new_module(tiny_blocks)
    with torch.no_grad():  # whatever the picture, the classifier sees noise
        module.get_parameter("fe_net.out.weight").mul_(1e4)
    corrected = three.corrected(module)
    assert list(corrected.agreement) == CONDITIONS
    assert corrected.agreement["clean"] < 1 and corrected.kl["clean"] > 0


def test_corrections_inside_the_classifier_are_applied(
    three: Validation, tiny_blocks: Backbone
) -> None:
    module = inside_module(tiny_blocks, "residual:features.4")
    module.reset_to_identity()
    assert three.corrected(module) == three.direct
    with torch.no_grad():
        module.get_parameter("corrections.0.leave.weight").normal_(0, 1e4)
    assert three.corrected(module).agreement["clean"] < 1


def test_what_is_said_of_held_out_pictures_agrees_with_the_learning_curves_figures(
    three: Validation, tiny_blocks: Backbone
) -> None:
    module = new_module(tiny_blocks)
    found, good = three.held_out(module), three.corrected(module)
    assert found.pictures == 3 and found.verdict is Verdict.UNDECIDED
    assert found.kl_removed.value == pytest.approx(np.mean(list(three.kl_removed(good).values())))
    assert found.recovered_share.value == pytest.approx(three.recovered_share(good))
    assert found.clean_kept.value == good.agreement["clean"]


def test_the_plain_classifier_is_run_once(
    tiny_blocks: Backbone, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[AnyModule | None] = []

    def counted(backbone: Backbone, module: AnyModule | None, device: torch.device) -> Logits:
        own = classifier(backbone, module, device)

        def logits(pictures: NDArray[np.uint8]) -> Tensor:
            runs.append(module)
            return own(pictures)

        return logits

    monkeypatch.setattr(validation, "classifier", counted)
    one = Validation(tiny_blocks, spread_crops(images, 1, SIZE)[0], CPU)
    assert runs == [None] * 6
    for _ in range(2):
        one.corrected(new_module(tiny_blocks))
    assert len(runs) == 18 and None not in runs[6:]


def likeness(agreement: dict[str, float], kl: dict[str, float]) -> Likeness:
    return Likeness(dict.fromkeys(CONDITIONS, 1.0) | agreement, dict.fromkeys(CONDITIONS, 0.0) | kl)


def test_the_recovered_share_by_hand(three: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = likeness({"25": 0.5, "18": 1.0, "15": 0.2, "10": 0.0, "7": 0.5}, {})
    monkeypatch.setattr(three, "direct", direct)
    # QF 18 lost nothing, so nothing can be recovered there.
    corrected = {"clean": 0.9, "25": 0.75, "18": 0.9, "15": 0.2, "10": 0.25, "7": 0.25}
    share = three.recovered_share(likeness(corrected, {}))
    assert share == pytest.approx((0.5 + 0.0 + 0.25 - 0.5) / 4)
    assert three.recovered_share(likeness({}, {})) == 1
    monkeypatch.setattr(three, "direct", likeness({}, {}))
    assert three.recovered_share(likeness(corrected, {})) == 0


def test_the_kl_removed_by_hand(three: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = {"25": 0.5, "18": 0.0, "15": 0.25, "10": 1.0, "7": 2.0}
    monkeypatch.setattr(three, "direct", likeness({}, direct))
    # QF 18 did nothing, so nothing can be removed there; at QF 15 it got worse.
    corrected = {"clean": 0.1, "25": 0.25, "18": 0.1, "15": 0.5, "10": 1.0, "7": 0.0}
    removed = three.kl_removed(likeness({}, corrected))
    assert removed == {"25": 0.5, "18": 0.0, "15": -1.0, "10": 0.0, "7": 1.0}
