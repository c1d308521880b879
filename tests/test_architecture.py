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
COMMANDS = {
    "__main__.py",
    "cli.py",
    "common/command.py",
    "demo.py",
    "network_table.py",
    "peers/train.py",
}

Sources = dict[Path, ast.Module]


@pytest.fixture(scope="module")
def sources() -> Sources:
    """Every module of the three packages, by its path below the root."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 80
    return {p.relative_to(ROOT): ast.parse(p.read_text(encoding="utf-8")) for p in paths}


def imports(sources: Sources, folder: str = "") -> Iterator[tuple[Path, str]]:
    """(module, what it imports), of all modules below a folder."""
    for path, tree in sources.items():
        for node in ast.walk(tree) if path.is_relative_to(folder) else ():
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def test_only_commands_print_or_exit(sources: Sources) -> None:
    wrong = [
        f"{path}:{node.lineno} {ast.unparse(node.func)}"
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if not str(path).endswith(tuple(COMMANDS))
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "exit", "sys.exit", "sys.stdout.write"}
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_a_command_line(sources: Sources) -> None:
    found = imports(sources)
    programs = ("afd_export.demo", "afd_export.network_table", "afd_export.peers.train")
    wrong = [f"{p} {n}" for p, n in found if ".cli" in n or n.startswith(programs)]
    assert not wrong, "\n".join(wrong)


def test_the_model_does_not_know_the_export(sources: Sources) -> None:
    """But for the library's own functions, which are imported when they are first used."""
    found = imports(sources, "afd_mobile")
    others = [(p, n) for p, n in found if n.startswith(("afd_export", "afd_benchmark"))]
    lazy = (Path("afd_mobile/__init__.py"), "afd_export.library")
    wrong = [f"{p} {n}" for p, n in others if (p, n.rpartition(".")[0]) != lazy]
    assert not wrong, "\n".join(wrong)


def test_export_and_benchmark_meet_at_the_manifest_only(sources: Sources) -> None:
    wrong = [
        f"{path} {name}"
        for folder, other in (("export", "afd_benchmark"), ("benchmark", "afd_export"))
        for path, name in imports(sources, folder)
        if name.startswith(other)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_benchmark_loads_no_torch_onnx_or_tensorflow(sources: Sources) -> None:
    below = [p.relative_to("benchmark") for p in sources if p.is_relative_to("benchmark")]
    modules = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in below]
    program = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(*sorted({'torch', 'torchvision', 'onnx', 'tensorflow'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_only_workers_import_the_converters(sources: Sources) -> None:
    wrong = [
        f"{path} {name}"
        for path, name in imports(sources)
        if name.split(".")[0] in ("tensorflow", "onnx2tf", "onnxsim")
        and not path.name.endswith("_worker.py")
    ]
    assert not wrong, "\n".join(wrong)
