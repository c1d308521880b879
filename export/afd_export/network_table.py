"""Exports classifiers of many families, plain and corrected, and tells how each ended: a page.

python -m afd_export.network_table --images DIR --out FILE.json --page FILE.md
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from afd_export.package.manifest import PACKAGES
from afd_mobile.common.artifacts import read_manifest, read_versioned, to_json, versions_of
from afd_mobile.common.command import Parser, run_command
from afd_mobile.common.errors import InputError
from afd_mobile.common.files import check_writable, write_whole
from afd_mobile.common.terminal import in_markdown, printable
from afd_mobile.pictures.picture_files import evenly, list_images, read_image

PROGRAM = "python -m afd_export.network_table"
SCHEMA_VERSION = 1
TORCHVISION = (
    *("alexnet", "vgg11", "resnet18", "resnet50", "resnext50_32x4d", "densenet121"),
    *("squeezenet1_1", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_large"),
    *("mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s"),
    *("regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t"),
    "maxvit_t",
)
TIMM = (
    *("tf_efficientnet_lite0", "efficientnet_es", "mobilenetv1_100", "mobilenetv4_conv_small"),
    *("mixnet_s", "hardcorenas_a", "fbnetc_100", "lcnet_100", "ghostnet_100", "rexnet_100"),
    *("repvgg_a0", "mobileone_s0", "repvit_m0_9", "fastvit_t8", "efficientformer_l1"),
    *("efficientformerv2_s0", "efficientvit_b0", "efficientvit_m0", "edgenext_xx_small"),
    *("mobilevit_xxs", "mobilevitv2_050", "starnet_s1", "ese_vovnet19b_dw", "selecsls42b"),
    *("dla34", "res2net50_26w_4s", "cspresnet50", "hrnet_w18_small", "seresnet50", "skresnet18"),
    *("dpn68", "nf_resnet50", "xception41", "poolformer_s12", "convnextv2_atto"),
    *("deit_tiny_patch16_224", "levit_128s", "xcit_nano_12_p16_224", "resmlp_12_224"),
    *("mixer_s32_224", "inception_next_atto", "coatnet_nano_rw_224", "tiny_vit_5m_224"),
    "hgnetv2_b0",
)
NETWORKS = (*(f"torchvision/{n}" for n in TORCHVISION), *(f"timm/{n}" for n in TIMM))
# Weights are random, so that more pictures tell nothing more, and large networks take long.
PICTURES = 2
DELEGATES = {"xnnpack": "XNNPACK", "gpu": "GPU"}
LARGEST = 3


@dataclass(frozen=True)
class Attempt:
    """How one export ended.

    Attributes:
        corrected: with an untrained module inside, as `--taps auto` places it; else plain.
        reason: the command's last line where it refused; empty where it did not.
        seconds, peak_mib: wall time and largest resident memory of the command or a worker of its.
        file: what is to be known of what was written; None where nothing was.
    """

    network: str
    corrected: bool
    exit_code: int
    reason: str
    seconds: float
    peak_mib: int
    file: dict[str, Any] | None


# --- one export ---------------------------------------------------------------------------------


def attempt(network: str, *, corrected: bool, images: Path) -> Attempt:
    """`afd-export` of the network with random weights, float32, in a process of its own.

    Args:
        images: a folder of few pictures.
    """
    with tempfile.TemporaryDirectory(prefix="afd-networks-") as scratch:
        out, errors = Path(scratch) / "export", Path(scratch) / "errors"
        command = [sys.executable, "-m", "afd_export.cli", "--fuse", "--backbone", network]
        command += ["--backbone-weights", "random", "--precision", "float32"]
        command += ["--checkpoint", "random" if corrected else "none"]
        command += ["--images", str(images), "--out", str(out)]
        started = time.monotonic()
        with errors.open("wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)  # noqa: S603 - this Python, names of our own
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:  # Ctrl-C: it clears up what it has half-made
                process.terminate()
                process.wait()
                raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
        done = process.returncode == 0
        return Attempt(
            network,
            corrected,
            process.returncode,
            "" if done else (lines or ["it said nothing"])[-1].removeprefix("afd-export: error: "),
            round(seconds, 1),
            usage.ru_maxrss // 1024,
            _file(out) if done else None,
        )


def _file(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    (placement,) = json.loads((folder / "placement.json").read_bytes())["files"].values()
    return {
        "input_size": manifest["backbone"]["input_size"],
        "multiply_adds": manifest["cost"]["graph"]["deployed"]["multiply_adds"],
        "operations": len(placement["operations"]),
        "snr_db": manifest["parity"]["stages"][-1]["parity"]["snr_db"],
        "places": len((manifest["afd"] or {}).get("config", {}).get("places", [])),
        "placement": {
            name: [placement["delegates"][name][key] for key in ("delegated", "partitions")]
            for name in DELEGATES
        },
    }


# --- the page -----------------------------------------------------------------------------------


def page(attempts: Sequence[Attempt]) -> str:
    """Markdown: what came of every network, the reasons of refusals, and the largest exports."""
    networks = list(dict.fromkeys(a.network for a in attempts))
    by_name = {(a.network, a.corrected): a for a in attempts}
    both = [(by_name[n, False], by_name[n, True]) for n in networks if (n, True) in by_name]
    passed = sum(corrected.file is not None for _, corrected in both)
    heading = ["network", "input", "multiply-adds", "plain", "corrected", "places", "operations"]
    heading += list(DELEGATES.values())
    refusals = _refusals(attempts)
    table = [heading, ["---"] * len(heading), *(_cells(*pair, refusals) for pair in both)]
    largest = sorted(attempts, key=lambda a: a.peak_mib, reverse=True)[:LARGEST]
    return (
        "\n\n".join(
            [
                "# Networks that export",
                f"{len(both)} classifiers of torchvision and timm, with random weights, at the "
                f"size they are made for: {passed} export with the AFD-Module inside (`--taps "
                "auto`, untrained) and pass parity at every stage. Float32, by `make networks`.",
                "Plain, corrected: the signal-to-noise ratio of the TFLite file against PyTorch, "
                "or the number of the reason below. Places: of correction. Operations: of the "
                "corrected file (more than in the plain one). XNNPACK, GPU: how many of these the "
                "delegate takes, where not all in one partition.",
                "\n".join(f"| {' | '.join(row)} |" for row in table),
                *_reasons(refusals),
                "The largest exports, by resident memory of one process: "
                + "; ".join(
                    f"{a.network.partition('/')[2]} {'corrected' if a.corrected else 'plain'} "
                    f"{a.peak_mib:,} MiB, {a.seconds:.0f} s"
                    for a in largest
                )
                + f". All {len(attempts)} exports took {sum(a.seconds for a in attempts) / 60:.0f} "
                "minutes.",
            ]
        )
        + "\n"
    )


def _cells(plain: Attempt, corrected: Attempt, refusals: dict[str, int]) -> list[str]:
    file, base = corrected.file, plain.file
    known = file or base or {}
    cells = [plain.network, str(known.get("input_size", ""))]
    cells.append(f"{base['multiply_adds'] / 1e6:,.0f} M" if base else "")
    cells += [_ended(a, refusals) for a in (plain, corrected)]
    if file is None:
        return [*cells, *[""] * (2 + len(DELEGATES))]
    more = f" (+{file['operations'] - base['operations']})" if base else ""
    cells += [str(file["places"]), f"{file['operations']}{more}"]
    return cells + [_taken(file, name) for name in DELEGATES]


def _ended(attempt: Attempt, refusals: dict[str, int]) -> str:
    if attempt.file is None:
        return f"refused ({refusals[attempt.reason]})"
    snr = attempt.file["snr_db"]
    return "exact" if snr is None else f"{snr:.0f} dB"


def _taken(file: dict[str, Any], delegate: str) -> str:
    (delegated, partitions), operations = file["placement"][delegate], file["operations"]
    if delegated == operations and partitions == 1:
        return "all"
    return f"{delegated} of {operations} in {partitions}"


def _refusals(attempts: Iterable[Attempt]) -> dict[str, int]:
    reasons = dict.fromkeys(a.reason for a in attempts if a.reason)
    return {reason: number for number, reason in enumerate(reasons, start=1)}


def _reasons(refusals: dict[str, int]) -> list[str]:
    if not refusals:
        return []
    return ["\n".join(f"{number}. {in_markdown(reason)}" for reason, number in refusals.items())]


# --- the command --------------------------------------------------------------------------------


def read_attempts(path: Path) -> list[Attempt]:
    """What such a file holds; nothing where there is none.

    Raises:
        InputError: it is something else, or was made with other versions.
    """
    if not path.exists():
        return []
    content = read_versioned(path, SCHEMA_VERSION, "delete it")
    try:
        versions, attempts = content["versions"], [Attempt(**a) for a in content["attempts"]]
    except (TypeError, KeyError) as error:
        raise InputError(f"{path} holds no attempts: {error!r}; delete it") from error
    if versions != versions_of(*PACKAGES):
        raise InputError(f"{path} was made with other versions of the tools; delete it")
    return attempts


def write_attempts(path: Path, attempts: Sequence[Attempt]) -> None:
    """For `read_attempts`, whole or not at all."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "versions": versions_of(*PACKAGES),
        "attempts": [dataclasses.asdict(attempt) for attempt in attempts],
    }
    write_whole(path, to_json(content))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        PROGRAM,
        "Export classifiers of many families with random weights, plain and corrected, and write "
        "how each ended. What --out holds already is not exported again.",
    )
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"{PICTURES} of these pictures verify",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="results as they come, .json")
    add("--page", type=Path, required=True, metavar="FILE", help="the table, .md")
    add("networks", nargs="*", metavar="NETWORK", help="(default: those that the project names)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    check_writable(arguments.out, arguments.page)
    attempts = read_attempts(arguments.out)
    done = {(a.network, a.corrected) for a in attempts}
    wanted = [(n, c) for n in arguments.networks or NETWORKS for c in (False, True)]
    with tempfile.TemporaryDirectory(prefix="afd-networks-") as few:
        for number, path in enumerate(evenly(list_images(arguments.images), PICTURES)):
            Image.fromarray(read_image(path)).save(Path(few) / f"{number}.png")
        for network, corrected in tqdm([w for w in wanted if w not in done], unit="export"):
            attempts.append(attempt(network, corrected=corrected, images=Path(few)))
            write_attempts(arguments.out, attempts)
    write_whole(arguments.page, page(attempts).encode())
    print(printable(str(arguments.page)))


def main() -> None:
    """Entry point."""
    run_command(_run, _parser())


if __name__ == "__main__":
    main()
