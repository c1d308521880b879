"""What is shipped runs in one piece on XNNPACK and on the GPU, by the rules and by the engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from afd_export.placement.place import place_file
from afd_export.placement.rules import Delegate
from afd_mobile.common.artifacts import read_manifest
from tests.delegate_engines import gpu_engine, xnnpack_log

SHIPPED = (
    *("afd-mobilenet_v2-mobile", "afd-mobilenet_v2-paper"),
    *("afd-squeezenet1_1-mobile", "afd-tf_efficientnet_lite0-mobile"),
)


@pytest.fixture(scope="session")
def shipped(
    few_pictures: Path,
    export_fused: Callable[..., Path],
    made_once: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> Callable[[str], Path]:
    """The float32 file of a shipped checkpoint."""
    whole = {SHIPPED[0]: "corrected"}
    options = ("--precision", "float32", "--images", few_pictures)

    def get(name: str) -> Path:
        file = f"{name}_float32.tflite"
        if name in whole:
            folder: Path = request.getfixturevalue(whole[name])
            return folder / file
        made = made_once(name, lambda f: export_fused(f / "out", "--checkpoint", name, *options))
        return made / "out" / file

    return get


def _files(folder: Path) -> dict[str, Path]:
    name = read_manifest(folder)["name"]
    return {p: folder / f"{name}_{p}.tflite" for p in ("float32", "float16", "int8")}


@pytest.mark.parametrize(
    "name",
    [SHIPPED[0], *(pytest.param(name, marks=pytest.mark.long) for name in SHIPPED[1:])],
)
def test_shipped_presets_are_one_partition_by_the_rules_and_by_xnnpacks_log(
    name: str, shipped: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    placements = place_file(shipped(name)).placements
    assert placements[Delegate.GPU].whole
    total = placements[Delegate.XNNPACK].total
    assert placements[Delegate.XNNPACK].whole
    assert xnnpack_log(shipped(name), capfd) == (total, total, 1)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_rules_count_what_xnnpacks_log_counts(
    corrected: Path, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _files(corrected)[precision]
    expected = place_file(path).placements[Delegate.XNNPACK]
    assert xnnpack_log(path, capfd) == (
        expected.delegated,
        expected.total,
        expected.node_subsets,
    )
    assert len(expected.partitions) == 1


@pytest.mark.engine
def test_the_gpu_engine_takes_every_shipped_file_whole(
    corrected: Path, shipped: Callable[[str], Path], tmp_path: Path
) -> None:
    paths = [*map(shipped, SHIPPED), *_files(corrected).values()]
    for path, verdict in gpu_engine(paths, tmp_path).items():
        assert verdict.whole, verdict.log
        assert place_file(path).placements[Delegate.GPU].whole
