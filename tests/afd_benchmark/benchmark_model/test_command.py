from __future__ import annotations

import pytest

from afd_benchmark.benchmark_model.command import GoldenRun, benchmark_flags
from afd_mobile.common.errors import UsageError


def told(argv: list[str]) -> dict[str, str]:
    """As the tool reads them: one flag an argument, split at the first equals sign."""
    pairs = [text.removeprefix("--").partition("=") for text in argv]
    assert all(text.startswith("--") for text in argv)
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def flags(
    backend: str = "cpu",
    *,
    options: dict[str, str] | None = None,
    full_delegation: bool = False,
    profile_file: str | None = None,
    golden: GoldenRun | None = None,
) -> list[str]:
    return benchmark_flags(
        "/data/local/tmp/afd/a b.tflite",
        backend=backend,
        threads=4,
        runs=60,
        min_secs=0.5,
        max_secs=90,
        warmup_runs=5,
        warmup_min_secs=0.25,
        delegate_options=options,
        full_delegation=full_delegation,
        profile_file=profile_file,
        golden=golden,
    )


def test_every_value_comes_back() -> None:
    golden = GoldenRun("serving_default_x:0", (1, 224, 224, 3), "/data/in.bin", "/data/out.bin")
    assert told(flags(profile_file="/data/p.csv", golden=golden)) == {
        "graph": "/data/local/tmp/afd/a b.tflite",
        "num_threads": "4",
        "num_runs": "60",
        "min_secs": "0.5",
        "max_secs": "90",
        "warmup_runs": "5",
        "warmup_min_secs": "0.25",
        "use_xnnpack": "true",
        "enable_op_profiling": "true",
        "op_profiling_output_mode": "csv",
        "op_profiling_output_file": "/data/p.csv",
        "report_peak_memory_footprint": "true",
        "input_layer": "serving_default_x:0",
        "input_layer_shape": "1,224,224,3",
        "input_layer_value_files": "serving_default_x::0:/data/in.bin",
        "output_filepath": "/data/out.bin",
    }


def test_nothing_more_than_asked() -> None:
    assert "op_profiling" not in " ".join(flags()) and "input_layer" not in " ".join(flags())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "gpu", "nnapi", "external:/data/libQnn.so"])
def test_xnnpack_is_always_said_and_never_beside_another_that_must_take_all(
    backend: str, full: bool
) -> None:
    found = told(flags(backend, full_delegation=full))
    assert found["use_xnnpack"] == ("false" if full and backend != "cpu" else "true")
    assert found.get("require_full_delegation") == ("true" if full else None)


def test_backends() -> None:
    gpu = flags("gpu")
    assert {"--use_gpu=true", "--gpu_backend=cl", "--gpu_precision_loss_allowed=true"} <= set(gpu)
    # The tool applies delegates in the order of their flags.
    assert gpu.index("--use_gpu=true") < gpu.index("--use_xnnpack=true")
    assert "--use_nnapi=true" in flags("nnapi")
    external = flags("external:/data/libQnn.so", options={"backend_type": "htp", "mode": "3"})
    assert "--external_delegate_path=/data/libQnn.so" in external
    assert "--external_delegate_options=backend_type:htp;mode:3" in external


@pytest.mark.parametrize("backend", ["", "tpu", "external:", "external", "GPU"])
def test_there_is_no_such_backend(backend: str) -> None:
    with pytest.raises(UsageError, match="no backend"):
        flags(backend)


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("gpu", {"a": "b"}),
        ("external:x", {"a": "b;c"}),
        ("external:x", {"a:b": "c"}),
        ("external:x", {"a": ""}),
    ],
)
def test_options_that_the_tool_would_drop(backend: str, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="option"):
        flags(backend, options=options)


def test_an_input_that_the_tool_would_split() -> None:
    with pytest.raises(UsageError, match="','"):
        flags(golden=GoldenRun("a,b", (1,), "in", "out"))
