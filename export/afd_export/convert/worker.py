"""Runs a converter in a process of its own: time limit, chatter kept aside, no network."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from afd_mobile.common.errors import ConversionError, OutputError


def run_worker(module: str, request: dict[str, Any], workdir: Path, *, timeout_s: float) -> None:
    """`python -m module request.json` inside `workdir`.

    Raises:
        ConversionError: it failed, crashed or ran out of time; carries the end of its chatter.
    """
    request_path = workdir / f"{module.rpartition('.')[2]}.json"
    request_path.write_text(json.dumps(request), encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_USE_LEGACY_KERAS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        done = subprocess.run(  # noqa: S603 - this Python, with a module and a path of our own
            [sys.executable, "-m", module, str(request_path)],
            cwd=workdir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"{module} did not finish within {timeout_s:.0f} s") from error
    if "No space left on device" in done.stdout:
        raise OutputError(f"the disk is full: {workdir.parent}")
    if done.returncode:
        raise ConversionError(
            f"{module} failed with exit code {done.returncode}", chatter=done.stdout
        )


def save_array(path: Path, array: NDArray[Any]) -> None:
    """As `np.save`, whose own error on a full disk does not say so."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getvalue())


def forbid_network() -> None:
    """Makes every attempt to connect fail in this process: an export must not need the network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("an export does not use the network")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse
