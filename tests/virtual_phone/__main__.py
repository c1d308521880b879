"""`python -m tests.virtual_phone`: a virtual phone by hand, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.virtual_phone.faults import FAULTS
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES


def main() -> None:
    faults = "\n".join(f"  {name:<20}{what}" for name, what in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.virtual_phone",
        description="A phone for `adb connect 127.0.0.1:PORT`. Ctrl-C ends it; Enter plugs it in "
        "again where a fault unplugged it.",
        epilog=f"faults, as NAME or NAME@N, from the N-th start of benchmark_model on:\n{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", choices=PROFILES, default="snapdragon-865")
    parser.add_argument("--port", type=int, default=5600)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME")
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="virtual-phone-") as folder:
        try:
            phone = VirtualPhone(
                arguments.profile, Path(folder), faults=arguments.fault, port=arguments.port
            )
        except ValueError as error:
            parser.error(str(error))
        with phone:
            sys.stdout.write(f"{arguments.profile} at 127.0.0.1:{phone.port}, files in {folder}\n")
            sys.stdout.flush()
            threading.Thread(target=_plug_in_at_enter, args=(phone,), daemon=True).start()
            ended.wait()


def _plug_in_at_enter(phone: VirtualPhone) -> None:
    for _ in sys.stdin:
        phone.plug_in()


main()
