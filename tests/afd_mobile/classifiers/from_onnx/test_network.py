"""A classifier that comes as an ONNX file."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from afd_mobile.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from afd_mobile.checkpoints.fit import load_fitting, notices_of_fit, record_of
from afd_mobile.classifiers.backbones import load_backbone
from afd_mobile.classifiers.from_onnx.network import example_pictures
from afd_mobile.classifiers.names import OnnxFile, named_backbone, typed_backbone
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.classifiers.sources import IMAGENET_MEAN, IMAGENET_STD
from afd_mobile.classifiers.tap_list import tap_list
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.evaluation.predictors import open_predictor
from afd_mobile.network.corrections import InsideModule
from tests.afd_mobile.checkpoints.test_fit import weights_file
from tests.afd_mobile.conftest import AfdTrain
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.tiny_classifier import FACTORY, NAME, TAP, make, make_module

PLACES = ("scale:conv", "residual:act2")
FILE = Path("mine.safetensors")


class Wrapped(nn.Module):
    """Of other names, and fed with pictures from 0 to 255 or 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, full: int | None = None, *, softmax: bool = False) -> None:
        super().__init__()
        self.net, self.full, self.softmax = net, full, softmax
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        if self.full is not None:
            x = ((x / 255 if self.full == 255 else x) - self.mean) / self.std
        logits: Tensor = self.net(x)
        return logits.softmax(1) if self.softmax else logits


def wrapped() -> nn.Module:
    """A factory of the tiny classifier under other names."""
    return Wrapped(make())


def write(path: Path, network: nn.Module, size: int = 224, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(1, 3, size, size),), str(path), dynamo=False,
            input_names=["x"], output_names=["y"], **options,  # type: ignore[arg-type]
        )  # fmt: skip
    return path


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier as it is, of any batch."""
    folder = tmp_path_factory.mktemp("onnx")
    return write(folder / "my10.onnx", make(), dynamic_axes={"x": {0: "n"}})


# --- what it computes ---------------------------------------------------------------------------


def test_it_answers_as_the_network_that_it_was_made_of(tiny: Path) -> None:
    backbone = load_backbone(OnnxFile(tiny))
    assert (backbone.name, backbone.weights, backbone.classes) == ("my10.onnx", "onnx", 10)
    x = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        found, expected = backbone.tail(backbone.head(x)), make()(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("full", [1, 255])
def test_the_normalisation_is_read_from_the_graph(tmp_path: Path, full: int) -> None:
    backbone = load_backbone(OnnxFile(write(tmp_path / "n.onnx", Wrapped(make(), full))))
    assert backbone.mean == pytest.approx(IMAGENET_MEAN, rel=1e-5)
    assert backbone.std == pytest.approx(IMAGENET_STD, rel=1e-5)
    assert backbone.notices == ()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        found, expected = backbone.tail(backbone.head(x)), make()(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"--mean: n\.onnx normalises its pictures itself"):
        load_backbone(OnnxFile(tmp_path / "n.onnx"), mean=(0.1, 0.1, 0.1))


def test_an_assumed_normalisation_and_a_softmax_are_said(tiny: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "s.onnx", Wrapped(make(), softmax=True))
    softmax, assumed = load_backbone(OnnxFile(path)).notices
    assert softmax == "s.onnx ends in a Softmax, which is left out"
    assert assumed.startswith("s.onnx does not say how its pictures are normalised: taken as Image")
    half = (0.5, 0.5, 0.5)
    backbone = load_backbone(OnnxFile(tiny), mean=half, std=half)
    assert (backbone.mean, backbone.std, backbone.notices) == (half, half, ())


def test_what_it_does_not_say_is_as_a_checkpoint_remembers(tiny: Path, tmp_path: Path) -> None:
    """Its own normalisation and size come first, and what was typed before all."""
    half, dark = (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)
    own = load_backbone(FACTORY, tap=TAP, mean=half, std=half, input_size=96)
    record = record_of(own, make_module())
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    silent = OnnxFile(write(tmp_path / "free.onnx", make(), dynamic_axes=axes))
    backbone = load_backbone(silent, record=record)
    assert (backbone.mean, backbone.std, backbone.input_size) == (half, half, 96)
    (assumed,) = backbone.notices
    assert f"taken as {NAME}'s; if it was trained otherwise, give --mean and --std" in assumed
    assert load_backbone(silent, record=record, mean=dark, input_size=64).mean == dark
    same = dataclasses.replace(record, name="free.onnx")
    assert load_backbone(silent, record=same).notices == ()
    assert load_backbone(OnnxFile(tiny), record=record).input_size == 224
    says = OnnxFile(write(tmp_path / "says.onnx", Wrapped(make(), 255)))
    backbone = load_backbone(says, record=dataclasses.replace(record, name="says.onnx"))
    assert backbone.mean == pytest.approx(IMAGENET_MEAN, rel=1e-5) and backbone.notices == ()


class Shuffled(nn.Module):
    """Shapes that are computed, groups, branches, an activation in pieces, uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.classes = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        one, other = x.chunk(2, 1)
        x = torch.cat([one + 1, torch.nn.functional.gelu(other)], 1)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        result: Tensor = self.classes(x.mean((2, 3)))
        return result


@pytest.mark.parametrize("options", [{}, {"opset_version": 18, "dynamic_axes": {"x": {0: "n"}}}])
def test_operators_of_mobile_networks(tmp_path: Path, options: dict[str, object]) -> None:
    network = Shuffled()
    backbone = load_backbone(OnnxFile(write(tmp_path / "s.onnx", network, 64, **options)))
    assert (backbone.input_size, backbone.classes) == (64, 5)
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        found, expected = backbone.tail(backbone.head(x)), network(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_its_nodes_are_listed(tiny: Path) -> None:
    lines = tap_list(OnnxFile(tiny), None)
    assert [line.split()[0] for line in lines[1:3]] == ["stem_Conv", "act_Relu"]
    assert load_backbone(OnnxFile(tiny), tap="act_Relu").activation == "relu"


# --- a module of the same layers ----------------------------------------------------------------


@pytest.mark.parametrize("places", [PLACES, ()], ids=["inside", "single tap"])
def test_a_module_finds_its_layers_whatever_their_names(
    tiny: Path, places: tuple[str, ...]
) -> None:
    """As an ONNX file, and in a wrapper; and back again."""
    own = load_backbone(FACTORY, tap=TAP)
    module = inside_module(own, *places) if places else make_module()
    checkpoint = Checkpoint(module, NAME, TAP, {}, record_of(own, module))
    others = {str(tiny): "act_Relu", f"{__name__}:wrapped": "net.act"}
    for typed, tap in others.items():
        fitted, backbone = load_fitting(checkpoint, FILE, ClassifierOptions(typed_backbone(typed)))
        assert (fitted.tap, backbone.tap) == (tap, tap)
        assert notices_of_fit(fitted, backbone, FILE) == []
        if isinstance(fitted.module, InsideModule):
            assert [p.node for p in fitted.module.config.places] == [
                {"act_Relu": "conv_Conv", "net.act": "net.conv"}[tap],
                {"act_Relu": "act2_Relu", "net.act": "net.act2"}[tap],
            ]
            found = fitted.module.state_dict()
            assert all(torch.equal(v, found[k]) for k, v in module.state_dict().items())
        record = record_of(backbone, fitted.module)
        again = Checkpoint(fitted.module, typed, tap, {}, record)
        assert load_fitting(again, FILE, ClassifierOptions(FACTORY))[0].tap == "act"


def test_a_training_starts_from_a_module_of_other_names(
    tiny: Path, tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    """And takes the classifier that the checkpoint names, where none is typed."""
    own = load_backbone(FACTORY, tap=TAP)
    module = inside_module(own, *PLACES)
    first, out = tmp_path / "first.safetensors", tmp_path / "out.safetensors"
    save_checkpoint(first, Checkpoint(module, NAME, TAP, {}, record_of(own, module)))
    text = "--iterations 1 --batch 2 --workers 1 --device cpu"
    options = (*text.split(), "--images", photos, "--out", out, "--init", first)
    refused = afd_train(*options)
    assert refused.code == 3 and f"names code to run, {NAME}, as its classifier" in refused.err
    done = afd_train(*options, "--backbone", tiny)
    assert done.code == 0, done.err
    found = load_checkpoint(out)
    assert (found.backbone, found.tap) == (tiny.name, "act_Relu")
    assert isinstance(found.module, InsideModule)
    assert [p.node for p in found.module.config.places] == ["conv_Conv", "act2_Relu"]


def test_other_layers_are_refused_and_said(tmp_path: Path) -> None:
    own, module = load_backbone(FACTORY, tap=TAP), make_module()
    checkpoint = Checkpoint(module, NAME, TAP, {}, record_of(own, module))
    noisy = load_backbone(FACTORY, weights=str(weights_file(tmp_path / "w.safetensors", before=1)))
    network = nn.Sequential(noisy.head, noisy.tail)
    other = OnnxFile(write(tmp_path / "noisy.onnx", network))
    with pytest.raises(InputError, match=r"none of this classifier's layers answers as act does"):
        load_fitting(checkpoint, FILE, ClassifierOptions(other))


def test_a_network_for_another_size_alone_is_refused(tmp_path: Path) -> None:
    """Its layers cannot be compared with what is recorded."""
    own, module = load_backbone(FACTORY, tap=TAP), make_module()
    checkpoint = Checkpoint(module, NAME, TAP, {}, record_of(own, module))
    network = nn.Sequential(*list(make())[:4], nn.Flatten(), nn.Linear(16 * 8 * 8, 10))
    other = OnnxFile(write(tmp_path / "fixed.onnx", network, 64))
    with pytest.raises(InputError, match=r"at 224 x 224 pixels, of which this classifier takes no"):
        load_fitting(checkpoint, FILE, ClassifierOptions(other))


def test_a_recorded_file_must_be_typed() -> None:
    with pytest.raises(InputError, match=r"^x is for the ONNX file a\.onnx; say where it lies"):
        named_backbone("a.onnx", None, what="x")


def test_an_evaluation_takes_it(tiny: Path, tmp_path: Path) -> None:
    from afd_mobile.checkpoints.checkpoint import save_checkpoint

    own = load_backbone(FACTORY, tap=TAP)
    module = inside_module(own, *PLACES)
    save_checkpoint(tmp_path / FILE, Checkpoint(module, NAME, TAP, {}, record_of(own, module)))
    pictures = example_pictures(224)
    cpu = torch.device("cpu")
    found, expected = (
        open_predictor(str(tmp_path / FILE), cpu, ClassifierOptions(typed)).logits(pictures)
        for typed in (OnnxFile(tiny), FACTORY)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


# --- what is refused ----------------------------------------------------------------------------


def channels_last(model: onnx.ModelProto) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, (1, 224, 224, 3), strict=True):
        dim.dim_value = value


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def two_outputs(model: onnx.ModelProto) -> None:
    name = model.graph.node[0].output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def strange_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "ThresholdedRelu"


def not_square(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 96


def bytes_in(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="my10.onnx.data")


def nan(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    broken = np.full(numpy_helper.to_array(tensor).shape, np.nan, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(broken, tensor.name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (channels_last, r"takes \(1, 224, 224, 3\), channels last; only \(N, 3, S, S\) is taken"),
        (two_inputs, r"has 2 inputs \(x, z\); only one is taken"),
        (two_outputs, r"has 2 outputs \(y, .*\); only one is taken"),
        (strange_operator, r"not known here: ThresholdedRelu \(node act_Relu\); give the network"),
        (not_square, r"takes \(any, 3, 224, 96\); only square pictures"),
        (bytes_in, r"takes uint8; only float32"),
        (weights_elsewhere, r"keeps its weights in a file beside it, which cannot be read"),
        (nan, r"gives \(2, 10\) in onnxruntime, and no finite numbers as imported"),
    ],
)
def test_what_cannot_be_taken_is_one_line(
    tiny: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    path = tmp_path / "my10.onnx"
    path.write_bytes(tiny.read_bytes())
    with pytest.raises(InputError, match=said) as caught:
        load_backbone(OnnxFile(changed(path, change)))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_no_onnx_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my10.onnx"
    with pytest.raises(InputError, match=f"no such file: {path}"):
        load_backbone(OnnxFile(path))
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is no ONNX model"):
        load_backbone(OnnxFile(path))


def test_weights_and_sizes_of_its_own(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"my10\.onnx holds its own; leave it out"):
        load_backbone(OnnxFile(tiny), weights="random")
    with pytest.raises(InputError, match=r"takes pictures of 224 x 224, not of 96; leave out"):
        load_backbone(OnnxFile(tiny), input_size=96)
