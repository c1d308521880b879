from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from afd_export import pipeline
from afd_export.convert import recipes
from afd_export.package.report import write_parity
from afd_export.pictures import Picture, load_pictures
from afd_export.pipeline import Step, _first_that_passes
from afd_export.request import ExportRequest
from afd_export.source import find_source
from afd_export.verify import Judge, StageResult, check_contract, run_torch
from afd_mobile.common.artifacts import Precision, read_manifest
from afd_mobile.common.errors import ConversionError, ParityError
from afd_mobile.common.parity import Limits
from afd_mobile.network.fusion import fuse
from tests.afd_export.conftest import RANDOM, export_here, write_pictures
from tests.commands import Outcome

LIMITS = Limits(
    max_error=1e-3, mean_error=1e-4, min_cosine=0.999, min_snr_db=60.0, max_changed_beyond_error=0
)
LOOSE = Limits(
    max_error=9, mean_error=9, min_cosine=-1, min_snr_db=-99, max_changed_beyond_error=0.3
)
M = TypeVar("M", bound=nn.Module)


@pytest.fixture
def pictures() -> list[Picture]:
    rgb = np.zeros((8, 8, 3), np.uint8)
    return [Picture(f"p{i}.png", quality, rgb) for i, quality in enumerate((None, 25, 7))]


@pytest.fixture
def reference() -> NDArray[np.float32]:
    # Ranges from 0 to 10, so an error of 0.01 is 1e-3 of the range.
    return np.array([[10, 0, 1, 2], [0, 9, 1, 2], [1, 2, 8, 0]], np.float32)


@pytest.fixture
def judge(reference: NDArray[np.float32], pictures: list[Picture]) -> Judge:
    return Judge(reference, pictures, classify=True)


def test_the_reference_itself_passes_exactly(
    judge: Judge, reference: NDArray[np.float32], pictures: list[Picture]
) -> None:
    result = judge.check("onnx", reference.copy(), LIMITS)
    assert result.stage == "onnx"
    assert result.parity.max_abs_error == 0
    assert result.parity.snr_db is None
    assert result.parity.top1_agreement == 1
    parity = result.as_dict(pictures)["parity"]
    assert (parity["changed"], parity["changed_beyond_error"]) == ([], [])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails_under_any_limits(
    judge: Judge, reference: NDArray[np.float32], value: float
) -> None:
    reference = reference.copy()
    reference[1, 2] = value
    with pytest.raises(ParityError, match=r"stage tflite int8: .*p1\.png \(QF 25\).*NaN"):
        judge.check("tflite int8", reference, LOOSE)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (4, 3), (3, 4, 1), (12,)])
def test_a_wrong_shape_fails(judge: Judge, shape: tuple[int, ...]) -> None:
    with pytest.raises(ParityError, match=r"stage onnx: output shape .* expected \(3, 4\)"):
        judge.check("onnx", np.zeros(shape, np.float32), LOOSE)


def test_a_crossed_limit_names_stage_limit_and_picture(
    judge: Judge, reference: NDArray[np.float32]
) -> None:
    actual = reference.copy()
    actual[2, 0] += 0.5  # 5e-2 of the range
    with pytest.raises(ParityError) as caught:
        judge.check("fused", actual, LIMITS)
    message = str(caught.value)
    assert message.startswith("stage fused does not compute what was trained")
    assert "max error / range 0.05 above 0.001" in message
    assert "largest error on p2.png (QF 7)" in message


def test_another_top1_fails_alone_and_names_the_picture(
    judge: Judge, reference: NDArray[np.float32], pictures: list[Picture]
) -> None:
    actual = reference.copy()
    actual[1] = actual[1][[1, 0, 2, 3]]
    with pytest.raises(
        ParityError, match=r"changed beyond the error 0\.333333 above 0\.3"
    ) as caught:
        judge.check("tflite int8", actual, LOOSE)
    assert "another top-1 on p1.png (QF 25)" in str(caught.value)


def test_feature_maps_have_no_top1(reference: NDArray[np.float32], pictures: list[Picture]) -> None:
    judge = Judge(reference, pictures, classify=False)
    result = judge.check("onnx", reference[:, [1, 0, 2, 3]], LOOSE)
    assert result.parity.top1_agreement is None
    parity = result.as_dict(pictures)["parity"]
    assert (parity["changed"], parity["changed_beyond_error"]) == (None, None)


def test_the_dictionary_names_pictures_instead_of_counting_them(
    judge: Judge, reference: NDArray[np.float32], pictures: list[Picture]
) -> None:
    actual = reference.copy()
    actual[2, 3] += 0.005
    parity = judge.check("onnx", actual, LIMITS).as_dict(pictures)["parity"]
    assert parity["worst_picture"] == "p2.png (QF 7)"


@pytest.mark.parametrize(
    "actual", [("input", (1, 3, 64, 64)), ("image", (1, 64, 64, 3)), ("image", (0, 3, 64, 64))]
)
def test_a_wrong_name_or_shape_breaks_the_contract(actual: tuple[str, tuple[int, ...]]) -> None:
    expected = ("image", (1, 3, 64, 64))
    check_contract("onnx", expected, expected)
    with pytest.raises(ParityError, match=r"stage onnx: has .*expected \('image', \(1, 3, 64, 64"):
        check_contract("onnx", actual, expected)


def test_run_torch_gives_the_same_in_any_batch(reference: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((19, 8, 8, 3), dtype=np.float32)
    outputs = run_torch(nn.AvgPool2d(8), images)
    assert outputs.shape == (19, 3, 1, 1)
    np.testing.assert_allclose(outputs[:, :, 0, 0], images.mean(axis=(1, 2)), rtol=1e-5)


# --- the gate, end to end ------------------------------------------------------------------------


def corrupted(module: M) -> M:
    """Fused as always, but for the biases of one convolution."""
    fused = fuse(module)
    first = fused.get_submodule("tail.correction_1.enter")
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    first.bias.data += 0.1
    return fused


def test_a_wrong_fusion_publishes_nothing(
    make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pipeline, "fuse", corrupted)
    steps: list[Step] = []
    notices: list[str] = []
    with pytest.raises(
        ParityError, match=r"stage fused does not compute what was trained.*; nothing was published"
    ):
        pipeline.export(make_request(), steps.append, notices.append)
    assert [step.stage for step in steps] == ["multi-branch"]
    assert not list((tmp_path / "parent").iterdir())


def test_a_plain_classifier_has_stages_of_its_own(
    make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a module nothing has branches, and nothing is fused."""

    def stop(*_: object) -> None:
        raise ConversionError("far enough")

    monkeypatch.setattr(pipeline, "export_onnx", stop)
    steps: list[Step] = []
    with pytest.raises(ConversionError, match="far enough"):
        pipeline.export(make_request(checkpoint="none", taps=()), steps.append, lambda _: None)
    assert [step.stage for step in steps] == ["plain", "folded"]


def test_its_report_says_what_it_is_compared_with(
    make_request: Callable[..., ExportRequest], few_pictures: Path, tmp_path: Path
) -> None:
    source = find_source(make_request(checkpoint="none", taps=()))
    write_parity(tmp_path, [], load_pictures(few_pictures, 64), source, [], {}, [])
    page = (tmp_path / "parity.md").read_text("utf-8")
    assert "Every stage against the plain classifier in PyTorch, on 12 pictures" in page
    assert "multi-branch" not in page
    content = json.loads((tmp_path / "parity.json").read_bytes())
    assert content["reference"] == "plain classifier in PyTorch"


def test_a_network_that_gives_nan_publishes_nothing(
    make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def with_nan(module: M) -> M:
        fused = fuse(module)
        for parameter in fused.parameters():
            parameter.data.fill_(float("nan"))
        return fused

    monkeypatch.setattr(pipeline, "fuse", with_nan)
    with pytest.raises(ParityError, match=r"stage fused: output of picture .* holds NaN"):
        pipeline.export(make_request(), lambda _: None, lambda _: None)
    assert not list((tmp_path / "parent").iterdir())


@pytest.mark.parametrize(
    "precision", [Precision.FLOAT32, pytest.param(Precision.INT8, marks=pytest.mark.long)]
)
def test_without_float32_or_with_nothing_left_nothing_is_published(
    make_request: Callable[..., ExportRequest],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    precision: Precision,
) -> None:
    failed = ConversionError("the converter failed")
    monkeypatch.setattr(pipeline, "convert_tflite", lambda *_: {precision: failed})
    request = make_request(precisions=(precision,))
    with pytest.raises(ConversionError, match="the converter failed"):
        pipeline.export(request, lambda _: None, lambda _: None)
    assert not list((tmp_path / "parent").iterdir())


# What each precision but float32 is made to fail by: a limit, and spans that no graph has.
UNFIT = {
    "float16": ("max_error = 2e-2", "max_error = 0.0"),
    "dynamic": ("float_spans = [[0, 0, 0]]", "float_spans = []"),
    "int8": ("min_snr_db = 20.0", "min_snr_db = 999.0"),
}


@pytest.fixture(scope="module")
def partly_exported(
    tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """An export of which float32 alone succeeds: its folder, and how the command ended."""
    folder = tmp_path_factory.mktemp("partly")
    shutil.copytree(recipes.recipes_dir(), folder / "recipes")
    for name, (limit, unfit) in UNFIT.items():
        path = folder / "recipes" / f"{name}.toml"
        content = path.read_text("utf-8")
        assert limit in content
        path.write_text(content.replace(limit, unfit), "utf-8")
    write_pictures(folder / "images", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "recipes_dir", lambda: folder / "recipes")
        outcome = export_here(
            *("--fuse", *RANDOM, "--images", folder / "images", "--explain-int8"),
            *("--precision", "dynamic", "float32", "float16", "int8", "--out", folder / "out"),
            cwd=tiny_dir,
        )
    return folder / "out", outcome


def test_what_succeeds_is_published_and_the_rest_is_named_with_the_remedy(
    partly_exported: tuple[Path, Outcome],
) -> None:
    folder, outcome = partly_exported
    assert outcome.code == ParityError.exit_code  # float16's, the first
    error = outcome.err.splitlines()[-1]
    for words in (
        f"; {folder} is published without float16, dynamic, int8; ",
        "the converter failed on dynamic",
        "stage float16 arithmetic does not compute what was trained: max error / range",
        "stage tflite int8 does not compute what was trained: SNR in dB",
        "give other pictures with --images",
        "or leave float16, dynamic, int8 out with --precision float32",
    ):
        assert words in error
    assert f"{folder}/manifest.json" in outcome.out


def test_the_folder_holds_what_is_published_and_says_what_is_not(
    partly_exported: tuple[Path, Outcome],
) -> None:
    folder, _ = partly_exported
    manifest = read_manifest(folder)
    (published,) = folder.glob("*.tflite")
    assert published.name == f"{manifest['name']}_float32.tflite"
    assert [f["path"] for f in manifest["files"] if "precision" in f] == [published.name]
    assert set(manifest["not_published"]) == set(UNFIT)
    assert "SNR in dB" in manifest["not_published"]["int8"]
    stages = [s["stage"] for s in manifest["parity"]["stages"]]
    assert stages == ["fused", "onnx", "simplified", "tflite float32"]
    assert {p.name for p in folder.glob("golden/*.bin")} == {
        f"{number}_{what}.bin" for number in range(6) for what in ("input", "float32")
    }
    assert all(set(entry["outputs"]) == {"float32"} for entry in manifest["golden"])
    placed = json.loads((folder / "placement.json").read_text("utf-8"))["files"]
    assert set(placed) == {published.name}
    page = (folder / "parity.md").read_text("utf-8")
    for precision, why in manifest["not_published"].items():
        assert f"- {precision}: {why}" in page
        assert f"_{precision}.tflite" not in (folder / "USING.md").read_text("utf-8")
    # Of an int8 that crosses its limits, where it loses precision is the question.
    assert (folder / "int8.md").is_file()


def test_the_first_candidate_that_keeps_its_limits_is_taken(
    judge: Judge, reference: NDArray[np.float32]
) -> None:
    paths = [Path("a"), Path("b"), Path("c")]
    seen: list[str] = []

    def check(path: Path) -> StageResult:
        seen.append(path.name)
        return judge.check(path.name, reference + np.float32(path.name == "a"), LIMITS)

    path, result = _first_that_passes(paths, check)
    assert path == Path("b")
    assert result.stage == "b"
    assert seen == ["a", "b"]  # the third is not tried any more


def test_if_no_candidate_keeps_its_limits_the_last_error_is_raised(
    judge: Judge, reference: NDArray[np.float32]
) -> None:
    def check(path: Path) -> StageResult:
        return judge.check(path.name, -reference, LIMITS)

    with pytest.raises(ParityError, match="stage b does not compute"):
        _first_that_passes([Path("a"), Path("b")], check)
