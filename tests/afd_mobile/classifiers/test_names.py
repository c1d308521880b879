"""A file may name a factory; only a person may have it run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.classifiers.backbones import load_backbone
from afd_mobile.classifiers.names import Factory, recorded_backbone, spelling, typed_backbone
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.cli import evaluate, train
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation.predictors import open_predictor, plain_predictor
from tests.afd_mobile.evaluation.test_predictors import write_export
from tests.afd_mobile.tiny_classifier import make_module, random_picture
from tests.commands import exit_code_of

CPU = torch.device("cpu")
PAYLOAD = "payload_of_a_stranger:go"


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether the stranger's code, which lies in the working directory, has run."""
    trace = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\ngo = None\n"
    (tmp_path / "payload_of_a_stranger.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "payload_of_a_stranger", raising=False)
    return trace.exists


def friendly_checkpoint(folder: Path) -> Path:
    path = folder / "friendly.safetensors"
    save_checkpoint(path, Checkpoint(make_module(), PAYLOAD, "act", {}))
    return path


def test_only_a_typed_name_is_a_factory() -> None:
    assert typed_backbone("a.b:c") == Factory("a.b:c")
    assert typed_backbone("resnet50") == "resnet50"
    assert str(Factory("a.b:c")) == "a.b:c"


@pytest.mark.parametrize("name", ["a.b:c", "resnet50"])
def test_a_recorded_name_that_was_typed_is_taken(name: str) -> None:
    assert recorded_backbone(name, typed_backbone(name), what="x") == typed_backbone(name)


def test_a_recorded_name_by_itself_is_no_factory() -> None:
    assert recorded_backbone("resnet50", None, what="x") == "resnet50"
    with pytest.raises(InputError, match=r"^x names code to run, a:b, .* add --backbone a:b$"):
        recorded_backbone("a:b", None, what="x")


@pytest.mark.parametrize(("recorded", "typed"), [("a:b", "a:c"), ("a:b", "resnet50"), ("n", "a:b")])
def test_another_name_than_the_typed_one_is_refused(recorded: str, typed: str) -> None:
    with pytest.raises(InputError, match=f"^x is for backbone {recorded}, not {typed}; leave out"):
        recorded_backbone(recorded, typed_backbone(typed), what="x")


def test_the_option_to_type_is_quoted_for_the_shell() -> None:
    with pytest.raises(InputError, match=r"add --backbone 'a:b; rm -rf x'$"):
        recorded_backbone("a:b; rm -rf x", None, what="x")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("torchvision/mobilenet_v2", "mobilenet_v2"), ("torchvision/resnet18", "resnet18"),
        ("timm/lcnet_050", "lcnet_050"), ("hf-hub:timm/lcnet_050.ra2_in1k", "lcnet_050.ra2_in1k"),
        ("timm/resnet18", "timm/resnet18"), ("hf_hub:timm/resnet18", "timm/resnet18"),
        ("resnet18", "resnet18"), ("x/resnet18", "x/resnet18"),
    ],
)  # fmt: skip
def test_a_library_stays_before_a_name_only_where_both_have_it(typed: str, name: str) -> None:
    assert spelling(typed_backbone(typed)) == name


def test_timms_network_is_not_torchvisions_of_the_same_name() -> None:
    own = load_backbone("timm/resnet18", weights="random")
    assert own.name == "timm/resnet18" and not own.notices
    assert any(type(m).__module__.startswith("timm") for m in own.tail.modules())
    other = load_backbone("resnet18", weights="random")
    assert other.notices == (
        "resnet18 is torchvision's; timm has another of this name: timm/resnet18",
    )
    assert not load_backbone("torchvision/resnet18", weights="random").notices
    recorded = recorded_backbone("resnet18", "torchvision/resnet18", what="x")
    assert load_backbone(recorded, weights="random").name == other.name


@pytest.mark.parametrize("typed", ["timm/squeezenet1_1", "torchvision/lcnet_050", "x/resnet18"])
def test_a_library_without_the_name_is_refused(typed: str) -> None:
    with pytest.raises(InputError, match=f"^unknown backbone '{typed}'; nearest: "):
        load_backbone(typed)


def test_of_the_hub_only_timms_networks_are_taken() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="only hf-hub:timm/NAME is taken"):
        typed_backbone("hf-hub:org/model")


@pytest.mark.parametrize(
    "name",
    [PAYLOAD, "hf-hub:org/model", "hf_hub:org/model", "timm:resnet18", "local-dir:/tmp/x",
     "file:///tmp/x", "resnet18.", "resnet18./../../x", "resnet18.no_such_tag", "/tmp/x", ""],
)  # fmt: skip
def test_a_string_never_becomes_code_a_path_or_an_address(
    name: str, ran: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("the network is used")

    monkeypatch.setattr("socket.getaddrinfo", reached)
    with pytest.raises(InputError, match="unknown backbone"):
        load_backbone(name, tap="act")
    assert not ran()


def test_a_checkpoint_runs_no_code(tmp_path: Path, ran: Callable[[], bool]) -> None:
    path = friendly_checkpoint(tmp_path)
    with pytest.raises(InputError, match=f"{path} names code to run, {PAYLOAD}"):
        open_predictor(str(path), CPU)
    assert not ran()
    with pytest.raises(InputError, match="factory payload"):  # typed, it does run
        open_predictor(str(path), CPU, ClassifierOptions(Factory(PAYLOAD)))
    assert ran()


def test_a_manifest_runs_no_code(tmp_path: Path, ran: Callable[[], bool]) -> None:
    path = write_export(tmp_path / "export", lambda m: m["backbone"].update(name=PAYLOAD))
    manifest = tmp_path / "export" / "manifest.json"
    with pytest.raises(InputError, match=f"{manifest} names code to run, {PAYLOAD}"):
        plain_predictor(open_predictor(str(path), CPU), CPU)
    assert not ran()


@pytest.mark.parametrize("command", ["eval", "eval against", "drift", "train from it"])
def test_a_friendly_checkpoint_is_one_line_and_exit_code_3(
    command: str,
    tmp_path: Path,
    ran: Callable[[], bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = friendly_checkpoint(tmp_path)
    images = tmp_path / "images" / "n01440764"
    images.mkdir(parents=True)
    random_picture(0, size=64).save(images / "0.png")
    options = ["--images", images.parent]
    match command:
        case "eval":
            code = exit_code_of(evaluate.main, "afd-eval", checkpoint, *options)
        case "eval against":
            model = write_export(tmp_path / "export")
            code = exit_code_of(evaluate.main, "afd-eval", model, *options, "--against", checkpoint)
        case "drift":
            drift = ("drift", "--checkpoint", checkpoint, "--out", tmp_path / "drift")
            code = exit_code_of(evaluate.main, "afd-eval", *drift, *options)
        case _:  # the classifier is the typed one, whatever the checkpoint says
            start = ("--backbone", "squeezenet1_1", "--init", checkpoint)
            out = ("--out", tmp_path / "out.safetensors")
            code = exit_code_of(train.main, "afd-train", *start, *options, *out)
    error = capsys.readouterr().err
    assert code == 3 and len(error.splitlines()) == 1, error
    if command != "train from it":
        assert error.endswith(
            f"checkpoint {checkpoint} names code to run, {PAYLOAD}, as its classifier; "
            f"if you trust that code, add --backbone {PAYLOAD}\n"
        )
    assert not ran()
