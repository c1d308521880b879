"""What all tests share: Ctrl-C, and results that are expensive to make."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Ctrl-C reaches the commands that tests start, also where a shell's `&` made pytest ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that all workers are busy to the end."""
    items.sort(key=lambda item: "/e2e/" not in item.path.as_posix())


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made_once(NAME, make)`: the folder that `make(folder)` filled, once for all workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / "made_once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                make(folder)
                (folder / ".made").touch()
            assert (folder / ".made").exists(), f"{name} failed in another worker"
        return folder

    return get
