"""The page's section on compression: each stage compared with the dense model, in size, latency and accuracy."""

from __future__ import annotations

import dataclasses

import pytest

from edge_cv.evaluation.latency import Latency
from edge_cv.recipe import Output
from edge_cv.report import Report, Row, load, save
from edge_cv.report.sections.compression import dense_of, section

LAYERS = 60


def row(
    scheme: str,
    stage: str = "",
    *,
    gzip: int,
    ms: float,
    macs: int = 1000,
    top1: float = 0.9,
    sparsity: float | None = None,
) -> Row:
    shares = None if sparsity is None else {f"block{n}_conv": sparsity * (0.9 + n / 600) for n in range(LAYERS)}
    output = Output(stage, "tflite", scheme)
    return Row(
        output,
        output.file_name("net"),
        size_bytes=2000,
        gzip_bytes=gzip,
        macs=macs,
        images=360,
        top1=top1,
        top1_ci95=(top1 - 0.03, top1 + 0.03),
        latency=(Latency("h", "r", 1, ms, ms, ms, 9),),
        sparsity=shares,
        total_sparsity=sparsity,
    )


ROWS = (
    row("float32", gzip=8000, ms=4.0),
    row("int8", gzip=1800, ms=2.0),
    row("int8", "channel_pruned", gzip=1000, ms=1.1, macs=500, top1=0.85, sparsity=0.0),
    row("float32", "pruned", gzip=3000, ms=4.0, sparsity=0.75),
    row("int8", "pruned", gzip=900, ms=2.02, sparsity=0.75),
    row("int8", "qat", gzip=720, ms=1.99, sparsity=0.74, top1=0.9 - 2 / 360),
)


def report(rows: tuple[Row, ...] = ROWS) -> Report:
    return Report({"name": "trial"}, {}, rows=rows)


def test_each_stage_has_its_size_and_latency_relative_to_the_dense_model():
    (table,) = section(report()).tables
    assert [cells[0] for cells in table.rows] == [made.scheme for made in ROWS]
    cells = dict(zip((title for title, _ in table.columns), table.rows[-1], strict=True))
    assert cells["Top-1"] == "89.4 %\n86.4–92.4 %"
    assert cells["Sparsity"] == "74 %\n(67 % to 74 %)"
    assert cells["After gzip"] == "720 B\n40 % of int8"
    assert cells["Latency"] == "1.99 ms\n100 % of int8"
    assert table.rows[0][2] == "–"


def test_the_sentences_compare_each_stage_and_name_differences_within_chance():
    found = section(report())
    qat, (channel, pruned, not_faster) = found.finding, found.sentences
    assert channel.startswith("channel_pruned_int8 has 50 % of the multiply-accumulates, 56 % of the size after gzip")
    assert channel.endswith("55 % of the latency of int8, and 5.0 points lower top-1 on 360 photos.")
    assert "the same top-1" in pruned
    assert "0.6 points lower top-1 on 360 photos, a difference that may be chance" in qat
    assert not_faster.startswith(
        "Smaller to download, but not faster: pruned_int8 (2.02 ms against 2.00 ms) and qat_int8"
    )
    assert "channel_pruned" not in not_faster


def test_a_pruned_file_that_is_faster_too_is_not_called_slow():
    fast = dataclasses.replace(ROWS[4], latency=row("x", gzip=1, ms=1.5).latency)
    assert not any("not faster" in sentence for sentence in section(report((*ROWS[:2], fast))).sentences)


def test_the_plot_shows_each_of_sixty_layers_once_for_rows_that_are_equally_sparse():
    (figure,) = section(report()).figures
    assert f"each of {LAYERS} layers" in figure.caption
    assert figure.list[0] == ("block0_conv", "67 %")
    assert "pruned_float32" in figure.draw()
    assert "pruned_int8" not in figure.draw()  # the same zeros again


@pytest.mark.parametrize("rows", [(), ROWS[:2]])
def test_a_report_without_compression_has_no_such_section(rows):
    assert section(report(rows)) is None


def test_a_row_alone_is_shown_without_what_it_would_be_compared_with():
    (table,) = section(report(ROWS[-1:])).tables
    assert table.rows[0][5] == "720 B"
    assert dense_of(ROWS[-1], ROWS).scheme == "int8"


def test_the_section_is_on_the_page_and_in_report_json(tmp_path):
    save(report(), tmp_path)
    assert ">Compression</h2>" in (tmp_path / "report.html").read_text()
    assert load(tmp_path).rows == ROWS
