"""Apps on the phone: installing reads the real APK, starting runs the harness's core on the JVM."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.virtual_phone.apk import Apk, ApkError, read_apk
from tests.virtual_phone.file_tree import FileTree
from tests.virtual_phone.profile import Profile

HARNESS = "org.afdmobile.harness"
HOST_JAR = Path(__file__).resolve().parents[2] / "android_app/target/afd-harness-host.jar"
_TAG = "AfdHarness"
_LIMIT_S = 120


class Packages:
    """What the package and activity managers know.

    Attributes:
        installs: how often a package was installed.
        log: logcat's lines of apps.
    """

    def __init__(self, profile: Profile, tree: FileTree, has: Callable[[str], bool]) -> None:
        self._profile = profile
        self._tree = tree
        self._has = has
        self._apks: dict[str, Apk] = {}
        self._process: subprocess.Popen[str] | None = None
        self._run: threading.Thread | None = None
        self.installs = 0
        self.log: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self._apks)

    def path(self, package: str) -> Path:
        return self._tree.root / f"data/app/~~c2VjcmV0==/{package}-1/base.apk"

    def install(self, file: Path) -> str:
        """Android's answer; "Success" or why not."""
        try:
            apk = read_apk(file)
            self._check(apk)
        except (ApkError, OSError) as error:
            return f"Failure [{self._tree.phone_text(str(error))}]"
        self.stop(apk.package)
        target = self.path(apk.package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        self._apks[apk.package] = apk
        self.installs += 1
        return "Success"

    def _check(self, apk: Apk) -> None:
        properties = self._profile.properties
        sdk = int(properties["ro.build.version.sdk"])
        if apk.min_sdk > sdk:
            raise ApkError(
                f"INSTALL_FAILED_OLDER_SDK: Requires newer sdk version #{apk.min_sdk} "
                f"(current version is #{sdk})"
            )
        if apk.abis and not set(apk.abis) & set(properties["ro.product.cpu.abilist"].split(",")):
            raise ApkError(
                "INSTALL_FAILED_NO_MATCHING_ABIS: Failed to extract native libraries, res=-113"
            )
        if self._has("no-room-for-apps"):
            raise ApkError("INSTALL_FAILED_INSUFFICIENT_STORAGE")
        before = self._apks.get(apk.package)
        if before is not None and before.certificate != apk.certificate:
            raise ApkError(
                f"INSTALL_FAILED_UPDATE_INCOMPATIBLE: Existing package {apk.package} signatures "
                "do not match newer version; ignoring!"
            )

    def uninstall(self, package: str) -> str:
        if self._apks.pop(package, None) is None:
            return "Failure [DELETE_FAILED_INTERNAL_ERROR]"
        self.stop(package)
        shutil.rmtree(self.path(package).parent)
        return "Success"

    def has_activity(self, package: str, name: str) -> bool:
        apk = self._apks.get(package)
        full = package + name if name.startswith(".") else name
        return apk is not None and full in apk.activities

    def start(self, package: str, extras: dict[str, str]) -> None:
        """`am start -S`: what ran before is stopped."""
        self.stop(package)
        if self._has("app-crash"):
            self.log.append(f"E AndroidRuntime: Process: {package}, PID: 4711")
            self.log.append("E AndroidRuntime: java.lang.UnsatisfiedLinkError: dlopen failed")
            return
        staging = self._tree.root / "data/data" / package
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        command = ["java", "-jar", str(HOST_JAR), "--files", str(staging)]
        for key, value in extras.items():
            command += ["--es", key, value]
        if self._has("app-hang"):
            command = ["sleep", str(_LIMIT_S)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self._run = threading.Thread(target=self._attend, args=(self._process, package, staging))
        self._run.start()

    def pid(self, package: str) -> int | None:
        if package != HARNESS or self._run is None or not self._run.is_alive():
            return None
        return self._process.pid if self._process else None

    def stop(self, package: str) -> None:
        """`am force-stop`, and at the phone's end."""
        if package == HARNESS and self._process is not None:
            self._process.kill()
            if self._run is not None:
                self._run.join(timeout=_LIMIT_S)

    def _attend(self, process: subprocess.Popen[str], package: str, staging: Path) -> None:
        """Its lines, then its files, under the paths that the phone knows them by."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.startswith(f"{_TAG}: "):
                    self.log.append(f"I {self._tree.phone_text(line.rstrip())}")
                    if self._has("app-killed") and "steady state" in line:
                        process.kill()
        process.wait(timeout=_LIMIT_S)
        files = self._tree.root / f"storage/emulated/0/Android/data/{package}/files"
        found = sorted(path for path in staging.rglob("*") if path.is_file())
        # The answer comes last: it names the others.
        for path in sorted(found, key=lambda p: p.suffix == ".json"):
            target = files / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}")
            temporary.write_bytes(self._shown(path, staging, files))
            temporary.rename(target)

    def _shown(self, path: Path, staging: Path, files: Path) -> bytes:
        content = path.read_bytes()
        if path.suffix != ".json":
            return content[::-1] if self._has("wrong-output") else content
        text = content.decode().replace(str(staging), str(files))
        text = self._tree.phone_text(text.replace("\\/", "/"))
        if self._has("half-json") and path.parent.name == "results":
            text = text[: len(text) // 2]
        return text.encode()


def parse_start(arguments: list[str]) -> tuple[str, str, dict[str, str]] | None:
    """(package, activity, string extras) of `am start`'s arguments."""
    extras: dict[str, str] = {}
    component = None
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if option in ("-n", "--es") and len(rest) >= (2 if option == "--es" else 1):
            if option == "-n":
                component = rest.pop(0)
            else:
                key = rest.pop(0)
                extras[key] = rest.pop(0)
        elif option not in ("-S", "-W"):
            return None
    if component is None or not re.fullmatch(r"[\w.]+/[\w.]+", component):
        return None
    package, _, name = component.partition("/")
    return package, name, extras
