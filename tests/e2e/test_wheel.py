"""The wheel, away from the checkout: every package, every file of data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "afd_mobile", "export", "benchmark", "models")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`python ...` in an empty folder, which finds the unpacked wheel before anything else."""
    folder = tmp_path_factory.mktemp("wheel")
    tree, site, empty = folder / "tree", folder / "site", folder / "empty"
    for path in (tree, empty):
        path.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # of Python alone: unpacking installs it
        archive.extractall(site)

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import afd_mobile; print(afd_mobile.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    return run


def test_its_commands_do_their_work(run: Callable[..., str]) -> None:
    run("-m", "afd_export.cli", "--fuse", "--precision", "float32", "--out", "export")
    assert "M" in run("-m", "afd_benchmark.cli", "cost", "export")
    run("-m", "afd_benchmark.cli", "run", "export", "--runs", "2", "--repeats", "2", "--out", "b")
    run("-m", "afd_benchmark.cli", "report", "b", "--out", "report.html")
    for command in ("train", "evaluate"):
        main = f"import sys; sys.argv[1:] = ['--help']; from afd_mobile.cli.{command} import main"
        assert "exit codes:" in run("-c", f"{main}; main()")
