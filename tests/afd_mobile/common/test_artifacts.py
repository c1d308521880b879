from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from afd_mobile.common.artifacts import (
    MANIFEST,
    SCHEMA_VERSION,
    Scope,
    Stage,
    file_of,
    read_manifest,
    to_json,
)
from afd_mobile.common.artifacts import sha256 as file_sha256
from afd_mobile.common.errors import InputError


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected


def test_json_is_readable_and_comes_back() -> None:
    content = {"stage": Stage.ONNX, "größe": [1, 2.5, None]}
    text = to_json(content).decode()
    assert text.endswith("}\n") and "größe" in text
    assert json.loads(text) == {"stage": "onnx", "größe": [1, 2.5, None]}


def test_stages_are_in_order() -> None:
    graphs = ["multi-branch", "plain", "fused", "folded", "onnx", "simplified"]
    assert [s.value for s in Stage] == [*graphs, "float16 arithmetic", "tflite"]


def test_outputs_are_named_after_what_they_are() -> None:
    assert [s.output_name for s in Scope] == ["logits", "features"]


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    manifest = {"schema_version": SCHEMA_VERSION, "files": ["ä"]}
    (tmp_path / MANIFEST).write_bytes(to_json(manifest))
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"\xff\xfe", b'{"schema_version": 1}', b"{}", b"[1]", b"null", b"[" * 300_000],
)
def test_a_broken_manifest_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=f"{MANIFEST}.*export again with afd-export"):
        read_manifest(tmp_path)


def test_a_manifest_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(InputError, match="no regular file"):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="afd-export"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("recorded", ["a.bin", "golden/0.bin", "./a.bin", "link-inside", "absent"])
def test_a_manifest_names_files_of_its_folder(tmp_path: Path, recorded: str) -> None:
    folder = tmp_path / "export"
    (folder / "golden").mkdir(parents=True)
    (folder / "link-inside").symlink_to("a.bin")
    (tmp_path / "alias").symlink_to(folder)
    assert file_of(folder, recorded) == folder / recorded
    assert file_of(tmp_path / "alias", recorded) == tmp_path / "alias" / recorded


@pytest.mark.parametrize(
    "recorded",
    ["../a.bin", "golden/../../a.bin", "golden/../a.bin", "/etc/passwd", "link-outside",
     "folder-outside/a.bin", "loop", "pipe", "golden", "a\0b", 5, None],
)  # fmt: skip
def test_a_manifest_names_no_other_file(tmp_path: Path, recorded: Any) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "link-outside").symlink_to(tmp_path / "a.bin")
    (folder / "folder-outside").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "golden").mkdir()
    (tmp_path / "a.bin").touch()
    with pytest.raises(InputError) as caught:
        file_of(folder, recorded)
    assert str(folder / "manifest.json") in str(caught.value)
    assert repr(recorded) in str(caught.value)


def test_a_file_name_that_is_no_utf8_comes_back_from_json() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert json.loads(to_json({"picture": name, "other": "café"})) == {
        "picture": name,
        "other": "café",
    }
