"""One process against three under torchrun; this file is also the program that those run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from afd_mobile.checkpoints.checkpoint import load_checkpoint
from afd_mobile.cli.train import main as afd_train
from afd_mobile.common.errors import UsageError
from afd_mobile.training import distributed, loop
from afd_mobile.training.state import Progress
from tests.commands import free_port

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
COMMON = "--backbone mobilenet_v2 --iterations 3 --crop 64 --workers 1 --device cpu"
RUNS = {
    "distill": ["--batch", "6"],
    "feature-mse": ["--batch", "6", "--objective", "feature-mse", "--preset", "paper"],
    "odd": ["--batch", "4"],
}
# The second of them, interrupted after two iterations and resumed.
RUNS |= {"stopped": RUNS["feature-mse"], "resumed": [*RUNS["feature-mse"], "--resume"]}


def trained(name: str, photos: Path, out: Path) -> dict[str, Any]:
    """How one afd-train ended, its losses, and every rank's checksum of the module it trained."""
    losses: list[float] = []
    checksums: list[float] = []

    def train(module: Any, *rest: Any, **options: Any) -> Iterator[Progress]:
        for progress in original(module, *rest, **options):
            losses.append(progress.loss)
            if (name, progress.iteration, os.environ.get("RANK")) == ("stopped", 1, "1"):
                signal.raise_signal(signal.SIGINT)
            yield progress
        total = sum(v.double().abs().sum().item() for v in module.state_dict().values())
        checksums.extend(distributed.gather(total))

    original = loop.train
    arguments = [*COMMON.split(), *RUNS[name], "--images", str(photos), "--out", str(out)]
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(loop, "train", train)
        patch.setattr(loop, "VALIDATIONS", 1)
        patch.setattr(sys, "argv", ["afd-train", *arguments])
        try:
            afd_train()
        except SystemExit as error:
            code = int(error.code or 0)
    return {
        "code": code,
        "stdout": stdout.getvalue(),
        "stderr": stderr.getvalue(),
        "losses": losses,
        "checksums": checksums,
    }


def one_rank(folder: Path, photos: Path, ports: list[str]) -> None:
    """What each process under torchrun does; leaves `RANK.json` in `folder`."""
    rank = int(os.environ["RANK"])
    results: dict[str, Any] = {}
    for name, port in zip(RUNS, ports, strict=False):
        out = "resumed" if name in ("stopped", "resumed") else f"{name}-{rank}"
        results[name] = trained(name, photos, folder / f"{out}.safetensors")
        # torchrun's store keeps the addresses of the group that has ended: the next needs its own.
        os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_PORT=port)
    with distributed.ranks(CPU):
        results["rank"] = [distributed.rank(), distributed.world()]
        results["gather"] = distributed.gather({"rank": rank, "nothing": None})
        results["gather_none"] = distributed.gather(None)
        x = torch.tensor([1.0, 10.0 * rank], requires_grad=True)
        mean = distributed.mean_over_ranks(x)
        results["mean"] = [mean.tolist(), x.tolist(), mean.requires_grad]
    results["after"] = [distributed.rank(), distributed.world()]
    (folder / f"{rank}.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, many_photos: Path) -> Path:
    """One cannot be read: of the 18 crops, the third alone draws it, which is rank 1's."""
    folder = tmp_path_factory.mktemp("pictures") / "twenty"
    shutil.copytree(many_photos, folder)
    (folder / "19.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def three(folder: Path, pictures: Path) -> list[dict[str, Any]]:
    """What the ranks found; the sums of two would be the same in any order."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [__file__, str(folder), str(pictures), *(str(free_port()) for _ in RUNS)]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "3", *program],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.fixture(scope="module")
def one(folder: Path, pictures: Path) -> dict[str, Any]:
    """The same trainings in this process alone."""
    return {
        name: trained(name, pictures, folder / f"{name}-alone.safetensors")
        for name in ("distill", "feature-mse")
    }


@pytest.mark.parametrize(
    ("name", "first", "later", "weights"),
    [("feature-mse", 1e-5, 1e-5, 1e-3), ("distill", 1e-3, 3e-2, 1e-2)],
)
def test_three_processes_train_like_one(
    name: str,
    first: float,
    later: float,
    weights: float,
    three: list[dict[str, Any]],
    one: dict[str, Any],
    folder: Path,
) -> None:
    """Relative tolerances of the first loss, of those after a step, and of the weights.

    feature-mse is judged weight by weight: measured with two 7e-8, 1e-7 and 6e-5. The gradients of
    distill are rounded to bfloat16 where the processor has it, and Muon makes all their directions
    equally long, noise included; so what begins at zero is as good as random after three steps.
    All together: 5e-4.
    """
    found, expected = three[0][name]["losses"], one[name]["losses"]
    assert all(rank[name]["losses"] == found for rank in three) and len(expected) == 3
    assert found[0] == pytest.approx(expected[0], rel=first)
    assert found[1:] == pytest.approx(expected[1:], rel=later)
    shared, alone = (load_checkpoint(folder / f"{name}-{n}.safetensors") for n in (0, "alone"))
    expected_weights = alone.module.state_dict()
    errors = {k: (v - expected_weights[k]).norm() for k, v in shared.module.state_dict().items()}
    norms = {key: value.norm() for key, value in expected_weights.items()}
    if name == "distill":
        errors, norms = ({"all": torch.stack([*v.values()]).norm()} for v in (errors, norms))
    for key, error in errors.items():
        assert error <= weights * norms[key], key
    for checkpoint in (shared, alone):
        assert [point["crops"] for point in checkpoint.training["curve"]] == [18]
        assert checkpoint.training["unreadable"] == 1


@pytest.mark.parametrize("name", ["feature-mse", "distill"])
def test_the_ranks_end_with_the_same_module(name: str, three: list[dict[str, Any]]) -> None:
    checksums = three[0][name]["checksums"]
    assert len(checksums) == 3 and len(set(checksums)) == 1


def test_only_rank_0_writes_and_prints(three: list[dict[str, Any]], folder: Path) -> None:
    names = {p.name for p in folder.iterdir() if "alone" not in p.name}
    outs = {f"{name}.safetensors" for name in ("distill-0", "feature-mse-0", "resumed")}
    assert names == {"0.json", "1.json", "2.json", *outs}
    for name in ("distill", "feature-mse"):
        assert [rank[name]["code"] for rank in three] == [0, 0, 0]
        assert f"{name}-0.safetensors" in three[0][name]["stdout"]
        assert three[0][name]["stderr"].count("left out: cannot read picture") == 1
        for rank in three[1:]:
            assert rank[name]["stdout"] == ""
            assert not any(said in rank[name]["stderr"] for said in ("it/s", "left out"))


def test_a_resumed_training_gives_the_same_bytes(three: list[dict[str, Any]], folder: Path) -> None:
    """What one rank knows to be unreadable is saved by another; each stops all."""
    assert [rank["stopped"]["code"] for rank in three] == [130] * 3
    assert [len(rank["stopped"]["losses"]) for rank in three] == [2] * 3
    assert [len(rank["resumed"]["losses"]) for rank in three] == [1] * 3
    whole, resumed = (folder / f"{n}.safetensors" for n in ("feature-mse-0", "resumed"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_batch_that_cannot_be_shared_is_a_usage_error(three: list[dict[str, Any]]) -> None:
    for rank in three:
        assert rank["odd"]["code"] == 2
        assert rank["odd"]["stderr"] == (
            "afd-train: error: --batch 4 cannot be shared by 3 processes; use a multiple of 3\n"
        )


def test_what_ranks_tell_each_other(three: list[dict[str, Any]]) -> None:
    assert [r["rank"] for r in three] == [[0, 3], [1, 3], [2, 3]]
    for r in three:
        assert r["gather"] == [{"rank": i, "nothing": None} for i in range(3)]
        assert r["gather_none"] == [None] * 3
    assert [r["mean"] for r in three] == [[[1, 10], [1, 10 * rank], False] for rank in range(3)]
    assert [r["after"] for r in three] == [[0, 1]] * 3


def test_alone_there_is_nothing_to_tell() -> None:
    x = torch.randn(3)
    with distributed.ranks(CPU):
        assert (distributed.rank(), distributed.world()) == (0, 1)
        assert distributed.gather("x") == ["x"]
        assert torch.equal(distributed.mean_over_ranks(x), x)


def test_the_device_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.device_of("auto") == distributed.device_of("cpu") == CPU
    with pytest.raises(UsageError, match="--device cpu"):
        distributed.device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.device_of("auto") == torch.device("cuda", 3)
    assert distributed.device_of("cuda") == torch.device("cuda", 3)
    assert distributed.device_of("cpu") == CPU


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
