"""Text from outside (file names, metadata, phones) on its way to a terminal or into Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Control characters (ANSI escapes, line breaks), invisible ones that reorder a line (bidi), lone
# surrogates (bytes of a file name that are no UTF-8), and Unicode's own line breaks.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Invisible as well, but part of how Persian, Indic scripts and emoji are spelled.
_JOINERS = "\u200c\u200d"
# Markup, links, HTML and formulas; underscores inside a word are none.
_MARKUP = re.compile(r"[\\`*|<>&$]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def printable(text: str) -> str:
    r"""`text` on one line, with every character that could command a terminal spelled out.

    An escape becomes `\x1b`, a line break `\n`, a right-to-left override `\u202e`; all other
    characters stay, the backslash among them.
    """
    return "".join(_spelled(c) if _is_unsafe(c) else c for c in text)


def in_markdown(text: str) -> str:
    """Markdown that shows `printable(text)` as it is, in a cell of a table as well."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", printable(text))


def aligned(table: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of cells, in columns as wide as they must be: the first `left` of them left-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def cell(number: int, text: str) -> str:
        return text.ljust(widths[number]) if number < left else text.rjust(widths[number])

    return ["  ".join(cell(n, text) for n, text in enumerate(line)).rstrip() for line in table]


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
