"""The command line of TFLite's `benchmark_model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afd_benchmark.plan import CPU, EXTERNAL, GPU, NNAPI
from afd_mobile.common.errors import UsageError


@dataclass(frozen=True)
class GoldenRun:
    """Files on the device: what goes in, and where the outputs go.

    Attributes:
        name, shape: of the graph's input tensor.
        input_file: its values as raw bytes in the tensor's own type.
        output_file: written by the tool, in the same way.
    """

    name: str
    shape: Sequence[int]
    input_file: str
    output_file: str


def benchmark_flags(
    graph: str,
    *,
    backend: str,
    threads: int,
    runs: int,
    min_secs: float,
    max_secs: float,
    warmup_runs: int,
    warmup_min_secs: float,
    delegate_options: Mapping[str, str] | None = None,
    full_delegation: bool = False,
    profile_file: str | None = None,
    golden: GoldenRun | None = None,
    input_shape: tuple[str, Sequence[int]] | None = None,
) -> list[str]:
    """What follows the binary's name. All files are the device's.

    Args:
        backend: cpu, gpu, nnapi, or external:LIBRARY.
        delegate_options: of an external delegate.
        full_delegation: the tool fails where the backend does not take the whole graph.
        profile_file: gets the operations' times as CSV.
        golden: runs on these values instead of random ones, and keeps the outputs.
        input_shape: the input's name and its shape, where the graph takes any.

    Raises:
        UsageError: there is no such backend, or a name or value cannot be told to the tool.
    """
    flags = [
        f"--graph={graph}",
        f"--num_threads={threads}",
        f"--num_runs={runs}",
        f"--min_secs={min_secs:g}",
        f"--max_secs={max_secs:g}",
        f"--warmup_runs={warmup_runs}",
        f"--warmup_min_secs={warmup_min_secs:g}",
        *_placement(backend, delegate_options or {}, full_delegation),
    ]
    if profile_file:
        # Watching the memory disturbs the times as profiling does: both in the same run.
        flags += [
            "--enable_op_profiling=true",
            "--op_profiling_output_mode=csv",
            f"--op_profiling_output_file={profile_file}",
            "--report_peak_memory_footprint=true",
        ]
    if input_shape:
        flags += _shape(*input_shape)
    return flags + (_golden(golden) if golden else [])


def _placement(backend: str, options: Mapping[str, str], full_delegation: bool) -> list[str]:
    """Delegates are applied in the order of their flags, so XNNPACK takes what is left."""
    library = backend.removeprefix(EXTERNAL)
    if options and not backend.startswith(EXTERNAL):
        raise UsageError(f"delegate options go with external:LIBRARY, not with {backend}")
    if backend == CPU:
        flags = []
    elif backend == GPU:
        # With a backend named, the tool fails without OpenCL instead of taking OpenGL.
        flags = ["--use_gpu=true", "--gpu_backend=cl", "--gpu_precision_loss_allowed=true"]
    elif backend == NNAPI:
        flags = ["--use_nnapi=true"]
    elif backend.startswith(EXTERNAL) and library:
        flags = [f"--external_delegate_path={library}"]
        if options:
            flags.append(f"--external_delegate_options={_options(options)}")
    else:
        raise UsageError(f"no backend {backend!r}; there are cpu, gpu, nnapi and external:LIBRARY")
    # The tool wants every delegate in turn to take the whole graph where full delegation is
    # required. Left out, the flag would apply XNNPACK without a word.
    xnnpack = backend == CPU or not full_delegation
    flags.append(f"--use_xnnpack={str(xnnpack).lower()}")
    return [*flags, "--require_full_delegation=true"] if full_delegation else flags


def _options(options: Mapping[str, str]) -> str:
    for text in (*options, *options.values()):
        if not text or set(text) & set(":;"):
            raise UsageError(
                f"delegate option {text!r}: the tool takes no empty text and neither ':' nor ';'"
            )
    return ";".join(f"{key}:{value}" for key, value in options.items())


def _shape(name: str, shape: Sequence[int]) -> list[str]:
    if "," in name:
        raise UsageError(f"{name!r}: the tool takes no ',' in an input's name")
    return [f"--input_layer={name}", f"--input_layer_shape={','.join(map(str, shape))}"]


def _golden(golden: GoldenRun) -> list[str]:
    if "," in golden.input_file:
        raise UsageError(f"{golden.input_file!r}: the tool takes no ',' in an input's file")
    # The tool splits at single colons, and names such as serving_default_x:0 are common.
    name, file = (text.replace(":", "::") for text in (golden.name, golden.input_file))
    return [
        *_shape(golden.name, golden.shape),
        f"--input_layer_value_files={name}:{file}",
        f"--output_filepath={golden.output_file}",
    ]
