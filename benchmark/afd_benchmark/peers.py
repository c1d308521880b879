"""The networks of the paper's Table VII, exported by `afd-export` when they are first asked for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from afd_mobile.artifacts import MANIFEST
from afd_mobile.errors import ConversionError, InputError, UsageError

# What to give `afd-export`; random weights throughout: they are measured, not judged.
_RESTORER = ["--checkpoint", "none", "--scope", "features", "--precision", "float32"]
PEERS = {
    name: [*_RESTORER, "--backbone", f"afd_export.peers:{name}"]
    for name in ("arcnn", "dncnn", "rdn", "fbcnn", "ddp")
}
_EXPORT_LIMIT_S = 3600.0


def peer_folder(name: str) -> Path:
    """The export folder of a peer, made on first use.

    Raises:
        UsageError: there is no such peer.
        InputError, ConversionError: it cannot be exported here.
    """
    if name not in PEERS:
        raise UsageError(f"peer:{name}: there are {', '.join(f'peer:{p}' for p in PEERS)}")
    folder = Path("exports") / "peers" / name
    if (folder / MANIFEST).is_file():
        return folder
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"peer:{name} has to be exported first, and afd-export is not installed here; "
            "pip install 'afd-mobile[export]'"
        )
    command = [sys.executable, "-m", "afd_export.cli", "--fuse", *PEERS[name], "--out", str(folder)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=_EXPORT_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"peer:{name} was not exported within an hour") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["silent"]
        raise ConversionError(f"peer:{name} cannot be exported: {last[0]}")
    return folder
