"""The harness app on virtual phones: the real APK is installed, its real core runs on the JVM."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from afd_mobile import __version__
from tests.afd_benchmark.conftest import REPOSITORY, SHORT, Bench, cases, verdict
from tests.virtual_phone.apk import tools_missing
from tests.virtual_phone.fixtures import AdbServer
from tests.virtual_phone.packages import HARNESS, HOST_JAR
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES

APK = REPOSITORY / f"android_app/target/afd-harness-{__version__}.apk"

needs_apk = pytest.mark.skipif(
    not (APK.is_file() and HOST_JAR.is_file()) or bool(tools_missing()),
    reason="needs `make apk`, which says what it needs itself",
)
pytestmark = needs_apk


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[VirtualPhone]:
    with VirtualPhone("snapdragon-865", tmp_path / "phone") as phone:
        yield phone


@pytest.mark.parametrize("profile", PROFILES)
def test_the_app_is_installed_and_gives_a_valid_time_with_its_samples(
    profile: str, bench: Bench, adb_server: AdbServer, corrected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with VirtualPhone(profile, tmp_path / "phone") as phone:
        serial = adb_server.connect(phone)
        bench("run", corrected, "--device", serial, "--out", out, *SHORT)
        assert phone.state.packages.installs == 1
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


def test_an_installed_app_is_not_installed_again_and_another_build_is(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    run = ("run", corrected, "--device", serial, *SHORT, "--repeats", 1)
    assert phone.state.packages.install(APK) == "Success"
    bench(*run, "--out", tmp_path / "1")
    assert phone.state.packages.installs == 1
    phone.state.packages.path(HARNESS).write_bytes(b"another build")
    bench(*run, "--out", tmp_path / "2")
    assert phone.state.packages.installs == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong-output", "wrong outputs"),
        ("app-killed", "the app ended in the middle of the run"),
        ("app-crash", "crashed at its start"),
        ("app-hang", "did not answer within 5 s"),
        ("half-json", "cannot be read"),
    ],
)
def test_a_failing_app_is_invalid(
    fault: str, words: str, bench: Bench, adb_server: AdbServer, phone: VirtualPhone,
    corrected: Path, tmp_path: Path,
) -> None:  # fmt: skip
    serial = adb_server.connect(phone)
    phone.faults = (fault,)
    out = tmp_path / "out"
    bench("run", corrected, "--device", serial, "--out", out, "--time-limit", 5, *SHORT, code=8)
    (case,) = cases(out)
    assert case["verdict"] == "INVALID" and case["median_ms"] is None
    assert words in case["reasons"][0]


def test_a_replay_gives_the_same_results(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out, again = tmp_path / "out", tmp_path / "again"
    bench("run", corrected, "--device", serial, "--out", out, *SHORT)
    (cassette,) = (out / "cassettes").iterdir()
    bench("replay", cassette, "--out", again)
    assert cases(again) == cases(out)


def test_no_room_and_another_signature_say_what_to_do(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    run = ("run", corrected, "--device", serial, *SHORT)
    phone.faults = ("no-room-for-apps",)
    done = bench(*run, "--out", tmp_path / "1", code=7)
    assert "INSTALL_FAILED_INSUFFICIENT_STORAGE" in done.stderr and "make room" in done.stderr
    phone.faults = ()
    assert phone.state.packages.install(APK) == "Success"
    other = resigned(APK, tmp_path)
    done = bench(*run, "--tool", other, "--out", tmp_path / "3", code=7)
    assert "INSTALL_FAILED_UPDATE_INCOMPATIBLE" in done.stderr and "adb uninstall" in done.stderr


def test_android_refuses_what_is_no_fit_apk(
    adb_server: AdbServer, tmp_path: Path, phone: VirtualPhone
) -> None:
    (tmp_path / "no.apk").write_bytes(b"no zip at all")
    with zipfile.ZipFile(APK) as source, zipfile.ZipFile(tmp_path / "bare.apk", "w") as bare:
        for entry in source.infolist():
            if not entry.filename.startswith("META-INF/"):
                bare.writestr(entry, source.read(entry))
    packages = phone.state.packages
    assert packages.install(tmp_path / "no.apk").startswith("Failure [INSTALL_PARSE_FAILED_NOT_APK")
    unsigned = packages.install(tmp_path / "bare.apk")
    assert unsigned.startswith("Failure [INSTALL_PARSE_FAILED_NO_CERTIFICATES")
    phone.profile.properties["ro.product.cpu.abilist"] = "armeabi-v7a,armeabi"
    assert "INSTALL_FAILED_NO_MATCHING_ABIS" in packages.install(APK)
    phone.profile.properties["ro.build.version.sdk"] = "25"
    assert "INSTALL_FAILED_OLDER_SDK" in packages.install(APK)


def test_backends_of_the_app(
    bench: Bench, adb_server: AdbServer, phone: VirtualPhone, corrected: Path, tmp_path: Path
) -> None:
    serial = adb_server.connect(phone)
    out = tmp_path / "out"
    library = tmp_path / "libQnn.so"
    library.write_bytes(b"")
    bench(
        "run", corrected, "--device", serial, "--backend", "cpu", f"external:{library}",
        "--out", out, *SHORT,
    )  # fmt: skip
    assert [verdict(case) for case in cases(out)] == ["VALID", "SKIPPED"]
    assert "no external delegate" in cases(out)[1]["reasons"][0]


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
