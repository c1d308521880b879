"""Everything that classifies a picture, whatever it is stored as, behind one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afd_mobile.checkpoints.checkpoint import find_checkpoint, load_checkpoint, shipped_names
from afd_mobile.checkpoints.fit import load_fitting, notices_of_fit
from afd_mobile.classifiers.backbones import Backbone, classifier, load_backbone
from afd_mobile.classifiers.names import recorded_backbone
from afd_mobile.classifiers.options import AS_RECORDED, ClassifierOptions
from afd_mobile.common.artifacts import (
    MANIFEST,
    InputRange,
    Precision,
    Scope,
    file_of,
    read_manifest,
    sha256,
)
from afd_mobile.common.errors import InputError, UsageError
from afd_mobile.common.files import nearest_path
from afd_mobile.common.labels import labels_inside
from afd_mobile.network.corrections import AnyModule
from afd_mobile.network.fusion import fuse
from afd_mobile.tflite.litert import LiteRtModel, check_model

Logits = NDArray[np.float32]
_Run = Callable[[NDArray[np.float32]], Logits]
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Predictor:
    """Attributes:
    name: for people.
    sha256: of the file that is measured; None for a classifier by name.
    input_size: S, pixels.
    classes: how many logits there are.
    logits: pictures (N, S, S, 3) uint8 RGB -> logits (N, classes).
    corrects: whether an AFD-Module is inside.
    weights_sha256: of the classifier's weights as they were exported; None where none are recorded.
    backbone: the classifier that is inside, for the comparison without correction.
    notices: what a person must know about its weights, and whether module and classifier fit.
    """

    name: str
    sha256: str | None
    input_size: int
    classes: int
    corrects: bool
    weights_sha256: str | None
    logits: Callable[[NDArray[np.uint8]], Logits]
    backbone: Callable[[], Backbone]
    notices: tuple[str, ...] = ()


class NotAtHandError(InputError):
    """The classifier inside an export cannot be had without something that nobody typed."""


def open_predictor(
    target: str, device: torch.device, asked: ClassifierOptions = AS_RECORDED
) -> Predictor:
    """A checkpoint (a file, or a shipped one's name), an export folder, or a model file in one.

    Of a folder the float32 TFLite file is taken, or the only one there is. Checkpoints run on
    `device`, files on the CPU.

    Args:
        asked: what the person typed of the classifier; a factory that the target names is run only
            if it is this one. An export holds its own classifier, fed in its own way: what is typed
            is for the comparison without correction.

    Raises:
        InputError: nothing of the kind, or not said what it is fed with.
        UsageError: an export is to be fed in another way.
    """
    path = Path(target)
    _check_exists(path)
    if path.is_dir():
        return _exported(_shipped_file(path), asked)
    if path.suffix in (".onnx", ".tflite"):
        return _exported(path, asked)
    checkpoint = find_checkpoint(target)
    if not _may_hold_weights(checkpoint):
        raise InputError(
            f"{checkpoint} is no model; give a checkpoint (its file or a shipped one's name), an "
            "export folder, or a .tflite or .onnx file in one"
        )
    loaded = load_checkpoint(checkpoint)
    if loaded.backbone is None:
        raise InputError(
            f"checkpoint {checkpoint} does not say for which classifier; export it with "
            "afd-export --backbone NAME and give the folder"
        )
    loaded, backbone = load_fitting(loaded, checkpoint, asked)
    notices = loaded.notices(checkpoint) + notices_of_fit(loaded, backbone, checkpoint)
    return Predictor(
        checkpoint.stem,
        sha256(checkpoint),
        backbone.input_size,
        backbone.classes,
        True,
        None,
        _torch_logits(backbone, fuse(loaded.module), device),
        lambda: backbone,
        (*backbone.notices, *_untrained(backbone), *notices),
    )


def _check_exists(target: Path) -> None:
    """Names the nearest of what lies beside it and of the shipped ones."""
    shipped = shipped_names()
    if target.is_file() or target.is_dir() or str(target) in shipped:
        return
    near = nearest_path(target, map(Path, shipped))
    meant = f" (did you mean {near}?)" if near else ""
    raise InputError(
        f"there is no file or folder {target}{meant}; give a checkpoint (its file or a shipped "
        f"one's name: {', '.join(shipped)}), an export folder, or a .tflite or .onnx file in one"
    )


def plain_predictor(of: Predictor, device: torch.device) -> Predictor:
    """The same classifier without correction."""
    backbone = of.backbone()
    logits = _torch_logits(backbone, None, device)
    return Predictor(
        backbone.name,
        None,
        backbone.input_size,
        backbone.classes,
        False,
        of.weights_sha256,
        logits,
        lambda: backbone,
        (*backbone.notices, *_untrained(backbone)),
    )


def _untrained(backbone: Backbone) -> list[str]:
    if backbone.trained:
        return []
    return [f"{backbone.name} has random weights: accuracy means nothing"]


def recovers(model: Predictor, reference: Predictor) -> bool:
    """Whether the model can bring back what the reference loses.

    Not if that corrects as well, or is the same classifier in another precision.
    """
    another = model.corrects or model.weights_sha256 != reference.weights_sha256
    return another and not reference.corrects


def _may_hold_weights(path: Path) -> bool:
    """By the suffix, or by its first bytes: a zip archive's or a pickle's, as torch.save writes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(2).startswith((b"PK", b"\x80"))


# --- PyTorch ------------------------------------------------------------------------------------


def _torch_logits(
    backbone: Backbone, module: AnyModule | None, device: torch.device
) -> Callable[[NDArray[np.uint8]], Logits]:
    run = classifier(backbone, module, device)

    def logits(pictures: NDArray[np.uint8]) -> Logits:
        result: Logits = run(pictures).numpy()
        return result

    return logits


# --- exported files -----------------------------------------------------------------------------


def _shipped_file(folder: Path) -> Path:
    manifest = read_manifest(folder)
    with _well_formed(folder):
        files = [f for f in manifest["files"] if f["path"].endswith(".tflite")]
    chosen = [f for f in files if f.get("precision") == Precision.FLOAT32.value] or files
    if len(chosen) != 1:
        names = ", ".join(f["path"] for f in files) or "no .tflite"
        raise InputError(f"{folder} holds {names}; give the file to evaluate")
    return file_of(folder, chosen[0]["path"])


def exported_labels(target: str) -> list[str] | None:
    """The names that an export has for its classes; None of one without, and of what is none.

    Args:
        target: as of `open_predictor`.

    Raises:
        InputError: there is no such target, or the folder's manifest or the names are broken.
    """
    path = Path(target)
    _check_exists(path)
    folder = path.parent if path.suffix == ".onnx" else path
    if path.suffix != ".tflite":
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder)
        with _well_formed(folder):  # the names are the same in all of its files
            names = [f["path"] for f in manifest["files"] if f["path"].endswith(".tflite")]
        if not names:
            return None
        path = file_of(folder, names[0])
    return labels_inside(path)


def _exported(path: Path, asked: ClassifierOptions) -> Predictor:
    """A model file, fed as the manifest beside it says."""
    if not (path.parent / MANIFEST).is_file():
        raise InputError(
            f"no {MANIFEST} beside {path} says what it is fed with; keep it in its export folder"
        )
    manifest = read_manifest(path.parent)
    with _well_formed(path.parent):
        if manifest["scope"] != Scope.CLASSIFIER.value:
            raise InputError(f"{path} gives {manifest['scope']}, not logits; nothing to evaluate")
        record = manifest["backbone"]
        size, classes = int(record["input_size"]), int(record["classes"])
        corrects = manifest["afd"] is not None
        weights = record.get("weights_sha256")
        normalized = InputRange(manifest["input_range"]) is InputRange.NORMALIZED
        mean, std = (np.asarray(record[k], np.float32).reshape(3) * 255 for k in ("mean", "std"))
        hashes = {str(f["path"]): str(f["sha256"]) for f in manifest["files"]}
    if path.name not in hashes:
        raise InputError(f"{path.parent / MANIFEST} does not know {path.name}; export it again")
    if sha256(path) != hashes[path.name]:  # LiteRT crashes on a truncated file
        raise InputError(f"{path} is not the file that was exported; copy it or export it again")
    _check_fed_so(path, record, asked)
    run, given, result = _litert(path) if path.suffix == ".tflite" else _onnxruntime(path)
    if (given, result) != ((1, size, size, 3), (1, classes)):
        raise InputError(
            f"{path} turns {given} into {result}, not what {path.parent / MANIFEST} says; export "
            "it again"
        )

    def logits(pictures: NDArray[np.uint8]) -> Logits:
        images = pictures.astype(np.float32)
        if normalized:
            images = (images - mean) / std
        return np.concatenate([run(image[None]) for image in images])

    return Predictor(
        path.name,
        hashes[path.name],
        size,
        classes,
        corrects,
        weights,
        logits,
        lambda: _recorded_backbone(path, manifest, asked),
    )


def _check_fed_so(path: Path, record: Mapping[str, Any], asked: ClassifierOptions) -> None:
    """A file is fed as it was exported, whatever is typed; only the same may be typed."""
    for key in ("mean", "std", "input_size"):
        typed, known = getattr(asked, key), record[key]
        if typed is not None and not np.allclose(typed, known, rtol=1e-3):
            option = f"--{key.replace('_', '-')}"
            said = " ".join(f"{value:g}" for value in np.atleast_1d(known))
            raise UsageError(
                f"{path} was exported with {option} {said}; leave {option} out, or export it again"
            )


@contextmanager
def _well_formed(folder: Path) -> Iterator[None]:
    """Turns what a malformed manifest raises into an InputError."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST} is broken: {error!r}; export again") from error


def _litert(path: Path) -> tuple[_Run, _Shape, _Shape]:
    check_model(path)
    model = LiteRtModel(path, threads=os.cpu_count() or 1)
    return model.run, model.input.shape, model.output.shape


def _onnxruntime(path: Path) -> tuple[_Run, _Shape, _Shape]:
    import onnx
    import onnxruntime
    from onnx.external_data_helper import uses_external_data

    try:
        # onnxruntime reads them from wherever the file says; an export has none.
        model = onnx.load(path, load_external_data=False)
        if any(map(uses_external_data, _tensors(model))):
            raise ValueError("its weights lie in other files")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it raises what it would log, in colours, with names
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors share no base class
        raise InputError(f"{path} is no ONNX model that onnxruntime runs: {error}") from error
    given, result = session.get_inputs()[0], session.get_outputs()[0]
    n, *chw = given.shape

    def run(image: NDArray[np.float32]) -> Logits:
        nchw = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
        logits: Logits = session.run(None, {given.name: nchw})[0]
        return logits

    return run, (n, *chw[1:], *chw[:1]), tuple(result.shape)


def _tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto in an ONNX message, wherever the format has a place for one."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def _recorded_backbone(path: Path, manifest: dict[str, Any], asked: ClassifierOptions) -> Backbone:
    record = manifest["backbone"]
    with _well_formed(path.parent):
        name, tap = str(record["name"]), str(record["tap"])
        weights = "auto" if record["trained"] else "random"
        own, seed = record["weights"] == "file", int(manifest["seed"])
        torch.Generator().manual_seed(seed)  # raises where PyTorch takes no such seed
        mean, std = (tuple(map(float, record[key])) for key in ("mean", "std"))
        size = int(record["input_size"])
        known = record.get("weights_sha256")
    if own and asked.weights == "auto":
        raise NotAtHandError(
            f"{path} was exported with a person's own weights for {name}; give them with "
            "--backbone-weights, or another export to compare with: --against FOLDER"
        )
    if record["weights"] == "module":
        raise NotAtHandError(
            f"{path} was exported with a network in Python, {name}; give another export to compare "
            "with: --against FOLDER"
        )
    try:
        typed = recorded_backbone(name, asked.backbone, what=str(path.parent / MANIFEST))
    except InputError as error:
        if asked.backbone is None:
            raise NotAtHandError(str(error)) from error
        raise
    backbone = load_backbone(
        typed,
        tap=tap,
        weights=weights if asked.weights == "auto" else asked.weights,
        mean=mean,
        std=std,
        input_size=size,
        seed=seed,
    )
    given = asked.own_file or asked.weights
    if given != "auto" and known not in (None, backbone.weights_sha256()):
        raise InputError(
            f"{path} was exported with other weights than {given}; give the file that it was made "
            "with, or another export to compare with: --against FOLDER"
        )
    return backbone
