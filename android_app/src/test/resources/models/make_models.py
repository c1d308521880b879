"""Made the files beside it, once: `python -m android_app.src.test.resources.models.make_models`.

`float32`, `uint8`: 8x8 RGB -> five logits, with labels.txt inside, as the export's files have.
`unknown_operator`, `two_inputs`, `too_large`: what the harness has to refuse.
`golden/`: one input each and LiteRT's output, float32 little-endian real values.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from afd_mobile.tflite.litert import LiteRtModel
from tests.afd_export.tflite_graphs import Fed, Graph, Stored, single

HERE = Path(__file__).parent
PICTURE = (1, 8, 8, 3)
LABELS = "espresso\nconsomme\ncup\neggnog\nsoup bowl\n"


def classifier(pixels: str) -> bytes:
    """Convolution, mean, fully connected; takes pixels from 0 to 255."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(0, 0.02, (4, 3, 3, 3)).astype(np.float32)
    weights = generator.normal(0, 1, (5, 4)).astype(np.float32)
    graph = Graph()
    values = graph.feed(Fed(PICTURE, pixels, scale=1.0, zero_point=0))
    if pixels != "float32":
        values = graph.run("DEQUANTIZE", [values], [graph.tensor(Fed(PICTURE))])
    features = graph.run(
        "CONV_2D",
        [values, graph.store(Stored(kernel)), graph.store(Stored(np.zeros(4, np.float32)))],
        [graph.tensor(Fed((1, 8, 8, 4)))],
        strideH=1,
        strideW=1,
        padding=schema.Padding.SAME,
        fusedActivationFunction=schema.ActivationFunctionType.RELU,
    )
    pooled = graph.run(
        "MEAN",
        [features, graph.store(Stored(np.array([1, 2], np.int32)))],
        [graph.tensor(Fed((1, 4)))],
    )
    logits = graph.run(
        "FULLY_CONNECTED",
        [pooled, graph.store(Stored(weights)), graph.store(Stored(np.zeros(5, np.float32)))],
        [graph.tensor(Fed((1, 5)))],
    )
    return with_labels(graph.finish([logits]))


def with_labels(model: bytes) -> bytes:
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo("labels.txt"), LABELS)
    return content.getvalue()


def unknown_operator() -> bytes:
    graph = Graph()
    graph.run("CUSTOM", [graph.feed(Fed((1, 4)))], [out := graph.tensor(Fed((1, 4)))])
    graph._codes[0].customCode = b"NotInAnyRuntime"
    return graph.finish([out])


def too_large() -> bytes:
    """64 TB between a small input and a small output."""
    graph = Graph()
    side, channels = 2**17, 2**10
    times = graph.store(Stored(np.array([1, side, side, channels], np.int32)))
    small = graph.feed(Fed((1, 1, 1, 1)))
    large = graph.run("TILE", [small, times], [graph.tensor(Fed((1, side, side, channels)))])
    axes = graph.store(Stored(np.array([1, 2, 3], np.int32)))
    return graph.finish([graph.run("MEAN", [large, axes], [graph.tensor(Fed((1,)))])])


def main() -> None:
    models = {
        "float32": classifier("float32"),
        "uint8": classifier("uint8"),
        "unknown_operator": unknown_operator(),
        "two_inputs": single("ADD", [Fed((1, 4)), Fed((1, 4))], Fed((1, 4))),
        "too_large": too_large(),
    }
    for name, content in models.items():
        (HERE / f"{name}.tflite").write_bytes(content)
    golden = HERE / "golden"
    golden.mkdir(exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 256, PICTURE)
    for name in ("float32", "uint8"):
        (golden / f"{name}_input.bin").write_bytes(pixels.astype(name).tobytes())
        output = LiteRtModel(HERE / f"{name}.tflite").run(pixels.astype(np.float32))
        (golden / f"{name}_expected.bin").write_bytes(output.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
