"""The results as tables: on the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from afd_mobile.common.terminal import aligned, in_markdown, printable
from afd_mobile.experiments.results import Row
from afd_mobile.experiments.tables import TABLES
from afd_mobile.pictures.degrade import QUALITIES

_SHOWN = [str(quality) for quality in QUALITIES if quality != 18]
_COLUMNS = [
    "variant",
    "multiply-adds, M",
    "operations",
    *(f"QF {quality}" for quality in _SHOWN),
    "mean",
    "training pictures",
    "recovered",
    "clean KL",
]

_HEAD = """# Experiments

By `python -m afd_mobile.experiments TABLE --images DIR --out DIR`, with `page` in place of TABLE at
the end; back to the [README](../README.md#train). All variants see the same crops, few of them: a
table says which design learns faster, not where it ends.

- `auto` is `afd-train --taps auto`.
- Multiply-adds and operations: what is added to the plain classifier, fused. Operations are those
  of the PyTorch graph, with activations and normalisations merged.
- QF 25 to 7 and their mean (of all five): on held-out pictures, the share in % of the KL divergence
  from the classifier's answer on the clean picture that is removed; training pictures: the same
  mean on pictures that are trained on.
- Recovered: of the top-1 that JPEG changes, the share in % that is again the clean picture's, mean
  of the qualities; much noisier.
- Clean KL: how far answers on clean pictures move, as KL divergence.
"""


def text_table(rows: Sequence[Row]) -> list[str]:
    lines = [[printable(row["variant"]), *_figures(row)] for row in rows]
    return aligned([_COLUMNS, *lines], left=1)


def page(rows: Sequence[Row]) -> str:
    """Markdown, the tables in their own order."""
    parts = [_HEAD]
    for name, table in TABLES.items():
        own = [row for row in rows if row["table"] == name]
        if not own:
            continue
        lines = [[in_markdown(row["variant"]), *_figures(row)] for row in own]
        parts += [
            f"## {table.title}\n\n{table.text} `{name}`: {_described(own[0])}.\n",
            "\n".join(_line(cells) for cells in (_COLUMNS, ["---"] * len(_COLUMNS), *lines)) + "\n",
        ]
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _described(row: Row) -> str:
    s = row["settings"]
    return in_markdown(
        f"{s['backbone']} cut at {s['tap']}, {s['steps']} steps of {s['batch']} crops of "
        f"{s['crop']} pixels, seed {s['seed']}, {s['pictures']} pictures and {s['held_out']} held "
        "out, measured at the size of the crops"
    )


def _figures(row: Row) -> list[str]:
    cost = [f"{row['multiply_adds'] / 1e6:.1f}", str(row["operations"])]
    removed = row["kl_removed"]
    if removed is None:
        return [*cost, "diverged", *[""] * (len(_COLUMNS) - 4)]
    return [
        *cost,
        *(f"{100 * removed[quality]:.1f}" for quality in _SHOWN),
        f"{100 * mean(removed.values()):.1f}",
        f"{100 * mean(row['training_kl_removed'].values()):.1f}",
        f"{100 * row['recovered_share']:.1f}",
        f"{row['clean_kl']:.4f}",
    ]
