"""benchmark_model's operation profile, `--op_profiling_output_mode=csv`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.virtual_phone.native_log import statistics


@dataclass(frozen=True)
class Node:
    """One that was executed, with the time of every run."""

    type: str
    name: str
    durations_us: tuple[float, ...]


def profile(initialization: Sequence[Node], runs: Sequence[Node]) -> str:
    """Both parts, as `ProfileSummaryCSVFormatter` writes them."""
    return (
        "Profiling Info for Benchmark Initialization:\n"
        f"{_part(initialization)}\n"
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        f"{_part(runs)}"
    )


def _part(nodes: Sequence[Node]) -> str:
    by_time = sorted(nodes, key=lambda n: -sum(n.durations_us))
    totals = [int(t) for t in np.sum([n.durations_us for n in nodes], axis=0)]
    return "\n".join(
        [
            _title("Run Order"),
            *_table(nodes),
            "",
            _title("Top by Computation Time"),
            *_table(by_time[:10]),
            "",
            f"Number of nodes executed: {len(nodes)}",
            _title("Summary by node type"),
            *_summary(nodes),
            "",
            f"Timings (microseconds): {statistics(totals, percentiles=False)}",
            "Memory (bytes): count=0",
            f"{len(nodes)} nodes observed",
            "",
            "",
        ]
    )


def _title(text: str) -> str:
    return f"{'=' * 30} {text} {'=' * 30}"


def _table(nodes: Sequence[Node]) -> list[str]:
    lines = ["node type, first, avg_ms, %, cdf%, mem KB, times called, name"]
    total, so_far = sum(sum(n.durations_us) for n in nodes), 0.0
    for node in nodes:
        spent = sum(node.durations_us)
        so_far += spent
        first_ms, mean_ms = node.durations_us[0] / 1e3, np.mean(node.durations_us) / 1e3
        lines.append(
            f"{node.type}, {first_ms:g}, {mean_ms:g}, {100 * spent / total:g}%, "
            f"{100 * so_far / total:g}%, 0, 1, {node.name}"
        )
    return lines


def _summary(nodes: Sequence[Node]) -> list[str]:
    lines = ["node type, count, avg_ms, avg %, cdf %, mem KB, times called"]
    means = {
        kind: sum(float(np.mean(n.durations_us)) for n in nodes if n.type == kind)
        for kind in {n.type for n in nodes}
    }
    total, so_far = sum(means.values()), 0.0
    for kind, mean_us in sorted(means.items(), key=lambda item: -item[1]):
        so_far += mean_us
        count = sum(n.type == kind for n in nodes)
        lines.append(
            f"{kind}, {count}, {mean_us / 1e3:g}, {100 * mean_us / total:g}%, "
            f"{100 * so_far / total:g}%, 0, {count}"
        )
    return lines
