"""What is exported, and under which name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afd_export.pipeline import _labels
from afd_export.request import ExportRequest
from afd_export.source import ExportSource, find_source
from afd_mobile.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from afd_mobile.checkpoints.fit import record_of
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.classifiers.choose import inside_preset
from afd_mobile.classifiers.names import Factory, OnnxFile
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.common.artifacts import Scope
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.corrections import InsideModule
from tests.afd_export.conftest import PLACES
from tests.afd_mobile.checkpoints.test_held_out import HARMFUL, HELPFUL
from tests.afd_mobile.classifiers.from_onnx.test_network import write
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_blocks import FACTORY as BLOCKS


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """A checkpoint for the tiny classifier: its path."""

    def write(name: str = "mine", backbone: str = "tinynet:make") -> str:
        path = tmp_path / f"{name}.safetensors"
        module = AfdModule(single_tap_config("mobile", channels=16, stride=2, activation="relu"))
        save_checkpoint(path, Checkpoint(module, backbone, "act1", {}))
        return str(path)

    return write


def test_a_factory_that_a_checkpoint_names_runs_only_if_it_was_typed(
    save: Callable[..., str], make_request: Callable[..., ExportRequest]
) -> None:
    path = save()
    with pytest.raises(InputError, match=f"{path} names code to run, tinynet:make, .* --backbone"):
        find_source(make_request(checkpoint=path, taps=(), classifier=ClassifierOptions()))
    typed = ClassifierOptions(Factory("tinynet:make"))
    source = find_source(make_request(checkpoint=path, taps=(), classifier=typed))
    assert source.backbone.name == "tinynet:make"


def test_another_factory_than_the_typed_one_is_refused(
    save: Callable[..., str], make_request: Callable[..., ExportRequest]
) -> None:
    path = save(backbone="payload:go")
    with pytest.raises(InputError, match=f"{path} is for backbone payload:go, not tinynet:make"):
        find_source(make_request(checkpoint=path, taps=()))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("afd-mobilenet_v2.best, v1.2", "afd-mobilenet_v2.best, v1.2"),
        ("größe-e\u0301-\u732b", "größe-e\u0301-\u732b"),
        ("a|b\n`c`\x1b[31m", "a.b..c...31m"),
        ('"$(x)"', "...x.."),
    ],
)
def test_an_export_is_named_by_what_means_nothing_in_paths_markdown_and_code(
    stem: str, name: str, save: Callable[..., str], make_request: Callable[..., ExportRequest]
) -> None:
    source = find_source(make_request(checkpoint=save(stem), taps=()))
    assert source.name == f"{name}-random-weights"


@pytest.fixture
def inside(backbone: Backbone, tmp_path: Path) -> str:
    """A checkpoint that corrects the tiny classifier at two places."""
    module = inside_module(backbone, "scale:act2", "residual:act3")
    path = tmp_path / "inside.safetensors"
    save_checkpoint(path, Checkpoint(module, "tinynet:make", "act1", {}))
    return str(path)


def test_a_checkpoint_with_several_places_is_found(
    inside: str, make_request: Callable[..., ExportRequest]
) -> None:
    source = find_source(make_request(checkpoint=inside, taps=()))
    assert source.afd is not None and source.backbone.tap == "act1"


def test_several_places_have_no_corrected_features_of_one_tap(
    inside: str, make_request: Callable[..., ExportRequest]
) -> None:
    with pytest.raises(UsageError, match=r"--scope features: .* leave it out, or take a module"):
        find_source(make_request(checkpoint=inside, taps=(), scope=Scope.FEATURES))


def test_places_that_the_classifier_does_not_have_are_refused(
    inside: str, make_request: Callable[..., ExportRequest]
) -> None:
    module = load_checkpoint(Path(inside)).module
    assert isinstance(module, InsideModule)
    places = [dataclasses.replace(place, node="elsewhere") for place in module.config.places]
    other = InsideModule(dataclasses.replace(module.config, places=tuple(places)))
    save_checkpoint(Path(inside), Checkpoint(other, "tinynet:make", "act1", {}))
    with pytest.raises(InputError, match="no node 'elsewhere'"):
        find_source(make_request(checkpoint=inside, taps=()))


def test_an_untrained_module_is_that_of_the_preset(
    make_request: Callable[..., ExportRequest],
) -> None:
    inside, single = (
        find_source(make_request(preset=preset, taps=taps))
        for preset, taps in (("mobile", PLACES), ("paper", ("act1",)))
    )
    assert isinstance(inside.afd, InsideModule) and inside.name.startswith("tinynet.make-mobile-un")
    assert [f"{p.kind}:{p.node}" for p in inside.afd.config.places] == list(PLACES)
    assert isinstance(single.afd, AfdModule) and single.afd.config.architecture == "paper"
    assert single.backbone.tap == "act1" and single.name.startswith("tinynet.make-paper-untrained")


def test_an_export_of_a_checkpoint_whose_training_did_harm_says_so(
    inside: str, make_request: Callable[..., ExportRequest]
) -> None:
    for found in (HARMFUL, HELPFUL):
        record = {"held_out": found.as_dict()}
        again = dataclasses.replace(load_checkpoint(Path(inside)), training=record)
        save_checkpoint(Path(inside), again)
        notices = find_source(make_request(checkpoint=inside, taps=())).notices
        said = f"checkpoint inside, when it was trained: {found.text()}"
        assert (said in notices) == (found is HARMFUL)


def test_without_taps_the_rule_chooses(make_request: Callable[..., ExportRequest]) -> None:
    source = find_source(make_request(taps=(), classifier=ClassifierOptions(BLOCKS)))
    assert isinstance(source.afd, InsideModule)
    assert source.afd.config == inside_preset(source.backbone, ["auto"])


def test_where_the_rule_finds_nothing_that_is_said(
    make_request: Callable[..., ExportRequest],
) -> None:
    """All of the tiny network's blocks end at strides of 2 and 4, so the last one is its tap."""
    with pytest.raises(UsageError, match="finds nothing to correct in tinynet:make; type its node"):
        find_source(make_request(taps=()))


def test_a_module_is_not_exported_with_another_classifier_than_its_own(
    tmp_path: Path, make_request: Callable[..., ExportRequest]
) -> None:
    """Its weights forgotten, the stock one would be published under its name."""
    backbone = load_backbone(Factory("tinynet:make"), tap="act1", input_size=64)
    module = inside_module(backbone, "scale:act2")
    path, weights = tmp_path / "mine.safetensors", tmp_path / "my10.pth"
    tinynet = importlib.import_module("tinynet")
    state = tinynet.make().state_dict()
    torch.save(state | {"classes.bias": state["classes.bias"] + 3}, weights)
    own = load_backbone(Factory("tinynet:make"), tap="act1", input_size=64, weights=str(weights))
    save_checkpoint(path, Checkpoint(module, "tinynet:make", "act1", {}, record_of(own, module)))
    network = ClassifierOptions(Factory("tinynet:make"), input_size=64)
    forgotten = make_request(checkpoint=str(path), taps=(), classifier=network)
    with pytest.raises(InputError, match=r"give --backbone-weights my10\.pth"):
        find_source(forgotten)
    network = dataclasses.replace(network, weights=str(weights))
    given = dataclasses.replace(forgotten, classifier=network)
    assert find_source(given).notices == []
    smaller = dataclasses.replace(given, classifier=dataclasses.replace(network, input_size=32))
    (notice,) = find_source(smaller).notices
    assert notice.endswith("at input size 64; at input size 32 it may correct nothing")


def test_a_checkpoint_is_exported_as_it_was_trained_unless_told_otherwise(
    tmp_path: Path, make_request: Callable[..., ExportRequest]
) -> None:
    half, tinynet = (0.5, 0.5, 0.5), Factory("tinynet:make")
    own = load_backbone(tinynet, tap="act1", mean=half, std=half, input_size=64)
    module, path = inside_module(own, "scale:act2"), tmp_path / "mine.safetensors"
    save_checkpoint(path, Checkpoint(module, "tinynet:make", "act1", {}, record_of(own, module)))

    def source(**typed: object) -> ExportSource:
        options = dataclasses.replace(ClassifierOptions(tinynet), **typed)  # type: ignore[arg-type]
        return find_source(make_request(checkpoint=str(path), taps=(), classifier=options))

    as_trained = source()
    backbone = as_trained.backbone
    assert (backbone.mean, backbone.std, backbone.input_size) == (half, half, 64)
    assert as_trained.notices == []
    typed = source(mean=(0.4, 0.5, 0.5))
    assert typed.backbone.mean == (0.4, 0.5, 0.5) and typed.backbone.std == half
    (notice,) = typed.notices
    assert notice.endswith("at mean 0.5 0.5 0.5; at mean 0.4 0.5 0.5 it may correct nothing")


@pytest.mark.usefixtures("backbone")  # which finds tinynet
@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("mine", "afd-my 10-mine"),
        ("my 10", "afd-my 10"),
        ("afd-tinynet.make-mobile", "afd-my 10-mobile"),
        ("random", "my 10-mobile-untrained"),
        ("none", "my 10-plain"),
    ],
)
def test_an_export_of_a_persons_own_weights_has_their_name(
    checkpoint: str,
    name: str,
    save: Callable[..., str],
    make_request: Callable[..., ExportRequest],
    tmp_path: Path,
) -> None:
    torch.save(importlib.import_module("tinynet").make().state_dict(), tmp_path / "my 10.pth")
    typed = ClassifierOptions(Factory("tinynet:make"), str(tmp_path / "my 10.pth"), input_size=64)
    taps = PLACES if checkpoint == "random" else ()
    named = checkpoint if checkpoint in ("random", "none") else save(checkpoint)
    request = make_request(checkpoint=named, taps=taps, classifier=typed)
    assert find_source(request).name == name


@pytest.mark.usefixtures("backbone")  # which finds tinynet
def test_an_export_of_another_factory_has_its_name(
    tmp_path: Path, make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    tinynet = importlib.import_module("tinynet")
    monkeypatch.setattr(tinynet, "mine", tinynet.make, raising=False)
    stock = load_backbone(Factory("tinynet:make"), tap="act1", input_size=64)
    module, path = (
        inside_module(stock, "scale:act2"),
        tmp_path / "afd-tinynet.make-mobile.safetensors",
    )
    save_checkpoint(path, Checkpoint(module, "tinynet:make", "act1", {}, record_of(stock, module)))
    for factory, name in (("make", "afd-tinynet.make-mobile"), ("mine", "afd-tinynet.mine-mobile")):
        typed = ClassifierOptions(Factory(f"tinynet:{factory}"))
        request = make_request(checkpoint=str(path), taps=(), classifier=typed)
        assert find_source(request).name == name


def test_a_module_is_exported_with_an_onnx_file_as_it_was_trained(
    tmp_path: Path, backbone: Backbone, make_request: Callable[..., ExportRequest]
) -> None:
    half = (0.5, 0.5, 0.5)
    own = load_backbone(Factory("tinynet:make"), tap="act1", mean=half, std=half, input_size=64)
    module, path = (
        inside_module(own, "scale:act2"),
        tmp_path / "afd-tinynet.make-mobile.safetensors",
    )
    save_checkpoint(path, Checkpoint(module, "tinynet:make", "act1", {}, record_of(own, module)))
    network = importlib.import_module("tinynet").make()
    typed = ClassifierOptions(OnnxFile(write(tmp_path / "my10.onnx", network, 64)))

    def source(checkpoint: str, **changes: object) -> ExportSource:
        return find_source(make_request(checkpoint=checkpoint, classifier=typed, **changes))

    found = source(str(path), taps=())
    assert (found.name, found.backbone.mean) == ("afd-my10-mobile", half)
    assert isinstance(found.afd, InsideModule)
    assert [place.node for place in found.afd.config.places] == ["act2_Relu"]
    (assumed,) = found.notices
    assert assumed.startswith("my10.onnx does not say how its pictures are normalised: taken as ti")
    assert source("none", taps=()).name == "my10-plain"
    assert source("random", taps=("scale:act2_Relu",)).name == "my10-mobile-untrained"


def test_classes_without_names_are_said(make_request: Callable[..., ExportRequest]) -> None:
    request = make_request()
    source = find_source(request)
    labels, (said,) = _labels(request, source)
    assert labels is None and said.startswith("no names go with the 10 classes: apps will see")
    thousand = dataclasses.replace(source.backbone, classes=1000)
    other = dataclasses.replace(source, backbone=thousand)
    labels, (said,) = _labels(request, other)
    assert labels is None and "the 1000 classes, which need not be ImageNet's: apps" in said
    labels, said_nothing = _labels(request, dataclasses.replace(other, imagenet=True))
    assert labels is not None and labels[281] == "tabby" and said_nothing == []


def test_which_weights_were_taken_is_said(
    tmp_path: Path, backbone: Backbone, make_request: Callable[..., ExportRequest]
) -> None:
    state = backbone.head.state_dict() | backbone.tail.state_dict()
    torch.save({"state_dict": state, "state_dict_ema": dict(state)}, tmp_path / "timm.pth")
    weights = str(tmp_path / "timm.pth")
    source = find_source(
        make_request(classifier=ClassifierOptions(Factory("tinynet:make"), weights))
    )
    said = "timm.pth: the averaged weights are taken (state_dict_ema) instead of state_dict"
    assert said in source.notices
