from __future__ import annotations

import copy
import functools
import socket
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from afd_mobile.classifiers.backbones import Normalize, check_size, load_backbone
from afd_mobile.classifiers.names import Factory
from afd_mobile.classifiers.sources import IMAGENET_MEAN, NAMED_TAPS, bundled_weights
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.resources import models_dir

TINY_NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 6))

class Twofold(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = make(), make()

    def forward(self, x):
        return self.one(x) + self.other(x)

def twofold():
    return Twofold()

def fails():
    raise RuntimeError("no such luck")

def number():
    return 3

def scripted():
    import torch
    return torch.jit.script(make())

def exported():
    import torch
    return torch.export.export(make(), (torch.zeros(1, 3, 32, 32),))

class Named(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}

def named():
    return Named(make())

def flattened(pictures=(32, 32), **attributes):
    # For pictures of this size alone, with attributes as a person may give them.
    h, w = pictures
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * h * w // 4, 6))
    for name, value in attributes.items():
        setattr(network, name, value)
    return network

def wide():
    return flattened((32, 48))

def recorded():
    return flattened(mean=[0.4, 0.5, 0.6], std=(0.2, 0.25, 1), input_size=(3, 32, 32))

def with_buffers():
    import torch
    network = make()
    network.register_buffer("mean", torch.zeros(3))
    return network

def two_means():
    return flattened(mean=(0.5, 0.5))

def no_std():
    return flattened(std=(0.5, 0.5, 0.0))

def not_square():
    return flattened(input_size=(32, 48))
"""


def resnet18_weights(path: Path, classes: int, seed: int = 5) -> nn.Module:
    """Saves random weights to `path`; the network that has them."""
    torch.manual_seed(seed)
    model: nn.Module = models.resnet18(num_classes=classes).eval()
    torch.save(model.state_dict(), path)
    return model


@functools.cache  # of several tests; nothing changes it
def untrained(name: str) -> nn.Module:
    """The whole network as its library builds it, seeded as `load_backbone` is."""
    torch.manual_seed(0)
    build = models.get_model if name in models.list_models() else timm.create_model
    model: nn.Module = build(name).eval()
    return model


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "tf_efficientnet_lite0"])
def test_bundled_head_then_tail_is_the_whole_network_exactly(name: str) -> None:
    whole = copy.deepcopy(untrained(name))
    whole.load_state_dict(load_file(bundled_weights(name)))
    backbone = load_backbone(name)
    assert (backbone.weights, backbone.trained, backbone.classes) == ("bundled", True, 1000)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = backbone.head(x)
        assert torch.equal(backbone.tail(features), whole(x))
    assert features.shape == (1, backbone.channels, *[backbone.feature_size] * 2)
    assert not any(p.requires_grad for p in backbone.tail.parameters())


# Of every named tap: its stride and what the classifier applied last there.
RECORDED = {
    "mobilenet_v2": {"D4": (8, "identity"), "D1": (2, "relu6")},
    "squeezenet1_1": {"D2": (4, "identity"), "D1": (2, "relu")},
    "tf_efficientnet_lite0": {
        "D4": (8, "identity"),
        "D1": (2, "relu6"),
        "D2": (2, "identity"),
        "D3": (4, "identity"),
    },
    "resnet50": {"D2": (2, "relu"), "D1": (2, "identity"), "D3": (4, "relu"), "D4": (4, "relu")},
    "repvgg_a2": {"D1": (2, "relu"), "D2": (4, "relu"), "D3": (4, "relu"), "D4": (8, "relu")},
}


LARGE = ("resnet50", "repvgg_a2")


def test_every_named_tap_is_looked_at() -> None:
    assert {name: [*taps] for name, taps in RECORDED.items()} == {
        name: [*taps] for name, taps in NAMED_TAPS.items()
    }


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        pytest.param(name, tap, marks=[pytest.mark.long] * (name in LARGE and number > 0))
        for name, taps in RECORDED.items()
        for number, tap in enumerate(taps)
    ],
)
def test_every_named_tap_cuts_exactly(name: str, tap: str) -> None:
    whole = untrained(name)
    first = next(iter(NAMED_TAPS[name]))
    chosen = None if tap == first else tap
    backbone = load_backbone(name, tap=chosen, weights="random", input_size=64)
    assert backbone.tap == NAMED_TAPS[name][tap]
    assert (backbone.stride, backbone.activation) == RECORDED[name][tap]
    assert not backbone.trained
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone.head(x)
        kept = features.clone()
        assert torch.equal(backbone.tail(features), whole(x))
    assert torch.equal(features, kept)  # nothing in the tail works in place
    size, stride = backbone.feature_size, backbone.stride
    assert 64 in (size * stride, (size + 1) * stride)


def test_bundled_weights_bring_their_own_normalisation() -> None:
    own, librarys = (load_backbone("tf_efficientnet_lite0", weights=w) for w in ("auto", "random"))
    assert librarys.mean == librarys.std == (0.5, 0.5, 0.5)
    pixels = torch.tensor([0.0, 127.0, 255.0])[None, None].expand(1, 3, 3, 3)
    normalized = Normalize(own.mean, own.std)(pixels)[0, 0, 0]
    torch.testing.assert_close(normalized, torch.tensor([-127 / 128, 0.0, 1.0]))
    assert own.input_size == 224
    assert load_backbone("tf_efficientnet_lite0", mean=(0.1, 0.2, 0.3)).mean == (0.1, 0.2, 0.3)


def test_a_wrong_tap_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no node 'layer1\.9'.*nearest: .*layer1\.") as caught:
        load_backbone("resnet18", tap="layer1.9", weights="random", input_size=64)
    assert "\n" not in str(caught.value)


def test_a_wrong_tap_of_the_papers_names_those_that_there_are() -> None:
    with pytest.raises(InputError) as caught:
        load_backbone("mobilenet_v2", tap="D9", weights="random", input_size=64)
    assert str(caught.value) == (
        "backbone mobilenet_v2 has no node 'D9'; nearest: D4, D1; --taps list shows those "
        "that can be corrected"
    )


def test_a_tap_beside_a_skip_connection_is_refused() -> None:
    with pytest.raises(InputError, match="skip connection"):
        load_backbone("resnet18", tap="layer1.0.conv1", weights="random", input_size=64)


def test_a_tap_that_is_no_feature_map_is_refused() -> None:
    with pytest.raises(InputError, match="earlier tap"):
        load_backbone("resnet18", tap="fc", weights="random", input_size=64)


# The end of the last block at stride 8, with what follows it wider, or none there.
CHOSEN = {
    "resnet18": ("layer2.1.relu_1", 128),
    "mobilenetv2_050": ("blocks.2.2.add", 16),
    "tf_efficientnetv2_b0": ("blocks.2.1.add", 48),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_network_without_named_taps_is_cut_behind_its_last_block_at_stride_8(name: str) -> None:
    whole = untrained(name)
    backbone = load_backbone(name, weights="random", input_size=64)
    assert (backbone.tap, backbone.channels) == CHOSEN[name]
    assert (backbone.stride, backbone.feature_size) == (8, 8)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), whole(x))


@pytest.mark.parametrize(
    ("before", "tap"),
    [
        (["features.7.conv.1.2", "features.9"], "features.6"),
        (["features.6"], "features.6"),
        (["features.9", "features.3.conv.1.2"], "features.2.conv.3"),
        (["features.4.conv.1"], "features.4.conv.1.2"),
        (["features.0.0"], "features.0.0"),
    ],
)
def test_the_cut_lies_before_all_that_is_to_be_corrected(before: list[str], tap: str) -> None:
    """MobileNetV2's own tap, or the last node with a single path: block 3 has a skip, 4 has not."""
    whole = untrained("mobilenet_v2")
    backbone = load_backbone("mobilenet_v2", before=before, weights="random", input_size=64)
    assert backbone.tap == tap
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), whole(x))


def test_typed_nodes_of_a_network_without_named_taps() -> None:
    backbone = load_backbone("resnet18", before=["layer1.1.conv2"], weights="random", input_size=64)
    assert backbone.tap == "layer1.0.relu_1"


def test_a_network_without_a_single_path_cannot_be_cut(tiny_network: str) -> None:
    with pytest.raises(InputError, match="no feature map from which alone the rest is computed"):
        load_backbone(Factory(f"{tiny_network}:twofold"), input_size=32)


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'mobilenet_v22'.*mobilenet_v2"):
        load_backbone("mobilenet_v22")


def test_what_an_unknown_backbone_begins_is_nearest() -> None:
    with pytest.raises(InputError, match="nearest: mobilenet_v3_large, mobilenet_v3_small, "):
        load_backbone("mobilenet_v3")


def test_an_input_size_that_8_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match=r"100.*96 or 104"):
        load_backbone("resnet18", tap="relu", weights="random", input_size=100)


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.2), (0.2, -1.0, 0.2), (0.2, float("nan"), 0.2)])
def test_a_normalisation_that_cannot_be_is_refused(std: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="of std above 0"):
        load_backbone("resnet18", tap="relu", weights="random", input_size=64, std=std)


def test_random_weights_follow_the_seed() -> None:
    a, b, c = (
        load_backbone("resnet18", tap="relu", weights="random", input_size=64, seed=s).head
        for s in (3, 3, 4)
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(a(x), b(x))
        assert not torch.equal(a(x), c(x))


@pytest.fixture
def tiny_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, as a person would have it."""
    (tmp_path / "tiny_network_of_mine.py").write_text(TINY_NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_network_of_mine", raising=False)
    return "tiny_network_of_mine"


def test_a_persons_own_factory(tiny_network: str) -> None:
    path_before = list(sys.path)
    backbone = load_backbone(
        Factory(f"{tiny_network}:make"), tap="1", input_size=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert (backbone.channels, backbone.classes, backbone.stride) == (4, 6, 2)
    assert (backbone.activation, backbone.weights) == ("relu", "factory")
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("fails", "no such luck"),
        ("number", "returned int"),
        ("absent", "absent"),
        pytest.param(
            "scripted",
            "returned RecursiveScriptModule",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
        ("exported", "returned ExportedProgram"),
        ("named", "returns a dict, expected logits"),
        ("flattened", r"takes no pictures of 224 x 224 .*--input-size"),
        ("wide", r"takes no pictures of 224 x 224 .*not square are not taken"),
        ("two_means", r"mean of .* is \(0.5, 0.5\); three numbers are needed"),
        ("no_std", "std of .* numbers above 0 are needed"),
        ("not_square", r"input_size of .* is \(32, 48\); only square pictures"),
    ],
)
def test_a_factory_that_fails_is_an_input_error(
    tiny_network: str, attribute: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_backbone(Factory(f"{tiny_network}:{attribute}"), tap="1")


def test_a_factorys_network_brings_its_own_defaults(tiny_network: str) -> None:
    name = Factory(f"{tiny_network}:recorded")
    backbone = load_backbone(name)
    assert (backbone.mean, backbone.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 1.0))
    assert backbone.input_size == 32
    typed = load_backbone(name, mean=(0, 0, 0), std=(1, 1, 1))
    assert (typed.mean, typed.std) == ((0, 0, 0), (1, 1, 1))
    with pytest.raises(InputError, match=r"no pictures of 64 x 64"):
        load_backbone(name, input_size=64)


def test_buffers_of_a_factorys_network_are_not_its_defaults(tiny_network: str) -> None:
    assert load_backbone(Factory(f"{tiny_network}:with_buffers"), tap="1").mean == IMAGENET_MEAN


def test_the_guides_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[3] / "docs" / "guides" / "own-classifier.md"
    _, _, example = guide.read_text("utf-8").partition("```python\n# my_nets.py\n")
    (tmp_path / "my_nets.py").write_text(example.partition("```")[0], "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    torch.save(models.mobilenet_v2(num_classes=10).state_dict(), "my10.pth")
    backbone = load_backbone(Factory("my_nets:flowers"))
    assert (backbone.mean, backbone.input_size, backbone.classes) == ((0.5,) * 3, 192, 10)


def test_other_sizes_than_the_networks_own(tiny_network: str) -> None:
    check_size(load_backbone(Factory(f"{tiny_network}:make"), tap="1"), 64, "--crop")
    fixed = load_backbone(Factory(f"{tiny_network}:recorded"))
    check_size(fixed, 32, "--crop")
    with pytest.raises(InputError, match=r"no pictures of 64 x 64, as --crop .*; give --crop 32"):
        check_size(fixed, 64, "--crop")


def test_the_number_of_classes_comes_from_the_weights(tmp_path: Path) -> None:
    whole = resnet18_weights(tmp_path / "mine.pth", classes=7)
    backbone = load_backbone(
        "resnet18", tap="relu", weights=str(tmp_path / "mine.pth"), input_size=64
    )
    assert backbone.classes == 7
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), whole(x))


def test_weights_as_training_scripts_save_them(tmp_path: Path) -> None:
    whole, path = resnet18_weights(tmp_path / "mine.pth", classes=7), tmp_path / "ema.pth"
    averaged = {f"module.{name}": value for name, value in whole.state_dict().items()}
    raw = {name: torch.zeros_like(value) for name, value in whole.state_dict().items()}
    torch.save({"model": raw, "model_ema": averaged}, path)
    backbone = load_backbone("resnet18", tap="relu", weights=str(path), input_size=64)
    assert backbone.notices == (
        "ema.pth: the averaged weights are taken (model_ema.module) instead of model",
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), whole(x))


def test_a_factory_with_another_number_of_classes_is_told_both(
    tmp_path: Path, tiny_network: str
) -> None:
    state = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4)}
    state |= {"4.weight": torch.ones(9, 4), "4.bias": torch.ones(9)}
    torch.save(state, tmp_path / "nine.pth")
    with pytest.raises(InputError) as caught:
        load_backbone(
            Factory(f"{tiny_network}:make"), weights=str(tmp_path / "nine.pth"), input_size=32
        )
    assert str(caught.value) == (
        f"weights {tmp_path}/nine.pth for backbone {tiny_network}:make are of 9 classes, but it is "
        "built with 6: 4.weight has shape (9, 4), expected (6, 4); build it with 9"
    )


def test_an_afd_checkpoint_is_no_classifiers_weights() -> None:
    checkpoint = next(iter(sorted(models_dir().glob("*.safetensors"))))
    with pytest.raises(InputError, match=r"is an AFD checkpoint, .*: it goes to --checkpoint"):
        load_backbone("mobilenet_v2", weights=str(checkpoint))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    resnet18_weights(tmp_path / "mine.pth", classes=7)
    for name, said in (
        ("resnet34", r"122 found in the outermost entries; 80 missing: layer1\.2\.conv1\.weight"),
        ("mobilenet_v2", r"looked for features\.0\.0\.weight, .*; found 122: conv1\.weight"),
    ):
        with pytest.raises(InputError, match=rf"mine\.pth for backbone {name} do not .*{said}"):
            load_backbone(name, weights=str(tmp_path / "mine.pth"), input_size=64)


def test_the_weights_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resnet18_weights(tmp_path / "resnet18.pth", classes=1000)
    monkeypatch.setenv("AFD_WEIGHTS_DIR", str(tmp_path))
    backbone = load_backbone("resnet18", tap="relu", input_size=64)
    assert backbone.weights == str(tmp_path / "resnet18.pth") and backbone.trained
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.tail(backbone.head(x)), whole(x))


def test_missing_weights_name_every_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("AFD_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_backbone("resnet18", tap="relu", input_size=64)
    message = str(caught.value)
    for part in (
        "resnet18",
        str(tmp_path / "resnet18.pth"),
        "--backbone-weights FILE",
        "$AFD_WEIGHTS_DIR",
        "go online",
        "--backbone-weights random",
    ):
        assert part in message
    assert "\n" not in message


def test_normalize() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
    image = torch.tensor([0.0, 127.5, 255.0])[None, :, None, None]
    out = Normalize(mean, std)(image).flatten()
    torch.testing.assert_close(out, torch.tensor([-2.0, 0.0, 0.8]), rtol=0, atol=1e-6)


def test_a_network_that_gives_pictures_can_be_cut_for_its_features_alone() -> None:
    name = Factory("afd_export.peers.networks:arcnn")
    with pytest.raises(InputError, match="expected logits"):
        load_backbone(name, tap="restore", weights="random", input_size=16)
    cut = load_backbone(name, tap="restore", weights="random", input_size=16, features_only=True)
    assert cut.head(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
