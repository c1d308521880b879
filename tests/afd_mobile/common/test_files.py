from __future__ import annotations

from pathlib import Path

import pytest

from afd_mobile.common.errors import OutputError
from afd_mobile.common.files import check_writable, write_whole


def test_writes_and_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    for content in (b"first and longer", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "none" / "out.bin"
    for refused in (check_writable, lambda path: write_whole(path, b"x")):
        with pytest.raises(OutputError, match=f"cannot write {path}: there is no folder"):
            refused(path)


def test_what_cannot_be_replaced_stays_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.mkdir()
    for refused in (check_writable, lambda path: write_whole(path, b"x")):
        with pytest.raises(OutputError, match="it is a folder; give a file"):
            refused(path)
    assert list(tmp_path.iterdir()) == [path] and path.is_dir()


def test_links_and_devices_are_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"kept")
    link.symlink_to(target)
    for path in (link, Path("/dev/null")):
        with pytest.raises(OutputError, match="is a link or a device"):
            write_whole(path, b"x")
        with pytest.raises(OutputError, match="is a link or a device"):
            check_writable(path)
    assert link.is_symlink() and target.read_bytes() == b"kept"
    assert Path("/dev/null").is_char_device()
