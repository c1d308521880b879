"""What `make` would do, without doing it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_arm64_check_looks_for_its_emulator_before_it_makes_anything() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "arm64-check"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    first = done.stdout.splitlines()[0]
    assert first.startswith("command -v qemu-aarch64") and "apt-get install qemu-user" in first
