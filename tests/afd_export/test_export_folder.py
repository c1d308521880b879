"""What lies in an export folder, checked from outside: by hashes, LiteRT and onnx alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from afd_mobile.common.artifacts import Precision, read_manifest
from afd_mobile.pictures.datasets import centre_crop
from afd_mobile.pictures.picture_files import read_image
from afd_mobile.tflite.litert import LiteRtModel
from tests.afd_export.conftest import PAPER, RANDOM, Exported, export_here, write_pictures

PRECISIONS = [p.value for p in Precision]
GOLDEN_PICTURES = ["turned", "mirrored", "grey", "small"]
NAME = "tinynet.make-mobile-untrained-random-weights"


@pytest.fixture(scope="module")
def manifest(exported: Exported) -> dict[str, Any]:
    return read_manifest(exported.folder)


def files_below(folder: Path) -> dict[str, Path]:
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    (entry,) = (e for e in manifest["files"] if e["path"] == name)
    return dict(entry)


def test_the_folder_holds_exactly_these_files(exported: Exported) -> None:
    golden = [f"golden/{i}_{what}.bin" for i in range(6) for what in ("input", *PRECISIONS)]
    models = [f"{NAME}.onnx", *(f"{NAME}_{p}.tflite" for p in PRECISIONS)]
    reports = ["manifest.json", "parity.json", "parity.md", "placement.json", "USING.md"]
    reports += ["int8.json", "int8.md", "int8.png"]
    golden += [f"golden/pictures/{p}.{e}" for p in GOLDEN_PICTURES for e in ("jpg", "png")]
    expected = {*reports, *models, *golden}
    assert set(files_below(exported.folder)) == expected
    assert [p.name for p in exported.folder.parent.iterdir()] == [exported.folder.name]


def test_the_manifest_has_size_and_hash_of_every_other_file(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    files = files_below(exported.folder)
    del files["manifest.json"]
    assert {e["path"]: (e["bytes"], e["sha256"]) for e in manifest["files"]} == {
        name: (path.stat().st_size, digest(path)) for name, path in files.items()
    }


def test_the_chain_leads_from_every_tflite_file_to_the_weights(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    onnx_sha256 = digest(exported.folder / f"{NAME}.onnx")
    for precision in PRECISIONS:
        assert entry_of(manifest, f"{NAME}_{precision}.tflite")["made_from"] == [onnx_sha256]
    # No checkpoint, so the classifier's weights are all the graph was made from.
    backbone_sha256 = manifest["backbone"]["weights_sha256"]
    assert entry_of(manifest, f"{NAME}.onnx")["made_from"] == [backbone_sha256]


def test_the_manifest_admits_that_nothing_is_trained(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    afd, backbone = manifest["afd"], manifest["backbone"]
    assert (afd["trained"], afd["checkpoint"], afd["checkpoint_sha256"]) == (False, None, None)
    assert afd["fused"] is True
    assert (backbone["trained"], backbone["weights"]) == (False, "random")
    assert len(manifest["notices"]) == 2
    for notice in manifest["notices"]:
        assert "random" in notice
        assert f"note: {notice}" in exported.stderr
        assert notice in (exported.folder / "parity.md").read_text("utf-8")


def test_fusing_makes_the_module_smaller(manifest: dict[str, Any]) -> None:
    for part in ("afd", "graph"):
        trained, deployed = manifest["cost"][part]["trained"], manifest["cost"][part]["deployed"]
        assert deployed["parameters"] < trained["parameters"]
        assert deployed["multiply_adds"] < trained["multiply_adds"]


def test_the_calibration_is_counted(exported: Exported, manifest: dict[str, Any]) -> None:
    assert manifest["calibration"] == {"pictures": 28, "inputs": 84}
    assert "from 28 pictures (84 inputs)" in (exported.folder / "parity.md").read_text("utf-8")


def test_every_stage_was_compared_and_kept_its_limits(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    stages = {s["stage"]: s for s in manifest["parity"]["stages"]}
    graphs = ["fused", "onnx", "simplified", "float16 arithmetic"]
    assert list(stages) == [*graphs, *(f"tflite {p}" for p in PRECISIONS)]
    for stage in stages.values():
        parity, limits = stage["parity"], stage["limits"]
        assert parity["max_abs_error"] <= limits["max_error"] * parity["range"]
        assert parity["snr_db"] is None or parity["snr_db"] >= limits["min_snr_db"]
        allowed = limits["max_changed_beyond_error"] * parity["pictures"]
        assert len(parity["changed_beyond_error"]) <= allowed
        assert set(parity["changed_beyond_error"]) <= set(parity["changed"])
    assert json.loads((exported.folder / "parity.json").read_bytes())["stages"] == list(
        stages.values()
    )
    for line in stages:
        assert f"\n{line} " in exported.stdout
    assert f"\n  {exported.folder}/golden/\n" in exported.stdout


def test_every_part_of_the_report_stands_apart(exported: Exported) -> None:
    """Headings, tables and paragraphs: one empty line between two, without which they run on."""
    page = (exported.folder / "parity.md").read_text("utf-8")
    assert "\n\n\n" not in page
    lines = page.splitlines()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.startswith(("#", "**Note:**")):
            assert (before, after) == ("", ""), line
        if line.startswith("|"):
            assert before == "" or before.startswith("|"), line


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tflite_contract(exported: Exported, manifest: dict[str, Any], precision: str) -> None:
    interpreter = Interpreter(model_path=str(exported.tflite(precision)))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert tuple(given["shape"]) == (1, 64, 64, 3)
    assert tuple(result["shape"]) == (1, 10)
    entry = entry_of(manifest, f"{NAME}_{precision}.tflite")
    assert entry["input"]["dtype"] == np.dtype(given["dtype"]).name
    assert entry["output"]["dtype"] == np.dtype(result["dtype"]).name
    assert entry["input"]["range"] == "rgb255"
    if precision == "int8":
        assert given["dtype"] == np.uint8
        scale, zero_point = given["quantization"]
        assert scale == pytest.approx(1, abs=0.01)
        assert zero_point == 0
        assert entry["input"]["scale"] == pytest.approx(scale)
        assert entry["float_operations"] == 0
    else:
        assert given["dtype"] == result["dtype"] == np.float32
        assert entry["input"]["scale"] is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_operators_that_phones_take(
    exported: Exported, manifest: dict[str, Any], precision: str
) -> None:
    found = entry_of(manifest, f"{NAME}_{precision}.tflite")["operators"]
    assert "TRANSPOSE" not in found
    assert not [name for name in found if not name.isupper() or name.startswith("FLEX")]
    assert found["CONV_2D"] >= 2
    assert found["DEPTHWISE_CONV_2D"] >= 1
    # LiteRT itself agrees: the same operations, whatever the delegate makes of them.
    interpreter = Interpreter(
        model_path=str(exported.tflite(precision)),
        experimental_op_resolver_type=_without_delegates(),
    )
    interpreter.allocate_tensors()
    listed = [op["op_name"] for op in interpreter._get_ops_details()]
    assert {name: listed.count(name) for name in set(listed)} == found


def _without_delegates() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def test_the_onnx_graph(exported: Exported) -> None:
    model = onnx.load(exported.folder / f"{NAME}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version >= 17) for o in model.opset_import] == [("", True)]
    for value, name, shape in (
        (model.graph.input, "image", [1, 3, 64, 64]),
        (model.graph.output, "logits", [1, 10]),
    ):
        assert [v.name for v in value] == [name]
        dims = value[0].type.tensor_type.shape.dim
        assert [d.dim_value for d in dims] == shape
        assert not any(d.dim_param for d in dims)
    assert "RepConv" not in str(model.graph.node)


def test_no_file_names_a_folder_of_this_machine(exported: Exported, tiny_dir: Path) -> None:
    secrets = [b"/work", b"/tmp", b"/home/", b"site-packages", str(tiny_dir).encode()]
    for name, path in files_below(exported.folder).items():
        if not name.startswith("golden/"):
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret in content], name


# --- golden inputs and outputs -------------------------------------------------------------------


def test_golden_pictures_are_decoded_scaled_and_cropped_as_every_picture(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    model = LiteRtModel(exported.folder / f"{NAME}_float32.tflite")
    assert len(manifest["golden_pictures"]) == len(GOLDEN_PICTURES)
    for golden in manifest["golden_pictures"]:
        pixels = read_image(exported.folder / golden["pixels"])
        assert np.array_equal(pixels, centre_crop(read_image(exported.folder / golden["jpeg"]), 64))
        logits = model.run(pixels[None].astype(np.float32))[0]
        # Untrained, the classes may lie close together: another kernel may round them past.
        assert logits[golden["top1"]] == pytest.approx(logits.max(), abs=1e-4)


def replay(path: Path, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an app does: bytes in, real values out."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], rgb[None].astype(given["dtype"]))
    interpreter.invoke()
    values = interpreter.get_tensor(result["index"])
    if result["dtype"] != np.float32:
        scale, zero_point = result["quantization"]
        values = (values.astype(np.float32) - zero_point) * np.float32(scale)
    output: NDArray[np.float32] = values
    return output


@pytest.mark.parametrize("precision", PRECISIONS)
def test_replaying_the_golden_inputs_gives_the_golden_outputs_exactly(
    exported: Exported, manifest: dict[str, Any], precision: str
) -> None:
    assert len(manifest["golden"]) == 6
    for golden in manifest["golden"]:
        rgb = np.fromfile(exported.folder / golden["input"], np.uint8).reshape(64, 64, 3)
        expected = np.fromfile(exported.folder / golden["outputs"][precision], "<f4")
        np.testing.assert_array_equal(replay(exported.tflite(precision), rgb)[0], expected)


def test_the_golden_pictures_differ_in_source_condition_and_output(
    exported: Exported, manifest: dict[str, Any]
) -> None:
    golden = manifest["golden"]
    assert len({g["picture"] for g in golden}) == 6
    assert {g["quality"] for g in golden} == {None, 25, 18, 15, 10, 7}
    for what in ("input", "float32", "int8"):
        contents = {
            (exported.folder / (g["input"] if what == "input" else g["outputs"][what])).read_bytes()
            for g in golden
        }
        assert len(contents) == 6
    logits = [np.fromfile(exported.folder / g["outputs"]["float32"], "<f4") for g in golden]
    assert len({int(values.argmax()) for values in logits}) > 1  # top-1 parity says something


# --- once more, and otherwise --------------------------------------------------------------------


@pytest.mark.long
def test_a_second_export_is_byte_identical_and_replaces_an_old_one(
    exported: Exported, tiny_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "second"
    out.mkdir()
    for name in ("manifest.json", "of-an-old-export.tflite"):
        (out / name).write_text("old", encoding="utf-8")
    done = export_here(
        *("--fuse", "--explain-int8", "--json", "--force", *RANDOM),
        *("--precision", *PRECISIONS, "--out", out),
        cwd=tiny_dir,
    )
    assert done.code == 0, done.err
    first, second = files_below(exported.folder), files_below(out)
    assert set(first) == set(second)
    assert [name for name in first if first[name].read_bytes() != second[name].read_bytes()] == []
    assert [p.name for p in tmp_path.iterdir()] == ["second"]
    # --json prints the manifest and nothing else.
    assert done.out.encode() == (out / "manifest.json").read_bytes()


@pytest.mark.long
def test_the_other_ways_to_export(tiny_dir: Path, tmp_path: Path) -> None:
    """All branches, the tapped features alone, normalised pictures; one picture is broken."""
    images, out = tmp_path / "images", tmp_path / "out"
    write_pictures(images, 2)
    (images / "broken.jpg").write_bytes(b"no picture")
    done = export_here(
        *(*PAPER, "--scope", "features", "--input", "normalized", "--precision", "float32"),
        *("--images", images, "--out", out),
        cwd=tiny_dir,
    )
    assert done.code == 0, done.err
    assert f"note: cannot read picture {images / 'broken.jpg'}" in done.err
    manifest = read_manifest(out)
    assert manifest["parity"]["unreadable"] == 1
    assert manifest["parity"]["pictures"] == 2 * 6
    assert str(tmp_path) not in (out / "manifest.json").read_text("utf-8")
    stages = [s["stage"] for s in manifest["parity"]["stages"]]
    assert stages == ["onnx", "simplified", "tflite float32"]
    assert not manifest["afd"]["fused"]
    assert manifest["name"] == f"{NAME.replace('mobile', 'paper')}-multibranch-features"
    entry = entry_of(manifest, f"{manifest['name']}_float32.tflite")
    assert entry["output"]["name"] == "features"
    assert tuple(entry["output"]["shape"]) == (1, 32, 32, 16)
    assert entry["input"]["range"] == "normalized"
    costs = manifest["cost"]["afd"]
    assert costs["deployed"] == costs["trained"]
    assert "as trained" not in done.out
