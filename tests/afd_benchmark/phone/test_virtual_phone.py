"""The virtual phone through the real adb: services, profiles, benchmark_model, faults."""

from __future__ import annotations

import asyncio
import gc
import re
import shlex
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import adbutils
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from afd_benchmark.phone.adb import Phone, ShellOutput
from afd_benchmark.phone.facts import read_device
from tests.afd_export.tflite_graphs import Fed, Graph, Stored
from tests.commands import free_port
from tests.virtual_phone import phone as phone_module
from tests.virtual_phone.adb_protocol import (
    MAX_PAYLOAD,
    Command,
    Message,
    ProtocolError,
    read_message,
)
from tests.virtual_phone.faults import FAULTS, parse_faults
from tests.virtual_phone.file_tree import FileTree, OutputFilter
from tests.virtual_phone.fixtures import AdbServer, adb_path, running
from tests.virtual_phone.phone import VirtualPhone
from tests.virtual_phone.profile import PROFILES, load_profile

TOOL = Path(phone_module.__file__).parent / "benchmark_model"
FOLDER = "/data/local/tmp/afd"
SHAPED = "--input_layer=x --input_layer_shape=1,32,32,3"
QUICK = "--num_runs=5 --min_secs=0.01 --warmup_min_secs=0.01"


SIZE, CHANNELS = 32, 16


def convolution(graph: Graph, given: int, inputs: int, outputs: int) -> int:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(outputs, 1, 1, inputs)).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    stored = [graph.store(Stored(weights)), graph.store(Stored(bias))]
    result = graph.tensor(Fed((1, SIZE, SIZE, outputs)))
    return graph.run("CONV_2D", [given, *stored], [result], strideH=1, strideW=1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three operations; a GPU takes all but the second."""
    graph = Graph()
    first = convolution(graph, graph.feed(Fed((1, SIZE, SIZE, 3))), 3, CHANNELS)
    middle = graph.run("CEIL", [first], [graph.tensor(Fed((1, SIZE, SIZE, CHANNELS)))])
    path = tmp_path_factory.mktemp("model") / "m.tflite"
    path.write_bytes(graph.finish([convolution(graph, middle, CHANNELS, 4)]))
    return path


class Connected:
    """A phone with the tool and the model on it."""

    def __init__(self, phone: VirtualPhone, server: AdbServer, model: Path) -> None:
        self.phone, self.server = phone, server
        self.serial = server.connect(phone)
        self.device = server.device(self.serial)
        self.device.sync.push(TOOL, f"{FOLDER}/benchmark_model", 0o755)
        self.device.sync.push(model, f"{FOLDER}/m.tflite")

    def plug_in(self) -> None:
        self.phone.plug_in()
        self.server.disconnect(self.serial)  # it would come back by itself, some time
        self.server.connect(self.phone)

    def adb(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.server.adb("-s", self.serial, *arguments, stdin=stdin)

    def shell(self, command: str) -> Any:
        """Exit code, stdout and stderr apart."""
        return self.device.shell2(command, v2=True)

    def benchmark(self, flags: str = "", *, prefix: str = "") -> Any:
        return self.shell(
            f"{prefix}{FOLDER}/benchmark_model --graph={FOLDER}/m.tflite {QUICK} {flags}"
        )


@pytest.fixture(scope="module")
def shared(
    adb_server: AdbServer,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Connected]:
    """A Snapdragon 865, for tests that leave nothing behind."""
    with VirtualPhone("snapdragon-865", tmp_path_factory.mktemp("phone")) as phone:
        yield Connected(phone, adb_server, model)


@pytest.fixture
def connect(adb_server: AdbServer, model: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes a phone of its own: `connect(profile, *faults)`."""
    phones: list[VirtualPhone] = []

    def make(profile: str, *faults: str) -> Connected:
        phones.append(VirtualPhone(profile, tmp_path / f"phone{len(phones)}", faults=faults))
        return Connected(phones[-1].__enter__(), adb_server, model)

    yield make
    for phone in phones:
        phone.__exit__()


# --- the protocol ---------------------------------------------------------------------------------


def received(data: bytes, *, check: bool = True) -> Message:
    async def read() -> Message:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_message(reader, check=check)

    return asyncio.run(read())


def test_a_message_survives_the_wire() -> None:
    message = Message(Command.WRTE, 7, 9, b"\x00\xffabc")
    packed = message.pack()
    # Length 5, checksum 0 + 255 + 97 + 98 + 99, magic the complement of the command.
    assert struct.unpack("<6I", packed[:24])[3:] == (5, 549, Command.WRTE.value ^ 0xFFFFFFFF)
    assert received(packed) == message


@pytest.mark.parametrize(
    ("position", "value", "said"),
    [
        (20, 0, "magic"),
        (16, 1, "checksum"),
        (12, MAX_PAYLOAD + 1, "payload of 1048577 bytes"),
    ],
)
def test_what_is_no_message_is_refused(position: int, value: int, said: str) -> None:
    data = bytearray(Message(Command.OKAY, 1, 2, b"x").pack())
    data[position : position + 4] = struct.pack("<I", value)
    with pytest.raises(ProtocolError, match=said):
        received(bytes(data))


def test_an_unknown_command_is_refused() -> None:
    code = int.from_bytes(b"NOPE", "little")
    with pytest.raises(ProtocolError, match="command"):
        received(struct.pack("<6I", code, 0, 0, 0, 0, code ^ 0xFFFFFFFF))


def test_checksums_count_in_the_greeting_only() -> None:
    data = bytearray(Message(Command.WRTE, 1, 2, b"x").pack())
    data[16:20] = bytes(4)
    assert received(bytes(data), check=False).payload == b"x"


def test_the_folder_s_name_does_not_show_wherever_a_read_cuts_it(tmp_path: Path) -> None:
    tree = FileTree(tmp_path / "phone")
    text = f"at {tree.root}/data/x and {tree.root}: {str(tree.root)[:9]} \xff".encode("latin-1")
    expected = f"at /data/x and /: {str(tree.root)[:9]} \xff".encode("latin-1")
    for cut in range(len(text)):
        names = OutputFilter(tree)
        parts = [names.feed(text[:cut]), names.feed(text[cut:]), names.finish()]
        assert b"".join(parts) == expected


@pytest.mark.parametrize(
    ("command", "mapped"),
    [
        ("cat /data/x", "cat R/data/x"),
        ("x --a=/sdcard/m --b=a:/data/b,/proc/c", "x --a=R/sdcard/m --b=a:R/data/b,R/proc/c"),
        ("cat '/sys/x' >/data/y", "cat 'R/sys/x' >R/data/y"),
        ("cat /dev/null /database b/data $D/data", "cat /dev/null /database b/data $D/data"),
    ],
)  # fmt: skip
def test_the_phone_s_paths_in_a_command(command: str, mapped: str, tmp_path: Path) -> None:
    tree = FileTree(tmp_path)
    assert tree.host_command(command) == mapped.replace("R/", f"{tree.root}/")


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    tree = FileTree(tmp_path)
    assert tree.host("/../../etc/passwd") == tree.root / "etc/passwd"
    assert not tree.writable(tree.host("/system/bin/cat"))
    assert tree.writable(tree.host("/data/local/tmp/x"))


# --- services, through adb's own command line -----------------------------------------------------


def test_exit_code_and_both_streams(shared: Connected) -> None:
    done = shared.adb("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    result = shared.shell("echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_shell_without_packets_has_one_stream(shared: Connected) -> None:
    done = shared.adb("shell", "-x", "echo out; echo err >&2")
    assert done.stdout == b"out\nerr\n"
    assert shared.device.shell("echo out; echo err >&2") == "out\nerr"


def test_stdin_reaches_the_command_and_closes(shared: Connected) -> None:
    data = bytes(range(256)) * 3000
    done = shared.adb("shell", "wc -c; echo end", stdin=data)
    assert done.stdout.split() == [b"768000", b"end"]
    assert shared.adb("exec-in", "cat > /data/local/tmp/stdin", stdin=data).returncode == 0
    # adb itself does not wait for the command.
    path = shared.phone.root / "data/local/tmp/stdin"
    assert ends(lambda: path.exists() and path.read_bytes() == data)


def test_commands_on_stdin(shared: Connected) -> None:
    assert shared.adb("shell", stdin=b"echo one\npwd\nexit 3\n").stdout == b"one\n/\n"


def test_binary_files_there_and_back(shared: Connected, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "a").write_bytes(data)
    assert shared.adb("push", str(tmp_path / "a"), "/sdcard/a").returncode == 0
    assert (shared.phone.root / "storage/emulated/0/a").read_bytes() == data
    assert shared.adb("pull", "/sdcard/a", str(tmp_path / "b")).returncode == 0
    assert (tmp_path / "b").read_bytes() == data
    assert shared.adb("exec-out", "cat /sdcard/a").stdout == data
    assert shared.device.sync.read_bytes("/sdcard/a") == data


def test_folders_modes_and_listings(shared: Connected, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f.sh").write_text("echo ran\n")
    (tmp_path / "d/e/f.sh").chmod(0o755)
    assert shared.adb("push", str(tmp_path / "d"), "/data/local/tmp/").returncode == 0
    assert shared.shell("/data/local/tmp/d/e/f.sh").stdout == "ran\n"
    assert b"f.sh" in shared.adb("ls", "/data/local/tmp/d/e").stdout
    (info,) = (i for i in shared.device.sync.list("/data/local/tmp/d/e") if i.path == "f.sh")
    assert (info.mode, info.size) == (0o100755, 9)
    assert shared.device.sync.stat("/data/local/tmp/d").mode & 0o40000
    assert not shared.device.sync.exists("/data/local/tmp/nothing")
    assert shared.adb("pull", "/data/local/tmp/d", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back/e/f.sh").read_text() == "echo ran\n"


# --- the daemon's own shell -----------------------------------------------------------------------


def asked_of_a_phone() -> list[str]:
    """What `afd-bench` asks to learn what a phone is, and how it is."""
    commands = []

    class Silent:
        serial, now_s = "silent", 0.0

        def shell(self, command: Sequence[str] | str, *, timeout_s: float = 0) -> ShellOutput:
            commands.append(command if isinstance(command, str) else shlex.join(command))
            return ShellOutput(0, "", "")

    read_device(cast(Phone, Silent()))
    return commands


@pytest.mark.parametrize(
    "command",
    [
        *(c for c in asked_of_a_phone() if not c.startswith("taskset ")),  # runs a program
        "mkdir /data/s && echo 'o wner, 1' > /data/s/f; cat /data/s/f; ls /data/s; rm -r /data/s",
        "cat /data/none /proc/version; ls /data/none; ls -d /data/local/tmp; ls /data",
        "rm /data/none; rm -f /data/none; rm /data; rm -rf /data/none; mkdir /data; mkdir -p /data",
        "chmod 644 /data/none; sha256sum /proc/version /data/none; ls /data/none 2>/dev/null",
        "echo hi > /none/x || echo no; cat /data && echo no; mkdir /a/b || echo a; mkdir /a/b/c",
        """echo a"b $(echo 'c  d')e'f" 'g"h'$(echo  i j )k; echo 'it'"'"'s' 2> /dev/null""",
        "for x in a b; do echo $x; done; echo $x; echo; echo ''",
        'for x in /sys/class/thermal/thermal_zone*; do echo ${x##*/} "${x##/*cla}"; done',
        "echo *; echo '*' \"/s\"*; echo /none* a2>/dev/null; echo 2 2>/dev/null $none",
        "settings get global q && echo yes; pm path x || pidof x || echo none\necho $(pidof x)end",
        "am start -n a/.b; taskset 100 am x; taskset 1 am x; df -k /data; logcat -d -s 'X:*'",
    ],
)
def test_it_answers_as_the_host_s(shared: Connected, command: str) -> None:
    assert shared.phone.answers(command) and not shared.phone.answers(f": ; {command}")
    own, host_s = shared.shell(command), shared.shell(f": ; {command}")
    assert (own.returncode, own.stdout) == (host_s.returncode, host_s.stdout)
    pid = r"(?<=failed to set )\d+"
    assert re.sub(pid, "N", own.stderr) == re.sub(pid, "N", host_s.stderr)


@pytest.mark.parametrize(
    "command",
    [
        "", "ls | wc", "a=b", "echo `ls`", "echo $((1))", "ls &", "(ls)", "ls -l", "cat", "cat <x",
        "ls >&2", "if ls; then ls; fi", "frobnicate", "echo $(frobnicate)", "echo \\\\n", "echo 'x",
        "for x in a; do", "for x in a; do ls", "ls &&", "ls ;;", "&& ls", "echo ${x%y}",
        "date", "taskset 1 sh", "$x", "/data/local/tmp/none", "echo ~", "for x; do ls; done",
        "ls\\", "echo -n x", "ls /x >$(wc)",
    ],
)  # fmt: skip
def test_what_is_for_the_host_s(shared: Connected, command: str) -> None:
    assert not shared.phone.answers(command)


def test_what_is_not_there_or_not_writable(shared: Connected, tmp_path: Path) -> None:
    missing = shared.adb("pull", "/data/nothing", str(tmp_path))
    assert missing.returncode == 1 and b"No such file or directory" in missing.stderr
    (tmp_path / "x").write_text("x")
    refused = shared.adb("push", str(tmp_path / "x"), "/system/bin/cat")
    assert refused.returncode == 1 and b"Read-only file system" in refused.stderr + refused.stdout
    unknown = shared.shell("frobnicate")
    assert unknown.returncode == 127 and "not found" in unknown.stderr
    assert (
        shared.shell("cat /data/nothing").stderr
        == "cat: /data/nothing: No such file or directory\n"
    )


def test_shells_at_once(shared: Connected) -> None:
    def one(number: int) -> str:
        """Ends once all eight are there."""
        shared.shell(f"mkdir -p {FOLDER}/there")
        everyone = f"[ $(ls {FOLDER}/there | wc -l) = 8 ]"
        wait = f"touch {FOLDER}/there/{number}; until {everyone}; do sleep 0.05; done"
        return str(shared.shell(f"{wait}; echo {number}").stdout)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [f"{n}\n" for n in range(8)]


def test_a_command_dies_with_its_stream(shared: Connected) -> None:
    client = subprocess.Popen(
        [adb_path(), "-s", shared.serial, "shell", "echo $$; sleep 60 & wait"],
        env=shared.server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdout is not None and client.stdin is not None
    group = int(client.stdout.readline())
    client.kill()
    client.wait()
    client.stdout.close()
    client.stdin.close()
    assert ends(lambda: not group_lives(group))


def group_lives(group: int) -> bool:
    stats = (p.read_text() for p in Path("/proc").glob("[0-9]*/stat") if p.exists())
    fields = (s.rpartition(")")[2].split() for s in stats)
    return any(int(f[2]) == group and f[0] != "Z" for f in fields)


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def ends(condition: Any, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_services_that_there_are_not(shared: Connected) -> None:
    assert shared.adb("root").returncode != 0
    assert shared.adb("get-state").stdout == b"device\n"


def test_by_hand(adb_server: AdbServer) -> None:
    port = free_port()
    daemon = subprocess.Popen(
        [sys.executable, "-m", "tests.virtual_phone", "--profile", "quad-core-android-9",
         "--port", str(port), "--fault", "low-battery"],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert daemon.stdout is not None
    folder = daemon.stdout.readline().split()[-1]
    assert b"connected" in adb_server.adb("connect", f"127.0.0.1:{port}").stdout
    battery = adb_server.adb("-s", f"127.0.0.1:{port}", "shell", "dumpsys battery").stdout
    daemon.terminate()
    assert daemon.wait(timeout=60) == 0
    daemon.stdout.close()
    assert b"level: 9\n" in battery
    assert not Path(folder).exists()


# --- profiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_s_facts(name: str, connect: Any) -> None:
    phone, profile = connect(name), load_profile(name)

    def say(command: str) -> str:
        return str(phone.shell(command).stdout)

    assert say("getprop ro.product.model").strip() == profile.properties["ro.product.model"]
    assert "[ro.product.cpu.abi]: [arm64-v8a]" in say("getprop")
    clocks = say("cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq").split()
    assert tuple(map(int, clocks)) == profile.top_khz
    assert f"MemTotal:       {profile.memory_kb:>8} kB" in say("cat /proc/meminfo")
    assert say("cat /proc/cpuinfo").count("processor") == len(profile.top_khz)
    assert float(say("cat /proc/uptime").split()[0]) > 4000
    assert f"GLES: {profile.gles}\n" in say("dumpsys SurfaceFlinger")
    assert "mWakefulness=Awake" in say("dumpsys power")
    assert "Display Power: state=ON" in say("dumpsys power")
    assert f"temperature: {profile.battery.temperature_c * 10:.0f}" in say("dumpsys battery")
    assert say("uname -m") == "aarch64\n"
    assert "package:com.android.shell" in say("pm list packages") and not say("pm list packages -3")
    description = phone.server.adb("devices", "-l").stdout.decode()
    model = re.sub(r"\W", "_", profile.properties["ro.product.model"])  # by adb
    assert f"model:{model} " in description
    thermal = phone.shell("dumpsys thermalservice")
    fixed = phone.shell("cmd power set-fixed-performance-mode-enabled true")
    if name == "quad-core-android-9":
        assert "Can't find service: thermalservice" in thermal.stderr and not thermal.stdout
        assert fixed.returncode == 255 and "Unknown command" in fixed.stdout
        assert phone.benchmark("--use_gpu=true").returncode == 1
    else:
        assert "Thermal Status: 0\n" in thermal.stdout
        assert re.search(
            r"Temperature\{mValue=\d+\.\d, mType=0, mName=\w+, mStatus=0\}", thermal.stdout
        )
        assert fixed.returncode == 0 and phone.phone.state.fixed_performance


def test_settings_are_remembered(shared: Connected) -> None:
    assert shared.shell("settings get global nothing").stdout == "null\n"
    shared.shell("settings put global window_animation_scale 0; svc power stayon true")
    assert shared.phone.state.settings["global"] == {
        "airplane_mode_on": "0", "stay_on_while_plugged_in": "15", "window_animation_scale": "0",
    }  # fmt: skip
    shared.shell("settings delete global window_animation_scale; svc power stayon false")
    assert shared.shell("settings get global stay_on_while_plugged_in").stdout == "0\n"
    shared.shell("input keyevent KEYCODE_SLEEP")
    assert "mWakefulness=Asleep" in shared.shell("dumpsys power").stdout
    shared.shell("input keyevent 224")
    assert shared.phone.state.awake
    assert shared.phone.commands[-1] == "input keyevent 224"


def test_taskset_knows_the_cores(shared: Connected) -> None:
    assert shared.shell("taskset f0 echo ran").stdout == "ran\n"
    assert "Invalid argument" in shared.shell("taskset 100 echo ran").stderr
    assert shared.shell("taskset 80 sh -c 'exit 5'").returncode == 5


def test_nothing_is_installed(shared: Connected) -> None:
    started = shared.shell("am start -n org.afd/.Main --es run 1")
    assert started.returncode == 1
    assert "Activity class {org.afd/org.afd.Main} does not exist" in started.stderr
    assert shared.shell("pm path org.afd").returncode == 1


# --- benchmark_model ------------------------------------------------------------------------------

# Of several runs, of runs that took the same time, or of the one that a busy machine had time for.
COUNT = (
    r"count=\d+ (?:first=\d+ curr=\d+ min=\d+ max=\d+ avg=[\d.e+]+ std=\d+"
    r"|curr=\d+(?:\(all same\))?)"
)
NEW_MEMORY = r"Memory footprint delta from the start of the tool \(MB\)"
PERCENTILES = r" p5=\d+ median=\d+ p95=\d+"


def forms(text: str, expected: list[str]) -> None:
    lines = text.splitlines()
    assert len(lines) == len(expected), text
    for line, form in zip(lines, expected, strict=True):
        assert re.fullmatch(form, line), (line, form)


def after_loading(prefix: str, memory: str, percentiles: str) -> list[str]:
    def running(runs: int) -> str:
        return (
            f"{prefix}Running benchmark for at least {runs} iterations and at least 0.01 seconds "
            "but terminate if exceeding 150 seconds."
        )

    return [
        rf"{prefix}The input model file size \(MB\): 0\.00\d+",
        rf"{prefix}Initialized session in [\d.]+ms\.",
        running(1), f"{prefix}{COUNT}{percentiles}", "",
        running(5), f"{prefix}{COUNT}{percentiles}", "",
        rf"{prefix}Inference timings in us: Init: \d+, First inference: \d+, "
        r"Warmup \(avg\): [\d.e+]+, Inference \(avg\): [\d.e+]+",
        f"{prefix}Note: as the benchmark tool itself affects .*",
        rf"{prefix}{memory}: init=-?[\d.]+ overall=-?[\d.]+",
    ]  # fmt: skip


def test_the_log_of_a_new_build(shared: Connected) -> None:
    done = shared.benchmark("--use_xnnpack=true --num_threads=2")
    assert done.returncode == 0
    graph = f"{FOLDER}/m.tflite"
    forms(done.stdout, [
        "INFO: STARTING!",
        r"INFO: Log parameter values verbosely: \[0\]",
        r"INFO: Min num runs: \[5\]",
        r"INFO: Min runs duration \(seconds\): \[0\.01\]",
        r"INFO: Num threads: \[2\]",
        r"INFO: Min warmup runs duration \(seconds\): \[0\.01\]",
        rf"INFO: Graph: \[{graph}\]",
        r"INFO: Signature to run: \[\]",
        r"INFO: #threads used for CPU inference: \[2\]",
        r"INFO: Use xnnpack: \[1\]",
        f"INFO: Loaded model {graph}",
        "INFO: XNNPACK delegate created.",
        "INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely "
        "executed by the delegate.",
        *after_loading("INFO: ", NEW_MEMORY, PERCENTILES),
    ])  # fmt: skip
    assert done.stderr == (
        "INFO: Initialized TensorFlow Lite runtime.\n"
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        "VERBOSE: Replacing 3 out of 3 node(s) with delegate (TfLiteXNNPackDelegate) node, "
        "yielding 1 partitions for subgraph 0 (main).\n"
    )


def test_the_log_of_an_old_build(connect: Any) -> None:
    done = connect("quad-core-android-9").benchmark("--use_xnnpack=true")
    assert done.returncode == 0
    assert done.stdout.startswith("STARTING!\nLog parameter values verbosely: [0]\n")
    tail = after_loading("", r"Peak memory footprint \(MB\)", "")
    forms("\n".join(done.stdout.splitlines()[-len(tail) :]), tail)
    assert (
        "Replacing 3 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.\n"
        in done.stderr
    )


def test_a_graph_that_the_gpu_takes_in_part(shared: Connected) -> None:
    done = shared.benchmark("--use_gpu=true --use_xnnpack=false")
    assert done.returncode == 0
    assert "w/ 1 delegate kernels" in done.stdout
    assert "Replacing 1 out of 3 node(s) with delegate (TfLiteGpuDelegateV2)" in done.stderr
    assert "ERROR: Following operations are not supported by GPU delegate:\nCEIL" in (done.stderr)
    both = shared.benchmark("--use_gpu=true --max_delegated_partitions=2")
    assert "w/ 2 delegate kernels" in both.stdout
    assert "Replacing 2 out of 3 node(s)" in both.stderr
    assert "yielding 3 partitions" in both.stderr
    full = shared.benchmark("--use_gpu=true --require_full_delegation=true")
    assert full.returncode == 1 and "timings" not in full.stdout
    assert full.stderr.endswith(
        "ERROR: Disallowed CPU fallback detected.\nERROR: Benchmarking failed.\n"
    )


def test_nnapi_and_external_delegates(shared: Connected) -> None:
    nnapi = shared.benchmark("--use_nnapi=true --nnapi_accelerator_name=qti-dsp")
    assert "Explicitly applied NNAPI delegate" in nnapi.stdout
    assert (
        "NNAPI accelerators available: [qti-default,qti-dsp,qti-gpu,nnapi-reference]"
        in nnapi.stdout
    )
    missing = shared.benchmark(f"--external_delegate_path={FOLDER}/libQnn.so")
    assert missing.returncode == 0 and "EXTERNAL delegate created" not in missing.stdout
    assert f"Unable to load external delegate from : {FOLDER}/libQnn.so" in missing.stderr
    shared.shell(f"touch {FOLDER}/libQnn.so")
    found = shared.benchmark(f"--external_delegate_path={FOLDER}/libQnn.so")
    assert "Explicitly applied EXTERNAL delegate, and the model graph will be comp" in found.stdout


def test_outputs_of_given_inputs(shared: Connected, model: Path) -> None:
    values = np.random.default_rng(1).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    shared.device.sync.push(values.tobytes(), f"{FOLDER}/in.bin")
    name = "tensor_0"
    done = shared.benchmark(
        f"--input_layer={name} --input_layer_shape=1,32,32,3 "
        f"--input_layer_value_files={name}:{FOLDER}/in.bin --output_filepath={FOLDER}/out.bin"
    )
    assert done.returncode == 0 and "WARN" not in done.stdout
    interpreter = Interpreter(model_path=str(model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert shared.device.sync.read_bytes(f"{FOLDER}/out.bin") == expected.tobytes()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (f"{SHAPED}", 0, "Tensor # 0 is named tensor_0 but flags call it x"),
        ("--input_layer=x --input_layer_shape=8,3", 1, "Input tensor #0 should have 4 dimensions!"),
        ("--input_layer=x", 1, "must match the number of items"),
        ("--graph=/data/none.tflite", 1, "Failed to load model /data/none.tflite"),
        (f"--graph={FOLDER}/benchmark_model", 1, "The model is not a valid Flatbuffer buffer"),
        ("--num_runs=many", 1, "Failed to parse flag 'num_runs'"),
        ("--nun_runs=3 --x", 0, "WARN: Unconsumed cmdline flags: --nun_runs=3 --x"),
        (f"{SHAPED} --input_layer_value_files=x:{FOLDER}/m.tflite", 134,
         r"FATAL: The size of .*m\.tflite is \d+ bytes\. It should be 12288 bytes\."),
        (f"{SHAPED} --input_layer_value_files=x:{FOLDER}/none", 134, "FATAL: Failed to read"),
        (f"{SHAPED} --input_layer_value_files=y:{FOLDER}/none", 134, "FATAL: Cannot find"),
        (f"{SHAPED} --input_layer_value_files=x:0:f", 1, "x:0:f contains more than one delimiter"),
    ],
)  # fmt: skip
def test_wrong_calls(shared: Connected, flags: str, code: int, said: str) -> None:
    done = shared.benchmark(flags)
    assert done.returncode == code
    assert re.search(said, done.stdout + done.stderr), done.stdout + done.stderr
    assert ("ERROR: Benchmarking failed.\n" in done.stderr) == (code == 1)


def test_the_operation_profile(shared: Connected) -> None:
    done = shared.benchmark(
        "--enable_op_profiling=true --op_profiling_output_mode=csv --use_xnnpack=false "
        f"--op_profiling_output_file={FOLDER}/profile.csv"
    )
    assert done.returncode == 0
    text = shared.device.sync.read_text(f"{FOLDER}/profile.csv")
    runs = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:\n")[2]
    assert "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n" in runs
    assert "node type, count, avg_ms, avg %, cdf %, mem KB, times called\n" in runs
    assert re.search(r"^CONV_2D, 2, [\d.e-]+, 66\.66\d+%, ", runs, re.MULTILINE)


# --- faults ---------------------------------------------------------------------------------------


def test_the_faults_are_a_closed_list() -> None:
    with pytest.raises(ValueError, match="no fault 'ice'"):
        parse_faults(["ice"])
    with pytest.raises(ValueError, match="counted from 1"):
        parse_faults(["hang@0"])
    hang, hot = parse_faults(["hang@2", "hot@2"])
    assert [hang.hits(n) for n in range(4)] == [False, False, True, False]
    assert [hot.hits(n) for n in range(4)] == [False, False, True, True]


def test_every_fault_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8").partition("# --- faults")[2]
    for name in ("harness/test_app.py", "phone/test_session.py"):
        source += (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    assert [fault for fault in FAULTS if f'"{fault}' not in source] == []


@pytest.mark.parametrize(
    ("fault", "state"), [("unauthorized", "unauthorized"), ("offline", "offline")]
)
def test_a_phone_that_lets_nobody_in(
    fault: str,
    state: str,
    adb_server: AdbServer,
    tmp_path: Path,
) -> None:
    with VirtualPhone("snapdragon-865", tmp_path, faults=[fault]) as phone:
        serial = adb_server.connect(phone)
        assert f"{serial}\t{state}\n" in adb_server.adb("devices").stdout.decode()
        done = adb_server.adb("-s", serial, "shell", "true")
        assert done.returncode == 1 and state.encode() in done.stderr


def test_unplugged_in_mid_run(connect: Any) -> None:
    phone = connect("snapdragon-865", "unplugged@2")
    assert phone.benchmark().returncode == 0
    done = phone.adb("shell", f"{FOLDER}/benchmark_model --graph={FOLDER}/m.tflite --min_secs=600")
    assert done.returncode != 0
    assert b"Inference timings" not in done.stdout
    assert ends(lambda: not phone.phone.invocations[-1].running)
    phone.plug_in()
    assert phone.benchmark().returncode == 0
    assert len(phone.phone.invocations) == 3


def test_unplugged_in_mid_push(connect: Any, tmp_path: Path) -> None:
    phone = connect("snapdragon-865")
    phone.phone.faults = ("unplugged-in-push",)
    (tmp_path / "x").write_bytes(bytes(3_000_000))
    push = ("push", str(tmp_path / "x"), f"{FOLDER}/x")
    assert phone.adb(*push).returncode == 0, "before the first start of benchmark_model"
    phone.phone.state.start([], 0)
    done = phone.adb("push", str(tmp_path / "x"), f"{FOLDER}/y")
    assert done.returncode != 0
    phone.plug_in()
    assert not (phone.phone.root / f"{FOLDER}/y"[1:]).exists()
    assert phone.adb(*push).returncode == 0, "once only"


@pytest.mark.parametrize("gone", ["cable", "client", "server"])
def test_a_push_that_breaks_off_leaves_nothing_behind(
    gone: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = AdbServer(free_port(), tmp_path_factory.mktemp("own-adb-home"))
    target = tmp_path / "phone/data/local/tmp/x"
    name = b"/data/local/tmp/x,33188"
    with running(server), VirtualPhone("snapdragon-865", tmp_path / "phone") as phone:
        with server.device(server.connect(phone)).open_transport() as transport:
            transport.send_command("sync:")
            transport.check_okay()
            transport.conn.sendall(b"SEND" + struct.pack("<I", len(name)) + name)
            assert ends(target.exists)
            if gone == "cable":
                phone.state.start([], 0)
                phone.faults = ("unplugged-in-push",)
            transport.conn.sendall(b"DATA" + struct.pack("<I", 4) + b"half")
            if gone == "server":
                server.adb("kill-server")
            if gone != "client":
                assert ends(lambda: not target.exists())
        assert ends(lambda: not target.exists())
        opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
        assert [path for path in opened if path.name.startswith(target.name)] == []
        gc.collect()  # now is when Python would warn of a file that nobody closed


def test_storage_full(connect: Any, tmp_path: Path) -> None:
    phone = connect("snapdragon-865")
    phone.phone.faults = ("storage-full",)
    (tmp_path / "x").write_bytes(bytes(300_000))
    done = phone.adb("push", str(tmp_path / "x"), f"{FOLDER}/x")
    assert done.returncode == 1 and b"No space left on device" in done.stderr + done.stdout
    with pytest.raises(adbutils.AdbError):
        phone.device.sync.push(bytes(300_000), f"{FOLDER}/x")
    assert not (phone.phone.root / "data/local/tmp/afd/x").exists()
    assert re.search(r"\s0 100% /data\n", phone.shell("df /data/local/tmp").stdout)
    phone.phone.faults = ()
    assert phone.adb("push", str(tmp_path / "x"), f"{FOLDER}/x").returncode == 0


def test_killed_for_memory(connect: Any) -> None:
    phone = connect("snapdragon-865", "out-of-memory@2")
    assert [phone.benchmark().returncode for _ in range(3)] == [0, 137, 0]
    phone.phone.faults = ("out-of-memory@4",)
    assert "Killed" in phone.benchmark().stderr


def test_hang_until_the_stream_closes(connect: Any) -> None:
    phone = connect("snapdragon-865", "hang")
    client = subprocess.Popen(
        [adb_path(), "-s", phone.serial, "shell",
         f"{FOLDER}/benchmark_model --graph={FOLDER}/m.tflite {QUICK}"],
        env=phone.server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with client:
        assert ends(lambda: bool(phone.phone.invocations))
        (invocation,) = phone.phone.invocations
        assert invocation.running and client.poll() is None
        client.kill()
    assert ends(lambda: not invocation.running)
    assert ends(lambda: not lives(invocation.pid))


def test_nothing_outlives_the_phone(adb_server: AdbServer, model: Path, tmp_path: Path) -> None:
    with VirtualPhone("snapdragon-865", tmp_path, faults=["hang"]) as phone:
        connected = Connected(phone, adb_server, model)
        connected.shell(
            f"nohup setsid {FOLDER}/benchmark_model --graph={FOLDER}/m.tflite >/dev/null 2>&1 &"
        )
        assert ends(lambda: bool(phone.invocations))
        assert connected.shell("pidof benchmark_model").stdout.split() == [
            str(phone.invocations[0].pid)
        ]
    assert ends(lambda: not lives(phone.invocations[0].pid))


def test_logs_that_are_broken(connect: Any) -> None:
    phone = connect("snapdragon-865", "garbled-log@1")
    garbled = phone.adb(
        "exec-out", f"{FOLDER}/benchmark_model --graph={FOLDER}/m.tflite {QUICK}"
    ).stdout
    lines = [x for x in garbled.splitlines() if b"count=" in x or b"timings" in x]
    assert len(lines) == 3 and all(b"\x00\xff\x1b" in x for x in lines)
    phone.phone.faults = ("truncated-log",)
    cut = phone.benchmark()
    assert cut.returncode == 0
    assert cut.stdout.splitlines()[-1].startswith("INFO: Initialized session in")
    phone.phone.faults = ("error-after-timings",)
    failed = phone.benchmark()
    assert failed.returncode == 1 and "INFO: Inference timings in us" in failed.stdout
    assert failed.stderr.endswith("ERROR: Benchmarking failed.\n")


def test_delegates_that_take_less(connect: Any) -> None:
    phone = connect("snapdragon-865", "partial-delegation", "cpu-fallback@2")
    external = f"--external_delegate_path={FOLDER}/benchmark_model"
    part = phone.benchmark(external)
    assert "partially executed by the delegate w/ 1 delegate kernels" in part.stdout
    assert "Replacing 2 out of 3 node(s)" in part.stderr
    none = phone.benchmark("--use_gpu=true")
    assert none.returncode == 0 and "Replacing" not in none.stderr
    assert (
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by "
        "the delegate.\n" in none.stdout
    )


def test_wrong_output(connect: Any) -> None:
    phone = connect("snapdragon-865", "wrong-output@2")
    phone.device.sync.push(
        np.arange(SIZE * SIZE * 3, dtype=np.float32).tobytes(), f"{FOLDER}/in.bin"
    )
    flags = (
        "--input_layer=tensor_0 --input_layer_shape=1,32,32,3 "
        f"--input_layer_value_files=tensor_0:{FOLDER}/in.bin --output_filepath={FOLDER}/out.bin"
    )
    outputs = []
    for _ in range(2):
        assert phone.benchmark(flags).returncode == 0
        outputs.append(np.frombuffer(phone.device.sync.read_bytes(f"{FOLDER}/out.bin"), np.float32))
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1
    assert sorted(outputs[0]) == sorted(outputs[1])


def test_old_tool(connect: Any) -> None:
    done = connect("snapdragon-865", "old-tool").benchmark(f"--output_filepath={FOLDER}/out.bin")
    assert done.returncode == 0
    assert f"WARN: Unconsumed cmdline flags: --output_filepath={FOLDER}/out.bin\n" in done.stdout


def test_a_clock_that_jumps(connect: Any) -> None:
    phone = connect("snapdragon-865", "clock-jump")

    def ahead_s() -> int:
        """By whole hours, however long the answer takes."""
        before = time.time()
        told = int(phone.shell("date +%s").stdout)
        assert before - 1 <= told - 3600 * round((told - before) / 3600) <= time.time() + 1
        return 3600 * round((told - before) / 3600)

    assert ahead_s() == 0
    phone.phone.state.start([], 0)
    assert ahead_s() == 5 * 3600


def test_a_phone_that_heats_up_and_cools_down(connect: Any) -> None:
    phone = connect("snapdragon-865", "hot")
    state = phone.phone.state
    now_s = 0.0
    state.now_s = lambda: now_s

    def skin() -> float:
        text = phone.shell("dumpsys thermalservice").stdout
        return float(re.findall(r"mValue=([\d.]+), mType=3", text)[-1])

    rest = skin()
    zone = "/sys/class/thermal/thermal_zone0/temp"
    before = int(phone.shell(f"cat {zone}").stdout)
    for _ in range(3):
        state.start([], 0)
    assert skin() == pytest.approx(rest + 18)
    assert int(phone.shell(f"cat {zone}").stdout) == before + 18000
    now_s = 6.0
    assert skin() == pytest.approx(rest + 6)
    for _ in range(3):
        state.start([], 0)
    assert re.search("^Thermal Status: [1-6]$", phone.shell("dumpsys thermalservice").stdout, re.M)
    assert "temperature: 283\n" not in phone.shell("dumpsys battery").stdout
    now_s = 60.0
    assert skin() == rest


def test_clocks_that_fall(connect: Any) -> None:
    phone = connect("snapdragon-865", "throttled@2")
    clock = "cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq"
    seen = [int(phone.shell(clock).stdout)]
    for _ in range(2):
        phone.phone.state.start([], 0)
        seen.append(int(phone.shell(clock).stdout))
    assert seen == [2841600, 2841600, 1704960]


def test_starts_that_differ(connect: Any) -> None:
    phone = connect("snapdragon-865", "spread")
    logs = [phone.benchmark("--num_threads=1").stdout for _ in range(2)]
    # The fastest inference is what a busy machine disturbs least.
    slow, fast = (min(map(int, re.findall(r" p5=(\d+)", log))) for log in logs)
    assert slow > 1.5 * fast


def test_low_battery_and_screen_off(connect: Any) -> None:
    phone = connect("snapdragon-865", "low-battery", "screen-off")
    battery = phone.shell("dumpsys battery").stdout
    assert "level: 9\n" in battery and "USB powered: false" in battery
    phone.shell("input keyevent KEYCODE_WAKEUP")
    power = phone.shell("dumpsys power").stdout
    assert "mWakefulness=Asleep" in power and "Display Power: state=OFF" in power
