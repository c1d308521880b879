"""The page in a real browser: light and dark, wide and narrow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afd_benchmark.report.page import render_html
from tests.afd_benchmark import sample_results as sample

pytestmark = pytest.mark.engine

HEIGHT = 2000
WIDTHS = (1280, 390)
THEMES = {"dark": 0, "light": 1}  # Chromium's numbers of preferred colour schemes

# What the page's own policy forbids: only the tests' copy has it.
PROBE = """<script>
for (const folded of document.querySelectorAll("details")) folded.open = true;
const seen = { inner: innerWidth, page: document.documentElement.scrollWidth, out: [], text: 99 };
for (const element of document.body.querySelectorAll("*")) {
  const box = element.getBoundingClientRect();
  if (element.closest("thead")?.closest(".cards")) continue;  // hidden from sight on phones
  if (!element.closest(".scroll") && box.width && box.right > innerWidth + 0.5)
    seen.out.push([element.tagName, element.textContent.slice(0, 40), box.right]);
}
for (const text of document.querySelectorAll("svg text")) {
  const size = parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
  if (text.getScreenCTM().b === 0) seen.text = Math.min(seen.text, size);
}
parent.document.body.dataset.seen = JSON.stringify(seen);
</script>"""


def browse(*arguments: str, profile: Path) -> bytes:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("needs Debian's package chromium: apt-get install chromium", pytrace=False)
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render_html([*sample.everything(), sample.hostile_run()], sample.accuracies()))
    return path


@pytest.fixture(scope="module")
def pictures(page: Path) -> dict[tuple[str, int], np.ndarray[Any, np.dtype[np.uint8]]]:
    found = {}
    for theme, number in THEMES.items():
        for width in WIDTHS:
            file = page.with_name(f"{theme}-{width}.png")
            browse(
                f"--blink-settings=preferredColorScheme={number}", f"--screenshot={file}",
                f"--window-size={width},{HEIGHT}", page.as_uri(), profile=page.with_name("profile"),
            )  # fmt: skip
            with Image.open(file) as picture:
                found[theme, width] = np.asarray(picture.convert("L"))
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("theme", "background"), [("dark", (0, 40)), ("light", (240, 255))])
def test_the_page_is_drawn_in_the_readers_colours(
    pictures: dict[tuple[str, int], np.ndarray[Any, np.dtype[np.uint8]]],
    width: int,
    theme: str,
    background: tuple[int, int],
) -> None:
    picture = pictures[theme, width]
    assert picture.shape == (HEIGHT, width)
    low, high = background
    assert low <= np.median(picture) <= high
    written = picture > 150 if theme == "dark" else picture < 120
    assert 0.01 < written.mean() < 0.3
    # Neither the page's nor a card's text runs into the right border.
    assert np.ptp(picture[:, -6:]) <= 3


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_sideways_and_text_stays_readable(page: Path, width: int) -> None:
    content = page.read_text("utf-8")
    copy = page.with_name(f"probe-{width}.html")
    opened = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    # A window is never narrower than 500; a frame is as narrow as a phone.
    inside = escape(opened.replace("</body>", f"{PROBE}</body>"))
    copy.write_text(
        f'<body><iframe width="{width}" height="{HEIGHT}" style="border: 0" srcdoc="{inside}">',
        "utf-8",
    )
    dom = browse("--dump-dom", copy.as_uri(), profile=page.with_name("profile"))
    match = re.search(r'<body data-seen="([^"]*)"', dom.decode())
    assert match
    seen = json.loads(unescape(match[1]))
    assert seen["inner"] == width
    assert seen["page"] <= width and not seen["out"], seen
    assert seen["text"] >= 9
