"""Worker process: onnxsim, which can crash, on static shapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from afd_export.convert.worker import forbid_network


def main(request_path: Path) -> None:
    import onnx
    from onnxsim import simplify

    request = json.loads(request_path.read_text(encoding="utf-8"))
    model, ok = simplify(onnx.load(request["onnx"]))
    if not ok:
        raise RuntimeError("onnxsim's own check failed")
    onnx.save_model(model, request["simplified"])


if __name__ == "__main__":
    forbid_network()
    main(Path(sys.argv[1]))
