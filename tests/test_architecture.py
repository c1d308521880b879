"""What import-linter does not say: who prints, who exits, what is loaded, how long files are."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("afd_mobile", "export/afd_export", "benchmark/afd_benchmark")
COMMANDS = {"__main__.py", "cli.py", "demo.py", "network_table.py"}
MORE_COMMANDS = (
    "afd_mobile/cli",
    "afd_mobile/common/command.py",
    "export/afd_export/peers/train.py",
)

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


def is_command(path: Path) -> bool:
    return path.name in COMMANDS or any(path.is_relative_to(more) for more in MORE_COMMANDS)


def test_only_commands_print_or_exit(sources: Sources) -> None:
    wrong = [
        f"{path}:{node.lineno} {ast.unparse(node.func)}"
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if not is_command(path)
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "exit", "sys.exit", "sys.stdout.write"}
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


def test_every_package_goes_into_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(init.parent.relative_to((ROOT / folder).parent).parts)
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found and found <= set(listed), sorted(found - set(listed))


def test_no_module_outgrows_a_reader() -> None:
    """But the generated schema."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    long = [p.name for p in paths if len(p.read_text(encoding="utf-8").splitlines()) > 400]
    assert long == ["schema.py"], long
    folders = {path.parent for path in paths}
    full = [str(f) for f in folders if len(list(f.glob("*.py"))) > 16]
    assert not full, full
