"""MediaPipe's image classifier, which knows nothing of this project, feeds the files and names
what it sees.

It needs a newer numpy than the converter allows: `make mediapipe-env` puts it into an environment
of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afd_export.package import schema as tflite_metadata_schema
from afd_mobile.common.artifacts import read_manifest
from afd_mobile.common.labels import imagenet_labels
from tests.commands import python_of

pytestmark = pytest.mark.engine

_CLASSIFY = """
import json
import sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

model_path, size, *pictures = sys.argv[1:]
options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model_path))
results = []
with ImageClassifier.create_from_options(options) as classifier:
    for path in pictures:
        rgb = np.fromfile(path, np.uint8).reshape(int(size), int(size), 3)
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        (head,) = classifier.classify(image).classifications
        results.append([[c.index, c.category_name, c.score] for c in head.categories])
json.dump(results, sys.stdout)
"""


def run(program: str, *arguments: object) -> str:
    """The standard output of `program` under MediaPipe's own Python."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python_of("mediapipe")), "-c", program, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_mediapipe_sees_what_we_see(corrected: Path, precision: str) -> None:
    manifest = read_manifest(corrected)
    golden = manifest["golden"]
    model = corrected / f"{manifest['name']}_{precision}.tflite"
    pictures = [corrected / entry["input"] for entry in golden]
    seen: list[Any] = json.loads(run(_CLASSIFY, model, 224, *pictures))
    labels = imagenet_labels()
    assert labels is not None
    assert len(seen) == len(golden) == 6
    for categories, entry in zip(seen, golden, strict=True):
        logits = np.fromfile(corrected / entry["outputs"][precision], "<f4")
        best = int(logits.argmax())
        assert categories[0][:2] == [best, labels[best]], entry["picture"]
        # The whole ranking: every class once, under its own name, best first, with our logit.
        indices, names, scores = zip(*categories, strict=True)
        assert sorted(indices) == list(range(1000))
        assert list(names) == [labels[i] for i in indices]
        assert list(scores) == sorted(scores, reverse=True)
        # Another build of the runtime may round otherwise; tflite-runtime 2.14 is 0.5 off in int8.
        tolerance = 1 if precision == "int8" else 1e-3
        np.testing.assert_allclose(scores, logits[list(indices)], rtol=0, atol=tolerance)
    assert len({categories[0][0] for categories in seen}) > 3


def test_the_schema_is_the_published_one() -> None:
    package = Path(run("import mediapipe; print(mediapipe.__path__[0])").splitlines()[-1])
    published = package / "tasks" / "metadata" / "metadata_schema_py_generated.py"
    own = Path(tflite_metadata_schema.__file__).read_text(encoding="utf-8")
    header, _, body = own.partition("unchanged from here on.\n")
    assert "Apache License, Version 2.0" in header
    assert body == published.read_text(encoding="utf-8")
