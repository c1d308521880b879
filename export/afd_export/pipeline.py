"""checkpoint -> fuse -> assemble -> onnx -> tflite -> verify: the export, pass by pass."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afd_export.convert.graph import DeployedGraph, fold_normalization
from afd_export.convert.recipes import Recipe, load_recipe
from afd_export.convert.to_onnx import export_onnx, input_and_output, run_onnx, simplify_onnx
from afd_export.convert.to_tflite import PREPARED, convert_tflite, run_tflite
from afd_export.convert.worker import save_array
from afd_export.float16_hazards import Range, hazard_section, measure_ranges, run_float16
from afd_export.int8.report import PICTURES, layer_noise, write_int8_report
from afd_export.package import manifest as manifests
from afd_export.package.card import model_card
from afd_export.package.golden_pictures import golden_pictures, write_golden_pictures
from afd_export.package.metadata import with_metadata
from afd_export.package.report import write_golden, write_parity, write_placement
from afd_export.pictures import Picture, PictureSet, as_input, load_pictures, surest
from afd_export.placement.place import place_file, placement_section
from afd_export.request import ExportRequest
from afd_export.source import ExportSource, find_source
from afd_export.verify import Judge, StageResult, check_contract, run_torch
from afd_mobile.common.artifacts import INPUT_NAME, MANIFEST, InputRange, Precision, Scope, Stage
from afd_mobile.common.errors import ConversionError, OutputError, ParityError, UsageError
from afd_mobile.common.labels import imagenet_labels, load_labels
from afd_mobile.network.corrections import InsideModule
from afd_mobile.network.cost import Cost, cost_of
from afd_mobile.network.fusion import fuse
from afd_mobile.tflite.litert import LiteRtModel, float_operations


@dataclass(frozen=True)
class Step:
    """One line of progress: a stage that is done. `result` is None where nothing is compared."""

    stage: str
    bytes: int | None
    seconds: float
    result: StageResult | None


Failed = dict[Precision, ParityError | ConversionError]


@dataclass(frozen=True)
class ExportResult:
    """What was published.

    Attributes:
        failed: precisions that were asked for and are not in `folder`, and why.
    """

    folder: Path
    manifest: dict[str, Any]
    failed: Failed

    @property
    def published(self) -> set[Precision]:
        """The precisions that are in `folder`."""
        return {Precision(f["precision"]) for f in self.manifest["files"] if "precision" in f}


Progress = Callable[[Step], None]
Notice = Callable[[str], None]


def export(request: ExportRequest, progress: Progress, notice: Notice) -> ExportResult:
    """Makes the export folder, whole or not at all.

    A precision that fails is left out, and the others are published. Not so where the float32 file
    or a stage before it fails: that is no matter of precision, the graph is not what was trained.

    Args:
        progress: called after every stage.
        notice: called with what a person must know: random weights, unreadable or few pictures.

    Raises:
        AfdError: see `afd_mobile.common.errors`; nothing is published then.
    """
    if request.explain_int8 and Precision.INT8 not in request.precisions:
        raise UsageError("--explain-int8 needs an int8 file; add int8 to --precision")
    recipes = {p: load_recipe(p) for p in request.precisions}
    source = find_source(request)
    labels, unnamed = _labels(request, source)
    folder = request.out or Path("exports") / source.name
    with _published_whole(folder, force=request.force) as work:
        pictures = load_pictures(request.images, source.backbone.input_size)
        for line in (*source.notices, *unnamed, *pictures.unreadable):
            notice(line)
        if Precision.INT8 in recipes and pictures.doubt:
            notice(pictures.doubt)
        try:
            manifest, failed = _run_passes(
                request, source, labels, recipes, pictures, work, progress, notice
            )
        except ParityError as error:
            raise ParityError(f"{error}; nothing was published") from error
    return ExportResult(folder, manifest, failed)


def _run_passes(
    request: ExportRequest,
    source: ExportSource,
    labels: list[str] | None,
    recipes: dict[Precision, Recipe],
    pictures: PictureSet,
    work: Path,
    progress: Progress,
    notice: Notice,
) -> tuple[dict[str, Any], Failed]:
    backbone, scope = source.backbone, request.scope
    images = as_input(pictures.verification, request.input_range, backbone.mean, backbone.std)
    calibration = as_input(pictures.calibration, request.input_range, backbone.mean, backbone.std)
    float_limits = load_recipe(Precision.FLOAT32).limits
    results: list[StageResult] = []
    failed: Failed = {}
    clock = _Clock()

    def done(stage: str, path: Path | None, result: StageResult | None) -> None:
        if result is not None:
            results.append(result)
        progress(Step(stage, path.stat().st_size if path else None, clock.lap(), result))

    @contextmanager
    def failing_alone(precision: Precision) -> Iterator[None]:
        try:
            yield
        except (ParityError, ConversionError) as error:
            if precision is Precision.FLOAT32:
                raise
            failed[precision] = error

    trained = DeployedGraph(backbone, source.afd, request.input_range, scope)
    reference = run_torch(trained, images)
    if request.images is None and scope is Scope.CLASSIFIER:
        chosen = surest(pictures.verification, reference)
        verification = [pictures.verification[i] for i in chosen]
        pictures = dataclasses.replace(pictures, verification=verification)
        images, reference = images[chosen], reference[chosen]
    judge = Judge(reference, pictures.verification, classify=scope is Scope.CLASSIFIER)
    done((Stage.PLAIN if source.afd is None else Stage.MULTI_BRANCH).value, None, None)

    deployed = trained
    if request.fused:
        deployed = fold_normalization(fuse(trained))
        stage = (Stage.FOLDED if source.afd is None else Stage.FUSED).value
        done(stage, None, judge.check(stage, run_torch(deployed, images), float_limits))

    # The converters work in a folder of their own; only what is published goes to `work`.
    with tempfile.TemporaryDirectory(dir=work.parent, prefix=".afd-convert-") as scratch_name:
        scratch = Path(scratch_name)
        raw_onnx, onnx_path = scratch / "graph.onnx", work / f"{source.name}.onnx"
        nchw = _as_nchw(images)
        size = backbone.input_size
        output = (scope.output_name, (1, *reference.shape[1:]))

        def check_onnx(stage: Stage, path: Path) -> StageResult:
            given, result = input_and_output(path)
            check_contract(stage.value, given, (INPUT_NAME, (1, 3, size, size)))
            check_contract(stage.value, result, output)
            return judge.check(stage.value, run_onnx(path, nchw), float_limits)

        export_onnx(deployed, size, scope.output_name, raw_onnx)
        done(Stage.ONNX.value, raw_onnx, check_onnx(Stage.ONNX, raw_onnx))
        not_simplified = simplify_onnx(raw_onnx, onnx_path)
        if not_simplified is None:
            done(Stage.SIMPLIFIED.value, onnx_path, check_onnx(Stage.SIMPLIFIED, onnx_path))
        else:
            shutil.copyfile(raw_onnx, onnx_path)
            notice(f"the ONNX graph is kept unsimplified: {not_simplified}")

        ranges: list[Range] = []
        if Precision.FLOAT16 in recipes:
            ranges = measure_ranges(onnx_path, _as_nchw(calibration))
            for line in (r.hazard for r in ranges if r.hazard):
                notice(line)
            simulated, limits = run_float16(onnx_path, nchw), recipes[Precision.FLOAT16].limits
            stage = Stage.FLOAT16_ARITHMETIC.value
            with failing_alone(Precision.FLOAT16):
                done(stage, None, judge.check(stage, simulated, limits))

        wanted = [recipe for precision, recipe in recipes.items() if precision not in failed]
        converted = convert_tflite(onnx_path, wanted, calibration, scope.output_name, scratch)
        card = model_card(source, scope)
        images_path = scratch / "images.npy"
        save_array(images_path, images)
        files: dict[Precision, Path] = {}
        outputs: dict[Precision, NDArray[np.float32]] = {}
        ran: dict[Precision, Path] = {}
        for precision, candidates in converted.items():
            stage = f"{Stage.TFLITE.value} {precision.value}"

            def check_tflite(
                path: Path, stage: str = stage, precision: Precision = precision
            ) -> StageResult:
                described = with_metadata(
                    path.read_bytes(),
                    card,
                    input_range=request.input_range,
                    mean=backbone.mean,
                    std=backbone.std,
                    labels=labels,
                )
                path.write_bytes(described)
                outputs[precision] = run_tflite(path, images_path, scratch)
                ran[precision] = path
                model = LiteRtModel(path)
                name, shape = output
                nhwc = shape if len(shape) == 2 else (shape[0], *shape[2:], shape[1])
                given = (model.input.name, model.input.shape)
                check_contract(stage, given, (INPUT_NAME, (1, size, size, 3)))
                check_contract(stage, (model.output.name, model.output.shape), (name, nhwc))
                actual = _as_nchw(outputs[precision])
                return judge.check(stage, actual, recipes[precision].limits)

            with failing_alone(precision):
                if isinstance(candidates, ConversionError):
                    raise candidates
                path, result = _first_that_passes(candidates, check_tflite)
                files[precision] = work / f"{source.name}_{precision.value}.tflite"
                shutil.copyfile(path, files[precision])
                done(stage, files[precision], result)
                if path != candidates[0]:
                    notice(
                        f"{precision.value}: {float_operations(path)} operations take float32 "
                        "activations, because with fewer it does not run or keep its limits"
                    )
        if not files:
            raise next(iter(failed.values()))

        # Also of an int8 that crosses its limits; one that does not run shows nothing.
        if request.explain_int8 and Precision.INT8 in ran:
            prepared, last = (scratch / PREPARED).read_bytes(), ran[Precision.INT8].read_bytes()
            write_int8_report(
                work, layer_noise(prepared, last, images[:: -(-len(images) // PICTURES)])
            )

    placements = {p.value: place_file(path) for p, path in files.items()}
    write_placement(work, {files[p].name: placements[p.value] for p in files})
    sections = [placement_section(placements), *([hazard_section(ranges)] if ranges else [])]
    not_published = {precision.value: str(error) for precision, error in failed.items()}
    write_parity(work, results, pictures, source, ranges, not_published, sections)
    published = {precision: outputs[precision] for precision in files}
    golden = write_golden(work, pictures.verification, reference, published)
    golden_files = _write_golden_pictures(request, source, deployed, labels, work)
    manifest = manifests.write(
        work,
        request=request,
        source=source,
        card=card,
        labels=labels,
        results=results,
        pictures=pictures,
        models={path: precision for precision, path in files.items()},
        golden=golden,
        golden_pictures=golden_files,
        simplified=not_simplified is None,
        costs=_costs(source, trained, deployed),
        not_published=not_published,
    )
    return manifest, failed


def _write_golden_pictures(
    request: ExportRequest,
    source: ExportSource,
    deployed: DeployedGraph,
    labels: list[str] | None,
    work: Path,
) -> list[dict[str, Any]]:
    backbone = source.backbone
    with tempfile.TemporaryDirectory(dir=work.parent, prefix=".afd-golden-") as folder:
        found = golden_pictures(backbone.input_size, Path(folder))
    as_fed = [Picture(picture.name, None, picture.pixels) for picture in found]
    images = as_input(as_fed, request.input_range, backbone.mean, backbone.std)
    classes = request.scope is Scope.CLASSIFIER
    top1 = run_torch(deployed, images).argmax(axis=1).tolist() if classes else None
    return write_golden_pictures(work, found, top1, labels)


def _labels(request: ExportRequest, source: ExportSource) -> tuple[list[str] | None, list[str]]:
    """The names of the classes, if there are any; and what is to be said if there are none."""
    if request.scope is Scope.FEATURES:
        if request.labels is not None:
            raise UsageError("--labels names classes, and --scope features has none; drop --labels")
        return None, []
    classes = source.backbone.classes
    if request.labels is not None:
        return load_labels(request.labels, classes), []
    if source.imagenet:
        return imagenet_labels(), []
    why = "" if classes != len(imagenet_labels()) else ", which need not be ImageNet's"
    return None, [
        f"no names go with the {classes} classes{why}: apps will see numbers; give --labels FILE, "
        "one a line in the order of the logits"
    ]


def _first_that_passes(
    paths: list[Path], check: Callable[[Path], StageResult]
) -> tuple[Path, StageResult]:
    """The first candidate that runs and keeps its limits; the last one's error if none does."""
    for path in paths[:-1]:
        try:
            return path, check(path)
        except (ParityError, ConversionError):
            continue
    return paths[-1], check(paths[-1])


def _costs(
    source: ExportSource, trained: DeployedGraph, deployed: DeployedGraph
) -> dict[str, dict[str, Cost]]:
    """Of the whole graph and of the module alone, as trained and as deployed."""
    backbone = source.backbone
    image = torch.zeros(1, 3, backbone.input_size, backbone.input_size)
    features = torch.zeros(1, backbone.channels, backbone.feature_size, backbone.feature_size)
    costs = {"graph": {"trained": cost_of(trained, image), "deployed": cost_of(deployed, image)}}
    if isinstance(trained.afd, InsideModule):  # it does not run without the classifier
        plain = DeployedGraph(backbone, None, InputRange.RGB255, Scope.CLASSIFIER)
        fused = fuse(plain) if deployed is not trained else plain
        costs["afd"] = {
            "trained": costs["graph"]["trained"] - cost_of(plain, image),
            "deployed": costs["graph"]["deployed"] - cost_of(fused, image),
        }
    elif trained.afd is not None and deployed.afd is not None:
        costs["afd"] = {
            "trained": cost_of(trained.afd, features, image),
            "deployed": cost_of(deployed.afd, features, image),
        }
    return costs


def _as_nchw(output: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(output.transpose(0, 3, 1, 2)) if output.ndim == 4 else output


class _Clock:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds


@contextmanager
def _published_whole(folder: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `folder` that takes its place only if the block ends well.

    Raises:
        OutputError: `folder` is no export folder, or is one and `force` is not given, its parent
            cannot be written, or the disk is full.
    """
    if (
        folder.exists()
        and not (folder / MANIFEST).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise OutputError(f"output {folder} is no export folder; choose another --out")
    if folder.exists() and not force:
        raise OutputError(f"output {folder} exists; use --force to replace it, or another --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent.resolve(), prefix=f".{folder.name}-", ignore_cleanup_errors=True
        ) as temporary:
            work = Path(temporary) / "new"
            work.mkdir()
            yield work
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            work.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
