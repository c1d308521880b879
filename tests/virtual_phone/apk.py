"""What Android reads of an APK before it installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LIMIT_S = 60


class ApkError(Exception):
    """Why Android refuses the file, in its words."""


@dataclass(frozen=True)
class Apk:
    """Attributes: `certificate` is its SHA-256; `abis` are empty where it has no native code."""

    package: str
    version_name: str
    version_code: int
    min_sdk: int
    abis: tuple[str, ...]
    certificate: str
    activities: tuple[str, ...]


def tools_missing() -> list[str]:
    """Of what reading an APK needs."""
    return [tool for tool in ("aapt2", "apksigner", "java") if shutil.which(tool) is None]


def read_apk(path: Path) -> Apk:
    """Raises: ApkError."""
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, _: int) -> Apk:
    badging = _run("aapt2", "dump", "badging", str(path))
    if badging is None:
        raise ApkError(f"INSTALL_PARSE_FAILED_NOT_APK: Failed to parse {path}")
    tree = _run("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", str(path)) or ""
    signer = _run("apksigner", "verify", "--print-certs", "--min-sdk-version", "26", str(path))
    if signer is None:
        raise ApkError(
            "INSTALL_PARSE_FAILED_NO_CERTIFICATES: Failed collecting certificates for "
            f"{path}: Attempt to get length of null array"
        )
    named = dict(re.findall(r"(\w+)='([^']*)'", badging.splitlines()[0]))
    native = re.search(r"^native-code: (.+)$", badging, re.M)
    sdk = re.search(r"^(?:sdkVersion|minSdkVersion):'(\d+)'", badging, re.M)
    certificate = re.search(r"certificate SHA-256 digest: (\w+)", signer)
    assert sdk is not None and certificate is not None
    activities = re.findall(r'E: activity .*?name\(0x01010003\)="([^"]+)"', tree, re.S)
    return Apk(
        package=named["name"],
        version_name=named["versionName"],
        version_code=int(named["versionCode"]),
        min_sdk=int(sdk[1]),
        abis=tuple(re.findall(r"'([^']+)'", native[1])) if native else (),
        certificate=certificate[1],
        activities=tuple(named["name"] + a if a.startswith(".") else a for a in activities),
    )


def _run(*command: str) -> str | None:
    """Standard output; None where it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, errors="replace"
    )
    return done.stdout if done.returncode == 0 else None
