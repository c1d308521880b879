"""The networks of the paper's Table VII, exported by `afd-export` when they are first asked for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from afd_mobile.common.artifacts import MANIFEST
from afd_mobile.common.errors import ConversionError, InputError, UsageError

CLASSIFIER, AFD = "resnet50", "afd"
# What to give `afd-export`. Random weights throughout: peers are measured, not judged.
_RESTORER = (
    "--checkpoint none --taps restore --scope features --mean 0 0 0 --std 1 1 1 --input-size 224"
)
PEERS = {
    CLASSIFIER: "--checkpoint none --backbone resnet50",
    AFD: "--checkpoint random --preset paper --backbone resnet50 --taps D2",
} | {
    name: f"{_RESTORER} --backbone afd_export.peers.networks:{name}"
    for name in ("arcnn", "dncnn", "rdn", "fbcnn", "ddp")
}
_COMMON = "--fuse --backbone-weights random --precision float32"
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
            "in the clone: pip install '.[export]'"
        )
    with tempfile.TemporaryDirectory() as pictures:
        # One picture proves that the graph computes the network; the figures do not depend on it.
        rgb = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
        imsave(Path(pictures) / "noise.png", rgb)
        command = [
            sys.executable, "-m", "afd_export.cli", *_COMMON.split(), *PEERS[name].split(),
            "--images", pictures, "--out", str(folder),
        ]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603 - this Python, with arguments of our own
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                timeout=_EXPORT_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ConversionError(f"peer:{name} was not exported within an hour") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["silent"]
        raise ConversionError(f"peer:{name} cannot be exported: {last[0]}")
    return folder
