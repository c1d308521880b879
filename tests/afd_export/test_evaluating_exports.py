"""What afd-eval makes of real exports: every file of one export says the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.classifiers.names import Factory
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.cli.evaluate import main as eval_main
from afd_mobile.common.artifacts import sha256
from afd_mobile.common.errors import InputError
from afd_mobile.evaluation.conditions import CLEAN, repeated, single
from afd_mobile.evaluation.outcomes import Outcomes, evaluate, labelled_pictures
from afd_mobile.evaluation.predictors import Predictor, open_predictor, plain_predictor
from afd_mobile.network.afd_module import AfdModule
from tests.afd_export.conftest import Exported, export_here, write_pictures
from tests.afd_mobile.single_tap import single_tap_config
from tests.commands import run_here

CPU = torch.device("cpu")
TINYNET = "tinynet:make"
NAMES = [f"class {letter}" for letter in "abcdefghij"]
TYPED = ClassifierOptions(Factory(TINYNET))
RGB = NDArray[np.uint8]


@pytest.fixture(scope="module")
def checkpoint(made_once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        torch.manual_seed(4)
        module = AfdModule(single_tap_config("mobile", channels=16, stride=2, activation="relu"))
        path = folder / "mine.safetensors"
        save_checkpoint(path, Checkpoint(module.eval(), TINYNET, "act1", {}))

    return made_once("tiny_checkpoint", make) / "mine.safetensors"


@pytest.fixture(scope="module")
def normalized(checkpoint: Path, tiny_dir: Path, made_once: Callable[..., Path]) -> Exported:
    """The checkpoint as files that are fed with normalised pictures."""

    def make(folder: Path) -> None:
        write_pictures(folder / "few", 2)
        (folder / "names.txt").write_text("\n".join(NAMES))
        done = export_here(
            *("--fuse", "--checkpoint", checkpoint, "--backbone", TINYNET),
            *("--input", "normalized", "--precision", "float16", "float32"),
            *("--images", folder / "few", "--labels", folder / "names.txt"),
            *("--out", folder / "mine"),
            cwd=tiny_dir,
        )
        assert done.code == 0, done.err

    return Exported(made_once("normalized", make) / "mine", "", "")


def random_pictures(count: int, size: int) -> RGB:
    """(count, size, size, 3), smooth, no two alike."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in coarse]
    return np.stack([np.asarray(image) for image in resized])


def test_all_files_of_an_export_give_the_logits_of_its_checkpoint(
    in_tiny_dir: Path, checkpoint: Path, normalized: Exported
) -> None:
    pictures = random_pictures(3, 224)
    expected = open_predictor(str(checkpoint), CPU, TYPED).logits(pictures)
    spread = np.ptp(expected)
    targets = {
        normalized.folder / "mine.onnx": 1e-5,
        normalized.tflite("float32"): 1e-5,
        normalized.tflite("float16"): 1e-2,
        normalized.folder: 1e-5,
    }
    for target, tolerance in targets.items():
        logits = open_predictor(str(target), CPU).logits(pictures)
        assert np.abs(logits - expected).max() < tolerance * spread, target
    model = open_predictor(str(normalized.folder), CPU)
    assert model.name == "mine_float32.tflite"
    assert model.sha256 == sha256(normalized.tflite("float32"))
    plain = [
        plain_predictor(open_predictor(str(t), CPU, TYPED), CPU) for t in (checkpoint, *targets)
    ]
    for other in plain[1:]:
        np.testing.assert_allclose(other.logits(pictures), plain[0].logits(pictures), atol=1e-5)
    assert np.abs(plain[0].logits(pictures) - expected).max() > 0.01 * spread


def test_all_files_of_an_export_have_the_counts_of_its_checkpoint(
    in_tiny_dir: Path, tmp_path: Path, checkpoint: Path, normalized: Exported
) -> None:
    for number, picture in enumerate(random_pictures(4, 96)):
        folder = tmp_path / str(number)
        folder.mkdir()
        Image.fromarray(picture).save(folder / "picture.png")
    pictures = labelled_pictures(
        tmp_path, [str(n) for n in range(10)], labels_from="digits", limit=None
    )
    reference = open_predictor(str(checkpoint), CPU, TYPED)

    def outcomes(model: Predictor) -> Outcomes:
        conditions = [CLEAN, single(7), repeated(2)]
        *_, result = evaluate(model, reference, pictures, conditions, workers=0)
        assert isinstance(result, Outcomes)
        return result

    own = outcomes(reference)
    assert own.agreement.all()
    for target in (normalized.folder / "mine.onnx", normalized.folder):
        result = outcomes(open_predictor(str(target), CPU))
        assert result.agreement.all()
        assert np.array_equal(result.top1, own.top1) and np.array_equal(result.top5, own.top5)


def test_a_folder_brings_its_own_labels(
    in_tiny_dir: Path, tmp_path: Path, normalized: Exported
) -> None:
    """The line of its USING.md, by an app's developer who has no code of the classifier's: half of
    the pictures lie in the folder of the class that the file gives."""
    model = open_predictor(str(normalized.folder), CPU)
    for number, picture in enumerate(random_pictures(4, 224)):
        says = int(model.logits(picture[None]).argmax())
        place = tmp_path / "images" / NAMES[(says + number % 2) % 10]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.png")
    report = tmp_path / "a.json"
    options = ("--images", tmp_path / "images", "--qualities", "--workers", 1, "--json", report)
    assert "\nafd-eval FOLDER --images DIR\n" in (normalized.folder / "USING.md").read_text()
    for target in (normalized.folder, normalized.folder / "mine.onnx"):
        done = run_here(eval_main, "afd-eval", target, *options)
        assert done.code == 0, done.err
        (clean,) = json.loads(report.read_bytes())["conditions"]
        assert clean["top1"]["value"] == 0.5 and clean["agreement"]["value"] == 1
        assert "note: compared with itself, so that nothing is recovered: " in done.err
        assert f"add --backbone {TINYNET}" in done.err
    done = run_here(eval_main, "afd-eval", normalized.folder, *options, "--backbone", TINYNET)
    assert (done.code, "note" in done.err) == (0, False)
    assert json.loads(report.read_bytes())["reference"] == TINYNET
    done = run_here(eval_main, "afd-eval", normalized.folder, *options, "--against", "direct")
    assert done.code == 3 and f"add --backbone {TINYNET}" in done.err


# --- raw RGB, and what a quantised file is fed with ----------------------------------------------


def test_a_quantised_file_is_fed_with_raw_bytes(exported: Exported) -> None:
    pictures = random_pictures(2, 64)
    interpreter = Interpreter(model_path=str(exported.tflite("int8")))
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == np.uint8
    expected = []
    for picture in pictures:
        interpreter.set_tensor(given["index"], picture[None])
        interpreter.invoke()
        expected.append(interpreter.get_tensor(result["index"])[0].astype(np.float32))
    if result["dtype"] != np.float32:
        scale, zero = result["quantization"]
        expected = [(e - zero) * scale for e in expected]
    model = open_predictor(str(exported.tflite("int8")), CPU)
    assert (model.input_size, model.classes) == (64, 10)
    np.testing.assert_allclose(model.logits(pictures), expected, rtol=1e-5, atol=1e-4)


def test_files_that_take_raw_pictures_agree(exported: Exported) -> None:
    pictures = random_pictures(3, 64)
    onnx = open_predictor(str(exported.folder / f"{exported.stem}.onnx"), CPU).logits(pictures)
    for precision, tolerance in (("float32", 1e-5), ("float16", 1e-2), ("dynamic", 0.2)):
        logits = open_predictor(str(exported.tflite(precision)), CPU).logits(pictures)
        assert np.abs(logits - onnx).max() < tolerance * np.ptp(onnx), precision


def test_of_four_tflite_files_a_folder_means_the_float32_one(exported: Exported) -> None:
    assert len(list(exported.folder.glob("*.tflite"))) == 4
    model = open_predictor(str(exported.folder), CPU)
    assert model.sha256 == sha256(exported.tflite("float32"))


def without(manifest: dict[str, Any], *precisions: str) -> None:
    manifest["files"] = [f for f in manifest["files"] if f.get("precision") not in precisions]


@pytest.fixture
def changed(normalized: Exported, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the export whose manifest lost some precisions."""

    def change(*precisions: str) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(normalized.folder, folder)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        without(manifest, *precisions)
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return change


def test_the_only_tflite_file_is_taken_whatever_it_is(changed: Callable[..., Path]) -> None:
    assert open_predictor(str(changed("float32")), CPU).name == "mine_float16.tflite"


def test_a_folder_without_tflite_files_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"holds no \.tflite"):
        open_predictor(str(changed("float32", "float16")), CPU)


@pytest.mark.parametrize("length", [0, 4, 5000])
def test_a_truncated_tflite_file_is_refused_and_does_not_crash(
    changed: Callable[..., Path], length: int
) -> None:
    folder = changed()
    path = folder / "mine_float32.tflite"
    path.write_bytes(path.read_bytes()[:length])
    for target in (folder, path):
        with pytest.raises(InputError, match="is not the file that was exported"):
            open_predictor(str(target), CPU)
