from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.optim import muon as timm_muon
from torch import Tensor, nn

from afd_mobile.checkpoints import checkpoint
from afd_mobile.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from afd_mobile.checkpoints.held_out import KEEPS_CLEAN
from afd_mobile.checkpoints.learning_curve import checked, text_table
from afd_mobile.classifiers import choose
from afd_mobile.classifiers.backbones import Backbone, load_backbone
from afd_mobile.cli import train as command
from afd_mobile.common.artifacts import sha256
from afd_mobile.common.errors import InputError
from afd_mobile.common.intervals import MIN_CHANGED
from afd_mobile.network.corrections import AnyModule, InsideModule, module_of
from afd_mobile.network.dct import BLOCK
from afd_mobile.network.fe_net import UNetFeNet
from afd_mobile.network.taps import preset_taps
from afd_mobile.pictures.datasets import centre_crop, spread_crops
from afd_mobile.pictures.degrade import QUALITIES, jpeg
from afd_mobile.pictures.picture_files import list_images, read_image, split
from afd_mobile.training import loop as training
from afd_mobile.training.recipe import CPU, Learner, Settings, _ema, _muon
from afd_mobile.training.recipe import RECIPES as TRAINED_BY
from afd_mobile.training.state import Progress, _pictures_sha256
from afd_mobile.training.validation import Validation
from tests.afd_mobile.checkpoints.test_learning_curve import CURVE, earlier_point
from tests.afd_mobile.conftest import AfdTrain
from tests.afd_mobile.inside import inside_module
from tests.afd_mobile.single_tap import single_tap_config
from tests.afd_mobile.tiny_blocks import FACTORY, NAME, SIZE

# A processor without bfloat16 takes three times as long for distill.
SETTINGS = Settings("feature-mse", iterations=4, batch=2, crop=32, seed=0)
TAP, PLACE = "features.2.conv.3", "residual:features.4"  # the tiny blocks' default tap, a place


# Without a process that reads pictures: it takes longer to start than so few iterations.
train = partial(training.train, workers=0)


def new_module(backbone: Backbone, preset: str = "paper", seed: int = 0) -> AnyModule:
    torch.manual_seed(seed)
    module = module_of(choose.preset_config(backbone, preset_taps(preset, [])))
    module.reset_to_identity()
    return module


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def interrupted_state(
    path: Path, module: AnyModule, backbone: Backbone, images: list[Path], settings: Settings
) -> None:
    """Leaves at `path` the state of a training that was stopped after two iterations."""
    steps = train(module, backbone, images, settings, path, resume=False)
    for progress in steps:
        if progress.iteration == 2:
            break
    steps.close()  # type: ignore[attr-defined]


Finished = tuple[Path, AnyModule, list[Progress]]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, tiny_blocks: Backbone
) -> Finished:
    """The state of a training that ended, its module and what it yielded."""
    path = tmp_path_factory.mktemp("state") / "finished.state"
    module = new_module(tiny_blocks)
    steps = list(train(module, tiny_blocks, list_images(photos), SETTINGS, path, resume=False))
    return path, module, steps


RECIPES = [("distill", "mobile"), pytest.param("feature-mse", "paper", marks=pytest.mark.long)]


@pytest.mark.parametrize(("objective", "preset"), RECIPES)
def test_resuming_continues_exactly(
    objective: str,
    preset: str,
    tmp_path: Path,
    many_photos: Path,
    tiny_blocks: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "VALIDATIONS", 2)
    settings, images = dataclasses.replace(SETTINGS, objective=objective), list_images(many_photos)
    whole = new_module(tiny_blocks, preset)
    start = snapshot(whole)
    steps = list(training.train(whole, tiny_blocks, images, settings, tmp_path / "a", resume=False))
    losses = [p.loss for p in steps]
    assert len(losses) == 4 and all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert not whole.training
    assert any(not torch.equal(v, start[k]) for k, v in whole.state_dict().items())

    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
    state = tmp_path / "b.state"
    interrupted_state(state, new_module(tiny_blocks, preset), tiny_blocks, images, settings)
    resumed = new_module(tiny_blocks, preset, seed=9)  # everything must come from the state
    rest = list(training.train(resumed, tiny_blocks, images, settings, state, resume=True))
    assert [p.iteration for p in rest] == [3, 4]
    assert [p.loss for p in rest] == losses[2:]
    assert rest[-1] == steps[-1] and len(rest[-1].curve) == 2  # the learning curve as well
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_the_running_mean_starts_at_the_first_loss(finished: Finished) -> None:
    mean = finished[2][0].loss
    for progress in finished[2]:
        mean = 0.98 * mean + 0.02 * progress.loss
        assert progress.smooth_loss == pytest.approx(mean, rel=1e-9)


def test_the_learning_curve(
    tmp_path: Path, many_photos: Path, tiny_blocks: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "VALIDATIONS", 2)
    module, images = new_module(tiny_blocks), list_images(many_photos)
    *_, last = train(module, tiny_blocks, images, SETTINGS, tmp_path / "s", resume=False)
    # Of the 18 that are trained on as many as are held out: two.
    held_out, seen = (
        Validation(tiny_blocks, spread_crops(paths, most, SIZE)[0], CPU)
        for paths, most in zip(split(images)[::-1], (128, 2), strict=True)
    )
    assert [point["crops"] for point in last.curve] == [4, 8]
    assert last.curve == checked(last.curve)
    for point in last.curve:
        assert list(point["agreement"]) == ["clean", *map(str, QUALITIES)]
        assert point["direct_agreement"] == held_out.direct.agreement
    point, good, of_seen = last.curve[-1], held_out.corrected(module), seen.corrected(module)
    assert point["agreement"] == good.agreement
    assert point["recovered_share"] == held_out.recovered_share(good)
    assert (point["kl_removed"], point["clean_kl"]) == (held_out.kl_removed(good), good.kl["clean"])
    assert point["training_kl_removed"] == seen.kl_removed(of_seen) != point["kl_removed"]
    assert point["training_clean_kl"] == of_seen.kl["clean"]
    assert point["loss"] == pytest.approx(last.smooth_loss, abs=1e-4)


def test_held_out_pictures_are_not_trained_on(
    tmp_path: Path, many_photos: Path, tiny_blocks: Backbone
) -> None:
    images = list_images(many_photos)
    losses = [
        [
            p.loss
            for p in train(
                new_module(tiny_blocks),
                tiny_blocks,
                chosen,
                dataclasses.replace(SETTINGS, iterations=2),
                tmp_path / "s",
                resume=False,
            )
        ]
        for chosen in (images[:8], images[:7])
    ]
    assert losses[0] == losses[1]  # of seven none is held out


def test_the_bar_shows_the_last_point_also_of_an_earlier_version() -> None:
    progress = Progress(5, 1.0, 2.0, [earlier_point(160)], 0, [], None, saved=False)
    earlier = {"loss": "2.0000", "recovered": "12.5%", "clean": "75.0%"}
    assert command._postfix(progress) == earlier
    newer = dataclasses.replace(progress, curve=[*progress.curve, CURVE[0]])
    assert command._postfix(newer) == earlier | {"KL removed": "25.0%"}


def test_few_pictures_give_no_learning_curve(finished: Finished) -> None:
    assert finished[2][-1].curve == []


def test_a_training_that_only_lacks_its_result_is_resumed(
    photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    path, module, steps = finished
    resumed = new_module(tiny_blocks, seed=9)
    rest = list(train(resumed, tiny_blocks, list_images(photos), SETTINGS, path, resume=True))
    assert [(p.iteration, p.smooth_loss) for p in rest] == [(4, steps[-1].smooth_loss)]
    for key, value in module.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"iterations": 5}, {"crop": 64}, {"objective": "distill"}]
)
def test_a_state_of_other_settings_is_refused(
    change: dict[str, int | str], photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    settings = dataclasses.replace(SETTINGS, **change)  # type: ignore[arg-type]
    images = list_images(photos)
    steps = train(new_module(tiny_blocks), tiny_blocks, images, settings, finished[0], resume=True)
    with pytest.raises(InputError, match="is of another run"):
        next(steps)


def test_a_state_of_another_architecture_is_refused(
    photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    module, images = new_module(tiny_blocks, "mobile"), list_images(photos)
    steps = train(module, tiny_blocks, images, SETTINGS, finished[0], resume=True)
    with pytest.raises(InputError, match="is of another run"):
        next(steps)


def test_a_state_of_other_weights_is_refused(
    photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    other = load_backbone(FACTORY, input_size=SIZE)
    with torch.no_grad():
        next(other.head.parameters()).add_(0.1)
    steps = train(new_module(other), other, list_images(photos), SETTINGS, finished[0], resume=True)
    with pytest.raises(InputError) as caught:
        next(steps)
    assert str(caught.value) == (
        f"{finished[0]} is of another run: the classifier has other weights "
        "(--backbone-weights); give what it was started with, or start anew without --resume"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": (0.5, 0.4, 0.3)}, "mean [0.485, 0.456, 0.406], now [0.5, 0.4, 0.3]"),
        ({"std": (0.5, 0.4, 0.3)}, "std [0.229, 0.224, 0.225], now [0.5, 0.4, 0.3]"),
        ({"input_size": 2 * SIZE}, f"input size {SIZE}, now {2 * SIZE}"),
    ],
)
def test_a_state_of_a_classifier_that_was_fed_otherwise_is_refused(
    change: dict[str, Any], said: str, photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    other, images = dataclasses.replace(tiny_blocks, **change), list_images(photos)
    steps = train(new_module(tiny_blocks), other, images, SETTINGS, finished[0], resume=True)
    with pytest.raises(InputError) as caught:
        next(steps)
    assert f"is of another run: {said}; give what" in str(caught.value)


def test_a_state_of_another_start_is_refused(
    photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    settings, images = dataclasses.replace(SETTINGS, init_sha256="0"), list_images(photos)
    steps = train(new_module(tiny_blocks), tiny_blocks, images, settings, finished[0], resume=True)
    with pytest.raises(InputError, match="of another run: --init is another file; give"):
        next(steps)


def test_a_state_of_other_pictures_is_refused(
    tmp_path: Path, photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    """Of the same names, that is; the same ones elsewhere are accepted."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photos, elsewhere)

    def resume() -> None:
        module, images = new_module(tiny_blocks), list_images(elsewhere)
        next(train(module, tiny_blocks, images, SETTINGS, finished[0], resume=True))

    resume()
    first, second = elsewhere / "0.png", elsewhere / "1.png"
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    with pytest.raises(InputError, match="of another run: --images holds other pictures; give"):
        resume()


def test_pictures_are_told_apart_by_name_size_and_both_ends(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024  # 256 KiB, of which 64 are read

    def digest(folder: str, **files: bytes) -> str:
        for name, data in files.items():
            path = tmp_path / folder / name.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return _pictures_sha256(sorted(p for p in (tmp_path / folder).rglob("*") if p.is_file()))

    first = digest("first", a=content, b_c=b"small")
    assert digest("same", a=content, b_c=b"small") == first
    others = {
        "name": {"a": content, "b_d": b"small"},
        "folder": {"a": content, "c_c": b"small"},
        "start": {"a": b"\1" + content[1:], "b_c": b"small"},
        "end": {"a": content[:-1] + b"\0", "b_c": b"small"},
        "size": {"a": content + content[-256:], "b_c": b"small"},
        "small": {"a": content, "b_c": b"smell"},
        "swapped": {"a": b"small", "b_c": content},
        "missing": {"a": content},
    }
    digests = {name: digest(name, **files) for name, files in others.items()}
    assert len({first, *digests.values()}) == 1 + len(others), digests


def test_pictures_of_any_name_have_a_digest(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    path.write_bytes(b"x")
    assert len(_pictures_sha256([path])) == 64


def test_pictures_that_cannot_be_opened_count_by_their_names(tmp_path: Path) -> None:
    loop, long, folder = (tmp_path / name for name in ("loop.png", "x" * 300, "folder.png"))
    loop.symlink_to(loop)
    folder.mkdir()
    readable = tmp_path / "a.png"
    readable.write_bytes(b"x")
    closed = [loop, long, folder]
    digests = {_pictures_sha256([readable, *closed[:n]]) for n in range(4)}
    assert len(digests) == 4
    assert _pictures_sha256([readable, *closed]) in digests


def test_missing_and_corrupt_states_are_input_errors(
    tmp_path: Path, photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    truncated = tmp_path / "truncated"
    truncated.write_bytes(finished[0].read_bytes()[:1000])
    foreign = tmp_path / "foreign"
    torch.save({"x": torch.zeros(1)}, foreign)
    for path in (tmp_path / "none", truncated, foreign):
        steps = train(
            new_module(tiny_blocks), tiny_blocks, list_images(photos), SETTINGS, path, resume=True
        )
        with pytest.raises(InputError, match=path.name):
            next(steps)


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": SETTINGS.iterations + 1},
        {"iteration": 0},
        {"iteration": None},
        {"module": None},
        {"module": {}},
        {"optimizer": {}},
        {"average": {"n_averaged": torch.tensor(0)}},
        {"smooth_loss": "low"},
        {"smooth_loss": math.inf},
        {"curve": None},
        {"curve": "steep"},
        {"curve": [{"recovered_share": 1.0, "agreement": {"clean": 1.0}, "x": torch.zeros(1)}]},
    ],
)
def test_a_broken_state_of_the_same_run_is_an_input_error(
    change: dict[str, Any], tmp_path: Path, photos: Path, tiny_blocks: Backbone, finished: Finished
) -> None:
    path, images = tmp_path / "broken.state", list_images(photos)
    torch.save({**torch.load(finished[0]), **change}, path)
    steps = train(new_module(tiny_blocks), tiny_blocks, images, SETTINGS, path, resume=True)
    with pytest.raises(InputError, match=r"broken\.state is broken or of another version; delete"):
        next(steps)


def test_no_picture_is_read_before_it_is_drawn(
    tmp_path: Path, photos: Path, tiny_blocks: Backbone
) -> None:
    """Of a folder of 100,000 photographs, reading all would take hours."""
    images = [*list_images(photos)[:1], *(tmp_path / f"{i:04}.png" for i in range(4000))]
    for path in images[1:]:
        path.write_bytes(b"no picture")
    settings = dataclasses.replace(SETTINGS, iterations=9)
    steps = train(
        new_module(tiny_blocks), tiny_blocks, images, settings, tmp_path / "s", resume=False
    )
    # Twenty draws a crop, two crops an iteration: the first one is enough to be certain.
    with pytest.raises(InputError, match="40 of the 40 pictures drawn so far, of 3501, cannot"):
        next(steps)
    assert not (tmp_path / "s").exists()


def with_one_broken(folder: Path, many_photos: Path) -> Path:
    """Beside the twenty, one that cannot be read and three that are none."""
    shutil.copytree(many_photos, folder)
    (folder / "12b.png").write_bytes(b"no picture")
    for name in ("._01.png", "._02.png", ".hidden.jpg"):
        (folder / name).write_bytes(b"Mac OS X")
    return folder


def test_a_broken_picture_is_left_out_said_once_and_recorded(
    tmp_path: Path, many_photos: Path, afd_train: AfdTrain
) -> None:
    images, out = with_one_broken(tmp_path / "photos", many_photos), tmp_path / "afd.safetensors"
    done = afd_train(*options(images, out), *PAPER, "--batch", 16)
    assert done.code == 0, done.err
    assert done.err.count("left out") == 1
    expected = f"note: left out: cannot read picture {images / '12b.png'}: its content is no"
    assert expected in done.err
    record = load_checkpoint(out).training
    assert (record["pictures"], record["unreadable"]) == (21, 1)
    made = f"{out}  (trained for {NAME} at {TAP}, 21 pictures, 1 of them unreadable)"
    assert made in done.out


def test_a_broken_held_out_picture_is_said_and_the_next_one_taken(
    tmp_path: Path, many_photos: Path, afd_train: AfdTrain
) -> None:
    """They are recorded; where there is no other, there is no learning curve."""
    images, out = tmp_path / "photos", tmp_path / "afd.safetensors"
    shutil.copytree(many_photos, images)
    for name in ("07.png", "15.png"):
        (images / name).write_bytes(b"no picture")
    done = afd_train(*options(images, out), *PAPER)
    assert done.code == 0, done.err
    assert done.err.count("left out") == 2 and "07.png" in done.err and "15.png" in done.err
    record = load_checkpoint(out).training
    assert (record["curve"], record["unreadable"]) == ([], 2)
    assert "\nheld out: no picture, so nothing says how good it is; " in done.out


def test_what_is_known_to_be_broken_outlives_an_interruption(
    tmp_path: Path, many_photos: Path, tiny_blocks: Backbone
) -> None:
    images = list_images(with_one_broken(tmp_path / "photos", many_photos))
    images[7].write_bytes(b"no picture")  # held out
    settings = dataclasses.replace(SETTINGS, batch=16)
    state, said = tmp_path / "s", []
    for resume in (False, True):
        asked = iter([False, not resume, False, False])
        module = new_module(tiny_blocks)
        steps = list(
            train(
                module, tiny_blocks, images, settings, state, resume=resume,
                stop=asked.__next__,
            )
        )  # fmt: skip
        said.append([line for step in steps for line in step.said])
        assert [step.saved for step in steps] == ([False, True] if not resume else [False] * 2)
        assert (steps[-1].iteration, steps[-1].unreadable) == (4 if resume else 2, 2)
    assert [len(lines) for lines in said] == [2, 0]


@pytest.mark.parametrize(("objective", "preset"), RECIPES)
def test_training_on_one_flat_colour_stays_finite(
    objective: str, preset: str, tmp_path: Path
) -> None:
    """SqueezeNet's first layers have no padding, so nothing of their features varies."""
    Image.new("RGB", (64, 64), (200, 30, 90)).save(tmp_path / "flat.png")
    backbone = load_backbone("squeezenet1_1")
    module = new_module(backbone, preset)
    settings = dataclasses.replace(SETTINGS, objective=objective, iterations=1, batch=1)
    images = [tmp_path / "flat.png"]
    steps = list(train(module, backbone, images, settings, tmp_path / "s", resume=False))
    assert all(math.isfinite(step.loss) for step in steps)
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_a_loss_that_is_not_finite_ends_the_training(
    tmp_path: Path, photos: Path, tiny_blocks: Backbone
) -> None:
    module = new_module(tiny_blocks)
    with torch.no_grad():
        next(module.parameters()).fill_(math.nan)
    steps = train(module, tiny_blocks, list_images(photos), SETTINGS, tmp_path / "s", resume=False)
    with pytest.raises(InputError, match="nan at iteration 1"):
        next(steps)
    assert not (tmp_path / "s").exists()


def test_a_group_of_parameters_has_its_own_factor_on_the_rate() -> None:
    """Adam's first step is the rate: half of 0.01 at the half, and thrice that."""

    class Sum(nn.Module):
        def forward(self, clean: Tensor, *_: Tensor) -> Tensor:
            return clean.mean() * (module.weight.sum() + module.bias.sum())

    module = nn.Linear(1, 1)
    before = snapshot(module)
    groups: list[dict[str, Any]] = [
        {"params": [module.weight]}, {"params": [module.bias], "factor": 3.0}
    ]  # fmt: skip
    recipe = dataclasses.replace(
        TRAINED_BY["distill"], optimizer=lambda _, rate: torch.optim.Adam(groups, rate),
        learning_rate=0.01, schedule=lambda done: done, ema=0.0,
    )  # fmt: skip
    learner = Learner(module, recipe, CPU)
    white = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    learner.step(Sum(), (white, white), 0.5)
    moved = {k: float((before[k] - v).sum()) for k, v in module.state_dict().items()}
    assert moved == pytest.approx({"weight": 0.005, "bias": 0.015}, rel=1e-3)


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.1), (1, 2 / 11), (10, 0.55), (10**6, 0.999)])
def test_the_window_of_the_averages_grows(updates: int, decay: float) -> None:
    averages = [torch.tensor([2.0])]
    _ema(0.999)(averages, [torch.tensor([5.0])], torch.tensor(updates))
    assert averages[0].item() == pytest.approx(decay * 2 + (1 - decay) * 5)


def picture(path: Path, quality: int | None) -> Tensor:
    """A small compressed centre crop, (1, 3, 64, 64)."""
    image = jpeg(centre_crop(read_image(path), 64), quality)
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]


def test_the_gate_is_sharpened_on_clean_pictures_and_qf_25(
    photos: Path, tiny_blocks: Backbone
) -> None:
    module, images = inside_module(tiny_blocks, PLACE), list_images(photos)
    pairs = [torch.cat([picture(image, quality) for image in images]) for quality in (None, 25)]
    expected = copy.deepcopy(module)
    expected.sharpen_gate(*(module.gate_logits(pair).flatten() for pair in pairs))
    training.sharpen_gate(module, images, 64)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[key])


@pytest.mark.parametrize("able", [False, True])
def test_muon_orthogonalises_in_what_the_processor_computes_with(
    monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    """In float32 a step is along U V', the nearest orthogonal matrix, to far more digits."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    types: list[torch.dtype] = []
    own = timm_muon.zeropower_via_newtonschulz

    def record(*arguments: Any, dtype: torch.dtype, **options: Any) -> Tensor:
        types.append(dtype)
        result: Tensor = own(*arguments, dtype=dtype, **options)
        return result

    monkeypatch.setattr(timm_muon, "zeropower_via_newtonschulz", record)
    weight = nn.Parameter(torch.randn(8, 16))
    optimizer = _muon(iter([weight]), 0.1)
    weight.grad = torch.randn(8, 16)
    optimizer.step()
    assert types == [torch.bfloat16 if able else torch.float32]
    assert timm_muon.zeropower_via_newtonschulz is record


# --- afd-train ----------------------------------------------------------------------------------


# The cheapest: a processor without bfloat16 takes three times as long for distill.
FEATURES = ("--objective", "feature-mse")
PAPER = ("--preset", "paper", *FEATURES)


def options(images: Path, out: Path) -> list[object]:
    """A training as short as can be."""
    text = f"--backbone {NAME} --iterations 2 --batch 2 --workers 1 --device cpu"
    return [*text.split(), "--images", images, "--out", out, "--input-size", SIZE]


# After the options, whose own these replace.
REAL = ("--backbone", "mobilenet_v2", "--input-size", 224, "--crop", 32)


def test_the_command_writes_a_checkpoint_and_no_rest(
    tmp_path: Path, many_photos: Path, tiny_blocks: Backbone, afd_train: AfdTrain
) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(many_photos, out))
    assert done.code == 0, done.err
    assert str(out) in done.out
    checkpoint = load_checkpoint(out)
    assert (checkpoint.backbone, checkpoint.tap) == (NAME, TAP)
    record = checkpoint.training
    assert record["pictures"] == 20 and record["iterations"] == 2 and record["init"] is None
    assert record["crop"] == SIZE
    assert [point["crops"] for point in record["curve"]] == [2, 4]
    assert "20 pictures)" in done.out
    held_out = [centre_crop(read_image(many_photos / f"{i}.png"), SIZE) for i in ("07", "15")]
    validation = Validation(tiny_blocks, held_out, CPU)
    found = validation.held_out(checkpoint.module)
    assert (checkpoint.held_out, record["held_out"]["verdict"]) == (found, "undecided")
    first, _, *table, last = done.out.splitlines()
    assert first == "20 pictures, 2 of them held out"
    assert (table, last) == (text_table(record["curve"]), found.text())
    assert last.startswith(
        "held out, 2 pictures: too few to tell it from no correction; KL removed"
    )
    assert list(tmp_path.iterdir()) == [out]


def test_a_training_that_ends_below_no_correction_says_so_in_its_last_line(
    tmp_path: Path, photograph: NDArray[np.uint8], tiny_blocks: Backbone, afd_train: AfdTrain
) -> None:
    """It starts with a correction that is noise, and one step does not mend it."""
    images, first, out = (tmp_path / name for name in ("images", "a.safetensors", "b.safetensors"))
    images.mkdir()
    for i in range(80):  # ten are held out
        crop = photograph[4 * i : 4 * i + 100, 5 * i : 5 * i + 100]
        Image.fromarray(crop).save(images / f"{i:02}.png")
    module = new_module(tiny_blocks)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("fe_net.out"):
                parameter.normal_(std=10)
    save_checkpoint(first, Checkpoint(module, NAME, TAP, {}))
    plot = tmp_path / "curve.png"
    asked = (*options(images, out), *ADAM_STEP_FROM, first, "--plot", plot)
    done = afd_train(*asked)
    assert done.code == 0, done.err
    *_, drawn, last = done.out.splitlines()
    assert last.startswith("held out, 10 pictures: WORSE than no correction (answers move further")
    assert "clean pictures lose their class" in last
    found = load_checkpoint(out)
    assert found.held_out is not None and found.training["held_out"]["verdict"] == "worse"
    assert found.notices(out) == [f"checkpoint b, when it was trained: {last}"]
    assert drawn == f"  {plot}"
    with Image.open(plot) as picture:
        picture.load()


def test_without_held_out_pictures_there_is_nothing_to_draw(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    out, plot = tmp_path / "afd.safetensors", tmp_path / "curve.png"
    done = afd_train(*options(photos, out), *ONE_ADAM_STEP, "--plot", plot)
    assert done.code == 0, done.err
    assert done.err.endswith(f"note: no {plot}: there is no learning curve to draw\n")
    assert done.out.splitlines()[-1].startswith("held out: no picture, so nothing says how good")
    assert load_checkpoint(out).training["held_out"] is None
    assert list(tmp_path.iterdir()) == [out]


def test_the_command_trains_several_places(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    """MobileNetV2 in two steps: all corrections learn, and the checkpoint says where they are."""
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(photos, out), *REAL)
    assert done.code == 0, done.err
    checkpoint = load_checkpoint(out)
    assert (checkpoint.backbone, checkpoint.tap) == ("mobilenet_v2", "features.6")
    module = checkpoint.module
    assert isinstance(module, InsideModule) and len(module.corrections) == 15
    last = ("linear.weight", "leave.weight")  # zero at the start
    learnt = [v for k, v in module.state_dict().items() if k.endswith(last)]
    assert len(learnt) == 15 and all(v.any() for v in learnt)


def test_places_before_the_classifiers_own_tap_are_trained(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    """The cut moves before them."""
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(photos, out), "--taps", "scale:features.2.conv.1.2")
    assert done.code == 0, done.err
    found = load_checkpoint(out)
    assert found.tap == "features.2.conv.1.2"
    assert isinstance(found.module, InsideModule)
    assert [place.node for place in found.module.config.places] == ["features.2.conv.1.2"]


def test_the_papers_module_is_trained_at_the_node_that_is_typed(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(photos, out), *ONE_ADAM_STEP, "--taps", "features.0")
    assert done.code == 0, done.err
    found = load_checkpoint(out)
    assert (found.tap, found.module.config.architecture) == ("features.0", "paper")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--taps", "D1"], "--taps D1: the preset mobile takes auto alone, or KIND:NODE"),
        (["--taps", "auto", PLACE], "--taps auto: the preset mobile takes auto alone"),
        (["--taps", PLACE, "--preset", "paper"], f"--taps {PLACE}: --preset paper takes one plain"),
        (["--taps", "auto", "--preset", "paper"], "--taps auto: --preset paper takes one plain"),
        (["--taps", "D1", "D4", "--preset", "paper"], "--taps D1 D4: --preset paper takes one"),
        (["--objective", "feature-mse"], "use --objective distill, or --preset paper"),
    ],
)
def test_what_does_not_go_together(
    asked: list[str], said: str, tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(photos, out), *asked)
    assert done.code == 2 and said in done.err
    assert len(done.err.splitlines()) == 1 and not out.exists()


def test_the_help_states_the_rule() -> None:
    text = " ".join(command._train_parser().format_help().split())
    assert f"{choose.RESIDUALS} in all" in text and "a 40th of the classifier" in text
    assert choose.RESIDUAL_SHARE == 1 / 40
    assert f"a stride of {BLOCK} or less" in text
    assert f"keep their class lies below {KEEPS_CLEAN:.0%}".replace("%", " %") in text
    assert f"Fewer than {MIN_CHANGED} pictures" in text


@pytest.mark.parametrize("drift_input", ["pixels", "shuffled-dct", "none"])
def test_an_ablation_is_trained_and_its_checkpoint_says_so(
    drift_input: str, tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(photos, out), *PAPER, "--drift-input", drift_input)
    assert done.code == 0, done.err
    module = load_checkpoint(out).module
    assert module.config.drift_input == drift_input
    torch.manual_seed(0)
    features, image = torch.randn(1, 8, 4, 4), torch.rand(1, 3, 32, 32) * 255
    with torch.no_grad():
        assert not torch.equal(module(features, image), features)
    depends = not torch.equal(module(features, image), module(features, 255 - image))
    assert depends == (drift_input != "none")


# Adam's first step is its learning rate, 1e-4, a fifth of it at the end of a training.
ONE_ADAM_STEP = (*PAPER, "--iterations", 1)
ADAM_STEP_FROM = (*FEATURES, "--iterations", 1, "--init")


def test_training_starts_from_no_correction(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    out = tmp_path / "out.safetensors"
    done = afd_train(*options(photos, out), *ONE_ADAM_STEP)
    assert done.code == 0, done.err
    fe_net = load_checkpoint(out).module.fe_net
    assert isinstance(fe_net, UNetFeNet)
    assert fe_net.outc.branch_1x1.weight.abs().max().item() == pytest.approx(2e-5, rel=0.01)


def test_training_starts_from_another_checkpoint(
    tmp_path: Path, photos: Path, tiny_blocks: Backbone, afd_train: AfdTrain
) -> None:
    module = module_of(new_module(tiny_blocks).config)  # random, not the identity
    first, out = tmp_path / "first.safetensors", tmp_path / "out.safetensors"
    save_checkpoint(first, Checkpoint(module, NAME, TAP, {}))
    done = afd_train(*options(photos, out), *ADAM_STEP_FROM, first)
    assert done.code == 0, done.err
    result = load_checkpoint(out)
    assert result.training["init"] == "first"
    assert result.training["init_sha256"] == sha256(first)
    moved = [
        float((result.module.state_dict()[k] - v).abs().max())
        for k, v in module.state_dict().items()
    ]
    assert max(moved) == pytest.approx(2e-5, rel=0.01)


def test_the_classifier_is_fed_as_was_typed_and_so_again(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    """Also a training that goes on from the checkpoint: nothing is typed again."""
    first, out = tmp_path / "first.safetensors", tmp_path / "out.safetensors"
    half = ("--mean", 0.5, 0.5, 0.5, "--std", 0.4, 0.4, 0.4, "--input-size", 2 * SIZE)
    for path, typed in ((first, (*ONE_ADAM_STEP, *half)), (out, (*ADAM_STEP_FROM, first))):
        *others, _, _ = options(photos, path)  # all but --input-size
        done = afd_train(*others, *typed)
        assert done.code == 0, done.err
        record = load_checkpoint(path).classifier
        assert record is not None and record.input_size == 2 * SIZE
        assert (record.mean, record.std) == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))


def test_two_identical_trainings_give_the_same_bytes(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    """And `--force` replaces the first one's."""
    out, digests = tmp_path / "a.safetensors", []
    for more in ((), ("--force",)):
        assert afd_train(*options(photos, out), *ONE_ADAM_STEP, *more).code == 0
        digests.append(sha256(out))
        if not more:
            out.write_bytes(b"changed")
    assert digests[0] == digests[1]


def test_what_another_training_made_is_not_replaced(tmp_path: Path, afd_train: AfdTrain) -> None:
    out, state = tmp_path / "afd.safetensors", tmp_path / "afd.state"
    asked = options(Path("/none"), out)  # the pictures come later
    out.write_bytes(b"weights")
    done = afd_train(*asked)
    assert done.code == 6
    assert done.err == (
        f"afd-train: error: output {out} exists; use --force to replace it, or another --out\n"
    )
    out.rename(state)
    done = afd_train(*asked)
    assert done.code == 6
    assert done.err == (
        f"afd-train: error: {state} is the state of an unfinished training; continue with "
        "--resume, or use --force to replace it, or another --out\n"
    )
    for option in ("--resume", "--force"):
        assert "no such image folder" in afd_train(*asked, option).err
    assert state.read_bytes() == b"weights"


def test_resuming_with_random_weights_is_one_line(
    tmp_path: Path, photos: Path, mobilenet: Backbone, afd_train: AfdTrain
) -> None:
    """MobileNetV2's, since a factory's are the same every time."""
    out, settings = tmp_path / "afd.safetensors", Settings("feature-mse", 1, 2, 32, 0)
    module, images = new_module(mobilenet), list_images(photos)
    list(train(module, mobilenet, images, settings, tmp_path / "afd.state", resume=False))
    again = (*options(photos, out), *REAL, *ONE_ADAM_STEP, "--resume")
    done = afd_train(*again, "--backbone-weights", "random")
    assert done.code == 3
    assert "the classifier has other weights (--backbone-weights); " in done.err
    assert len(done.err.splitlines()) == 2 and done.err.startswith("note: ")
    assert afd_train(*again).code == 0  # with its own it goes on


@pytest.mark.parametrize(
    ("out", "code", "message"),
    [
        ("none/afd.safetensors", 6, "there is no folder"),
        ("folder.safetensors", 6, "it is a folder"),
        ("stated.safetensors", 6, "stated.state: it is a folder"),
        ("/proc/afd.safetensors", 6, "cannot write /proc/afd.safetensors"),
    ],
)
def test_what_cannot_be_written_is_known_before_the_training(
    out: str, code: int, message: str, tmp_path: Path, afd_train: AfdTrain
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "stated.state").mkdir()
    done = afd_train(*options(Path("/none"), tmp_path / out))  # the pictures come later
    assert (done.code, len(done.err.splitlines())) == (code, 1)
    assert message in done.err


def test_a_start_that_is_no_longer_made_is_refused(
    tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    first, out = tmp_path / "first.safetensors", tmp_path / "out.safetensors"
    config = single_tap_config("mobile", channels=32, stride=8, activation="identity")
    save_checkpoint(first, Checkpoint(module_of(config), NAME, TAP, {}))
    done = afd_train(*options(photos, out), "--init", first)
    assert done.code == 3
    assert done.err == (
        f"afd-train: error: --init {first}: afd-train no longer has this architecture; leave it "
        "out\n"
    )
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("typed", ["--taps auto", "--preset mobile", "--drift-input dct"])
def test_a_start_says_where_and_how_it_corrects(
    typed: str, tmp_path: Path, photos: Path, afd_train: AfdTrain
) -> None:
    option = typed.partition(" ")[0]
    done = afd_train(*options(photos, tmp_path / "out.safetensors"), "--init", "x", *typed.split())
    assert done.code == 2
    assert done.err.endswith(
        f"error: {option}: --init says where and how it corrects; leave it out\n"
    )


def test_a_missing_start_is_refused(tmp_path: Path, photos: Path, afd_train: AfdTrain) -> None:
    done = afd_train(*options(photos, tmp_path / "out.safetensors"), "--init", "none-such")
    assert done.code == 3
    assert "no checkpoint 'none-such'" in done.err and len(done.err.splitlines()) == 1


def test_a_missing_picture_folder_is_one_line_and_exit_code_3(
    tmp_path: Path, afd_train: AfdTrain
) -> None:
    done = afd_train(*options(Path("/none"), tmp_path / "afd.safetensors"))
    assert done.code == 3
    assert done.err == "afd-train: error: no such image folder: /none\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        ["--out", "x.pth"],
        ["--plot", "x.pdf"],
        ["--crop", "9"],
        ["--iterations", "0"],
        ["--drift-input", "audio"],
        ["--device", "tpu"],
        ["--seed", "-1"],
        ["--seed", str(10**40)],
    ],
)
def test_wrong_options_are_exit_code_2(wrong: list[str], afd_train: AfdTrain) -> None:
    done = afd_train(*options(Path("/none"), Path("x.safetensors")), *wrong)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interrupted_training_is_saved_and_ends_as_if_it_had_gone_on(
    sent: signal.Signals, tmp_path: Path, photos: Path, afd_train: AfdTrain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    more = (*PAPER, "--iterations", 4)
    assert afd_train(*options(photos, whole), *more).code == 0
    original = training.train

    def interrupted(*arguments: Any, **named: Any) -> Iterator[Progress]:
        for progress in original(*arguments, **named):
            if progress.iteration == 1:
                signal.raise_signal(sent)
            yield progress

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted)
        done = afd_train(*options(photos, out), *more)
    state = out.with_suffix(".state")
    assert done.code == 130
    assert done.err.endswith(
        f"afd-train: interrupted; iteration 2 is saved in {state}; continue with --resume\n"
    )
    assert not out.exists()
    assert afd_train(*options(photos, out), *more, "--resume").code == 0
    assert sha256(out) == sha256(whole)
    assert not state.exists()


@pytest.mark.parametrize("when", ["sharpening", "saving", "twice"])
def test_whenever_a_training_is_interrupted_its_state_is_named(
    when: str, tmp_path: Path, photos: Path, afd_train: AfdTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "out.safetensors", training.train
    # Of the paper's module nothing is sharpened.
    more = ("--iterations", 1) if when == "sharpening" else ONE_ADAM_STEP
    state, asked = out.with_suffix(".state"), (*options(photos, out), *more)

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    def interrupted_twice(*arguments: Any, **named: Any) -> Iterator[Progress]:
        for progress in original(*arguments, **named):
            interrupt()
            interrupt()
            yield progress

    with monkeypatch.context() as patch:
        match when:
            case "sharpening":
                patch.setattr(training, "sharpen_gate", interrupt)
            case "saving":
                patch.setattr(checkpoint, "save_checkpoint", interrupt)
            case _:
                patch.setattr(training, "train", interrupted_twice)
        done = afd_train(*asked)
    assert done.code == 130
    assert done.err.endswith(
        f"afd-train: interrupted; a state is saved in {state}; continue with --resume\n"
    )
    out.write_bytes(b"an earlier one")
    assert afd_train(*asked, "--resume").code == 0
    assert load_checkpoint(out).training["iterations"] == 1
    assert not state.exists()


def test_a_training_that_is_interrupted_before_its_first_state_says_so(
    tmp_path: Path, photos: Path, afd_train: AfdTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[Progress]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield from ()

    monkeypatch.setattr(training, "train", interrupted)
    done = afd_train(*options(photos, tmp_path / "out.safetensors"))
    assert (done.code, done.err) == (130, "afd-train: interrupted; nothing is half-written\n")


@pytest.mark.cuda
def test_a_gpu_trains_and_validates(tmp_path: Path, many_photos: Path, afd_train: AfdTrain) -> None:
    out = tmp_path / "afd.safetensors"
    done = afd_train(*options(many_photos, out), *REAL, "--device", "cuda")
    assert done.code == 0, done.err
    assert [point["crops"] for point in load_checkpoint(out).training["curve"]] == [2, 4]
