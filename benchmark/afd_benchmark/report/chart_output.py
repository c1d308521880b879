"""What every chart is drawn with and written as: inline SVG, a file of its own, PNG.

One unit of a chart is one CSS pixel at full size. Colours are drawn as the light page's; inline,
each becomes the CSS variable of the same name, so that one chart serves light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.figure import Figure

from afd_mobile.common.terminal import printable

PAPER, INK, MUTED, GRID = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
# Okabe and Ito's colour-blind safe hues, as dark as text on white needs.
BLUE, ORANGE, GREEN, PURPLE = "#0063a0", "#a84300", "#00694b", "#8a3f78"
VARIABLES = {
    PAPER: "--paper", INK: "--ink", MUTED: "--muted", GRID: "--grid",
    BLUE: "--blue", ORANGE: "--orange", GREEN: "--green", PURPLE: "--purple",
}  # fmt: skip

_UNITS_PER_INCH = 72  # an SVG point is matplotlib's unit, so that sizes and fonts are in pixels
_PNG_DPI = 200
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "afd-bench",
    "text.parse_math": False,  # names may hold dollars
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "figure.dpi": _UNITS_PER_INCH,
    "savefig.dpi": "figure",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextmanager
def drawing() -> Iterator[None]:
    """The charts' style, whatever this machine's matplotlibrc says.

    Letters that the measuring font lacks (a device's Chinese name) are the browser's to draw.
    """
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in units."""
    size = (width / _UNITS_PER_INCH, height / _UNITS_PER_INCH)
    return Figure(figsize=size, layout="constrained")


def xml_text(text: str) -> str:
    """`text` with what XML cannot hold spelled out; a name can come from anywhere."""
    return re.sub("[\ufffe\uffff]", "\ufffd", printable(text))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; the middle goes first, since names differ at their ends."""
    text = xml_text(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def svg_file(figure: Any) -> bytes:
    """A file of its own, on white."""
    return _save(figure, "svg", metadata=_NO_METADATA)


def png_file(figure: Any) -> bytes:
    return _save(figure, "png", dpi=_PNG_DPI, metadata={"Software": None})


def inline_svg(figure: Any, name: str, title: str) -> str:
    """An `<svg>` element for a page that defines `VARIABLES`.

    Args:
        name: unique in the page; every id starts with it.
        title: what a reader who cannot see the picture is told.
    """
    svg = _save(figure, "svg", metadata=_NO_METADATA, transparent=True)
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _in_page(_local(key), value, name) for key, value in element.items()
        }
    # Its rules would hold for the whole page.
    for definitions in root.findall("defs"):
        if definitions.find("style") is not None:
            root.remove(definitions)
    width, height = (root.attrib.pop(key).removesuffix("pt") for key in ("width", "height"))
    root.attrib |= {"id": name, "role": "img", "aria-label": xml_text(title)}
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "style": f"max-width: {width}px"}
    heading = ElementTree.Element("title")
    heading.text = xml_text(title)
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")


def _save(figure: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _local(name: str) -> str:
    """Without the namespace, which HTML adds by itself."""
    return name.rpartition("}")[2]


def _in_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"(?:^|(?<=url\())#(?=[A-Za-z])", f"#{name}-", value) if "#" in value else value
    if key == "style":
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, f"var({variable})")
        value = re.sub(r"'DejaVu Sans'[^;]*", "system-ui, 'DejaVu Sans', sans-serif", value)
    return value
