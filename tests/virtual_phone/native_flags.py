"""benchmark_model's flags: their types, defaults, and how the log repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Flag:
    """The default's type is the flag's; `late` ones came after 2020."""

    title: str
    default: Any
    late: bool = False


# In the order in which the log has them.
_FLAGS = {
    "num_runs": _Flag("Min num runs", 50),
    "min_secs": _Flag("Min runs duration (seconds)", 1.0),
    "max_secs": _Flag("Max runs duration (seconds)", 150.0),
    "run_delay": _Flag("Inter-run delay (seconds)", -1.0),
    "warmup_runs": _Flag("Min warmup runs", 1),
    "warmup_min_secs": _Flag("Min warmup runs duration (seconds)", 0.5),
    "verbose": _Flag("", False),
    "report_peak_memory_footprint": _Flag("Report the peak memory footprint", False, late=True),
    "graph": _Flag("Graph", ""),
    "input_layer": _Flag("Input layers", ""),
    "input_layer_shape": _Flag("Input shapes", ""),
    "input_layer_value_files": _Flag("Input value files", ""),
    "require_full_delegation": _Flag("Require full delegation", False),
    "enable_op_profiling": _Flag("Enable op profiling", False),
    "op_profiling_output_mode": _Flag("Op profiling output mode.", "stdout", late=True),
    "op_profiling_output_file": _Flag("Op profiling output file.", "", late=True),
    "output_filepath": _Flag("File path to export outputs layer to", "", late=True),
    "num_threads": _Flag("#threads used for CPU inference", -1),
    "max_delegated_partitions": _Flag("Max number of delegated partitions", 0),
    "external_delegate_path": _Flag("External delegate path", ""),
    "external_delegate_options": _Flag("External delegate options", ""),
    "use_gpu": _Flag("Use gpu", False),
    "gpu_precision_loss_allowed": _Flag("Allow lower precision in gpu", True),
    "gpu_backend": _Flag("GPU backend", ""),
    "use_nnapi": _Flag("Use NNAPI", False),
    "nnapi_accelerator_name": _Flag("NNAPI accelerator name", ""),
    "use_xnnpack": _Flag("Use xnnpack", False),
}


@dataclass(frozen=True)
class Flags:
    """A command line, parsed.

    Attributes:
        given: only those that the command line has.
        unconsumed: what the tool does not know.
    """

    given: dict[str, Any]
    unconsumed: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.given.get(name, _FLAGS[name].default)

    def log_lines(self, accelerators: Sequence[str], *, signature: bool) -> list[str]:
        """Those that are set, or all with `--verbose`; the graph in any case.

        Args:
            accelerators: NNAPI's on this phone.
            signature: whether the tool knows signatures.
        """
        lines = [f"Log parameter values verbosely: [{self['verbose']:d}]"]
        for name, flag in _FLAGS.items():
            if flag.title and (name in self.given or name == "graph" or self["verbose"]):
                lines.append(f"{flag.title}: [{_text(self[name])}]")
            if name == "run_delay" and "num_threads" in self.given:
                lines.append(f"Num threads: [{self['num_threads']}]")
            if name == "graph" and signature:
                lines.append("Signature to run: []")
        if self["use_nnapi"]:
            lines.append(f"NNAPI accelerators available: [{','.join(accelerators)}]")
        return lines


def parse_flags(arguments: Sequence[str], *, late: bool) -> Flags:
    """`--name=value`, and `--name` alone for true.

    Args:
        late: whether the tool knows flags that came after 2020.

    Raises:
        ValueError: a value is not of its flag's type; the message names the flag.
    """
    given: dict[str, Any] = {}
    unconsumed = []
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        flag = _FLAGS.get(name) if argument.startswith("--") else None
        if flag is None or (flag.late and not late):
            unconsumed.append(argument)
            continue
        try:
            given[name] = _parse(flag.default, value if equals else "true")
        except ValueError:
            raise ValueError(f"Failed to parse flag '{name}' against argv '{argument}'") from None
    return Flags(given, tuple(unconsumed))


def _parse(default: Any, value: str) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "1", "false", "0"):
            raise ValueError
        return value.lower() in ("true", "1")
    return type(default)(value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (bool, float)) else str(value)
