from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from afd_export import pipeline
from afd_export.pictures import Picture
from afd_export.pipeline import ExportRequest, Step, _first_that_passes
from afd_export.verify import Judge, StageResult, check_contract, run_torch
from afd_mobile.errors import ParityError
from afd_mobile.fusion import fuse
from afd_mobile.parity import Limits

LIMITS = Limits(
    max_error=1e-3, mean_error=1e-4, min_cosine=0.999, min_snr_db=60.0, min_top1_agreement=1.0
)
LOOSE = Limits(max_error=9, mean_error=9, min_cosine=-1, min_snr_db=-99, min_top1_agreement=0.7)
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
    assert result.as_dict(pictures)["parity"]["disagreeing_pictures"] == []


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
    assert "nothing was published" in message


def test_another_top1_fails_alone_and_names_the_picture(
    judge: Judge, reference: NDArray[np.float32], pictures: list[Picture]
) -> None:
    actual = reference.copy()
    actual[1] = actual[1][[1, 0, 2, 3]]
    with pytest.raises(ParityError, match=r"top-1 agreement 0\.666667 below 0\.7") as caught:
        judge.check("tflite int8", actual, LOOSE)
    assert "other top-1 on p1.png (QF 25)" in str(caught.value)


def test_feature_maps_have_no_top1(reference: NDArray[np.float32], pictures: list[Picture]) -> None:
    judge = Judge(reference, pictures, classify=False)
    result = judge.check("onnx", reference[:, [1, 0, 2, 3]], LOOSE)
    assert result.parity.top1_agreement is None
    assert result.parity.disagreeing_pictures == ()


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
    first = fused.get_submodule("afd.fe_net.down.0")
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    first.bias.data += 0.1
    return fused


def test_a_wrong_fusion_publishes_nothing(
    make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pipeline, "fuse", corrupted)
    steps: list[Step] = []
    notices: list[str] = []
    with pytest.raises(ParityError, match="stage fused does not compute what was trained"):
        pipeline.export(make_request(), steps.append, notices.append)
    assert [step.stage for step in steps] == ["multi-branch"]
    assert not list((tmp_path / "parent").iterdir())


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
