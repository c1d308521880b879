"""The rules that keep the layers apart: who imports whom, who prints, who exits."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("afd_mobile", "export/afd_export", "benchmark/afd_benchmark")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
COMMANDS = {"cli.py", "command.py", "demo.py"}


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_only_commands_print_or_exit(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    forbidden = {"print", "exit", "sys.exit", "sys.stdout.write"} & set(calls)
    assert path.name in COMMANDS or not forbidden


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_nothing_imports_a_command_line(path: Path) -> None:
    names = list(_imports(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [n for n in names if ".cli" in n or n.startswith(("afd_export.demo",))]


def test_the_model_does_not_know_the_export() -> None:
    for path in (ROOT / "afd_mobile").glob("*.py"):
        names = list(_imports(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [n for n in names if n.startswith(("afd_export", "afd_benchmark"))], path


def test_export_and_benchmark_meet_at_the_manifest_only() -> None:
    for folder, other in (("export/afd_export", "afd_benchmark"), ("benchmark", "afd_export")):
        for path in (ROOT / folder).rglob("*.py"):
            names = list(_imports(ast.parse(path.read_text(encoding="utf-8"))))
            assert not [n for n in names if n.startswith(other)], path


def test_the_benchmark_loads_no_torch_onnx_or_tensorflow() -> None:
    modules = [p.stem for p in (ROOT / "benchmark/afd_benchmark").glob("*.py")]
    program = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(f'afd_benchmark.{{name}}')\n"
        "print(*sorted({'torch', 'torchvision', 'onnx', 'tensorflow'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_only_workers_import_the_converters() -> None:
    for path in SOURCES:
        names = list(_imports(ast.parse(path.read_text(encoding="utf-8"))))
        heavy = [n for n in names if n.split(".")[0] in ("tensorflow", "onnx2tf", "onnxsim")]
        assert path.name.endswith("_worker.py") or not heavy, path
