"""Names that the harness app takes, and what Android says when it refuses."""

from __future__ import annotations

import re

import pytest

from afd_benchmark.harness.app import _run_id, _with_remedy
from afd_benchmark.phone.adb import ShellOutput


def test_run_ids_are_legal_and_differ() -> None:
    """As PROTOCOL.md has them."""
    names = ["a b", "a_b", "模型", "型模", ".x", "-x", "y" * 300, "z" + "y" * 299]
    ids = [_run_id(f"logs/{name}-cpu-1-01.log") for name in names]
    assert all(re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,64}", run_id) for run_id in ids)
    assert len(set(ids)) == len(names)


JAVA = (
    "\nException occurred while executing 'x':\njava.lang.SecurityException: {}\n"
    "\tat a.B.c(B.java:1)\n"
)


@pytest.mark.parametrize(
    ("stdout", "stderr", "told"),
    [
        (
            "", JAVA.format("You need the android.permission.INSTALL_GRANT_RUNTIME_PERMISSIONS"),
            "java.lang.SecurityException: You need the "
            "android.permission.INSTALL_GRANT_RUNTIME_PERMISSIONS; allow "
            '"USB debugging (Security settings)" in the developer options, or give --tool '
            "benchmark_model",
        ),
        (
            "", JAVA.format("Permission Denial: requires android.permission.INTERACT_ACROSS_USERS"),
            "java.lang.SecurityException: Permission Denial: requires "
            "android.permission.INTERACT_ACROSS_USERS; another user is in front; switch to the "
            "first one: adb shell am switch-user 0",
        ),
        (
            "Failure [INSTALL_FAILED_VERSION_DOWNGRADE: Update version code 1 is older]\n", "",
            "Failure [INSTALL_FAILED_VERSION_DOWNGRADE: Update version code 1 is older]; a newer "
            "build is installed; remove it: adb uninstall org.afdmobile.harness",
        ),
        ("Failure [INSTALL_FAILED_NEW]\n", "", "Failure [INSTALL_FAILED_NEW]"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_by_its_reason_with_the_remedy(
    stdout: str, stderr: str, told: str
) -> None:
    assert _with_remedy(ShellOutput(255, stdout, stderr)) == told
