"""What all tests share: Ctrl-C, what is left out, and results that are expensive to make."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# Ctrl-C reaches the commands that tests start, also where a shell's `&` made pytest ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Several workers keep all cores busy; threads of each would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "images" / "imagenet_dev"

# --- what a run leaves out ------------------------------------------------------------------------

# What tests of a marker, or of a fixture, need.
NEEDS = {
    "engine": "the engines' environments (run make test-all)",
    "long": "time (run make test-all)",
    "cuda": "an NVIDIA GPU (run pytest -m cuda there)",
    "photographs": "the photographs in ../shared/images/imagenet_dev",
}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest first, so that all workers are busy to the end; no photographs, no such tests."""
    items.sort(key=lambda item: "/e2e/" not in item.path.as_posix())
    if not PHOTOGRAPHS.is_dir():
        without = [i for i in items if "photographs" in getattr(i, "fixturenames", ())]
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        names = {*item.keywords}
        if not PHOTOGRAPHS.is_dir():
            names |= {*getattr(item, "fixturenames", ())}
        need = next((need for name, need in NEEDS.items() if name in names), None)
        # What -k does not ask for is not left out.
        if need is not None and not item.config.option.keyword:
            item.config.stash[LEFT_OUT][need] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        left_out = session.config.stash[LEFT_OUT]
        session.config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller of several workers collects nothing itself; all of them collect the same."""
    node.config.stash[LEFT_OUT] |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if left_out := config.stash[LEFT_OUT]:
        counts = ", ".join(f"{count} for want of {need}" for need, count in left_out.items())
        terminalreporter.write_line(f"tests left out: {counts}")


# --- what is made once ----------------------------------------------------------------------------


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
