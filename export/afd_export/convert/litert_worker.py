"""Worker process: runs a `.tflite` file on pictures, since the runtime aborts on some graphs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from afd_export.convert.worker import forbid_network, save_array
from afd_mobile.tflite.litert import LiteRtModel


def main(request_path: Path) -> None:
    request = json.loads(request_path.read_text(encoding="utf-8"))
    model = LiteRtModel(Path(request["model"]), threads=request["threads"])
    outputs = [model.run(image[None]) for image in np.load(request["images"])]
    save_array(Path(request["outputs"]), np.concatenate(outputs))


if __name__ == "__main__":
    forbid_network()
    main(Path(sys.argv[1]))
