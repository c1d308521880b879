from __future__ import annotations

import csv
import io
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from afd_benchmark.number_format import decimals, duration, size, time_scale
from afd_benchmark.report.as_csv import render_csv
from afd_benchmark.report.as_markdown import render_markdown
from afd_benchmark.report.cases import headline, shown_cases
from afd_benchmark.report.page import render_html
from afd_benchmark.report.terminal_lines import (
    case_line,
    describe,
    describe_condition,
    reason_lines,
)
from afd_benchmark.results import Case, Ratio, Results, Verdict, read_results, write_results
from afd_mobile.common.terminal import printable
from tests.afd_benchmark import sample_results as sample

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Refuses tags that do not pair; collects what the tests ask about."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(content.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def content() -> bytes:
    return render_html(sample.everything(), sample.accuracies())


@pytest.fixture(scope="module")
def page(content: bytes) -> Page:
    return Page(content)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_whole_and_refers_to_nothing_outside(content: bytes, page: Page) -> None:
    assert content.startswith(b"<!doctype html>")
    assert page.tags.count("svg") == 9 + 2 + 2 + 2  # latencies, ratios, accuracy, devices
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert b"://" not in content and b"@import" not in content
    targets = [v for k, v in page.attributes if k in ("href", "src", "xlink:href", "action")]
    targets += re.findall(r"url\(([^)]*)\)", content.decode())
    assert targets and all(target.startswith("#") for target in targets)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    policy = dict(page.attributes)["content"]
    assert "default-src 'none'" in policy


def test_ids_are_unique_and_every_reference_has_one(content: bytes, page: Page) -> None:
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 20
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', content.decode())) <= set(ids)


def test_charts_can_be_read_without_seeing_them_and_take_the_pages_colours(content: bytes) -> None:
    for svg in re.findall(r"<svg.*?</svg>", content.decode(), re.S):
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img" and len(root.attrib["aria-label"]) > 20
        assert root.findtext("title") == root.attrib["aria-label"]
        assert not re.findall(r"(?:fill|stroke): #", svg)
        assert "var(--ink)" in svg and "<text" in svg
        assert float(root.attrib["viewBox"].split()[2]) <= 700
    defined = set(re.findall(r"(--\w+):", content.decode()))
    assert set(re.findall(r"var\((--\w+)\)", content.decode())) <= defined


def test_the_same_results_give_the_same_bytes_also_after_reading_them_back(
    content: bytes, tmp_path: Path
) -> None:
    for n, result in enumerate(sample.everything()):
        write_results(tmp_path / f"{n}.json", result)
    again = [read_results(tmp_path / f"{n}.json") for n in range(3)]
    assert render_html(again, sample.accuracies()) == content


def test_the_figures_of_the_table_are_the_data(page: Page) -> None:
    case = sample.host_run().cases[0]
    assert case.median_ms and case.ci95_ms and case.ratio
    places = decimals(case.median_ms, case.ci95_ms)
    low, high = (f"{v:.{places}f}" for v in case.ci95_ms)
    assert f"{case.median_ms:.{places}f} ms [{low}, {high}]" in page.text
    assert f"{case.p90_ms:.{places}f} ms {case.p99_ms:.{places}f} ms" in page.text
    assert "1.214 [1.204, 1.224] to mobilenet_v2-plain_float32.tflite" in page.text
    for item in (case.sha256, case.repeats[3].log, case.repeats[3].log_sha256):
        assert item in page.text
    assert "66 of 66 operations in 1 partition" in page.text
    assert "4, largest error 1.2e-05 at a range of 21.4, SNR 118.0 dB" in page.text


def test_an_invalid_case_shows_its_reasons_and_no_time() -> None:
    run = sample.phone_run()
    only = msgspec.structs.replace(run, cases=[run.cases[2]])
    assert only.cases[0].verdict is Verdict.INVALID and only.cases[0].median_ms
    text = Page(render_html([only])).text
    for reason in only.cases[0].reasons:
        assert reason in text
    assert "no time" in text and only.cases[0].repeats[0].log in text
    assert not re.findall(r"\d ms", text) and "1.77" not in text
    assert text.count("25.55") == text.count("logs/25.55") == 1
    markdown = render_markdown([only])
    assert " ms" not in markdown and "SNR 4.1 dB" in markdown
    (row,) = csv.DictReader(io.StringIO(render_csv([only])))
    assert not [v for k, v in row.items() if v and (k.endswith("_ms") or k.startswith("ratio"))]
    assert row["verdict"] == "INVALID" and row["delegation_actual"] == "gpu"


def test_skipped_cases_are_listed_with_their_reason(page: Page) -> None:
    after = page.text.partition(" Skipped ")[2]
    assert after.startswith("– SKIPPED afd-mobilenet_v2-mobile_int8.tflite, NNAPI")
    assert "NNAPI is deprecated from Android 15" in after


def test_a_profile_shows_the_costliest_operations_and_the_rest(page: Page) -> None:
    profile = sample.host_run().cases[0].profile
    table = page.text.partition(" Operation profile ")[2].partition(" Devices ")[0]
    assert table.count(";model/block_") == 15 + 3
    rest = sum(p.mean_ms for p in profile[15:])
    share = 100 * sum(p.share for p in profile[15:])
    assert f"25 others {rest:.2f} ms 25 {share:.1f} %" in table


def test_devices_show_what_they_report(page: Page) -> None:
    devices = page.text.partition(" Devices ")[2].partition(" Evidence ")[0]
    assert "4 × 1.80 GHz, 3 × 2.42 GHz, 1 × 2.84 GHz" in devices
    assert "minutes since the run started" in devices and "thermal service; battery" in devices
    assert "thermal status in this run 0 → 0, at most 1" in devices
    assert "No temperature and no clock was recorded" in devices.partition("run 3")[2]


def test_settings_seed_and_versions_are_there(page: Page) -> None:
    evidence = page.text.partition(" Evidence ")[2]
    for item in ("Settings and versions of run 3", "ai-edge-litert 2.1.0", "seed of the noise"):
        assert item in evidence


def test_hostile_strings_are_text() -> None:
    content = render_html([sample.hostile_run()])
    assert b"<script" not in content
    text = Page(content).text
    assert text.count(" ".join(sample.HOSTILE.split())) > 8
    assert "小米" in text


@pytest.mark.parametrize("cases", [[], sample.phone_run().cases[3:]])
def test_results_without_any_time_are_a_page_too(cases: list[Case]) -> None:
    run = sample.results([sample.PHONE], cases)
    page = Page(render_html([run]))
    assert "svg" not in page.tags
    assert "<svg" not in render_markdown([run])


# --- the sentence ---------------------------------------------------------------------------------


def only(run: Results, *indices: int) -> list[Results]:
    return [msgspec.structs.replace(run, cases=[run.cases[i] for i in indices])]


def test_the_sentence_tells_the_first_reliable_ratio_and_the_verdicts() -> None:
    run = sample.phone_run()
    assert headline(shown_cases([run])) == (
        "On Snapdragon 865 (Xiaomi Mi 10), CPU, 1 thread: afd-mobilenet_v2-mobile (float32) takes "
        "21.42 ms, 1.31 times mobilenet_v2-plain_float32.tflite [1.30, 1.32]; 1 of 4 cases VALID, "
        "1 SUSPECT, 1 INVALID, 1 SKIPPED."
    )
    assert "GPU, 1 thread: afd-mobilenet_v2-mobile (float32) takes 27.9" in headline(
        shown_cases(only(run, 2, 1))
    )
    # The reasons follow below.
    assert "[1.071, 1.089] (SUSPECT); 0 of 1 case VALID" in headline(shown_cases(only(run, 1)))
    assert headline(shown_cases(only(run, 2, 3))) == (
        "No case gave a time: 0 of 2 cases VALID, 1 INVALID, 1 SKIPPED."
    )
    assert "no case" in headline([])


def test_devices_and_cases_of_several_runs_are_told_apart() -> None:
    twin = msgspec.structs.replace(sample.PHONE, name="another")
    runs = [
        sample.phone_run(),
        sample.results([twin], [sample.timed_case("a", "int8", 3.0, device="another")]),
        sample.phone_run(),
    ]
    cases = shown_cases(runs)
    assert cases[0].where == "Snapdragon 865 (Xiaomi Mi 10), 7f3a91c2"
    assert cases[4].where == "Snapdragon 865 (Xiaomi Mi 10), another"
    labels = [s.label for s in cases]
    assert len(set(labels)) == len(labels) == 9


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (8.6, (8.55, 8.65), "8.60 ms"),  # half the width is 0.05
        (8.6, (6.0, 10.0), "8.6 ms"),  # two digits at least
        (8.612, (8.6115, 8.6125), "8.612 ms"),  # never finer than a microsecond
        (132.4, (131.0, 134.0), "132 ms"),
        (132.4, None, "132 ms"),
        (8.612, None, "8.61 ms"),
        (8.612, (8.612, 8.612), "8.61 ms"),
        (0.0, None, "0.000 ms"),
        (0.0047, None, "4.70 µs"),
    ],
)
def test_decimals_fit_the_interval(
    value: float, interval: tuple[float, float] | None, expected: str
) -> None:
    assert time_scale(value, interval).time(value) == expected


def test_short_times_are_in_microseconds_with_what_stands_beside_them() -> None:
    assert [duration(ms) for ms in (0.0996, 0.1, 0.00472, 0.0000123, None)] == [
        "99.6 µs", "0.100 ms", "4.72 µs", "0.012 µs", "–",
    ]  # fmt: skip
    scale = time_scale(0.0047, (0.0046, 0.0048))
    assert (scale.time(0.0047), scale.interval((0.0046, 0.0048))) == ("4.7 µs", "[4.6, 4.8]")
    assert scale.time(0.2) == "200.0 µs" and scale.interval(None) == ""


def test_sizes_have_units() -> None:
    assert [size(n) for n in (999, 14_160_000, 7_800_000_000, None)] == [
        "999 B", "14.2 MB", "7.80 GB", "–",
    ]  # fmt: skip


# --- Markdown and CSV -----------------------------------------------------------------------------


def test_markdown_rows_have_the_headers_cells_whatever_the_names() -> None:
    text = render_markdown([*sample.everything(), sample.hostile_run()], sample.accuracies())
    assert "<script" not in text.replace("\\<", "")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert len(tables[0]) == 2 + 11
    assert "- afd-mobilenet_v2-mobile_int8.tflite, NNAPI" in text


def test_csv_holds_every_case_and_scalar_figure_unrounded() -> None:
    runs = [*sample.everything(), sample.hostile_run()]
    rows = list(csv.DictReader(io.StringIO(render_csv(runs))))
    cases = [(n, result, case) for n, result in enumerate(runs, 1) for case in result.cases]
    assert len(rows) == len(cases)
    for row, (number, result, case) in zip(rows, cases, strict=True):
        assert row["run"] == str(number) and row["started_at"] == result.started_at
        assert (row["file"], row["device"]) == (case.file, case.device)
        assert row["verdict"] == case.verdict.value and row["reasons"] == printable(
            "; ".join(case.reasons)
        )
        if case.verdict in (Verdict.VALID, Verdict.SUSPECT):
            assert case.median_ms is not None and case.ci95_ms is not None
            assert float(row["median_ms"]) == case.median_ms
            assert (float(row["ci95_low_ms"]), float(row["ci95_high_ms"])) == case.ci95_ms
            assert row["p99_ms"] == ("" if case.p99_ms is None else str(case.p99_ms))
            assert _ratio_of(row) == (case.ratio and msgspec.structs.astuple(case.ratio))
        if case.delegation:
            assert row["delegation_delegated"] == str(case.delegation.delegated)
    assert rows[0]["device_model"] == sample.HOST.model and rows[0]["golden_snr_db"] == "118.0"
    named = {
        field.name
        for field in msgspec.structs.fields(Case)
        if not re.search("list|Golden|Delegation|Ratio|tuple|Device", str(field.type))
    }
    assert named <= set(rows[0])


UNSAFE = "a\x1b[31m|b\nc\u202e`<i>.tflite"


def test_nothing_in_a_name_commands_a_terminal_or_breaks_a_table() -> None:
    run = sample.host_run()
    device = msgspec.structs.replace(run.devices[0], model=UNSAFE, features=[UNSAFE])
    cases = [
        msgspec.structs.replace(case, file=UNSAFE, target=UNSAFE, reasons=[UNSAFE])
        for case in run.cases
    ]
    run = msgspec.structs.replace(run, devices=[device], cases=cases, settings={UNSAFE: UNSAFE})
    forms = (render_html([run]).decode(), render_markdown([run]), render_csv([run]))
    for text in forms:
        assert "\\x1b" in text and "\\u202e" in text
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    assert "<i>" not in forms[0]
    lines = forms[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(cases)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert len(forms[2].splitlines()) == 1 + len(cases)


@pytest.mark.parametrize("start", "=+-@")
def test_no_text_is_a_formula_to_a_spreadsheet(start: str) -> None:
    run = sample.phone_run()
    name = f"{start}cmd()"
    case = msgspec.structs.replace(run.cases[0], file=name, reasons=[name])
    run = msgspec.structs.replace(run, cases=[case])
    (row,) = csv.DictReader(io.StringIO(render_csv([run])))
    assert row["file"] == row["reasons"] == f"'{name}"
    assert row["golden_snr_db"] == "118.0"


def test_the_main_table_says_what_ran_where_and_how_large_it_is(page: Page) -> None:
    run = sample.host_run()
    assert run.devices[0].features is not None
    named = [", ".join(run.devices[0].features), "LiteRT 2.1.0", "14.2 MB", "23.4 MB"]
    table = page.text.partition(" Latency ")[2].partition(" Skipped ")[0]
    first_row = render_markdown([run]).splitlines()[4]
    (row, *_) = csv.DictReader(io.StringIO(render_csv([run])))
    for words in named:
        assert words in table and words in first_row
    assert row["device_features"] == "; ".join(run.devices[0].features)
    assert (row["runtime"], row["bytes"], row["peak_memory_bytes"]) == (
        "LiteRT 2.1.0", "14160000", "23400000",
    )  # fmt: skip


def test_what_a_ratio_is_to_and_what_has_no_interval_is_said() -> None:
    run = sample.phone_run()
    assert run.cases[0].ratio is not None
    ratio = msgspec.structs.replace(run.cases[0].ratio, against_verdict=Verdict.SUSPECT, ci95=None)
    few = msgspec.structs.replace(run.cases[0], ratio=ratio, ci95_ms=None)
    run = msgspec.structs.replace(run, cases=[few])
    assert (
        "1.31 no interval to mobilenet_v2-plain_float32.tflite (SUSPECT)"
        in Page(render_html([run])).text
    )
    assert "21.4 ms  no interval  1.31 x mobilenet" not in case_line(few)
    assert case_line(few).endswith(
        "21.4 ms no interval  1.31 x mobilenet_v2-plain_float32.tflite (SUSPECT) no interval  "
        "median of 10 rounds"
    )
    (row,) = csv.DictReader(io.StringIO(render_csv([run])))
    assert row["ratio_ci95_low"] == row["ci95_low_ms"] == ""


def test_a_case_is_one_line_and_each_reason_one_below() -> None:
    run = sample.phone_run()
    assert case_line(run.cases[1]).endswith("[1.071, 1.089]  median of 10 rounds")
    assert reason_lines(run.cases[2]) == [
        "          outputs differ by 3.1, at most 0.05",
        "          SNR 4.1 dB, at least 40",
    ]


def test_memory_is_in_one_unit_on_terminals_and_in_the_report() -> None:
    device = msgspec.structs.replace(sample.PHONE, memory_bytes=25_300_000_000)
    run = msgspec.structs.replace(sample.phone_run(), devices=[device])
    assert ", 25.3 GB" in describe(device) and "memory 25.3 GB" in Page(render_html([run])).text


def test_the_page_says_what_a_ratio_is_and_what_is_hollow(page: Page) -> None:
    assert page.text.count("the median of the rounds' ratios") == 1
    assert page.text.count("The median of the rounds' ratios.") == 1
    assert page.text.count("Hollow: ") == page.text.count("Hollow: SUSPECT.") == 2


def test_lines_for_people_hold_nothing_that_commands_their_terminal() -> None:
    case = msgspec.structs.replace(sample.phone_run().cases[0], file=UNSAFE, reasons=[UNSAFE])
    device = msgspec.structs.replace(sample.PHONE, model=UNSAFE, gpu=UNSAFE, lacks=[UNSAFE])
    condition = msgspec.structs.replace(sample.condition(1, phone=True), temperatures_c={UNSAFE: 9})
    for line in (
        case_line(case),
        *reason_lines(case),
        describe(device),
        describe_condition(condition),
    ):
        assert "\\x1b[31m|b\\nc\\u202e" in line
        assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf")]


def _ratio_of(row: dict[str, str]) -> tuple[object, ...] | None:
    if not row["ratio_ratio"]:
        return None
    interval = float(row["ratio_ci95_low"]), float(row["ratio_ci95_high"])
    ratio = Ratio(
        row["ratio_against"], row["ratio_against_sha256"], float(row["ratio_against_median_ms"]),
        Verdict(row["ratio_against_verdict"]), float(row["ratio_ratio"]), interval,
        int(row["ratio_rounds"]),
    )  # fmt: skip
    return msgspec.structs.astuple(ratio)
