from __future__ import annotations

from pathlib import Path

import pytest

from afd_benchmark.benchmark_model.lines import LogError
from afd_benchmark.benchmark_model.profile import parse_profile
from afd_benchmark.results import ProfiledOperation

LOGS = Path(__file__).parents[1] / "logs"


def profile(name: str) -> str:
    return (LOGS / f"{name}.csv").read_text("utf-8")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_regular_runs_in_order(ending: str) -> None:
    assert parse_profile(profile("profile").replace("\n", ending)) == [
        ProfiledOperation("CONV_2D", "[model/conv\tmodel/relu]:0", 1.25, 0.625, 1),
        ProfiledOperation("DEPTHWISE_CONV_2D", "[model/depthwise]:1", 0.5, 0.25, 1),
        ProfiledOperation("SOFTMAX", "[Identity]:2", 0.25, 0.125, 1),
    ]


def test_a_delegates_operations_stand_for_its_kernels() -> None:
    """Older columns. Of 2.0 ms, XNNPACK took 1.6, of which it explains 1.0 and 0.5."""
    argmax, convolution, pooling = parse_profile(profile("profile_old"))
    assert argmax == ProfiledOperation("ARG_MAX", "[Identity]:3", 0.4, 0.2, 1)
    assert (convolution.operator, convolution.share) == ("Convolution (NHWC, F32)", 0.5)
    assert (pooling.operator, pooling.share, pooling.calls) == (
        "Global Average Pooling (NWC, F32)",
        0.25,
        2,
    )


def test_without_its_own_operations_a_kernel_is_one_operation() -> None:
    kernel, _ = parse_profile(profile("profile_old").split("Delegate internal")[0])
    assert (kernel.operator, kernel.share) == ("TfLiteXNNPackDelegate", 0.8)


def test_subgraphs_are_part_of_the_operation_that_calls_them() -> None:
    head, regular = profile("profile").split("Benchmark Runs:\n")
    inner = "Subgraph (index: 1) profile:\n" + regular.replace("SOFTMAX", "ADD")
    text = f"{head}Benchmark Runs:\nPrimary graph profile:\n{regular}\n{inner}"
    assert parse_profile(text) == parse_profile(profile("profile"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SOFTMAX, 0.24, 0.25, 12.5%, 100%, 0, 1, [Identity]:2", "SOFTMAX, 0.24"),
        ("SOFTMAX, 0.24, 0.25, 12.5%", "SOFTMAX, 0.24, nan, 12.5%"),
        ("SOFTMAX, 0.24, 0.25, 12.5%", "SOFTMAX, 0.24, -0.25, 12.5%"),
        ("SOFTMAX, 0.24, 0.25, 12.5%", "SOFTMAX, 0.24, 0.25, 12.5"),
        ("SOFTMAX, 0.24, 0.25, 12.5%", "SOFTMAX, 0.24, 0.25, 1.5%"),
        ("SOFTMAX, 0.24, 0.25, 12.5%", "SOFTMAX, 0, 0.24, 0.25, 12.5%"),
        ("100%, 0, 1, [Identity]:2", "100%, 0, 1.5, [Identity]:2"),
        ("100%, 0, 1, [Identity]:2", "100%, 0, 1, [Identity, more]:2"),
        ("node type, first, avg_ms, %", "node type, first, p50_ms, %"),
        ("node type, first, avg_ms, %", "node type, start, first, avg_ms, %"),
        ("Number of nodes executed: 3", "Number of nodes executed: 30"),
        ("Number of nodes executed: 3", "Number of nodes: 3"),
    ],
)
def test_malformed(old: str, new: str) -> None:
    head, regular = profile("profile").split("Benchmark Runs:\n")
    assert old in regular
    with pytest.raises(LogError, match=r"profile line \d+"):
        parse_profile(f"{head}Benchmark Runs:\n{regular.replace(old, new, 1)}")


@pytest.mark.parametrize("text", ["", "INFO: STARTING!\n", "a,b\n1,2\n"])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(LogError, match="cut off, or no profile"):
        parse_profile(text)


def test_two_profiles_in_one_file() -> None:
    with pytest.raises(LogError, match="a second profile"):
        parse_profile(profile("profile") * 2)


@pytest.mark.parametrize("name", ["profile", "profile_old"])
def test_cut_at_any_byte(name: str) -> None:
    text = profile(name)
    allowed = [parse_profile(text)]
    if name == "profile_old":  # without the delegate's own part it is whole, too
        allowed.append(parse_profile(text.split("Delegate internal")[0]))
    refused = 0
    for end in range(len(text)):
        try:
            assert parse_profile(text[:end]) in allowed, text[:end][-80:]
        except LogError:
            refused += 1
    assert refused > len(text) / 4
