"""The harness app on virtual phones: the real APK is installed, its real core runs on the JVM."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.afd_benchmark.conftest import (
    BRIEF,
    SHORT,
    TOOL,
    Bench,
    any_size,
    cases,
    harness_apk,
    small_graph,
    two_outputs,
    verdict,
)
from tests.virtual_phone.fixtures import AdbServer
from tests.virtual_phone.packages import HARNESS
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def apk() -> Path:
    return harness_apk()


@dataclass(frozen=True)
class Session:
    """A phone on which a run installed the app, and that run.

    Attributes: `installs`, how often it did.
    """

    phone: VirtualPhone
    serial: str
    out: Path
    installs: int


@pytest.fixture(scope="module")
def session(
    bench: Bench, adb_server: AdbServer, exports: Path, apk: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Session]:  # fmt: skip
    folder = tmp_path_factory.mktemp("session")
    with VirtualPhone("snapdragon-865", folder / "phone") as phone:
        serial, out = adb_server.connect(phone), folder / "out"
        bench("run", exports / "corrected", "--device", serial, "--out", out, *SHORT)
        yield Session(phone, serial, out, phone.state.packages.installs)


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[VirtualPhone]:
    """Without the app."""
    with VirtualPhone("snapdragon-865", tmp_path / "phone") as phone:
        yield phone


def test_the_app_is_installed_and_gives_a_valid_time_with_its_samples(session: Session) -> None:
    phone, out = session.phone, session.out
    assert session.installs == 1
    assert not (phone.root / "data/local/tmp/afd").exists()
    files = phone.root / f"storage/emulated/0/Android/data/{HARNESS}/files"
    assert not [path for path in files.rglob("*") if path.is_file()]
    (case,) = cases(out)
    assert verdict(case) == "VALID", case["reasons"]
    assert case["tool"] == "harness"
    assert [len(samples) for samples in case["samples_ms"]] == [3, 3]
    assert case["golden"]["pictures"] == 2 and case["golden"]["violations"] == []
    log = json.loads((out / case["repeats"][0]["log"]).read_bytes())
    assert log["samples_ms"] == case["samples_ms"][0]


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "snapdragon-865"])
def test_the_app_on_other_phones(
    profile: str, bench: Bench, adb_server: AdbServer, corrected: Path, apk: Path, tmp_path: Path
) -> None:
    with VirtualPhone(profile, tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        bench("run", corrected, "--device", serial, "--out", tmp_path / "out", *BRIEF)
        assert phone.state.packages.installs == 1
    (case,) = cases(tmp_path / "out")
    assert verdict(case) == "VALID", case["reasons"]


def test_an_installed_app_is_not_installed_again_and_another_build_is(
    session: Session, bench: Bench, corrected: Path, tmp_path: Path
) -> None:
    packages = session.phone.state.packages
    run = ("run", corrected, "--device", session.serial, *BRIEF)
    before = packages.installs
    bench(*run, "--out", tmp_path / "1")
    assert packages.installs == before
    packages.path(HARNESS).write_bytes(b"another build")
    bench(*run, "--out", tmp_path / "2")
    assert packages.installs == before + 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong-output", "wrong outputs"),
        ("app-killed", "the app ended in the middle of the run"),
        ("app-crash", "it crashed: java.lang.UnsatisfiedLinkError: dlopen failed"),
        ("app-hang", "did not answer within 1 s"),
        ("half-json", "cannot be read"),
    ],
)
def test_a_failing_app_is_invalid(
    fault: str, words: str, session: Session, bench: Bench, corrected: Path, tmp_path: Path
) -> None:
    # Of an app that never answers any limit can be awaited; one that answers is to answer before.
    limit_s = 1 if fault == "app-hang" else 240
    session.phone.faults = (fault,)
    try:
        bench(
            "run", corrected, "--device", session.serial, "--out", tmp_path, "--time-limit",
            limit_s, *BRIEF, code=8,
        )  # fmt: skip
    finally:
        session.phone.faults = ()
    (case,) = cases(tmp_path)
    assert case["verdict"] == "INVALID" and case["median_ms"] is None
    assert words in case["reasons"][0]


@pytest.mark.parametrize(
    "name",
    ["two words", 'o\'clock "x"', "模型", "-dash", ".hidden", "é" * 120, "x" * 230, "a,b:c", "😀"],
)
def test_a_file_of_any_name_is_measured(
    name: str, session: Session, bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(small_graph(4))
    out = tmp_path / "out"
    bench("run", path, "--device", session.serial, "--out", out, *BRIEF)
    (case,) = cases(out)
    assert case["file"] == f"{name}.tflite" and case["median_ms"] > 0, case["reasons"]
    assert case["reasons"][0] == "outputs not checked: no golden pictures come with the file"


def test_several_outputs_are_measured(session: Session, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "two.tflite"
    path.write_bytes(two_outputs())
    bench("run", path, "--device", session.serial, "--out", tmp_path / "out", *BRIEF)
    (case,) = cases(tmp_path / "out")
    assert case["median_ms"] > 0 and case["samples_ms"], case["reasons"]


def test_an_input_of_any_size_is_left_to_the_other_tool(
    session: Session, bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(any_size())
    run = ("run", path, "--device", session.serial, "--input-shape", "1,32,32,3", *BRIEF)
    bench(*run, "--out", tmp_path / "app", code=8)
    (case,) = cases(tmp_path / "app")
    assert case["reasons"] == [
        "the harness app does not resize inputs; give --tool benchmark_model"
    ]
    bench(*run, "--tool", TOOL, "--out", tmp_path / "tool")
    (case,) = cases(tmp_path / "tool")
    assert case["median_ms"] > 0 and case["target"] == "any at 1x32x32x3", case["reasons"]


def test_another_user_in_front_is_said_at_once(
    session: Session, bench: Bench, corrected: Path, tmp_path: Path
) -> None:
    session.phone.faults = ("second-user",)
    try:
        done = bench(
            "run", corrected, "--device", session.serial, "--out", tmp_path, *BRIEF, code=7
        )
    finally:
        session.phone.faults = ()
    assert "user 10 is in front" in done.err and "am switch-user 0" in done.err
    assert cases(tmp_path) == []


def test_a_replay_gives_the_same_results(session: Session, bench: Bench, tmp_path: Path) -> None:
    (cassette,) = (session.out / "cassettes").iterdir()
    bench("replay", cassette, "--out", tmp_path)
    assert cases(tmp_path) == cases(session.out)


def test_no_room_and_another_signature_say_what_to_do(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, apk: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    run = ("run", corrected, "--device", serial, *BRIEF)
    phone.faults = ("no-room-for-apps",)
    done = bench(*run, "--out", tmp_path / "1", code=7)
    assert "INSTALL_FAILED_INSUFFICIENT_STORAGE" in done.err and "make room" in done.err
    phone.faults = ()
    assert phone.state.packages.install(apk) == "Success"
    other = resigned(apk, tmp_path)
    done = bench(*run, "--tool", other, "--out", tmp_path / "3", code=7)
    assert "INSTALL_FAILED_UPDATE_INCOMPATIBLE" in done.err and "adb uninstall" in done.err


def test_android_refuses_what_is_no_fit_apk(phone: VirtualPhone, apk: Path, tmp_path: Path) -> None:
    (tmp_path / "no.apk").write_bytes(b"no zip at all")
    with zipfile.ZipFile(apk) as source, zipfile.ZipFile(tmp_path / "bare.apk", "w") as bare:
        for entry in source.infolist():
            if not entry.filename.startswith("META-INF/"):
                bare.writestr(entry, source.read(entry))
    packages = phone.state.packages
    assert packages.install(tmp_path / "no.apk").startswith("Failure [INSTALL_PARSE_FAILED_NOT_APK")
    unsigned = packages.install(tmp_path / "bare.apk")
    assert unsigned.startswith("Failure [INSTALL_PARSE_FAILED_NO_CERTIFICATES")
    phone.profile.properties["ro.product.cpu.abilist"] = "armeabi-v7a,armeabi"
    assert "INSTALL_FAILED_NO_MATCHING_ABIS" in packages.install(apk)
    phone.profile.properties["ro.build.version.sdk"] = "25"
    assert "INSTALL_FAILED_OLDER_SDK" in packages.install(apk)


def test_backends_of_the_app(
    session: Session, bench: Bench, corrected: Path, tmp_path: Path
) -> None:
    library = tmp_path / "libQnn.so"
    library.write_bytes(b"")
    bench(
        "run", corrected, "--device", session.serial, "--backend", "cpu", f"external:{library}",
        "--out", tmp_path / "out", *BRIEF,
    )  # fmt: skip
    found = cases(tmp_path / "out")
    assert [verdict(case) for case in found] == ["VALID", "SKIPPED"]
    assert "no external delegate" in found[1]["reasons"][0]


def resigned(apk: Path, folder: Path) -> Path:
    """The same app by another author."""
    keystore, target = folder / "other.keystore", folder / "other.apk"
    make = "keytool -genkeypair -storepass secret -alias k -keyalg RSA -dname CN=x -validity 1"
    subprocess.run(
        [*make.split(), "-keystore", str(keystore)], check=True, capture_output=True, timeout=60
    )
    shutil.copy(apk, target)
    subprocess.run(
        ["apksigner", "sign", "--ks", str(keystore), "--ks-pass", "pass:secret", str(target)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return target
