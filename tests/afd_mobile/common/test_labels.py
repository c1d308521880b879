from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from afd_mobile.common.errors import InputError
from afd_mobile.common.labels import class_index, imagenet_labels, labels_inside, load_labels


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.txt"


@pytest.mark.parametrize(
    "content",
    [
        b"Katze\nHund\nM\xc3\xb6we\n",
        b"Katze\nHund\nM\xc3\xb6we",
        b"Katze\r\nHund\r\nM\xc3\xb6we\r\n",
        b"\xef\xbb\xbfKatze\n  Hund\t\nM\xc3\xb6we\n",
    ],
    ids=["plain", "no-newline-at-the-end", "windows", "byte-order-mark-and-spaces"],
)
def test_one_label_a_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert load_labels(path, 3) == ["Katze", "Hund", "Möwe"]


def test_only_line_feeds_part_labels_as_on_the_phone(path: Path) -> None:
    path.write_text("a\u2028b\nc\x0bd\n", encoding="utf-8")
    assert load_labels(path, 2) == ["a\u2028b", "c\x0bd"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", "found 2, expected 3; give one line for every class"),
        (b"a\nb\nc\nd\n", "found 4, expected 3"),
        (b"a\n\nc\n", "line 2 is empty"),
        (b"a\nb\nc\n\n", "line 4 is empty"),
        (b"a\n \t\nc\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"b\na\nb\n", "lines 1 and 3 are both 'b'; make every label unique"),
        (b"a\nb\n b\n", "lines 2 and 3 are both 'b'"),
        (b"b\nb\nb\n", "lines 1 and 2 are both 'b'"),
        (b"a\nM\xf6we\nc\n", r"not UTF-8 \(byte 3\); save the file as UTF-8"),
    ],
)
def test_labels_that_do_not_fit_are_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_labels(path, 3)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match=f"labels {path} cannot be read"):
            load_labels(path, 3)


def test_imagenets_labels_are_all_different_and_in_order() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[0], labels[281], labels[999]) == ("tench", "tabby", "toilet tissue")
    # A bird and a machine; the only other name that occurs twice is a swimsuit's.
    assert (labels[134], labels[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert sum("(n0" in label for label in labels) == 4


def test_a_folder_is_named_by_a_label_and_imagenets_also_by_its_wordnet_id() -> None:
    assert class_index(["a", "b"]) == {"a": 0, "b": 1}
    index = class_index(imagenet_labels())
    assert len(index) == 2000
    assert index["tabby"] == index["n02123045"] == 281


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 and no more"])
def test_a_file_without_an_archive_has_no_labels(path: Path, content: bytes) -> None:
    assert labels_inside(path) is None  # there is none
    path.write_bytes(content)
    assert labels_inside(path) is None


def test_labels_are_read_from_the_archive_behind_a_file(path: Path) -> None:
    def write(name: str, content: bytes) -> None:
        path.write_bytes(b"a flatbuffer")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)

    write("labels.txt", b"Katze\nM\xc3\xb6we\n")
    assert labels_inside(path) == ["Katze", "Möwe"]
    write("others.txt", b"Katze\n")
    assert labels_inside(path) is None
    write("labels.txt", b"a\n\nc\n")
    with pytest.raises(InputError, match=rf"labels\.txt in {path}: line 2 is empty"):
        labels_inside(path)
