"""`afd-bench run` on virtual phones, through the real adb: what it does around the measuring."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.afd_benchmark.conftest import (
    BRIEF,
    SHORT,
    TOOL,
    Bench,
    cases,
    ended,
    start_bench,
    verdict,
)
from tests.commands import free_port
from tests.virtual_phone.fixtures import AdbServer, running
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

FOLDER = "data/local/tmp/afd"


@dataclass(frozen=True)
class Session:
    """A finished run of both files in turn, on the CPU and the GPU, with profiles.

    Attributes:
        settings: the phone's global ones, before.
    """

    phone: VirtualPhone
    out: Path
    settings: dict[str, str]

    @property
    def cassette(self) -> Path:
        (cassette,) = (self.out / "cassettes").iterdir()
        return cassette

    @property
    def commands(self) -> list[str]:
        return self.phone.commands


@pytest.fixture(scope="module")
def session(
    bench: Bench, adb_server: AdbServer, exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("session")
    targets = shutil.copytree(exports, folder / "exports")
    with VirtualPhone("snapdragon-865", folder / "phone") as phone:
        session = Session(phone, folder / "out", dict(phone.state.settings["global"]))
        serial = adb_server.connect(phone)
        bench(
            "run", targets / "corrected", "--against", targets / "plain", "--device", serial,
            "--tool", TOOL, "--backend", "cpu", "gpu", "--profile", "--out", session.out, *SHORT,
        )  # fmt: skip
        adb_server.disconnect(serial)
        shutil.rmtree(targets)  # a replay needs none
        yield session


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[VirtualPhone]:
    with VirtualPhone("snapdragon-865", tmp_path / "phone") as phone:
        yield phone


def wait_for_start(phone: VirtualPhone, number: int) -> None:
    """Until the tool was started that often."""
    deadline = time.monotonic() + 120
    while len(phone.invocations) < number:
        assert time.monotonic() < deadline, "the tool was not started"
        time.sleep(0.05)


def assert_valid(out: Path, profile: str) -> None:
    """Of every case of a run on this phone."""
    for case in cases(out):
        assert verdict(case) == "VALID" or case["backend"] == "gpu", case["reasons"]
        assert case["golden"]["violations"] == [] and case["golden"]["pictures"] == 2
        assert case["median_ms"] > 0
        for repeat in case["repeats"]:
            assert (out / repeat["log"]).read_text().startswith("$ ")
    assert cases(out)[0]["delegation"]["delegate"] == "TfLiteXNNPackDelegate"
    (device,) = json.loads((out / "results.json").read_text())["devices"]
    assert ("thermal status" in device["lacks"]) == (profile == "quad-core-android-9")
    assert (out / "report.html").is_file()


# --- one session ----------------------------------------------------------------------------------


def test_a_session_gives_valid_times(session: Session) -> None:
    assert_valid(session.out, "snapdragon-865")
    assert [case["backend"] for case in cases(session.out)] == ["cpu", "cpu", "gpu", "gpu"]
    assert all(len(case["repeats"]) == 2 for case in cases(session.out))
    assert cases(session.out)[0]["profile"]


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "snapdragon-865"])
def test_every_profile_gives_a_valid_time_and_says_what_it_lacks(
    profile: str, bench: Bench, adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with VirtualPhone(profile, tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        bench("run", corrected, "--device", serial, "--tool", TOOL, "--out", out, *BRIEF)
    assert_valid(out, profile)


def test_the_phone_is_left_as_it_was(session: Session) -> None:
    phone = session.phone
    assert phone.state.settings["global"] == session.settings
    assert not (phone.root / FOLDER).exists()
    assert "cmd power set-fixed-performance-mode-enabled true" in phone.commands
    assert not phone.state.fixed_performance
    pinned = [c for c in phone.commands if c.startswith("taskset ") and not c.endswith(" true")]
    assert all(c.startswith("taskset 80 ") for c in pinned)
    assert len(pinned) == len(phone.invocations)


def test_a_file_is_pushed_once(session: Session) -> None:
    lines = (session.cassette / "exchanges.jsonl").read_text().splitlines()
    exchanges = map(json.loads, lines[1:])
    pushed = [e["request"] for e in exchanges if e["kind"] == "push"]
    assert len(pushed) == len(set(pushed))
    assert len([p for p in pushed if p.endswith(".tflite")]) == 2
    assert len([p for p in pushed if p.endswith("benchmark_model")]) == 1


def test_against_takes_turns_and_gives_the_ratio(session: Session) -> None:
    main, other = cases(session.out)[:2]
    assert main["ratio"]["against"] == other["file"] == "plain_float32.tflite"
    medians = [[r["median_ms"] for r in case["repeats"]] for case in (main, other)]
    ratios = sorted(a / b for a, b in zip(*medians, strict=True))
    assert ratios[0] <= main["ratio"]["ratio"] <= ratios[-1]
    graphs = [
        c.partition("--graph=")[2].partition(" ")[0] for c in session.commands if "--graph=" in c
    ]
    a, b = graphs[0], graphs[2]  # after two golden pictures each
    assert a != b and graphs[:9] == [a, a, b, b, a, b, b, a, a]  # the last with a profile


def test_a_replay_gives_the_same_results_without_phone_and_models(
    session: Session, bench: Bench, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    bench("replay", session.cassette, "--out", again)
    assert cases(again) == cases(session.out)
    for log in (session.out / "logs").iterdir():
        assert (again / "logs" / log.name).read_bytes() == log.read_bytes()


def test_a_changed_cassette_is_one_line(session: Session, bench: Bench, tmp_path: Path) -> None:
    cassette = shutil.copytree(session.cassette, tmp_path / "cassette")
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
        assert words in done.err.splitlines()[-1], what


# --- what comes between ---------------------------------------------------------------------------


def test_resume_repeats_nothing_that_is_finished(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    run = ("run", corrected, "--device", serial, "--tool", TOOL, "--out", out,
           "--threads", 1, 2, *BRIEF)  # fmt: skip
    # Two golden runs and a repeat a case: the cable is pulled in the second case.
    phone.faults = ("unplugged@5",)
    # A process of its own, which the lock names that stays on the phone.
    assert "--resume" in ended(start_bench(*run, server=adb_server), 7)
    (first,) = cases(out)
    assert verdict(first) == "VALID" and first["threads"] == 1

    phone.plug_in()
    adb_server.disconnect(serial)
    adb_server.connect(phone)
    started = len(phone.invocations)
    bench(*run, "--resume")
    resumed, second = cases(out)
    assert resumed == first and second["threads"] == 2
    assert len(phone.invocations) - started == 3
    assert len(list((out / "cassettes").iterdir())) == 2

    done = bench(*run, "--resume", "--repeats", 3, code=3)
    assert "other settings (repeats)" in done.err


def test_the_lock_names_its_owner_and_a_dead_one_is_taken_over(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    run = ("run", corrected, "--device", serial, "--tool", TOOL, *BRIEF)
    phone.faults = ("hang",)
    first = start_bench(*run, "--out", tmp_path / "first", server=adb_server)
    wait_for_start(phone, 1)
    owner = (phone.root / FOLDER / "owner").read_text().strip()
    done = bench(*run, "--out", tmp_path / "second", code=7)
    assert f"in use by {owner}" in done.err and "rm -rf" in done.err
    assert f"process {first.pid}" in owner
    first.kill()  # no tidying up: its lock stays
    first.communicate()
    assert (phone.root / FOLDER / "owner").read_text().strip() == owner
    bench(*run, "--out", tmp_path / "third")
    assert verdict(cases(tmp_path / "third")[0]) == "VALID"


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interrupted_run_tidies_up_and_keeps_what_is_finished(
    how: signal.Signals, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    phone.faults = ("hang@4",)  # in the second case
    process = start_bench(
        "run", corrected, "--device", serial, "--tool", TOOL, "--out", out, "--threads", 1, 2,
        *BRIEF, server=adb_server,
    )  # fmt: skip
    wait_for_start(phone, 4)
    process.send_signal(how)
    assert "interrupted" in ended(process, 130)
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
            "run", corrected, "--device", good, *bad, "--tool", TOOL, "--out", out, *BRIEF, code=7
        )
        for serial in bad:
            adb_server.disconnect(serial)
    assert [(c["device"], verdict(c)) for c in cases(out)] == [(good, "VALID")]
    for serial in bad:
        assert serial in done.err


@pytest.mark.long
def test_a_restarted_adb_server_is_one_line_and_can_be_resumed(
    phone: VirtualPhone, corrected: Path, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    server = AdbServer(free_port(), tmp_path_factory.mktemp("own-adb-home"))
    with running(server):
        serial = server.connect(phone)
        run = ("run", corrected, "--device", serial, "--tool", TOOL, "--out", tmp_path / "out",
               *BRIEF)  # fmt: skip
        phone.faults = ("hang@3",)
        process = start_bench(*run, server=server)
        wait_for_start(phone, 3)
    with running(server):
        assert "--resume" in ended(process, 7).splitlines()[-1]
        server.connect(phone)
        ended(start_bench(*run, "--resume", server=server), 0)
    assert [verdict(c) for c in cases(tmp_path / "out")] == ["VALID"]


def test_a_phone_of_another_server_is_shown_with_its_host(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone
) -> None:
    serial = adb_server.connect(phone)
    here = bench("devices").out
    assert f"{serial}: OnePlus IN2013" in here and "Adreno (TM) 650" in here
    there = bench("devices", "--adb-server", f"localhost:{adb_server.port}").out
    assert f"{serial}@localhost:{adb_server.port}: OnePlus IN2013" in there


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--device", "nobody"], 7, "not connected"),
        (["--device", "SERIAL", "--tool", "nowhere"], 3, "is no file"),
        (["--device", "SERIAL", "--adb-server", "host"], 2, "expected HOST:PORT"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], code: int, words: str, bench: Bench, adb_server: AdbServer,
    phone: VirtualPhone, corrected: Path, tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    given = [serial if a == "SERIAL" else a for a in arguments]
    done = bench("run", corrected, *given, "--out", tmp_path / "out", code=code)
    assert words in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_adb_server_that_does_not_answer_is_one_line(
    adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    # A process of its own: adbutils leaves the socket open.
    process = start_bench(
        "run", corrected, "--device", "x", "--adb-server", "127.0.0.1:1", server=adb_server
    )
    errors = ended(process, 7)
    assert "does not answer" in errors and len(errors.splitlines()) == 1
