"""What a TARGET is: a file, an export folder, a folder of several; manifests that do not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afd_benchmark.targets import Target, read_target, target_files
from afd_mobile.common.artifacts import sha256
from afd_mobile.common.errors import InputError
from afd_mobile.common.parity import Limits
from tests.afd_benchmark.conftest import (
    CLASSES,
    LIMITS,
    SIZE,
    any_size,
    small_graph,
    two_outputs,
    write_export,
)
from tests.afd_export.tflite_graphs import Fed, single

Edit = Callable[[dict[str, Any]], object]


def find_targets(path: Path) -> list[Target]:
    return [read_target(file) for file in target_files(path)]


def edit(folder: Path, change: Edit) -> None:
    """By hand: `change` alters the manifest in place."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        find_targets(path)
    message = str(refused.value)
    assert str(path) in message
    return message


@pytest.mark.parametrize("path", ["../0_input.bin", "/etc/passwd"])
@pytest.mark.parametrize("key", ["input", "outputs"])
def test_golden_pictures_of_another_folder_are_refused(plain: Path, key: str, path: str) -> None:
    other = path if key == "input" else dict.fromkeys(("float32", "int8"), path)
    edit(plain, lambda manifest: manifest["golden"][0].update({key: other}))
    assert f"names '{path}', which is no file of its folder" in refusal(plain)


# --- what there is --------------------------------------------------------------------------------


def test_an_export_folder(plain: Path) -> None:
    (target,) = find_targets(plain)
    file = plain / "plain_float32.tflite"
    assert (target.name, target.file, target.precision) == ("plain", file.name, "float32")
    assert target.path == target.local_path == file
    assert (target.sha256, target.bytes) == (sha256(file), file.stat().st_size)
    assert target.input.shape == (1, SIZE, SIZE, 3) and target.output.shape == (1, CLASSES)
    assert target.limits == Limits(**LIMITS) and target.classify
    # Two convolutions of 3 x 3 over 32 x 32, 3 -> 16 -> 16, and 16 x 10 weights.
    assert target.multiply_adds == 32 * 32 * 9 * (3 * 16 + 16 * 16) + 160


def test_golden_pictures_are_fed_as_they_are_and_expected_as_stored(plain: Path) -> None:
    (target,) = find_targets(plain)
    assert [p.name for p in target.golden] == ["p0 (clean)", "p1 (QF 7)"]
    for number, picture in enumerate(target.golden):
        stored = np.fromfile(plain / f"golden/{number}_input.bin", np.uint8)
        assert picture.image.dtype == np.float32 and picture.image.shape == (1, SIZE, SIZE, 3)
        assert np.array_equal(picture.image.ravel(), stored)
        expected = np.fromfile(plain / f"golden/{number}_float32.bin", "<f4")
        assert np.array_equal(picture.expected, expected[None])


def test_golden_pictures_of_a_normalised_input_are_normalised(plain: Path) -> None:
    def normalise(manifest: dict[str, Any]) -> None:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        manifest |= {"input_range": "normalized", "backbone": {"mean": mean, "std": std}}

    edit(plain, normalise)
    (target,) = find_targets(plain)
    stored = np.fromfile(plain / "golden/1_input.bin", np.uint8).reshape(SIZE, SIZE, 3)
    image = target.golden[1].image
    assert image.dtype == np.float32
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (stored[..., channel].astype(np.float64) / 255 - mean) / std
        assert np.allclose(image[0, ..., channel], expected, atol=1e-5)


def test_features_are_no_logits(plain: Path) -> None:
    edit(plain, lambda m: m.update(scope="features"))
    assert not find_targets(plain)[0].classify


@pytest.mark.parametrize("listed", [False, True])
def test_a_bare_file_has_no_golden_pictures(plain: Path, listed: bool, tmp_path: Path) -> None:
    """Also one that lies in an export folder, whose manifest does not name it."""
    folder = plain if listed else tmp_path
    path = folder / "other.tflite"
    path.write_bytes(small_graph(8))
    (target,) = find_targets(path)
    assert (target.name, target.precision, target.limits) == ("other", None, None)
    assert target.golden == () and not target.classify
    assert target.input.shape == (1, SIZE, SIZE, 3)


def test_a_file_of_an_export_folder_brings_its_golden_pictures(plain: Path) -> None:
    (target,) = find_targets(plain / "plain_float32.tflite")
    assert target.name == "plain" and len(target.golden) == 2


def test_a_folder_of_several_in_order(plain: Path, corrected: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no target")
    found = find_targets(tmp_path)
    assert [t.name for t in found] == ["corrected", "plain"]
    assert all(len(t.golden) == 2 for t in found)


def test_files_in_the_folder_itself_go_before_those_in_its_folders(
    plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.tflite").write_bytes(small_graph(8))
    (tmp_path / "a.tflite").write_bytes(small_graph(4))
    assert [t.file for t in find_targets(tmp_path)] == ["a.tflite", "b.tflite"]


def test_every_precision_has_its_own_outputs_and_limits(plain: Path, tmp_path: Path) -> None:
    half = write_export(tmp_path / "half", "plain", small_graph(16), "float16")
    shutil.copy(half / "plain_float16.tflite", plain)
    for number in (0, 1):
        (plain / f"golden/{number}_float16.bin").write_bytes(np.full(10, 7, "<f4").tobytes())

    def merge(manifest: dict[str, Any]) -> None:
        manifest["files"] += json.loads((half / "manifest.json").read_text())["files"]
        limits = LIMITS | {"max_error": 0.5}
        manifest["parity"]["stages"].append({"stage": "tflite float16", "limits": limits})
        for number, record in enumerate(manifest["golden"]):
            record["outputs"]["float16"] = f"golden/{number}_float16.bin"

    edit(plain, merge)
    float16, float32 = find_targets(plain)
    assert (float16.precision, float32.precision) == ("float16", "float32")
    assert float16.limits is not None and float16.limits.max_error == 0.5
    assert float32.limits == Limits(**LIMITS)
    assert (float16.golden[0].expected == 7).all() and (float32.golden[0].expected != 7).all()


def test_an_operator_of_unknown_cost_leaves_the_multiply_adds_open(tmp_path: Path) -> None:
    path = tmp_path / "cast.tflite"
    path.write_bytes(single("HASHTABLE_LOOKUP", [Fed((4,))], Fed((4,))))
    assert find_targets(path)[0].multiply_adds is None


# --- what there is not ----------------------------------------------------------------------------


def test_what_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "nowhere.tflite", tmp_path / "gone" / "deeper"):
        assert refusal(path) == (f"{path} does not exist; give an export folder or a .tflite file")
    (tmp_path / "demo-corrected").mkdir()
    assert refusal(tmp_path / "demo-corected") == (
        f"{tmp_path / 'demo-corected'} does not exist; is it {tmp_path / 'demo-corrected'}?"
    )
    assert "no .tflite file and no folder" in refusal(tmp_path / "model.onnx")
    assert "holds no .tflite file" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"not a model at all", small_graph()[:8]])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(content)
    assert "is no TFLite model" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_model_that_is_cut_off_does_not_end_the_command(share: float, tmp_path: Path) -> None:
    """In a process of its own: LiteRT dies on some of them."""
    path = tmp_path / "cut.tflite"
    path.write_bytes(small_graph()[: int(share * len(small_graph()))])
    done = subprocess.run(
        [sys.executable, "-m", "afd_benchmark.cli", "cost", str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == InputError.exit_code, done
    assert str(path) in done.stderr and len(done.stderr.splitlines()) == 1


def test_several_outputs_are_taken_and_the_first_one_is_known(tmp_path: Path) -> None:
    path = tmp_path / "two.tflite"
    path.write_bytes(two_outputs())
    (target,) = find_targets(path)
    assert target.output.shape == (1, 4) and target.golden == ()


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (None, "takes inputs of any size (1,?,?,3); choose one: afd-bench run --input-shape 1,224"),
        ((1, 8, 8), "--input-shape 1,8,8 is no 1,?,?,3"),
        ((1, 8, 8, 4), "--input-shape 1,8,8,4 is no 1,?,?,3"),
        ((1, 200000, 200000, 3), "--input-shape 1,200000,200000,3 are 1.2e+11 values, at most"),
        ((1, 8, 6, 3), None),
    ],
)
def test_an_input_of_any_size_wants_one(
    asked: tuple[int, ...] | None, refused: str | None, tmp_path: Path
) -> None:
    """The file itself says 1x1, which would be timed as 0.00 ms."""
    path = tmp_path / "any.tflite"
    path.write_bytes(any_size())
    if refused is not None:
        with pytest.raises(InputError) as caught:
            read_target(path, asked)
        assert refused in str(caught.value)
    else:
        target = read_target(path, asked)
        assert target.input.shape == target.input_shape == asked
        assert target.timed_image.shape == asked
        assert target.name == "any at 1x8x6x3" and target.multiply_adds is None


@pytest.mark.parametrize("name", ["plain_float32.tflite", "bare.tflite"])
def test_an_input_of_its_own_size_keeps_it_and_refuses_another(name: str, plain: Path) -> None:
    path, own = plain / name, (1, SIZE, SIZE, 3)
    path.write_bytes((plain / "plain_float32.tflite").read_bytes())
    for asked in (None, own):
        target = read_target(path, asked)
        assert target.input_shape is None and target.input.shape == own
    with pytest.raises(InputError) as caught:
        read_target(path, (1, 8, 8, 3))
    assert str(caught.value) == (
        f"{path}: --input-shape 1,8,8,3 is no 1,{SIZE},{SIZE},3, the file's own shape; leave the "
        "option out"
    )


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.tflite"
    path.write_bytes(single("ADD", [Fed((4,)), Fed((4,))], Fed((4,))))
    assert "2 inputs and 1 outputs" in refusal(path)


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
def test_what_is_only_called_a_model_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "gone")
    refusal(tmp_path)


def test_another_file_than_the_exported_one(plain: Path) -> None:
    (plain / "plain_float32.tflite").write_bytes(small_graph(8))
    assert "is not the file that was exported" in refusal(plain)


# --- manifests edited by hand ---------------------------------------------------------------------


def without_limit(key: str) -> Edit:
    return lambda m: m["parity"]["stages"][0]["limits"].pop(key)


MISSING: dict[str, Edit] = {
    "name": lambda m: m.pop("name"),
    "scope": lambda m: m.pop("scope"),
    "input_range": lambda m: m.pop("input_range"),
    "files": lambda m: m.pop("files"),
    "files path": lambda m: m["files"][0].pop("path"),
    "files sha256": lambda m: m["files"][0].pop("sha256"),
    "files precision": lambda m: m["files"][0].pop("precision"),
    "golden": lambda m: m.pop("golden"),
    "golden picture": lambda m: m["golden"][1].pop("picture"),
    "golden quality": lambda m: m["golden"][1].pop("quality"),
    "golden input": lambda m: m["golden"][1].pop("input"),
    "golden outputs": lambda m: m["golden"][1].pop("outputs"),
    "golden outputs float32": lambda m: m["golden"][1]["outputs"].pop("float32"),
    "parity": lambda m: m.pop("parity"),
    "parity stages": lambda m: m["parity"].pop("stages"),
    "parity stages stage": lambda m: m["parity"]["stages"][0].pop("stage"),
    "parity stages limits": lambda m: m["parity"]["stages"][0].pop("limits"),
    **{f"limits {key}": without_limit(key) for key in LIMITS},
}
MISSING_NORMALISED: dict[str, Edit] = {
    "backbone": lambda m: m.pop("backbone"),
    "backbone mean": lambda m: m["backbone"].pop("mean"),
    "backbone std": lambda m: m["backbone"].pop("std"),
}


@pytest.mark.parametrize("key", [*MISSING, *MISSING_NORMALISED])
def test_each_missing_key_is_one_line_that_names_it(key: str, plain: Path) -> None:
    if key in MISSING_NORMALISED:
        edit(plain, lambda m: m.update(input_range="normalized"))
    edit(plain, (MISSING | MISSING_NORMALISED)[key])
    message = refusal(plain)
    assert "manifest.json" in message and "export again" in message
    assert repr(key.split()[-1]) in message


@pytest.mark.parametrize("std", [[0, 0, 0], [0.2, -0.2, 0.2], [float("inf")] * 3, [1e-40] * 3])
def test_a_deviation_that_cannot_be_is_one_line(std: list[float], plain: Path) -> None:
    statistics = {"mean": [0.5] * 3, "std": std}
    edit(plain, lambda m: m.update(input_range="normalized", backbone=statistics))
    assert "are no RGB statistics" in refusal(plain)


def test_a_stage_that_is_not_there_is_named(plain: Path) -> None:
    edit(plain, lambda m: m["parity"]["stages"].clear())
    assert "tflite float32" in refusal(plain)


WRONG: dict[str, Edit] = {
    "files are no list": lambda m: m.update(files=7),
    "a file is no object": lambda m: m.update(files=["plain_float32.tflite"]),
    "no golden list": lambda m: m.update(golden=None),
    "an unknown range": lambda m: m.update(input_range="bgr"),
    "an unknown limit": lambda m: m["parity"]["stages"][0]["limits"].update(max_ulp=1),
    "a limit in words": lambda m: m["parity"]["stages"][0]["limits"].update(max_error="small"),
    "a limit of null": lambda m: m["parity"]["stages"][0]["limits"].update(min_snr_db=None),
    "a name that is none": lambda m: m.update(name=7),
    "an unknown scope": lambda m: m.update(scope="everything"),
    "no such input": lambda m: m["golden"][0].update(input="golden/gone.bin"),
    "a folder as input": lambda m: m["golden"][0].update(input="golden"),
    "another input": lambda m: m["golden"][0].update(input="golden/0_float32.bin"),
    "other outputs": lambda m: m["golden"][0]["outputs"].update(float32="golden/0_input.bin"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_wrong_value_is_one_line(what: str, plain: Path) -> None:
    edit(plain, WRONG[what])
    assert "manifest.json" in refusal(plain)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[]", "schema version None"),
        ("{}", "schema version None"),
        ('{"schema_version": 99}', "schema version 99, expected"),
        ("\x00\ud8ff", "cannot be read"),
    ],
)
def test_what_is_no_manifest(content: str, words: str, plain: Path) -> None:
    (plain / "manifest.json").write_bytes(content.encode(errors="surrogatepass"))
    assert words in refusal(plain)


def test_a_replay_s_target_has_no_file(plain: Path) -> None:
    (target,) = find_targets(plain)
    with pytest.raises(InputError, match=r"plain_float32\.tflite is not here"):
        _ = replace(target, path=None).local_path


def test_relative_paths_stay_relative(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain.parent)
    (target,) = find_targets(Path(os.path.relpath(plain)))
    assert target.local_path == Path("plain/plain_float32.tflite")


def test_a_name_is_known_by_what_can_be_shown_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb|\u202e.tflite"
    path.write_bytes(small_graph(4))
    (target,) = find_targets(tmp_path)
    assert (target.file, target.name) == (
        "a\\x1b[31m\\nb|\\u202e.tflite", "a\\x1b[31m\\nb|\\u202e",
    )  # fmt: skip
    assert target.local_path == path


def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """LiteRT takes no other."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tflite"))
    path.write_bytes(small_graph(4))
    with pytest.raises(InputError, match="its name is no UTF-8"):
        find_targets(tmp_path)
