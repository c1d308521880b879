from __future__ import annotations

import pytest

from afd_mobile.common.terminal import in_markdown, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),  # the one-byte form of ESC [
        ("two\nlines\r\tand more\x7f", r"two\nlines\r\tand more\x7f"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),  # what else str.splitlines() splits at
        ("txt.\u202egpj \u2066\u200f", r"txt.\u202egpj \u2066\u200f"),
        ("caf\udce9.png", r"caf\udce9.png"),  # Latin-1 bytes as os.fsdecode() gives them
    ],
)
def test_what_could_command_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        r"C:\new\x1b",
        "a|b *c* <d>",
        "Ünïcödé 猫 قطة",
        "\u0645\u06cc\u200c\u062e",
        "\U0001f469\u200d\U0001f467",
        "10\u202fh\u00a030",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_no_character_breaks_a_line_or_stays_invisible_to_an_ascii_terminal() -> None:
    everything = "".join(map(chr, range(0x10000)))
    shown = printable(everything)
    assert len(shown.splitlines()) == 1
    assert not [c for c in shown if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a|b\nc", r"a\|b\\nc"),
        ("<img src=x>", r"\<img src=x\>"),
        ("[a](javascript:b)", r"[a\](javascript:b)"),
        ("**x** `y` $z$", r"\*\*x\*\* \`y\` \$z\$"),
        ("afd-mobilenet_v2-mobile_int8.tflite", "afd-mobilenet_v2-mobile_int8.tflite"),
        ("_x_", r"\_x\_"),
    ],
)
def test_in_markdown_nothing_is_markup(text: str, markdown: str) -> None:
    assert in_markdown(text) == markdown
