"""Whether a module belongs to a classifier, by what the layers answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from afd_mobile.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from afd_mobile.checkpoints.fit import LOGITS, has_imagenet_head, notices_of_fit, probe, record_of
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.classifiers.record import ClassifierRecord
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation.predictors import open_predictor, plain_predictor
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.corrections import AnyModule
from tests.afd_mobile.conftest import AfdTrain
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_classifier import FACTORY, NAME, TAP, make, make_module

PLACES = ("scale:conv", "residual:act2")
FILE = Path("mine.safetensors")
CPU = torch.device("cpu")


def weights_file(path: Path, *, head: bool = False, before: float = 0, behind: float = 0) -> Path:
    """The tiny classifier's, with another head, or noise on the layer before or behind its tap."""
    model = make()
    torch.manual_seed(3)
    with torch.no_grad():
        model.get_submodule("stem").weight.mul_(1 + before * torch.randn(8, 3, 3, 3))  # type: ignore[operator]
        model.get_submodule("conv").weight.mul_(1 + behind * torch.randn(16, 8, 3, 3))  # type: ignore[operator]
        if head:
            model.get_submodule("classes").weight.normal_()  # type: ignore[operator]
    save_file(model.state_dict(), path)
    return path


def loaded(weights: Path | str = "auto") -> Backbone:
    return load_backbone(FACTORY, tap=TAP, weights=str(weights))


def checkpoint_of(backbone: Backbone, module: AnyModule | None = None) -> Checkpoint:
    module = module or inside_module(backbone, *PLACES)
    return Checkpoint(module, NAME, TAP, {}, record_of(backbone, module))


def test_the_record_is_what_the_layers_answer() -> None:
    """By hand, with the layers one by one."""
    model, backbone = make(), loaded()
    record = record_of(backbone, inside_module(backbone, *PLACES))
    assert (record.name, record.weights, record.classes) == (NAME, "factory", 10)
    assert (record.mean, record.std) == (backbone.mean, backbone.std)
    assert record.input_size == 224 and probe(224).shape == (1, 3, 224, 224)
    answers, x = {}, probe(224)
    with torch.no_grad():
        for name, layer in model.named_children():
            x = layer(x)
            answers[name] = x.flatten(2).mean(2)[0] if x.ndim == 4 else x[0]
    expected = {"act": "act", "conv": "conv", "act2": "act2", LOGITS: "classes"}
    assert list(record.answers) == list(expected)
    for node, layer_name in expected.items():
        found = torch.tensor(record.answers[node])
        torch.testing.assert_close(found, answers[layer_name], rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(loaded())
    save_checkpoint(tmp_path / FILE, checkpoint)
    assert load_checkpoint(tmp_path / FILE).classifier == checkpoint.classifier


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"classes": 0},
        {"input_size": True},
        {"std": [1, 0, 1]},
        {"mean": [0.5]},
        {"answers": {"act": ["a"]}},
        {"answers": [1]},
        {"more": 1},
    ],
)
def test_a_broken_record_is_told(change: dict[str, object]) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    record = ClassifierRecord(NAME, "factory", mean, std, 224, 10, {TAP: (1.0, 2.0)})
    values = json.loads(json.dumps(dataclasses.asdict(record)))
    assert ClassifierRecord.from_dict(values) == record
    values |= change
    with pytest.raises((TypeError, ValueError)):
        ClassifierRecord.from_dict(values)


def test_the_same_classifier_needs_no_word(tmp_path: Path) -> None:
    """Also from a file that holds the same weights."""
    checkpoint = checkpoint_of(loaded())
    for weights in ("auto", weights_file(tmp_path / "same.safetensors")):
        assert notices_of_fit(checkpoint, loaded(weights), FILE) == []


def test_another_head_is_said(tmp_path: Path) -> None:
    other = loaded(weights_file(tmp_path / "my10.safetensors", head=True))
    assert notices_of_fit(checkpoint_of(loaded()), other, FILE) == [
        f"checkpoint mine was trained on {NAME} with factory weights, and fits {NAME} "
        "with the weights my10.safetensors: the same layers up to act2, another head (10 "
        "classes, not 10)"
    ]


def test_weights_that_are_forgotten_are_asked_for(tmp_path: Path) -> None:
    """The module of somebody's own classifier would be published with the stock one."""
    for other in ({"head": True}, {"before": 0.5}):
        own = loaded(weights_file(tmp_path / "my10.safetensors", **other))
        with pytest.raises(InputError) as caught:
            notices_of_fit(checkpoint_of(own), loaded(), FILE)
        assert str(caught.value) == (
            f"checkpoint mine.safetensors was trained on {NAME} with the weights my10.safetensors; "
            f"{NAME} with factory weights is another classifier: give --backbone-weights "
            "my10.safetensors"
        )
        assert notices_of_fit(checkpoint_of(own), own, FILE) == []


def test_other_layers_before_the_tap_are_refused(tmp_path: Path) -> None:
    noisy = loaded(weights_file(tmp_path / "noisy.safetensors", before=0.5))
    with pytest.raises(
        InputError, match=r"differently at act, by \d+%; train a module for it with"
    ):
        notices_of_fit(checkpoint_of(loaded()), noisy, FILE)


def test_layers_that_differ_somewhat_or_deeper_are_said(tmp_path: Path) -> None:
    somewhat = loaded(weights_file(tmp_path / "a.safetensors", before=0.05))
    deeper = loaded(weights_file(tmp_path / "b.safetensors", behind=0.5))
    for other, node in ((somewhat, "act"), (deeper, "conv")):
        (notice,) = notices_of_fit(checkpoint_of(loaded()), other, FILE)
        assert f"answers differently from {node} on, by " in notice
        assert notice.endswith("or train the module on with afd-train --init")
    single = checkpoint_of(loaded(), make_module())  # of a preset that is no longer trained
    (notice,) = notices_of_fit(single, loaded(tmp_path / "a.safetensors"), FILE)
    assert notice.endswith("or train a module for it with afd-train")


def test_what_lies_behind_a_single_tap_does_not_matter(tmp_path: Path) -> None:
    module = make_module()
    deeper = loaded(weights_file(tmp_path / "b.safetensors", behind=0.5))
    (notice,) = notices_of_fit(checkpoint_of(loaded(), module), deeper, FILE)
    assert "the same layers up to act, another head" in notice


def test_another_normalisation_and_size_are_said() -> None:
    half = (0.5, 0.5, 0.5)
    other = load_backbone(FACTORY, tap=TAP, mean=half, std=half, input_size=96)
    assert notices_of_fit(checkpoint_of(loaded()), other, FILE) == [
        f"checkpoint mine was trained on {NAME} with factory weights at mean 0.485 "
        "0.456 0.406, std 0.229 0.224 0.225, input size 224; at mean 0.5 0.5 0.5, std 0.5 0.5 0.5, "
        "input size 96 it may correct nothing"
    ]


def test_random_weights_are_said_elsewhere() -> None:
    assert notices_of_fit(checkpoint_of(loaded()), loaded("random"), FILE) == []


def test_without_a_record_the_bundled_weights_count(mobilenet: Backbone) -> None:
    """Of a factory, which a file may not have run, nothing is known."""
    config = single_tap_config("mobile", channels=32, stride=8, activation="identity")
    older = Checkpoint(AfdModule(config), "mobilenet_v2", "features.6", {})
    assert notices_of_fit(older, mobilenet, FILE) == []
    noisy = dataclasses.replace(
        mobilenet, tail=load_backbone("mobilenet_v2", weights="random").tail
    )
    assert "another head" in notices_of_fit(older, noisy, FILE)[0]
    for name in (NAME, "resnet50"):  # nor of what would have to be downloaded
        assert notices_of_fit(Checkpoint(make_module(), name, TAP, {}), loaded(), FILE) == []


def test_the_classes_are_imagenets_where_the_weights_are(
    tmp_path: Path, mobilenet: Backbone
) -> None:
    """A copy of the bundled file answers as that does, another head of 1000 classes does not."""
    state = mobilenet.head.state_dict() | mobilenet.tail.state_dict()
    head = "classifier.1.weight"
    for name, weight in (("same", state[head]), ("other", state[head].flip(0))):
        torch.save(state | {head: weight}, tmp_path / name)
    same, other, random = (
        load_backbone("mobilenet_v2", weights=str(weights))
        for weights in (tmp_path / "same", tmp_path / "other", "random")
    )
    found = [has_imagenet_head(backbone, None) for backbone in (mobilenet, same, other, random)]
    assert found == [True, True, False, False]
    assert not has_imagenet_head(loaded(), None)  # ten classes
    # What the checkpoint remembers counts, too: of a network that comes without weights.
    config = single_tap_config("mobile", channels=32, stride=8, activation="identity")
    checkpoint = Checkpoint(
        AfdModule(config), "n", "t", {}, record_of(mobilenet, AfdModule(config))
    )
    for backbone, imagenet in ((same, True), (other, False)):
        elsewhere = dataclasses.replace(backbone, name="my_nets:mobilenet")
        assert not has_imagenet_head(elsewhere, None)
        older = dataclasses.replace(checkpoint, backbone="mobilenet_v2", tap=mobilenet.tap)
        assert has_imagenet_head(elsewhere, dataclasses.replace(older, classifier=None)) == imagenet
        assert has_imagenet_head(elsewhere, checkpoint) == imagenet


def test_training_records_the_classifier(tmp_path: Path, photos: Path, afd_train: AfdTrain) -> None:
    out, weights = (
        tmp_path / "mine.safetensors",
        weights_file(tmp_path / "w.safetensors", head=True),
    )
    done = afd_train(
        "--backbone", NAME, "--backbone-weights", weights, "--taps", *PLACES, "--images", photos,
        "--iterations", 1, "--batch", 1, "--crop", 32, "--workers", 1, "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = load_checkpoint(out)
    backbone = load_backbone(FACTORY, tap=found.tap, weights=str(weights))
    assert found.classifier == record_of(backbone, found.module)


def test_an_evaluation_takes_the_weights_and_asks_for_them(tmp_path: Path) -> None:
    weights = weights_file(tmp_path / "my10.safetensors", head=True)
    path, own = tmp_path / FILE, loaded(weights)
    save_checkpoint(path, checkpoint_of(own))
    with pytest.raises(InputError, match=r"give --backbone-weights my10\.safetensors"):
        open_predictor(str(path), CPU, ClassifierOptions(FACTORY))
    model = open_predictor(str(path), CPU, ClassifierOptions(FACTORY, str(weights)))
    assert model.backbone().weights_sha256() == own.weights_sha256() and not model.notices


def test_an_evaluation_says_which_weights_it_takes(tmp_path: Path) -> None:
    path, ema = tmp_path / FILE, tmp_path / "ema.pth"
    save_checkpoint(path, checkpoint_of(loaded()))
    state = make().state_dict()
    torch.save({"model": state, "model_ema": dict(state)}, ema)
    model = open_predictor(str(path), CPU, ClassifierOptions(FACTORY, str(ema)))
    said = ("ema.pth: the averaged weights are taken (model_ema) instead of model",)
    assert model.notices == plain_predictor(model, CPU).notices == said
