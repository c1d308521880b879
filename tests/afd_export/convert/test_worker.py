from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from afd_export.convert.worker import run_worker
from afd_mobile.common.errors import ConversionError, OutputError


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, beside one whose modules a worker can import."""
    modules = tmp_path / "modules"
    modules.mkdir()
    for name, body in {
        "writes": "open('result.json', 'w').write(open(sys.argv[1]).read())",
        "hangs": "import time; time.sleep(9999)",
        "crashes": "import os; os.kill(os.getpid(), 11)",
        "fails": "print('first words'); print('last words', file=sys.stderr); sys.exit(1)",
        "fills": "import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    }.items():
        (modules / f"worker_that_{name}.py").write_text(f"import sys\n{body}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(modules)
    work = tmp_path / "work"
    work.mkdir()
    return work


def test_the_worker_gets_its_request_and_works_inside_the_folder(workdir: Path) -> None:
    request = {"number": 3, "name": "größe"}
    run_worker("worker_that_writes", request, workdir, timeout_s=600)
    assert json.loads((workdir / "result.json").read_text(encoding="utf-8")) == request


def test_a_hanging_worker_is_ended(workdir: Path) -> None:
    with pytest.raises(ConversionError, match=r"worker_that_hangs did not finish within 2 s"):
        run_worker("worker_that_hangs", {}, workdir, timeout_s=2)


def test_a_crash_is_named_with_its_signal(workdir: Path) -> None:
    with pytest.raises(ConversionError, match=r"worker_that_crashes failed with exit code -11"):
        run_worker("worker_that_crashes", {}, workdir, timeout_s=600)


def test_a_failure_carries_both_streams(workdir: Path) -> None:
    with pytest.raises(ConversionError, match="exit code 1") as caught:
        run_worker("worker_that_fails", {}, workdir, timeout_s=600)
    assert "first words" in caught.value.chatter
    assert "last words" in caught.value.chatter


def test_a_full_disk_is_an_output_error(workdir: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        run_worker("worker_that_fills", {}, workdir, timeout_s=600)


def test_a_missing_module_is_a_conversion_error(workdir: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        run_worker("no_such_worker", {}, workdir, timeout_s=600)
    assert "No module named no_such_worker" in caught.value.chatter


ATTEMPTS = (
    "socket.create_connection(('127.0.0.1', PORT))",
    "socket.socket().connect(('127.0.0.1', PORT))",
    "urllib.request.urlopen('http://127.0.0.1:%d' % PORT, timeout=5)",
    "socket.getaddrinfo('localhost', PORT)",
)


def test_forbid_network_refuses_a_port_that_listens() -> None:
    program = f"""
import socket, urllib.request
from afd_export.convert.worker import forbid_network
server = socket.create_server(("127.0.0.1", 0))
PORT = server.getsockname()[1]
socket.socket().connect(("127.0.0.1", PORT))  # possible before
forbid_network()
for attempt in {ATTEMPTS}:
    try:
        eval(attempt)
        print("possible:", attempt)
    except OSError as error:
        print("refused:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    refusals = done.stdout.splitlines()
    assert len(refusals) == len(ATTEMPTS)
    for line in refusals:
        assert line.startswith("refused:") and "an export does not use the network" in line
