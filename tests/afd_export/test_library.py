"""`afd_mobile.load`, `fuse`, `correct` and `export`, as a person's own program calls them."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import afd_mobile
from afd_export.convert import recipes
from afd_export.pipeline import ExportResult
from afd_mobile.classifiers.names import Module
from afd_mobile.classifiers.sources import bundled_weights
from afd_mobile.common.artifacts import Precision, read_manifest
from afd_mobile.common.errors import AfdError, AfdWarning, InputError, OutputError, UsageError
from afd_mobile.common.labels import labels_inside
from afd_mobile.evaluation.predictors import NotAtHandError, open_predictor, plain_predictor
from afd_mobile.network.corrections import InsideModule
from afd_mobile.network.repconv import RepConv
from afd_mobile.tflite.litert import LiteRtModel
from tests.afd_export.conftest import write_pictures
from tests.afd_mobile import tiny_blocks

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference" / "api.md"
NAMES = [f"flower {number}" for number in range(10)]
HALF = (0.5, 0.5, 0.5)


def tiny(**attributes: object) -> nn.Module:
    network = tiny_blocks.make()
    for name, value in ({"input_size": tiny_blocks.SIZE} | attributes).items():
        setattr(network, name, value)
    return network


def pictures(count: int = 2, size: int = tiny_blocks.SIZE) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, size, size)).astype(np.float32))


def plainly(network: nn.Module, mean: float = 0.5, std: float = 0.5) -> Tensor:
    """What it answers by itself, fed as it was trained."""
    logits: Tensor = network.eval()((pictures() / 255 - mean) / std)
    return logits.detach()


def test_the_library_is_what_completion_shows() -> None:
    assert {"load", "fuse", "correct", "export", "__version__"} <= set(dir(afd_mobile))
    assert set(afd_mobile.__all__) <= set(dir(afd_mobile))
    with pytest.raises(AttributeError, match="module 'afd_mobile' has no attribute 'corect'"):
        afd_mobile.corect  # type: ignore[attr-defined]  # noqa: B018


def test_every_example_of_the_reference_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = load_file(bundled_weights("mobilenet_v2"))
    ten = {k: v[:10] if k.startswith("classifier.") else v for k, v in state.items()}
    torch.save(ten, "my10.pth")
    blocks = re.findall(r"^```python\n(.*?)^```$", REFERENCE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 6
    namespace: dict[str, Any] = {"__name__": "reference"}
    torch.manual_seed(0)  # of some random networks the answers hardly vary, as one run in many met
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AfdWarning)
        for block in blocks:
            exec(compile(block, "api.md", "exec"), namespace)
    assert [w.filename for w in caught] == ["api.md"] * len(caught)
    fits = "checkpoint afd-mobilenet_v2-mobile was trained on mobilenet_v2 with bundled weights, "
    assert str(caught[0].message).startswith(f"{fits}and fits MobileNetV2 with its own weights")
    # What the page says that its examples print.
    printed = capsys.readouterr().out
    said = re.findall(r"print\(\w+\)  # (.*)$", "\n".join(blocks), re.M)
    assert len(said) == 2 and all(f"{line}\n" in printed for line in said)
    (tflite,) = Path("exports/flowers").glob("*.tflite")
    assert labels_inside(tflite) == ["daisy", "rose", "tulip"]
    assert not Path("exports/strict").exists()


def test_a_module_is_copied_and_keeps_mode_gradients_weights_and_random_numbers() -> None:
    network = tiny(mean=HALF, std=list(HALF)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    graph = afd_mobile.correct(network, "none")
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert any(getattr(module, "inplace", False) for module in network.modules())
    assert not any(parameter.requires_grad for parameter in graph.parameters())


def test_without_a_module_it_answers_as_the_network_does_with_its_own_normalisation() -> None:
    network = tiny(mean=HALF, std=list(HALF))
    graph = afd_mobile.correct(network, "none")
    expected = plainly(network)
    torch.testing.assert_close(graph(pictures()), expected, rtol=0, atol=1e-3)
    typed = afd_mobile.correct(network, "none", mean=[0.4] * 3, std=[0.25] * 3)
    expected = plainly(network, 0.4, 0.25)
    torch.testing.assert_close(typed(pictures()), expected, rtol=0, atol=1e-3)
    assert afd_mobile.correct(network, "none", input_size=64)(pictures(size=64)).shape == (2, 10)
    double = tiny(mean=HALF, std=HALF).double()  # computed in float32
    assert afd_mobile.correct(double, "none")(pictures()).dtype == torch.float32


def test_a_network_is_taken_out_of_its_wrappers() -> None:
    network = tiny(mean=HALF, std=HALF)
    compiled = torch.compile(network)
    assert isinstance(compiled, nn.Module)
    wrapped = nn.DataParallel(compiled)
    graph = afd_mobile.correct(wrapped, "none")
    torch.testing.assert_close(graph(pictures()), plainly(network), rtol=0, atol=1e-3)
    assert str(Module(wrapped)) == type(network).__name__


def test_an_untrained_module_corrects_fused_and_can_be_exported_by_torch() -> None:
    network = tiny(mean=HALF, std=HALF)
    with pytest.warns(AfdWarning, match=r"untrained \(random\)") as caught:
        graph = afd_mobile.correct(network, "random")
    assert [w.filename for w in caught] == [__file__]
    assert any(isinstance(module, InsideModule) for module in graph.modules())
    assert not any(isinstance(module, RepConv) for module in graph.modules())
    logits = graph(pictures())
    batch = torch.export.Dim("batch")
    program = torch.export.export(graph, (pictures(),), dynamic_shapes=({0: batch},))
    found = program.module()(pictures(3))
    torch.testing.assert_close(found[:2], logits, rtol=1e-4, atol=1e-4)


def test_names_are_those_of_the_command_line(tmp_path: Path) -> None:
    network = tiny(mean=HALF, std=HALF)
    by_name = afd_mobile.correct(tiny_blocks.NAME, "none", mean=HALF, std=HALF, input_size=96)
    expected = afd_mobile.correct(network, "none")(pictures())
    torch.testing.assert_close(by_name(pictures()), expected)
    weights = tmp_path / "mine.pth"
    state = network.state_dict()
    torch.save(state | {"classifier.1.bias": state["classifier.1.bias"] + 1}, weights)
    own = afd_mobile.correct(
        tiny_blocks.NAME, "none", backbone_weights=weights, mean=HALF, std=HALF, input_size=96
    )
    torch.testing.assert_close(own(pictures()), expected + 1, rtol=1e-4, atol=1e-4)


def test_a_modules_weights_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that happens to be called as its class is not looked at."""
    network = tiny(mean=HALF, std=HALF)
    torch.save({k: v * 0 for k, v in network.state_dict().items()}, tmp_path / "MobileNetV2.pth")
    monkeypatch.setenv("AFD_WEIGHTS_DIR", str(tmp_path))
    logits = afd_mobile.correct(network, "none")(pictures())
    torch.testing.assert_close(logits, plainly(network), rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="MobileNetV2 holds its own; leave it out"):
        afd_mobile.correct(network, "none", backbone_weights="random")


def traced_by_jit() -> nn.Module:
    module: nn.Module = torch.jit.trace(tiny(), pictures())  # type: ignore[no-untyped-call]
    return module


def without_values() -> nn.Module:
    return tiny().to("meta")


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (traced_by_jit, {}, InputError, "is TorchScript; give the nn.Module that it was made from"),
        (without_values, {}, InputError, "MobileNetV2 cannot be copied: .*meta tensor"),
        (lambda: tiny(mean=(0.5, 0.5)), {}, InputError, r"mean of MobileNetV2 is \(0.5, 0.5\); th"),
        (tiny, {"mean": [0.5]}, UsageError, r"--mean 0\.5: three numbers"),
        (tiny, {"std": [0.5, 0.5, 0]}, UsageError, r"--std 0\.5 0\.5 0: three numbers"),
        (tiny, {"input_size": 100}, UsageError, "size 100 is not .* --input-size 96 or 104"),
        (tiny, {"input_size": -8}, UsageError, "size -8 is not .* --input-size 8$"),
        (tiny, {"checkpoint": "mine"}, InputError, "no checkpoint 'mine'"),
        (tiny, {"checkpoint": "afd-mobilenet_v2-mobile"}, InputError, "; train a module for it"),
        (lambda: "mobilenet_v9", {}, InputError, "unknown backbone 'mobilenet_v9'"),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_cannot_be_corrected_is_one_line(
    make: Callable[[], nn.Module | str],
    arguments: dict[str, Any],
    error: type[AfdError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        afd_mobile.correct(make(), **({"checkpoint": "none"} | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precisions": ["int4"]}, UsageError, r"precisions \['int4'\]: give a list of float32, "),
        ({"precisions": "int8"}, UsageError, "precisions 'int8': give a list of float32, float16"),
        ({"precisions": []}, UsageError, r"precisions \[\]: give a list"),
        ({"labels": NAMES[:9]}, InputError, "labels: found 9, expected 10; give one line for eve"),
        ({"labels": ["a"] * 10}, InputError, "labels: lines 1 and 2 are both 'a'"),
        ({"labels": ["a\nb"]}, InputError, r"labels: 'a\\nb' is no text of one line"),
        ({"labels": range(10)}, InputError, "labels: 0 is no text of one line"),
        ({"labels": []}, InputError, "labels: line 1 is empty"),
        ({"labels": "none.txt"}, InputError, r"labels none\.txt cannot be read"),
        ({"images": "none"}, InputError, "none"),
        ({"out": "."}, OutputError, r"output \. is no export folder"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    arguments: dict[str, Any],
    error: type[AfdError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(error, match=message) as caught:
        afd_mobile.export(tiny(), "none", **({"labels": NAMES} | arguments))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.txt"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, ExportResult, list[Any]]:
    """The tiny network, its export, of which float16 crosses its limit, and the warnings."""
    folder = tmp_path_factory.mktemp("library")
    write_pictures(folder / "few", 2)
    shutil.copytree(recipes.recipes_dir(), folder / "recipes")
    recipe = folder / "recipes" / "float16.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("max_error = 2e-2", "max_error = 0.0"))
    network = tiny(mean=HALF, std=HALF)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        patch.setattr(recipes, "recipes_dir", lambda: folder / "recipes")
        patch.chdir(folder)
        warnings.simplefilter("always")
        result = afd_mobile.export(
            network, "none", labels=NAMES, images="few", precisions=["float32", "float16"]
        )
        result = ExportResult(folder / result.folder, result.manifest, result.failed)
    return network, result, caught


def test_an_export_is_named_after_the_class_and_holds_the_labels(
    exported: tuple[nn.Module, ExportResult, list[Any]],
) -> None:
    network, result, _ = exported
    assert result.folder.parts[-2:] == ("exports", "MobileNetV2-plain")
    assert result.published == {Precision.FLOAT32}
    assert result.manifest["backbone"]["weights"] == "module"
    assert read_manifest(result.folder)["name"] == result.manifest["name"] == "MobileNetV2-plain"
    tflite = result.folder / "MobileNetV2-plain_float32.tflite"
    assert labels_inside(tflite) == NAMES
    model, images = LiteRtModel(tflite), pictures().numpy().transpose(0, 2, 3, 1)
    found = np.concatenate([model.run(np.ascontiguousarray(image[None])) for image in images])
    expected = plainly(network).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)


def test_a_precision_that_fails_is_returned_and_warned_of(
    exported: tuple[nn.Module, ExportResult, list[Any]],
) -> None:
    _, result, caught = exported
    assert set(result.failed) == {Precision.FLOAT16}
    told = [w for w in caught if issubclass(w.category, AfdWarning)]
    assert {w.filename for w in told} == {__file__}
    said = "exports/MobileNetV2-plain is published without float16: "
    assert str(told[-1].message) == f"{said}{result.failed[Precision.FLOAT16]}"


def test_an_export_of_a_module_cannot_find_its_classifier_again(
    exported: tuple[nn.Module, ExportResult, list[Any]],
) -> None:
    device = torch.device("cpu")
    model = open_predictor(str(exported[1].folder), device)
    with pytest.raises(NotAtHandError, match=r"in Python, MobileNetV2; .* --against FOLDER"):
        plain_predictor(model, device)
