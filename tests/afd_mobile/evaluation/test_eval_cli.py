from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from afd_mobile.checkpoints.checkpoint import Checkpoint, save_checkpoint
from afd_mobile.checkpoints.fit import record_of
from afd_mobile.classifiers.backbones import load_backbone
from afd_mobile.classifiers.options import ClassifierOptions
from afd_mobile.cli import drift, evaluate
from afd_mobile.evaluation.conditions import SUITES
from afd_mobile.evaluation.predictors import open_predictor
from afd_mobile.network.afd_module import AfdModule
from tests.afd_mobile.checkpoints.test_held_out import HARMFUL, HELPFUL
from tests.afd_mobile.evaluation.test_predictors import write_export
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_classifier import (
    CLASSES,
    FACTORY,
    NAME,
    TAP,
    make,
    make_module,
    normalized,
    random_picture,
    write_checkpoint,
    write_labels,
    write_pictures,
)
from tests.commands import Outcome, exit_code_of

REPOSITORY = Path(__file__).parents[3]
PICTURES = 21
ERROR = "afd-eval: error: "


class OneLine(Outcome):
    @property
    def error(self) -> str:
        """The one line that says what is wrong; only a progress bar may stand before it."""
        *bar, line = self.err.split("\n")[:-1]
        assert all("picture/s]" in b for b in bar), self.err
        assert line.startswith(ERROR), self.err
        return line.removeprefix(ERROR)


def afd_eval(*arguments: object) -> OneLine:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = exit_code_of(evaluate.main, "afd-eval", *arguments)
    return OneLine(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Tiny:
    """A checkpoint of the tiny classifier, its list of classes, and pictures."""

    checkpoint: Path
    labels: Path
    images: Path

    @property
    def options(self) -> tuple[str, ...]:
        images, labels = str(self.images), str(self.labels)
        model = (str(self.checkpoint), "--backbone", NAME)
        return (*model, "--images", images, "--labels", labels, "--workers", "1")

    @property
    def quick(self) -> tuple[str, ...]:
        return (*self.options, "--limit", "2", "--qualities", "7")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    return Tiny(
        write_checkpoint(folder / "mine.safetensors"),
        write_labels(folder / "labels.txt"),
        write_pictures(folder / "images", PICTURES),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder that must be empty after every failure."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def by_hand(tiny: Tiny, quality: int | None) -> dict[str, int]:
    """How often the classifier is right, and with its correction, and both say the same."""
    network, module = make(), make_module()
    counts = {"top1": 0, "reference_top1": 0, "top5": 0, "reference_top5": 0, "agreement": 0}
    for path in tiny.images.rglob("*.png"):
        image = Image.open(path)
        if quality is not None:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            image = Image.open(buffer)
        pixels = np.asarray(image)
        raw = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))
        with torch.no_grad():
            features = network[:2](normalized(pixels))
            direct = network[2:](features)[0].topk(5).indices.tolist()
            corrected = network[2:](module(features, raw))[0].topk(5).indices.tolist()
        label = CLASSES.index(path.parent.name)
        counts["top1"] += corrected[0] == label
        counts["reference_top1"] += direct[0] == label
        counts["top5"] += label in corrected
        counts["reference_top5"] += label in direct
        counts["agreement"] += corrected[0] == direct[0]
    return counts


# --- what it writes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    outcome: OneLine
    json: Path
    plot: Path


FULL = ("--qualities", "clean", "25", "7", "--times", "1", "2")


@pytest.fixture(scope="module")
def full(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole folder under five conditions."""
    folder = tmp_path_factory.mktemp("full")
    json, plot = folder / "a.json", folder / "a.png"
    return Run(afd_eval(*tiny.options, *FULL, "--json", json, "--plot", plot), json, plot)


def test_the_figures_are_those_by_hand(full: Run, tiny: Tiny) -> None:
    outcome = full.outcome
    assert outcome.code == 0, outcome.err
    assert {p.name for p in full.json.parent.iterdir()} == {"a.json", "a.png"}
    report = read(full.json)
    assert (report["pictures"], report["unreadable"]) == (PICTURES, [])
    rows = {row["condition"]: row for row in report["conditions"]}
    assert list(rows) == ["clean", "QF 25", "QF 7", "1x", "2x"]
    for name, quality in (("clean", None), ("QF 25", 25), ("QF 7", 7)):
        expected = by_hand(tiny, quality)
        counts = {key: round(PICTURES * rows[name][key]["value"], 6) for key in expected}
        assert counts == expected, name
        assert f"\n{name} " in outcome.out
    assert 0 < rows["QF 7"]["reference_top1"]["value"] < rows["clean"]["reference_top1"]["value"]
    assert rows["clean"]["agreement"]["value"] < 1
    assert f"{PICTURES} pictures" in outcome.out
    assert outcome.out.endswith(f"\n  {full.json}\n  {full.plot}\n")
    assert f"{PICTURES}/{PICTURES}" in outcome.err  # the bar arrived
    with Image.open(full.plot) as image:
        image.load()
        assert image.format == "PNG"


def test_a_second_run_writes_the_same_bytes(full: Run, tiny: Tiny, out: Path) -> None:
    json, plot = out / "b.json", out / "b.png"
    options = (*tiny.options[:-1], "2", *FULL)  # with two workers
    assert afd_eval(*options, "--json", json, "--plot", plot).code == 0
    assert json.read_bytes() == full.json.read_bytes()
    assert plot.read_bytes() == full.plot.read_bytes()


@pytest.mark.long
def test_two_processes_write_what_one_writes(full: Run, tiny: Tiny, out: Path) -> None:
    """21 pictures are three batches, so one process has two of them and the other one."""
    json = out / "two.json"
    main = "from afd_mobile.cli.evaluate import main; main()"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "--no-python", sys.executable, "-c", main]
    done = subprocess.run(
        [*command, *tiny.options, *FULL, "--json", str(json)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.read_bytes() == full.json.read_bytes()
    figures = full.outcome.out.replace(f"  {full.json}\n  {full.plot}\n", "")
    assert done.stdout == f"{figures}  {json}\n"  # once, not from both


def test_avif_and_another_model_as_reference(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors", make_module(seed=1))
    options = ("--codec", "avif", "--qualities", "30", "--times", "2", "--limit", "2")
    outcome = afd_eval(*tiny.options, *options, "--against", other, "--json", out / "a.json")
    assert outcome.code == 0, outcome.err
    report = read(out / "a.json")
    assert (report["model"], report["reference"]) == ("mine", "other")
    assert [r["condition"] for r in report["conditions"]] == ["clean", "avif QF 30", "avif 2x"]
    same = afd_eval(*tiny.quick, "--against", tiny.checkpoint, "--json", out / "a.json")
    assert same.code == 0, same.err
    for row in read(out / "a.json")["conditions"]:
        assert row["agreement"]["value"] == 1 and row["difference"]["value"] == 0


def test_no_share_is_recovered_of_the_same_classifier(tmp_path: Path, out: Path) -> None:
    """Its logits are the means of the channels, and QF 1 leaves few of them in their order."""
    plain, same, tuned = (
        write_export(tmp_path / name, lambda m, w=w: m["backbone"].update(weights_sha256=w))  # type: ignore[misc]
        for name, w in (("plain", "a"), ("same", "a"), ("tuned", "b"))
    )
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        place = tmp_path / "images" / "rgb"[pixels.mean((0, 1)).argmax()]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (tmp_path / "labels.txt").write_text("r\ng\nb\n")
    data = ("--images", tmp_path / "images", "--labels", tmp_path / "labels.txt")
    for model, recovers in ((same, False), (tuned, True)):
        options = ("--against", plain, "--qualities", 1, "--workers", 1, "--json", out / "a.json")
        outcome = afd_eval(model, *data, *options)
        assert outcome.code == 0, outcome.err
        assert (read(out / "a.json")["recovered_share"] is not None) == recovers


@pytest.mark.parametrize("name", ["paper", pytest.param("field", marks=pytest.mark.long)])
def test_a_suite_is_one_table_and_one_picture(tiny: Tiny, name: str, out: Path) -> None:
    written = ("--json", out / "a.json", "--plot", out / "a.png")
    outcome = afd_eval(*tiny.options, "--suite", name, "--limit", "1", *written)
    assert outcome.code == 0, outcome.err
    report, conditions = read(out / "a.json"), SUITES[name]().conditions
    assert report["suite"] == name
    assert [r["condition"] for r in report["conditions"]] == [c.name for c in conditions]
    lines = [line.split("  ")[0] for line in outcome.out.replace("\n  ", "\n").splitlines()]
    assert all(lines.count(c.name) == 1 for c in conditions)
    with Image.open(out / "a.png") as image:
        assert image.format == "PNG"
    table = out / "table.md"
    code = exit_code_of(evaluate.main, "afd-eval", "table", out / "a.json", "--out", table)
    assert code == 0 and all(f"\n| {c.name} | " in table.read_text() for c in conditions)


def test_pictures_are_compressed_at_their_own_size(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    place = tmp_path / "images" / CLASSES[0]
    place.mkdir(parents=True)
    random_picture(5, size=500).save(place / "0.png")
    Image.new("RGB", (70_000, 8)).save(place / "wide.png")  # more than a JPEG holds
    model = (tiny.checkpoint, "--backbone", NAME, "--labels", tiny.labels)
    options = (*model, "--images", tmp_path / "images", "--qualities", "2", "--workers", "1")
    outcome = afd_eval(*options, "--compress", "before-scaling", "--json", out / "a.json")
    assert outcome.code == 0, outcome.err
    assert "1 pictures, compressed before scaling" in outcome.out
    said = f"cannot compress picture {place / 'wide.png'} at its 70000 x 8 pixels, QF 2"
    assert said in outcome.err
    report = read(out / "a.json")
    assert report["compress"] == "before-scaling"


@pytest.mark.parametrize("suite", ["paper", "field"])
def test_a_suite_is_defined_at_the_networks_size(tiny: Tiny, suite: str) -> None:
    outcome = afd_eval(*tiny.options, "--suite", suite, "--compress", "before-scaling")
    assert outcome.code == 2
    assert outcome.error == (
        f"--suite {suite} is defined at the network's input size: no --compress before-scaling"
    )


@pytest.mark.parametrize("option", [("--qualities", "7"), ("--codec", "jpeg"), ("--times", "2")])
def test_a_suite_has_its_own_conditions(tiny: Tiny, option: tuple[str, str]) -> None:
    outcome = afd_eval(*tiny.options, "--suite", "field", *option)
    assert outcome.code == 2
    assert outcome.error == f"--suite field has its own conditions: no {option[0]}"


def test_without_labels_folders_are_imagenets(tmp_path: Path, out: Path) -> None:
    backbone = load_backbone("squeezenet1_1")
    config = single_tap_config(
        "mobile",
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
    )
    module = AfdModule(config)
    module.reset_to_identity()
    path = tmp_path / "nothing.safetensors"
    save_checkpoint(path, Checkpoint(module, backbone.name, backbone.tap, {}))
    for wnid, picture in (("n02123045", data.chelsea()), ("n02504458", data.rocket())):
        (tmp_path / "images" / wnid).mkdir(parents=True)  # a tabby; an elephant, it claims
        Image.fromarray(picture).save(tmp_path / "images" / wnid / "0.png")
    images = tmp_path / "images"
    options = ("--images", images, "--qualities", "--workers", "1", "--json", out / "a.json")
    outcome = afd_eval(path, *options)
    assert outcome.code == 0, outcome.err
    (clean,) = read(out / "a.json")["conditions"]
    assert clean["top5"]["value"] == clean["reference_top5"]["value"] == 0.5
    assert clean["agreement"]["value"] == 1


def test_pictures_of_every_kind_are_read(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    place = tmp_path / "images" / CLASSES[0]
    place.mkdir(parents=True)
    for mode, suffix in (
        ("L", "png"),
        ("RGBA", "webp"),
        ("CMYK", "jpg"),
        ("P", "png"),
        ("1", "bmp"),
    ):
        random_picture(0, size=40 + len(mode)).convert(mode).save(place / f"{mode}.{suffix}")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(place / "deep.png")
    Image.new("RGB", (1, 900)).save(place / "thin.png")
    model = (tiny.checkpoint, "--backbone", NAME)
    options = (*model, "--images", tmp_path / "images", "--labels", tiny.labels)
    outcome = afd_eval(*options, "--workers", 1, "--qualities", 7, "--json", out / "a.json")
    assert outcome.code == 0, outcome.err
    report = read(out / "a.json")
    assert (report["pictures"], report["unreadable"]) == (7, [])


def test_unreadable_pictures_are_reported_and_left_out(
    tiny: Tiny, tmp_path: Path, out: Path
) -> None:
    place = tmp_path / "images" / CLASSES[0]
    place.mkdir(parents=True)
    random_picture(0).save(place / "good.png")
    (place / "empty.png").touch()
    (place / "text.jpg").write_text("no picture")
    images = ("--images", tmp_path / "images", "--labels", tiny.labels)
    options = (tiny.checkpoint, "--backbone", NAME, *images, "--workers", "1", "--qualities", "7")
    outcome = afd_eval(*options, "--json", out / "a.json")
    assert outcome.code == 0, outcome.err
    broken = [f"{CLASSES[0]}/empty.png", f"{CLASSES[0]}/text.jpg"]
    for name in ("empty.png", "text.jpg"):
        said = f"note: left out: cannot read picture {place / name}: its content is no JPEG, PNG,"
        assert said in outcome.err
    report = read(out / "a.json")
    assert (report["pictures"], report["unreadable"]) == (1, broken)
    (place / "good.png").unlink()
    outcome = afd_eval(*options, "--json", out / "b.json")
    assert outcome.code == 3
    assert outcome.error == (
        f"none of the 2 pictures can be read; first: cannot read picture {place / 'empty.png'}: "
        "its content is no JPEG, PNG, WEBP, BMP, AVIF, TIFF or HEIC"
    )
    assert not (out / "b.json").exists()


# --- how the classifier is fed -------------------------------------------------------------------


def test_the_classifier_is_fed_as_it_was_in_training_unless_told_otherwise(
    tiny: Tiny, tmp_path: Path, out: Path
) -> None:
    half = (0.5, 0.5, 0.5)
    backbone = load_backbone(FACTORY, tap=TAP, mean=half, std=half, input_size=96)
    module, path = make_module(), tmp_path / "half.safetensors"
    save_checkpoint(path, Checkpoint(module, NAME, TAP, {}, record_of(backbone, module)))
    model = open_predictor(str(path), torch.device("cpu"), ClassifierOptions(FACTORY)).backbone()
    assert (model.mean, model.std, model.input_size) == (half, half, 96)
    options = (path, *tiny.quick[1:])
    silent = afd_eval(*options)
    assert silent.code == 0 and "note: " not in silent.err
    typed = afd_eval(*options, "--mean", 0.4, 0.5, 0.5, "--input-size", 64)
    assert typed.code == 0
    assert "at mean 0.4 0.5 0.5, input size 64 it may correct nothing" in typed.err
    drift = ("drift", "--checkpoint", path, "--backbone", NAME, "--images", tiny.images)
    told = afd_eval(*drift, "--limit", 1, "--out", out, "--input-size", 64)
    assert told.code == 0 and "at input size 64 it may correct nothing" in told.err


def test_random_weights_are_said(tiny: Tiny) -> None:
    outcome = afd_eval(*tiny.quick, "--backbone-weights", "random")
    assert outcome.code == 0
    assert f"note: {NAME} has random weights: accuracy means nothing" in outcome.err


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--qualities", "0"),
        ("--qualities", "101"),
        ("--qualities", "7.5"),
        ("--qualities", "dirty"),
        ("--times", "0"),
        ("--times", "-1"),
        ("--times", "1001"),
        ("--times", "often"),
        ("--codec", "webp"),
        ("--suite", "all"),
        ("--limit", "0"),
        ("--limit", "all"),
        ("--workers", "0"),
        ("--device", "tpu"),
        ("--plot", "plot.jpg"),
        ("--no-such-option",),
        ("another.tflite",),
    ],
    ids=" ".join,
)
def test_a_wrong_option_ends_with_2(tiny: Tiny, out: Path, arguments: tuple[str, ...]) -> None:
    outcome = afd_eval(*tiny.options, "--json", out / "a.json", *arguments)
    assert outcome.code == 2
    assert arguments[-1] in outcome.error
    assert not list(out.iterdir())


def test_a_flood_of_workers_is_refused(tiny: Tiny) -> None:
    # There are no pictures, so that nothing is flooded should this test fail.
    outcome = afd_eval(*tiny.options, "--images", "/none", "--workers", "100000")
    assert outcome.code == 2 and "100000 are too many" in outcome.error


def test_a_device_or_a_link_is_not_replaced(tiny: Tiny, out: Path) -> None:
    device = out / "device"
    os.mkfifo(device)
    link = out / "link"
    link.symlink_to(out / "target")
    for path in (device, link):
        outcome = afd_eval(*tiny.options, "--json", path)
        assert outcome.code == 6 and "is a link or a device" in outcome.error
    assert device.is_fifo() and link.is_symlink() and not (out / "target").exists()


def test_model_and_images_must_be_given(tiny: Tiny) -> None:
    for options, missing in (((), "MODEL"), ((tiny.checkpoint,), "--images")):
        outcome = afd_eval(*options)
        assert outcome.code == 2 and missing in outcome.error


def broken_input(how: str, tiny: Tiny, folder: Path) -> tuple[object, ...]:
    """Options that override those of a run that works, so that one thing is wrong."""
    file, empty = folder / "file", folder / "empty"
    empty.mkdir()
    match how:
        case "no images folder":
            return "--images", folder / "nowhere"
        case "empty images folder":
            return "--images", empty
        case "images is a file":
            return "--images", tiny.labels
        case "pictures beside the folders":
            random_picture(0).save(empty / "0.png")
            return "--images", empty
        case "folders of no class":
            return "--images", tiny.images.parent
        case "no labels":
            return "--labels", file
        case "labels are no text":
            file.write_bytes(b"\xff\xfe\x00")
            return "--labels", file
        case "no labels in the file":
            file.touch()
            return "--labels", file
        case "too few labels":
            file.write_text("\n".join(CLASSES[:-1]))
            (empty / CLASSES[0]).mkdir()  # which they name
            random_picture(0).save(empty / CLASSES[0] / "0.png")
            return "--labels", file, "--images", empty
        case "too many labels":
            file.write_text("\n".join([*CLASSES, "another"]))
            return "--labels", file
        case "no such reference":
            return "--against", file
        case "reference is no model":
            file.write_bytes(b"hello")
            return "--against", file
        case "reference is a classifier's weights":
            torch.save(make().state_dict(), file)
            return "--against", file
        case "reference is TorchScript":
            torch.jit.save(torch.jit.script(torch.nn.Identity()), file)
            return "--against", file
        case "reference is an empty folder":
            return "--against", empty
        case "reference is an empty tflite":
            (empty / "a.tflite").touch()
            return "--against", empty / "a.tflite"
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no images folder", "no such image folder"),
        ("empty images folder", "no pictures"),
        ("images is a file", "is a file; give the folder that it lies in"),
        (
            "pictures beside the folders",
            "0.png lies in no folder of a class (1 such); pictures must lie in folders named by",
        ),
        ("folders of no class", "images is no class of"),
        ("folders of no class", "an export's labels, the lines of --labels FILE, or ImageNet's wn"),
        ("no labels", "cannot be read: No such file"),
        ("labels are no text", "are not UTF-8"),
        ("no labels in the file", "line 1 is empty"),
        ("too few labels", "names 9 classes, but mine has 10"),
        ("too many labels", "names 11 classes, but mine has 10"),
        ("no such reference", "there is no file or folder "),
        ("reference is no model", "file"),
        ("reference is a classifier's weights", "classifier's weights go to --backbone-weights"),
        ("reference is TorchScript", "is a TorchScript archive; give weights alone"),
        ("reference is an empty folder", "manifest.json"),
        ("reference is an empty tflite", "manifest.json"),
    ],
)
def test_a_wrong_input_ends_with_3(
    tiny: Tiny, tmp_path: Path, out: Path, how: str, message: str
) -> None:
    outcome = afd_eval(
        *tiny.quick, "--json", out / "a.json", "--plot", out / "a.png",
        *broken_input(how, tiny, tmp_path),
    )  # fmt: skip
    assert outcome.code == 3
    assert message in outcome.error
    assert not list(out.iterdir())


def test_an_export_that_is_not_there_is_told_before_what_its_classes_are(tiny: Tiny) -> None:
    outcome = afd_eval("exports/none", "--images", tiny.images)
    assert outcome.code == 3 and "there is no file or folder exports/none" in outcome.error


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "/proc/a.json"),
        ("--json", "no/folder/a.json"),
        ("--plot", "no/folder/a.png"),
        ("--json", "."),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_ends_with_6(tiny: Tiny, arguments: tuple[str, str]) -> None:
    outcome = afd_eval(*tiny.quick, *arguments)
    assert outcome.code == 6
    assert f"cannot write {arguments[1]}: " in outcome.error


def worker_computes(parent: int) -> bool:
    """Whether a child of a process has computed for a tenth of a second."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    stats = [Path(f"/proc/{child}/stat").read_text() for child in children]
    user_times = [int(stat.rpartition(")")[2].split()[11]) for stat in stats]
    return any(time / os.sysconf("SC_CLK_TCK") > 0.1 for time in user_times)


@pytest.mark.long
def test_an_interrupted_run_writes_nothing(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    # Compressed a thousand times, one batch of pictures takes half a minute.
    options = (*tiny.options, "--times", "1000", "--json", out / "a.json", "--plot", out / "a.png")
    errors = tmp_path / "errors"
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from afd_mobile.cli.evaluate import main; main()"]
            + [str(option) for option in options],
            cwd=REPOSITORY,
            stderr=stream,
            start_new_session=True,
        )
    try:
        # A signal that comes while a process forks, Python loses.
        while process.poll() is None and not worker_computes(process.pid):
            time.sleep(0.1)
        assert b"0/21" in errors.read_bytes()
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the workers get it too
        assert process.wait() == 130, errors.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert errors.read_text().splitlines()[-1] == "afd-eval: interrupted; nothing is half-written"
    assert "Traceback" not in errors.read_text()
    assert not list(out.iterdir())


def test_a_checkpoint_whose_training_did_harm_is_evaluated_with_a_notice(
    tiny: Tiny, tmp_path: Path
) -> None:
    """One that did good is evaluated without."""
    for found, said in ((HARMFUL, 1), (HELPFUL, 0)):
        mine = tmp_path / "mine.safetensors"
        record = {"held_out": found.as_dict()}
        save_checkpoint(mine, Checkpoint(make_module(), NAME, TAP, record))
        outcome = afd_eval(mine, *tiny.quick[1:])
        assert outcome.code == 0, outcome.err
        notice = f"note: checkpoint mine, when it was trained: {found.text()}\n"
        assert outcome.err.count(notice) == said == outcome.err.count("note: ")


# --- afd-eval drift ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", ["distill", pytest.param("feature-mse", marks=pytest.mark.long)]
)
def test_drift_says_what_a_distilled_module_does_not_bring_back(
    tiny: Tiny, tmp_path: Path, out: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The figures are made, but no pixels of them.
    monkeypatch.setattr("afd_mobile.evaluation.drift_figures.png", lambda figure: b"PNG")
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, Checkpoint(make_module(), NAME, TAP, {"objective": objective}))
    options = ("--checkpoint", path, "--backbone", NAME, "--images", tiny.images)
    outcome = afd_eval("drift", *options, "--limit", "1", "--out", out)
    assert outcome.code == 0, outcome.err
    assert (drift._DISTILLED in outcome.out) == (objective == "distill")
    assert {path.name for path in out.iterdir()} == {
        *("drift.json", "curves.png", "maps.png", "features.png")
    }


# --- afd-eval table ------------------------------------------------------------------------------


def test_the_table_merges_reports(full: Run, tiny: Tiny, out: Path) -> None:
    quick = out / "quick.json"
    assert afd_eval(*tiny.quick, "--json", quick).code == 0
    table, plot = out / "table.md", out / "table.png"
    outcome = afd_eval("table", full.json, quick, "--out", table, "--plot", plot)
    assert (outcome.code, outcome.out) == (0, f"  {table}\n  {plot}\n"), outcome.err
    text = table.read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if "against" in line]
    assert len(headings) == 2
    assert headings[0].endswith("| clean | QF 25 | QF 7 | 1x | 2x |")
    assert headings[1].endswith("| clean | QF 7 |") and "2 pictures" in headings[1]
    with Image.open(plot) as image:
        image.load()
        assert image.width > 2 * 500  # two panels


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.json",), 3, "none.json"),
        ((), 2, "JSON"),
        (("none.json", "--plot", "a.pdf"), 2, "must end in .png"),
        (("none.json", "--plot", "none/a.png"), 6, "there is no folder none"),
    ],
)
def test_a_wrong_table_is_one_line(
    out: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    outcome = afd_eval("table", *arguments, "--out", out / "table.md")
    assert outcome.code == code
    assert outcome.err.startswith("afd-eval table: error: ") and message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(out.iterdir())


# --- afd-eval drift ------------------------------------------------------------------------------


def test_drift_says_why_none_of_the_drawn_pictures_can_be_read(
    tiny: Tiny, tmp_path: Path, out: Path
) -> None:
    """Six of twelve, evenly over the sorted paths."""
    paths = [tmp_path / "images" / name / f"{i}.png" for name in "abc" for i in range(4)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    options = ("--checkpoint", tiny.checkpoint, "--backbone", NAME, "--images", tmp_path / "images")
    outcome = afd_eval("drift", *options, "--out", out, "--limit", 6)
    assert outcome.code == 3
    notes = [line for line in outcome.err.split("\n") if line.startswith("note: ")]
    assert notes == [
        *(f"note: left out: cannot read picture {path}: its content is no JPEG, PNG, WEBP, BMP, "
          "AVIF, TIFF or HEIC" for path in paths[:10:2]),
        "note: left out: 1 more",
    ]  # fmt: skip
    assert outcome.err.endswith(
        f"error: none of the 6 pictures drawn from {tmp_path / 'images'} can be read\n"
    )
    assert not list(out.iterdir())
