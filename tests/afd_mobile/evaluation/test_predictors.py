from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.classifiers.backbones import load_backbone
from afd_mobile.classifiers.names import OnnxFile
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.common.artifacts import SCHEMA_VERSION, sha256
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.evaluation.predictors import (
    NotAtHandError,
    open_predictor,
    plain_predictor,
    recovers,
)
from tests.afd_mobile import tiny_classifier
from tests.afd_mobile.classifiers.from_onnx.test_network import write
from tests.afd_mobile.tiny_classifier import (
    CLASSES,
    FACTORY,
    NAME,
    TAP,
    make,
    make_module,
    normalized,
)

CPU = torch.device("cpu")
TYPED = ClassifierOptions(FACTORY)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.1, 0.3]
Manifest = dict[str, Any]
Change = Callable[[Manifest], object]


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    """(3, 224, 224, 3)."""
    return np.stack([np.asarray(tiny_classifier.random_picture(i)) for i in range(3)])


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_gives_what_head_module_and_tail_give(
    tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    module = make_module()
    path = tiny_classifier.write_checkpoint(tmp_path / "mine.safetensors", module)
    model = open_predictor(str(path), CPU, TYPED)
    assert (model.name, model.sha256) == ("mine", sha256(path))
    assert (model.input_size, model.classes) == (224, len(CLASSES))
    network = make()
    direct, corrected = [], []
    for picture in pictures:
        raw = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))
        with torch.no_grad():
            features = network[:2](normalized(picture))
            direct.append(network[2:](features))
            corrected.append(network[2:](module(features, raw)))
    np.testing.assert_allclose(model.logits(pictures), torch.cat(corrected), atol=1e-3)
    plain = plain_predictor(model, CPU)
    assert (plain.name, plain.sha256, plain.classes) == (NAME, None, len(CLASSES))
    np.testing.assert_allclose(plain.logits(pictures), torch.cat(direct), atol=1e-3)
    assert np.abs(torch.cat(corrected) - torch.cat(direct)).max() > 0.1


def test_a_checkpoint_that_does_not_name_its_classifier_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anonymous.safetensors"
    save_checkpoint(path, Checkpoint(make_module(), None, None, {}))
    with pytest.raises(InputError, match="does not say for which classifier"):
        open_predictor(str(path), CPU)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("demo-corected", "/demo-corrected"),
        ("afd-mobilenet_v2-mobil", " afd-mobilenet_v2-mobile"),
        ("demo-corected/none", None),
        ("another", None),
    ],
)
def test_what_is_mistyped_is_told_what_is_near(
    tmp_path: Path, typed: str, meant: str | None
) -> None:
    (tmp_path / "demo-corrected").mkdir()
    with pytest.raises(InputError) as refused:
        open_predictor(str(tmp_path / typed), CPU)
    said = str(refused.value)
    assert said.startswith(f"there is no file or folder {tmp_path / typed}")
    assert "; give a checkpoint (its file or a shipped one's name: afd-mobilenet_v2-mobile" in said
    assert ("did you mean" in said) == (meant is not None)
    assert meant is None or f"{meant}?)" in said


def test_what_does_not_exist_is_an_input_error(tmp_path: Path) -> None:
    for name in ("none", "none.onnx", "none.tflite", "none.safetensors"):
        with pytest.raises(InputError, match=name):
            open_predictor(str(tmp_path / name), CPU)


@pytest.mark.parametrize("content", [b"# Using a file\n", b"", b"{}"])
def test_what_is_no_model_is_told_what_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "USING.md"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        open_predictor(str(path), CPU)
    assert str(refused.value) == (
        f"{path} is no model; give a checkpoint (its file or a shipped one's name), an export "
        "folder, or a .tflite or .onnx file in one"
    )


@pytest.mark.parametrize("as_zip", [False, True])
def test_weights_of_any_suffix_are_read(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "weights"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(InputError, match="is no AFD checkpoint"):
        open_predictor(str(path), CPU)


# --- exported files, made by hand ----------------------------------------------------------------


def channel_means(size: int = 8) -> bytes:
    """An ONNX model whose three logits are the means of what its three channels are fed with."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "means", [image], [logits])
    opsets = [helper.make_opsetid("", 18)]
    content: bytes = helper.make_model(
        graph, ir_version=10, opset_imports=opsets
    ).SerializeToString()
    return content


def write_export(
    folder: Path, *changes: Change, content: bytes | None = None, name: str = "means.onnx"
) -> Path:
    """A model file with its manifest; `changes` are applied to the manifest."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(channel_means() if content is None else content)
    manifest: Manifest = {
        "schema_version": SCHEMA_VERSION,
        "afd": None,
        "scope": "classifier",
        "input_range": "rgb255",
        "seed": 0,
        "backbone": {
            **{"name": NAME, "tap": TAP, "weights": "factory", "trained": True},
            **{"classes": 3, "input_size": 8, "mean": MEAN, "std": STD},
        },
        "files": [{"path": name, "sha256": sha256(path)}, {"path": "golden/0.bin", "sha256": "0"}],
    }
    for change in changes:
        change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
@pytest.mark.parametrize("kind", ["initializer", "constant", "sparse", "function"])
def test_an_onnx_file_reads_no_other_file(tmp_path: Path, location: str, kind: str) -> None:
    model = onnx.load_from_string(channel_means())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    if kind == "initializer":
        model.graph.initializer.append(weight)
    elif kind == "sparse":
        indices = helper.make_tensor("", TensorProto.INT64, [3], [0, 1, 2])
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(values=weight, indices=indices, dims=[3])
        )
    elif kind == "function":
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", "W", [], ["w"], [constant], opsets))
        model.opset_import.append(opsets[1])
        model.graph.node.insert(0, helper.make_node("W", [], ["w"], domain="own"))
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    model.graph.node[-1].output[0] = "means"
    model.graph.node.append(helper.make_node("Add", ["means", "w"], ["logits"]))
    (tmp_path / "secret.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    path = write_export(tmp_path / "export", content=model.SerializeToString())
    (path.parent / "link.bin").symlink_to("../secret.bin")
    with pytest.raises(InputError, match=r"means\.onnx .*its weights lie in other files"):
        open_predictor(str(path), CPU)


@pytest.mark.parametrize("recorded", ["../means.tflite", "/tmp/means.tflite", "link.tflite"])
def test_a_manifest_leads_to_no_other_folder(tmp_path: Path, recorded: str) -> None:
    folder = tmp_path / "export"
    entry = {"path": recorded, "sha256": "0", "precision": "float32"}
    write_export(folder, lambda m: m["files"].append(entry))
    (tmp_path / "means.tflite").touch()
    (folder / "link.tflite").symlink_to("../means.tflite")
    with pytest.raises(InputError, match=f"names '{recorded}', which is no file of its folder"):
        open_predictor(str(folder), CPU)


@pytest.mark.parametrize("input_range", ["rgb255", "normalized"])
def test_an_exported_file_is_fed_as_its_manifest_says(tmp_path: Path, input_range: str) -> None:
    path = write_export(tmp_path, lambda m: m.update(input_range=input_range))
    small = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    model = open_predictor(str(path), CPU)
    assert (model.name, model.sha256) == ("means.onnx", sha256(path))
    assert (model.input_size, model.classes) == (8, 3)
    expected = small.astype(np.float64).mean(axis=(1, 2))
    if input_range == "normalized":
        expected = (expected / 255 - MEAN) / STD
    logits = model.logits(small)
    assert logits.shape == (5, 3)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("afd", [None, {"fused": True}])
def test_an_export_says_whether_it_corrects(tmp_path: Path, afd: dict[str, bool] | None) -> None:
    path = write_export(tmp_path, lambda m: m.update(afd=afd))
    assert open_predictor(str(path), CPU).corrects == (afd is not None)


def test_only_another_classifier_brings_back_what_is_lost(tmp_path: Path) -> None:
    """Plain ones in two precisions, a fine-tuned one, and a corrected one."""
    plain, int8, tuned, corrected = (
        open_predictor(
            str(write_export(tmp_path / name, *changes)), CPU, ClassifierOptions(FACTORY)
        )
        for name, changes in {
            "plain": [lambda m: m["backbone"].update(weights_sha256="a")],
            "int8": [lambda m: m["backbone"].update(weights_sha256="a")],
            "tuned": [lambda m: m["backbone"].update(weights_sha256="b")],
            "corrected": [
                lambda m: m["backbone"].update(weights_sha256="a"),
                lambda m: m.update(afd={}),
            ],
        }.items()
    )
    direct = plain_predictor(plain, CPU)
    assert recovers(corrected, plain) and recovers(tuned, plain)
    assert recovers(corrected, plain_predictor(corrected, CPU))
    assert not recovers(int8, plain) and not recovers(int8, direct)
    assert not recovers(corrected, corrected) and not recovers(tuned, corrected)


def test_the_plain_classifier_of_an_export_is_fed_as_its_manifest_says(tmp_path: Path) -> None:
    model = open_predictor(str(write_export(tmp_path)), CPU, TYPED)
    plain = plain_predictor(model, CPU)
    assert (plain.name, plain.input_size, plain.classes) == (NAME, 8, len(CLASSES))
    small = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    scaled = torch.from_numpy(((small / 255 - MEAN) / STD).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        np.testing.assert_allclose(plain.logits(small), make()(scaled), atol=1e-3)


def test_a_random_classifier_is_made_from_the_same_seed_again(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    network = {"name": "squeezenet1_1", "tap": "features.2", "weights": "random", "trained": False}
    logits = []
    for seed in (3, 4, 3):
        path = write_export(
            tmp_path,
            lambda m: m["backbone"].update(network, input_size=64),
            lambda m, seed=seed: m.update(seed=seed),  # type: ignore[misc]
            content=channel_means(64),
        )
        logits.append(plain_predictor(open_predictor(str(path), CPU), CPU).logits(small))
    assert np.array_equal(logits[0], logits[2])
    assert not np.allclose(logits[0], logits[1], atol=1e-3)


def test_a_persons_own_weights_are_not_replaced_in_silence(tmp_path: Path) -> None:
    path = write_export(tmp_path, lambda m: m["backbone"].update(weights="file"))
    with pytest.raises(InputError, match="--against FOLDER"):
        plain_predictor(open_predictor(str(path), CPU), CPU)


def test_a_persons_own_weights_are_taken_if_they_are_those_that_were_exported(
    tmp_path: Path,
) -> None:
    own, other = (tmp_path / f"{name}.pth" for name in ("own", "other"))
    state = make().state_dict()
    torch.save(state, own)
    torch.save(state | {"classes.bias": state["classes.bias"] + 1}, other)
    backbone = load_backbone(FACTORY, tap=TAP, weights=str(own))
    exported = {"weights": "file", "weights_sha256": backbone.weights_sha256()}
    path = write_export(tmp_path / "export", lambda m: m["backbone"].update(exported))
    model = open_predictor(str(path), CPU, ClassifierOptions(FACTORY, str(own)))
    assert plain_predictor(model, CPU).classes == len(CLASSES)
    model = open_predictor(str(path), CPU, ClassifierOptions(FACTORY, str(other)))
    with pytest.raises(InputError, match=rf"other weights than {other}; give"):
        plain_predictor(model, CPU)


def test_an_onnx_file_is_taken_if_it_is_the_one_that_was_exported(tmp_path: Path) -> None:
    typed = OnnxFile(write(tmp_path / "my10.onnx", make(), 8))
    backbone = load_backbone(typed)
    exported = {"name": "my10.onnx", "tap": backbone.tap, "weights": "onnx"}
    exported["weights_sha256"] = backbone.weights_sha256()
    path = write_export(tmp_path / "export", lambda m: m["backbone"].update(exported))
    plain = plain_predictor(open_predictor(str(path), CPU, ClassifierOptions(typed)), CPU)
    assert (plain.name, plain.classes, plain.input_size) == ("my10.onnx", len(CLASSES), 8)
    with pytest.raises(NotAtHandError, match=r"the ONNX file my10\.onnx; say where it lies"):
        plain_predictor(open_predictor(str(path), CPU), CPU)
    network = make()
    with torch.no_grad():
        network.get_submodule("classes").bias.add_(1)  # type: ignore[operator]
    write(typed.path, network, 8)
    with pytest.raises(InputError, match=f"with other weights than {typed.path}; give"):
        plain_predictor(open_predictor(str(path), CPU, ClassifierOptions(typed)), CPU)


def test_an_export_is_fed_in_its_own_way_only(tmp_path: Path) -> None:
    path = str(write_export(tmp_path))
    same = ClassifierOptions(mean=tuple(MEAN), std=tuple(STD), input_size=8)
    assert open_predictor(path, CPU, same).input_size == 8
    for other, option in (
        (ClassifierOptions(mean=(0.5, 0.5, 0.5)), "--mean 0.5 0.4 0.3; leave --mean out"),
        (ClassifierOptions(std=(1.0, 1.0, 1.0)), "--std 0.2 0.1 0.3; leave --std out"),
        (ClassifierOptions(input_size=16), "--input-size 8; leave --input-size out"),
    ):
        with pytest.raises(UsageError, match=f"was exported with {option}"):
            open_predictor(path, CPU, other)


@pytest.mark.parametrize("name", ["means.onnx", "means.tflite"])
def test_a_file_without_its_manifest_is_refused(tmp_path: Path, name: str) -> None:
    path = write_export(tmp_path, name=name)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no manifest\.json beside"):
        open_predictor(str(path), CPU)
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        open_predictor(str(tmp_path), CPU)


def test_features_are_nothing_to_evaluate(tmp_path: Path) -> None:
    path = write_export(tmp_path, lambda m: m.update(scope="features"))
    with pytest.raises(InputError, match="gives features, not logits"):
        open_predictor(str(path), CPU)


def pop(*keys: str) -> Change:
    """Removes the entry at this place."""

    def change(manifest: Manifest) -> None:
        place = manifest
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        pop("files"),
        pop("backbone"),
        pop("afd"),
        pop("scope"),
        pop("input_range"),
        pop("backbone", "mean"),
        pop("backbone", "classes"),
        pop("backbone", "input_size"),
        lambda m: m.update(files=None),
        lambda m: m.update(files=["means.onnx"]),
        lambda m: m.update(files=[{"path": 3}]),
        lambda m: m.update(backbone="mobilenet_v2"),
        lambda m: m.update(input_range="bgr"),
        lambda m: m["backbone"].update(mean=[0.5, 0.5]),
        lambda m: m["backbone"].update(std="wide"),
        lambda m: m["backbone"].update(input_size=None),
        lambda m: m["backbone"].update(input_size=math.inf),
    ],
)
def test_a_malformed_manifest_is_an_input_error(tmp_path: Path, change: Change) -> None:
    path = write_export(tmp_path, change)
    with pytest.raises(InputError, match=r"manifest\.json is broken"):
        open_predictor(str(path), CPU)
    with pytest.raises(InputError):  # of a folder, the files are looked at first
        open_predictor(str(tmp_path), CPU)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"schema_version": 99}'])
def test_a_corrupt_manifest_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = write_export(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    for target in (path, tmp_path):
        with pytest.raises(InputError, match=r"manifest\.json"):
            open_predictor(str(target), CPU)


def test_a_seed_that_pytorch_does_not_take_is_an_input_error(tmp_path: Path) -> None:
    path = write_export(tmp_path, lambda m: m.update(seed=10**40))
    with pytest.raises(InputError, match=r"manifest\.json is broken"):
        plain_predictor(open_predictor(str(path), CPU, TYPED), CPU)


@pytest.mark.parametrize("entry", ["tap", "name", "weights", "trained"])
def test_a_manifest_that_lost_the_classifier_is_an_input_error(tmp_path: Path, entry: str) -> None:
    path = write_export(tmp_path, pop("backbone", entry))
    with pytest.raises(InputError, match=entry):
        plain_predictor(open_predictor(str(path), CPU), CPU)


def test_a_file_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write_export(tmp_path)
    stranger = path.rename(tmp_path / "stranger.onnx")
    with pytest.raises(InputError, match=r"does not know stranger\.onnx"):
        open_predictor(str(stranger), CPU)


@pytest.mark.parametrize("name", ["means.onnx", "means.tflite"])
@pytest.mark.parametrize("length", [0, 60])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, length: int) -> None:
    path = write_export(tmp_path, name=name)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="is not the file that was exported"):
        open_predictor(str(path), CPU)


@pytest.mark.parametrize("name", ["means.onnx", "means.tflite"])
@pytest.mark.parametrize("content", [b"", b"hello"])
def test_what_is_no_model_is_an_input_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = write_export(tmp_path, content=content, name=name)
    with pytest.raises(InputError, match=f"{name} is no"):
        open_predictor(str(path), CPU)


@pytest.mark.parametrize("entry", ["input_size", "classes"])
def test_a_file_of_another_shape_than_its_manifest_says_is_refused(
    tmp_path: Path, entry: str
) -> None:
    path = write_export(tmp_path, lambda m: m["backbone"].update({entry: 16}))
    with pytest.raises(InputError, match=r"turns \(1, 8, 8, 3\) into \(1, 3\), not what"):
        open_predictor(str(path), CPU)


@pytest.mark.parametrize(
    ("precisions", "message"),
    [([], "no .tflite"), (["int8", "float16"], "int8.tflite, float16.tflite; give the file")],
)
def test_of_a_folder_without_one_clear_file_none_is_taken(
    tmp_path: Path, precisions: list[str], message: str
) -> None:
    files = [{"path": f"{p}.tflite", "precision": p, "sha256": "0"} for p in precisions]
    write_export(tmp_path, lambda m: m["files"].extend(files))
    with pytest.raises(InputError, match=message):
        open_predictor(str(tmp_path), CPU)


def test_a_broken_onnx_model_is_one_line(tmp_path: Path) -> None:
    model = onnx.load_from_string(channel_means())
    model.graph.node[0].op_type = "NoSuchOperator"
    path = write_export(tmp_path, content=model.SerializeToString())
    with pytest.raises(InputError, match="is no ONNX model that onnxruntime runs"):
        open_predictor(str(path), CPU)
