"""Builds and checks the harness app: target/afd-harness-VERSION.apk.

    build_apk.py [--keystore FILE --keystore-password env:NAME]
    build_apk.py --test-only

Maven compiles, tests and fetches; this packs, signs, and fails where the APK is not in order.
test.keystore is a public test key, password android-test: anyone can sign with it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APP = Path(__file__).resolve().parent
TARGET = APP / "target"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
ABIS = ("arm64-v8a", "x86_64")
LIBRARIES = ("libtensorflowlite_jni.so", "libtensorflowlite_gpu_jni.so")
MIN_SDK, TARGET_SDK = "26", "34"
LARGEST_BYTES = 15_000_000
PAGE_BYTES = 4096
TIME_LIMIT_S = 900
# Tools and their Debian packages.
TEST_PACKAGES = {
    "javac": "openjdk-17-jdk-headless",
    "gcc": "gcc",
    "mvn": "maven",
    "aapt2": "aapt",
}
PACKAGES = TEST_PACKAGES | {
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
}


class BuildError(Exception):
    """What ends the build, in one line."""


class ToolsMissingError(BuildError):
    """The message says which command installs them."""


@dataclass(frozen=True)
class Key:
    """Attributes:
    password: as apksigner takes it, env:NAME or file:NAME or pass:TEXT.
    """

    keystore: Path
    password: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds, signs and checks the harness app.")
    parser.add_argument("--keystore", type=Path, default=APP / "test.keystore")
    parser.add_argument("--keystore-password", default="pass:android-test", metavar="env:NAME")
    parser.add_argument(
        "--test-only", action="store_true", help="run the tests, or say what they lack"
    )
    options = parser.parse_args()
    try:
        require_tools(TEST_PACKAGES if options.test_only else PACKAGES)
        if options.test_only:
            run("mvn", "--batch-mode", "--quiet", "test", cwd=APP)
            return 0
        run("mvn", "--batch-mode", "--quiet", "package", cwd=APP)
        first, second = (
            pack(folder, Key(options.keystore, options.keystore_password))
            for folder in (TARGET / "apk", TARGET / "apk-again")
        )
        if first.read_bytes() != second.read_bytes():
            raise BuildError(f"{first} and {second} differ: the build cannot be repeated")
        badging = check(first)
        (version,) = re.findall("versionName='([^']+)'", badging)
        apk = TARGET / f"afd-harness-{version}.apk"
        first.replace(apk)
    except BuildError as error:
        skipped = options.test_only and isinstance(error, ToolsMissingError)
        sys.stderr.write(f"{'Android tests are skipped' if skipped else 'error'}: {error}\n")
        return 0 if skipped else 1
    summary = [line for line in badging.splitlines() if re.match("package|sdk|target|native", line)]
    digest = hashlib.sha256(apk.read_bytes()).hexdigest()
    sys.stdout.write("\n".join([*summary, f"{apk}: {apk.stat().st_size} bytes", digest, ""]))
    return 0


def require_tools(packages: dict[str, str]) -> None:
    missing = {package for tool, package in packages.items() if shutil.which(tool) is None}
    if not FRAMEWORK.is_file():
        missing.add("android-framework-res")
    if missing:
        raise ToolsMissingError(
            f"tools are missing: sudo apt-get install {' '.join(sorted(missing))}"
        )


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """A command's stdout; what it says is shown only where it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} did not end within {TIME_LIMIT_S} s") from error
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise BuildError(f"{command[0]} failed with exit code {done.returncode}")
    return done.stdout


def pack(folder: Path, key: Key) -> Path:
    """From what Maven made to a signed APK."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    unaligned, aligned, signed = (folder / f"{n}.apk" for n in ("unaligned", "aligned", "app"))
    dex = folder / "dex.zip"
    classes = shutil.make_archive(str(folder / "classes"), "zip", TARGET / "classes")
    run(
        *("java", "-cp", TARGET / "tools/r8.jar", "com.android.tools.r8.R8", "--release"),
        *("--min-api", MIN_SDK, "--lib", TARGET / "tools/android-all.jar", "--lib", java_home()),
        *("--pg-conf", APP / "r8-rules.pro", "--output", dex, classes),
    )
    with zipfile.ZipFile(unaligned, "w") as archive:
        for name, content, stored in sorted(contents(dex)):
            # Of no particular day, so that two builds are the same.
            entry = zipfile.ZipInfo(name, (1981, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    run("zipalign", "-f", "-p", "4", unaligned, aligned)
    run(
        *("apksigner", "sign", "--ks", key.keystore, "--ks-pass", key.password),
        *("--min-sdk-version", MIN_SDK, "--v4-signing-enabled", "false"),
        *("--out", signed, aligned),
    )
    return signed


def java_home() -> Path:
    return Path(os.path.realpath(shutil.which("javac") or "")).parents[1]


def contents(dex: Path) -> Iterator[tuple[str, bytes, bool]]:
    """Name, content, and whether Android maps it into memory, for which it is stored as it is."""
    with zipfile.ZipFile(TARGET / "res/resources.apk") as archive:
        for name in archive.namelist():
            yield name, archive.read(name), name == "resources.arsc"
    with zipfile.ZipFile(dex) as archive:
        for name in archive.namelist():
            yield name, archive.read(name), False
    for abi in ABIS:
        for part in ("runtime", "gpu"):
            for library in (TARGET / "aar" / part / "jni" / abi).iterdir():
                yield f"lib/{abi}/{library.name}", library.read_bytes(), True
    # TensorFlow Lite's licence is the same.
    yield "assets/LICENSE", (APP.parent / "LICENSE").read_bytes(), False


def check(apk: Path) -> str:
    """Fails where the APK is not as it has to be; returns what aapt says of it."""
    run("apksigner", "verify", "--min-sdk-version", MIN_SDK, "--Werr", apk)
    run("zipalign", "-c", "-p", "4", apk)
    badging = run("aapt", "dump", "badging", apk)
    for line in (f"sdkVersion:'{MIN_SDK}'", f"targetSdkVersion:'{TARGET_SDK}'"):
        expect(line in badging, f"the manifest lacks {line}")
    expect("application-debuggable" not in badging, "the app is debuggable")
    expect("uses-permission" not in badging, "the app asks for a permission")
    manifest = run("aapt", "dump", "xmltree", apk, "AndroidManifest.xml")
    expect("libOpenCL.so" in manifest, "the manifest does not ask for libOpenCL.so")
    with zipfile.ZipFile(apk) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (apk.parent / "classes.dex").write_bytes(archive.read("classes.dex"))
    found = re.findall(r"Class descriptor +: 'L(.+);'", run("dexdump", apk.parent / "classes.dex"))
    for component in re.findall(r'E: activity.*?android:name\S*="([^"]+)"', manifest, re.DOTALL):
        name = f"org.afdmobile.harness{component}" if component.startswith(".") else component
        expect(name.replace(".", "/") in found, f"{name} of the manifest is not in the dex")
    for name in (f"lib/{abi}/{library}" for abi in ABIS for library in LIBRARIES):
        expect(name in entries, f"{name} is missing")
        entry = entries[name]
        expect(entry.compress_type == zipfile.ZIP_STORED, f"{name} is compressed")
        expect(data_offset(apk, entry) % PAGE_BYTES == 0, f"{name} is not aligned to a page")
    size = apk.stat().st_size
    expect(size < LARGEST_BYTES, f"the APK has {size} bytes, more than {LARGEST_BYTES}")
    return badging


def data_offset(apk: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's content begins: after its local header, its name and the padding."""
    with apk.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return int(entry.header_offset + 30 + name + extra)


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BuildError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
