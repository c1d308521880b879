"""What `make` would do, without doing it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def dry_run(*arguments: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *arguments],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_arm64_check_looks_for_its_emulator_before_it_makes_anything() -> None:
    first = dry_run("arm64-check").splitlines()[0]
    assert first.startswith("command -v qemu-aarch64") and "apt-get install qemu-user" in first


def test_figure9_trains_exports_evaluates_and_times_the_peers_beside_ours() -> None:
    steps = dry_run("--always-make", "figure9")
    for peer in ("arcnn", "dncnn"):
        folder = f"exports/accuracy/restored-{peer}"
        order = [
            steps.index(f"afd_export.peers.train {peer} "),
            steps.index(
                f"afd_export.peers.restored:{peer} --backbone-weights exports/peers/{peer}."
            ),
            steps.index(f"afd-eval {folder} --against exports/accuracy/plain-mobilenet_v2 "),
            steps.index("afd-bench run "),
            steps.index("afd-bench report benchmarks/figure9 "),
        ]
        assert order == sorted(order)
        assert f"{folder}/*_float32.tflite" in steps[order[3] :]
        assert f"{folder}-jpeg.json" in steps[order[4] :]
    assert "exports/accuracy/afd-mobilenet_v2-mobile-jpeg.json" in steps[order[4] :]
