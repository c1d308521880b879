"""`afd-bench run` on virtual phones, through the real adb: what it does around the measuring."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.afd_benchmark.conftest import SHORT, TOOL, Bench, bench_environment, cases, verdict
from tests.virtual_phone.fixtures import AdbServer, free_port
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

FOLDER = "data/local/tmp/afd"


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[VirtualPhone]:
    with VirtualPhone("snapdragon-865", tmp_path / "phone") as phone:
        yield phone


def start(server: AdbServer, *arguments: object) -> subprocess.Popen[str]:
    """`afd-bench run ...`, which goes on by itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "afd_benchmark.cli", "run", *map(str, arguments)],
        env=bench_environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_start(phone: VirtualPhone, number: int) -> None:
    """Until the tool was started that often."""
    deadline = time.monotonic() + 60
    while len(phone.invocations) < number:
        assert time.monotonic() < deadline, "the tool was not started"
        time.sleep(0.05)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_a_valid_time_and_says_what_it_lacks(
    profile: str, bench: Bench, adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with VirtualPhone(profile, tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        bench("run", corrected, "--device", serial, "--tool", TOOL, "--out", out, *SHORT)
    (case,) = cases(out)
    assert verdict(case) == "VALID", case["reasons"]
    assert case["golden"]["violations"] == [] and case["golden"]["pictures"] == 2
    assert case["delegation"]["delegate"] == "TfLiteXNNPackDelegate"
    assert case["median_ms"] > 0 and len(case["repeats"]) == 2
    for repeat in case["repeats"]:
        assert (out / repeat["log"]).read_text().startswith("$ ")
    (device,) = json.loads((out / "results.json").read_text())["devices"]
    assert ("thermal status" in device["lacks"]) == (profile == "quad-core-android-9")
    assert (out / "report.html").is_file()


def test_the_phone_is_left_as_it_was(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    before = dict(phone.state.settings["global"])
    bench("run", corrected, "--device", serial, "--tool", TOOL, "--out", tmp_path / "out", *SHORT)
    assert phone.state.settings["global"] == before
    assert not (phone.root / FOLDER).exists()
    assert "cmd power set-fixed-performance-mode-enabled true" in phone.commands
    assert not phone.state.fixed_performance
    pinned = [c for c in phone.commands if c.startswith("taskset ")]
    assert all(c.startswith("taskset 80 ") for c in pinned) and len(pinned) == 4


def test_a_file_is_pushed_once(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    bench(
        "run",
        corrected,
        "--device",
        serial,
        "--tool",
        TOOL,
        "--threads",
        1,
        2,
        "--out",
        out,
        *SHORT,
    )
    (cassette,) = (out / "cassettes").iterdir()
    exchanges = map(json.loads, (cassette / "exchanges.jsonl").read_text().splitlines()[1:])
    pushed = [e["request"] for e in exchanges if e["kind"] == "push"]
    assert len([p for p in pushed if p.endswith(".tflite")]) == 1
    assert len([p for p in pushed if p.endswith("benchmark_model")]) == 1


def test_against_takes_turns_and_gives_the_ratio(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, plain: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    bench(
        "run", corrected, "--against", plain, "--device", serial, "--tool", TOOL, "--out", out,
        "--repeats", 4, "--runs", 3, "--min-secs", 0, "--cool-down", 1,
    )  # fmt: skip
    main, other = cases(out)
    assert main["ratio"]["against"] == other["file"] == "plain_float32.tflite"
    medians = [[r["median_ms"] for r in case["repeats"]] for case in (main, other)]
    ratios = sorted(a / b for a, b in zip(*medians, strict=True))
    assert ratios[0] <= main["ratio"]["ratio"] <= ratios[-1]
    graphs = [
        c.partition("--graph=")[2].partition(" ")[0] for c in phone.commands if "--graph=" in c
    ]
    a, b = graphs[0], graphs[2]  # after two golden pictures each
    assert graphs[4:] == [a, b, b, a, a, b, b, a][: 2 * main["ratio"]["rounds"]]


def test_a_replay_gives_the_same_results_without_phone_and_models(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, plain: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    bench(
        "run", corrected, "--against", plain, "--device", serial, "--tool", TOOL, "--out", out,
        "--backend", "cpu", "gpu", "--profile", *SHORT,
    )  # fmt: skip
    (cassette,) = (out / "cassettes").iterdir()
    kept = shutil.copytree(cassette, tmp_path / "kept")
    shutil.rmtree(corrected)
    adb_server.adb("disconnect", serial)
    again = tmp_path / "again"
    bench("replay", kept, "--out", again)
    assert cases(again) == cases(out)
    assert cases(out)[0]["profile"]
    for log in (out / "logs").iterdir():
        assert (again / "logs" / log.name).read_bytes() == log.read_bytes()


def test_a_changed_cassette_is_one_line(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    bench("run", corrected, "--device", serial, "--tool", TOOL, "--out", out, *SHORT)
    (cassette,) = (out / "cassettes").iterdir()
    exchanges = cassette / "exchanges.jsonl"
    lines = exchanges.read_text().splitlines(keepends=True)
    for what, changed, words in (
        ("asked something else", [*lines[:3], lines[3].replace("dumpsys", "dumpster"), *lines[4:]],
         "this version asks"),
        ("cut off", lines[:20], "the cassette ends before"),
        ("cut inside a line", [*lines[:5], lines[5][:20]], "cannot be read as a cassette"),
        ("another version", [lines[0].replace('"schema_version":1', '"schema_version":7')],
         "schema version 7"),
        ("empty", [], "cannot be read as a cassette"),
    ):  # fmt: skip
        exchanges.write_text("".join(changed))
        code = 7 if what == "cut off" else 3
        done = bench("replay", cassette, "--out", tmp_path / what, code=code)
        assert words in done.stderr.splitlines()[-1], what


def test_resume_repeats_nothing_that_is_finished(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    run = ("run", corrected, "--device", serial, "--tool", TOOL, "--out", out,
           "--threads", 1, 2, *SHORT)  # fmt: skip
    # Two golden runs and two repeats a case: the cable is pulled in the second case.
    phone.faults = ("unplugged@6",)
    done = bench(*run, code=7)
    assert "--resume" in done.stderr
    (first,) = cases(out)
    assert verdict(first) == "VALID" and first["threads"] == 1

    adb_server.wait_for_state(serial, "device", "offline", "gone")
    phone.faults = ()
    adb_server.adb("disconnect", serial)
    time.sleep(3)  # as long as the cable is out
    adb_server.connect(phone)
    started = len(phone.invocations)
    bench(*run, "--resume")
    resumed, second = cases(out)
    assert resumed == first and second["threads"] == 2
    assert len(phone.invocations) - started == 4
    assert len(list((out / "cassettes").iterdir())) == 2

    done = bench(*run, "--resume", "--repeats", 3, code=2)
    assert "other settings (repeats)" in done.stderr


def test_the_lock_names_its_owner_and_a_dead_one_is_taken_over(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    run = ("run", corrected, "--device", serial, "--tool", TOOL, *SHORT)
    first = start(adb_server, *run[1:], "--out", tmp_path / "first", "--repeats", 30)
    wait_for_start(phone, 1)
    owner = (phone.root / FOLDER / "owner").read_text().strip()
    done = bench(*run, "--out", tmp_path / "second", code=7)
    assert f"in use by {owner}" in done.stderr and "rm -rf" in done.stderr
    assert f"process {first.pid}" in owner
    first.kill()  # no tidying up: its lock stays
    first.communicate()
    assert (phone.root / FOLDER / "owner").read_text().strip() == owner
    bench(*run, "--out", tmp_path / "third")
    assert verdict(cases(tmp_path / "third")[0]) == "VALID"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tidies_up_and_keeps_what_is_finished(
    how: signal.Signals, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    process = start(
        adb_server, corrected, "--device", serial, "--tool", TOOL, "--out", out, *SHORT,
        "--threads", 1, 2, "--min-secs", 1,
    )  # fmt: skip
    wait_for_start(phone, 7)
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert [case["threads"] for case in cases(out)] == [1]
    assert not (phone.root / FOLDER).exists()
    assert not phone.state.fixed_performance


def test_one_phone_that_fails_does_not_stop_the_others(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    good = adb_server.connect(phone)
    out = tmp_path / "out"
    with (
        VirtualPhone("quad-core-android-9", tmp_path / "full", faults=("storage-full",)) as full,
        VirtualPhone("snapdragon-8-gen-2", tmp_path / "shy", faults=("unauthorized",)) as shy,
    ):
        bad = [adb_server.connect(full), adb_server.connect(shy)]
        done = bench(
            "run", corrected, "--device", good, *bad, "--tool", TOOL, "--out", out, *SHORT, code=7
        )
        for serial in bad:
            adb_server.adb("disconnect", serial)
    assert [(c["device"], verdict(c)) for c in cases(out)] == [(good, "VALID")]
    for serial in bad:
        assert serial in done.stderr


def test_a_restarted_adb_server_is_one_line_and_can_be_resumed(
    bench: Bench, phone: VirtualPhone, corrected: Path, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    server = AdbServer(free_port(), tmp_path_factory.mktemp("own-adb-home"))
    server.adb("start-server")
    try:
        serial = server.connect(phone)
        run = (corrected, "--device", serial, "--tool", TOOL, "--out", tmp_path / "out", *SHORT)
        process = start(server, *run, "--min-secs", 1)
        wait_for_start(phone, 3)
        server.adb("kill-server")
        server.adb("start-server")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 7, errors
        assert "--resume" in errors.splitlines()[-1] and "Traceback" not in errors
        server.connect(phone)
        again = start(server, *run, "--min-secs", 1, "--resume")
        assert again.wait(timeout=60) == 0, again.communicate()
        again.communicate()
    finally:
        server.adb("kill-server")
    assert [verdict(c) for c in cases(tmp_path / "out")] == ["VALID"]


def test_a_phone_of_another_server_is_shown_with_its_host(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone
) -> None:
    serial = adb_server.connect(phone)
    here = bench("devices").stdout
    assert f"{serial}: OnePlus IN2013" in here and "Adreno (TM) 650" in here
    there = bench("devices", "--adb-server", f"localhost:{adb_server.port}").stdout
    assert f"{serial}@localhost:{adb_server.port}: OnePlus IN2013" in there


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--device", "nobody"], 7, "not connected"),
        (["--device", "SERIAL", "--tool", "nowhere"], 3, "is no file"),
        (["--device", "SERIAL", "--adb-server", "host"], 2, "expected HOST:PORT"),
        (["--device", "SERIAL", "--adb-server", "127.0.0.1:1"], 7, "does not answer"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], code: int, words: str, bench: Bench, adb_server: AdbServer,
    phone: VirtualPhone, corrected: Path, tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    given = [serial if a == "SERIAL" else a for a in arguments]
    done = bench("run", corrected, *given, "--out", tmp_path / "out", code=code)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
