"""The report: its sentences, its table in the terminal, and reports merged into one."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys

import pytest
from report_examples import FLOAT32, INT8, Page, example, latency, tflite

from converters.errors import InputError
from edge_cv.report import Row, formats, merge, sentences
from edge_cv.report.columns import columns
from edge_cv.report.page import to_html
from edge_cv.report.terminal import show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.size(999), "999 B"),
        (formats.size(999_600), "1.00 MB"),
        (formats.size(4_986_312), "4.99 MB"),
        (formats.size(2.5e12), "2500 GB"),
        (formats.count(999), "999"),
        (formats.count(4_652_008), "4.65 M"),
        (formats.count(None), "–"),
        (formats.percent(0.95, 20), "95 %"),
        (formats.percent(0.9512, 2000), "95.1 %"),
        (formats.percent(0.95123, 50_000), "95.12 %"),
        (formats.points(12.3), "12"),
        (formats.points(1.0), "1"),
        (formats.points(0.012), "0.01"),
        (formats.ratio(9.96), "10×"),
        (formats.joined(["a", "b", "c"]), "a, b and c"),
        (formats.photos(1), "1 photo"),
    ],
)
def test_numbers_have_no_more_digits_than_the_measurement_supports(text, expected):
    assert text == expected


def test_headline_states_size_speed_and_agreement():
    def row(scheme: str, size: int, p50: float, **fields) -> Row:
        return Row(
            tflite(scheme), f"{scheme}.tflite", size, latency=(latency(p50, samples=False),), images=20, **fields
        )

    float32 = row("float32", 18_600_000, 9.87)
    int8 = row("int8", 4_769_231, 4.7, agreement=0.95, agreement_ci95=(0.7639, 0.9911))
    assert sentences.headline((float32, int8)) == (
        "int8 is 3.9× smaller and 2.1× faster than float32, and predicts the same class on 19 of 20 photos "
        "(95 % interval 76–99 %)."
    )
    slow = row("dynamic_int8", 4_769_231, 29.61, agreement=1.0)
    assert sentences.headline((float32, slow)) == (
        "dynamic_int8 is 3.9× smaller but 3.0× slower than float32, and predicts the same class on all 20 photos."
    )
    half = row("float16", 9_300_000, 9.9)
    assert sentences.headline((float32, half)) == "float16 is 2.0× smaller than float32 and about as fast."
    assert sentences.headline(()) == "Nothing was measured."
    assert sentences.headline((float32,)) == "float32: 18.6 MB, 9.87 ms median latency with 1 thread."


def test_a_difference_within_chance_is_named_as_such():
    def rows(images: int) -> tuple[Row, Row]:
        return Row(FLOAT32, "a", images=images, top1=0.90), Row(INT8, "b", images=images, top1=0.85)

    assert sentences.top1_against_labels(rows(20)) == (
        "Top-1 accuracy is 85 % for int8 and 90 % for float32; a difference of 5 points on 20 photos may be chance."
    )
    assert sentences.top1_against_labels(rows(200)).endswith("90.0 % for float32; int8 is 5 points lower.")
    assert sentences.least_difference(rows(20)).startswith("On 20 photos, a difference of less than 30 points")


def test_the_smallest_and_the_fastest_file_are_named():
    assert re.fullmatch(
        r"Of 5 files, int8 is the smallest \(4.99 MB\) and the fastest \(4.\d\d ms with 1 thread\)\.",
        sentences.best_files(example().rows),
    )


def test_headline_compares_no_latencies_of_different_hosts():
    other = latency(1.0, samples=False, host="a phone")
    rows = (
        Row(FLOAT32, "a.tflite", 400, latency=(latency(9.0, samples=False),)),
        Row(INT8, "b.tflite", 100, latency=(other,)),
    )
    assert sentences.headline(rows) == "int8 is 4.0× smaller than float32."


def test_slower_schemes_are_named_with_their_factor():
    found = sentences.slower(example().rows)
    assert len(found) == 2  # dynamic_int8 and ONNX
    assert re.match(r"dynamic_int8 is 2\.\d× slower than float32 on AMD EPYC", found[0])
    assert "int8 is" not in found[1].replace("dynamic_int8", "")


@pytest.mark.parametrize(("images", "least"), [(20, "30 points"), (400, "1.5 points"), (50_000, "0.01 points")])
def test_the_smallest_difference_shown_is_that_of_the_sign_test(images, least):
    assert 2 * 0.5**sentences.SIGN_TEST_PHOTOS < 0.05 < 2 * 0.5 ** (sentences.SIGN_TEST_PHOTOS - 1)
    (text,) = sentences.sample_size((Row(INT8, "a", images=images, top1=0.9),))
    assert f"n = {images:,}" in text
    assert f"show is {least}" in text


def test_the_best_accuracy_is_marked_only_if_the_photos_can_show_it():
    few = {c.title: c for c in columns(example().rows)}
    assert not any(cell.best for cell in few["Top-1"].cells)
    assert [cell.best for cell in few["Size"].cells] == [False, False, False, True, False]
    many = [Row(FLOAT32, "a", images=400, top1=0.75), Row(INT8, "b", images=400, top1=0.70)]
    assert [cell.best for cell in columns(many)[0].cells] == [True, False]


def test_merge_names_rows_by_run_and_compares_within_each():
    first = dataclasses.replace(example(), violations=("too large",))
    second = dataclasses.replace(example(), recipe={"name": "pixel"}, environment={"host": "phone"})
    merged = merge([first, second, first])
    assert [row.name for row in merged.rows[:2]] == ["demo: float32", "demo: float16"]
    assert {row.run for row in merged.rows} == {"demo", "pixel", "demo #2"}
    assert merged.violations == ("demo: too large", "demo #2: too large")
    assert merged.environment["pixel"] == {"host": "phone"}
    assert sentences.headline(merged.rows).startswith(
        "Of 15 models from 3 runs, the smallest is demo: int8 with 4.99 MB and the fastest is"
    )
    assert sentences.verdicts(merged.rows)[0] == ("demo", sentences.headline(first.rows))
    page = Page(to_html(merged))
    assert page.open == []
    assert "pixel: int8" in page.text
    assert merge([first]) is first
    assert [row.run for row in merge([first, second], ["a", "b"]).rows] == ["a"] * 5 + ["b"] * 5
    with pytest.raises(InputError, match="at least one"):
        merge([])
    with pytest.raises(InputError, match="a name for each"):
        merge([first, second], ["a"])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_figure_is_cut_in_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    show(example(), out)
    words = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "…" not in words
    for figure in ("18.6 MB", "4.99 MB", "19.8 dB", "3.7×"):
        assert figure in words


def test_a_pipe_gets_the_whole_table_without_escape_codes():
    out = io.StringIO()
    show(example(), out)
    assert "\x1b" not in out.getvalue()
    (line,) = [line for line in out.getvalue().splitlines() if line.startswith("int8  ")]
    assert all(figure in line for figure in ("4.99 MB", "3.7×", "90 % (70–97 %)", "95 % (76–99 %)", "19.8 dB"))


def test_importing_the_report_loads_no_heavy_package():
    code = (
        "import sys, edge_cv.report; "
        "print([m for m in ('tensorflow','keras','matplotlib','jinja2','rich','PIL','numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
