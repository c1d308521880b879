"""The rules that keep the layers apart: who imports whom, who prints, who exits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "afd_mobile").glob("*.py"), *(ROOT / "export/afd_export").glob("*.py")])
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
        assert not [n for n in names if n.startswith("afd_export")], path


def test_only_workers_import_the_converters() -> None:
    for path in SOURCES:
        names = list(_imports(ast.parse(path.read_text(encoding="utf-8"))))
        heavy = [n for n in names if n.split(".")[0] in ("tensorflow", "onnx2tf", "onnxsim")]
        assert path.name.endswith("_worker.py") or not heavy, path
