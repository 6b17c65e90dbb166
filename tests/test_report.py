"""The report: its values and their JSON, the sentences, the plots and the page, also as a browser shows it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_examples import CHROMIUM, HOSTILE, Page, example, latency, measured_in_a_browser, tflite

from converters.errors import InputError
from edge_cv.evaluation.latency import Latency
from edge_cv.recipe import Output
from edge_cv.report import PhotoResult, Report, Row, formats, load, merge, plots, save, sentences
from edge_cv.report.columns import columns
from edge_cv.report.drawing import SIZE_INCHES
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.labels import label_points
from edge_cv.report.page import MAX_PHOTOS, to_html
from edge_cv.report.terminal import show

FLOAT32, INT8 = tflite("float32"), tflite("int8")


def bare(report: Report) -> Report:
    """The report without the figures that plots are drawn of: its page takes no time."""
    nothing = {"latency": (), "layers": (), "top1": None, "agreement": None}
    return dataclasses.replace(report, rows=tuple(dataclasses.replace(row, **nothing) for row in report.rows))


def test_report_json_has_the_keys_of_the_contract_and_loads_equal(tmp_path):
    report = example(photos=3)
    save(report, tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["schema"] == 1
    assert {"recipe", "environment", "violations", "rows"} <= set(fields)
    contract = ["scheme", "file", "size_bytes", "gzip_bytes", "parameters", "macs", "images", "top1", "top5",
                "top1_ci95", "agreement", "sqnr_db", "latency", "peak_memory_bytes"]  # fmt: skip
    assert list(fields["rows"][0])[: len(contract)] == contract
    assert {"host", "runtime", "threads", "p50_ms", "p90_ms", "p99_ms", "runs"} <= set(fields["rows"][0]["latency"][0])
    assert load(tmp_path) == report
    assert load(tmp_path / "report.json") == report


def test_thumbnails_come_back_from_json():
    report = example(photos=1, jpeg=b"\xff\xd8\xff\x00jpeg\xff\xd9")
    fields = json.loads(json.dumps(to_dict(report)))
    assert from_dict(fields).photos[0].thumbnail_jpeg == b"\xff\xd8\xff\x00jpeg\xff\xd9"


def test_infinities_and_paths_become_null_and_text(tmp_path):
    row = Row(FLOAT32, "a.tflite", size_bytes=np.int64(7), sqnr_db=math.inf, top1=np.float32(0.5), images=2)
    save(Report({"path": Path("x"), "bad": float("nan")}, {"n": np.float64(1.5)}, rows=(row,)), tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert fields["recipe"] == {"path": "x", "bad": None}
    assert fields["rows"][0]["sqnr_db"] is None
    assert (fields["rows"][0]["size_bytes"], fields["rows"][0]["top1"]) == (7, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b"[1, 2]", "object with a list of rows"),
        (b'{"name": "package.json"}', "object with a list of rows"),
        (b'{"schema": 2, "rows": []}', "schema must be 1"),
        (b'{"rows": [3]}', "a row must be an object"),
        (b'{"rows": [{"file": "a"}]}', "a row must have scheme"),
        (b'{"rows": [{"scheme": 4, "file": "a"}]}', "scheme must be text"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1": "high"}]}', "top1 must be a number"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1": 1.5}]}', "from 0 to 1"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "size_bytes": -1}]}', "size_bytes"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "size_bytes": 1' + b"0" * 400 + b"}]}", "size_bytes"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1_ci95": [1]}]}', "two numbers"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "latency": [{"host": "h"}]}]}', "p50_ms"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "latency": 3}]}', "latency must be a list"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "layers": [{}]}]}', "a layer must be"),
        (b'{"rows": [], "photos": [{"name": "a", "thumbnail_jpeg": "%%"}]}', "base64"),
        (b'{"rows": [], "photos": [{"name": "a", "top5": {"int8": [["cat"]]}}]}', "a name and a probability"),
        (b'{"rows": [], "recipe": 3}', "recipe must be an object"),
        (b'{"rows": [], "notes": "one"}', "notes must be a list"),
    ],
)
def test_load_refuses_other_files_with_a_message_of_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_load_refuses_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file", "output"),
    [
        ("int8", "a.tflite", INT8),
        ("onnx_float32", "a.onnx", Output("", "onnx", "float32")),
        ("channel_pruned_int8", "a.tflite", tflite("int8", "channel_pruned")),
        ("pruned_onnx_float32", "a.ONNX", Output("pruned", "onnx", "float32")),
    ],
)
def test_rows_of_older_reports_have_their_identity_in_their_name(name, file, output):
    (row,) = from_dict({"rows": [{"scheme": name, "file": file}]}).rows
    assert (row.output, row.label, row.scheme) == (output, "", name)


@pytest.mark.parametrize(
    "row",
    [
        Row(Output("pruned", "onnx", "float32"), "a.onnx"),
        Row(INT8, "a.tflite", label="my_model"),
        Row(Output("", "onnx", "my_model"), "my_model.onnx", label="my_model"),
    ],
)
def test_report_json_holds_the_identity_of_a_row(row):
    fields = to_dict(Report({}, {}, rows=(row,)))
    assert fields["rows"][0]["scheme"] == row.scheme
    assert (fields["rows"][0]["stage"], fields["rows"][0]["format"]) == (row.output.stage, row.output.format)
    assert from_dict(fields).rows == (row,)


def test_a_row_of_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="format must be tflite or onnx"):
        from_dict({"rows": [{"scheme": "int8", "file": "a", "stage": "", "format": "pb"}]})


def test_load_ignores_unknown_keys(tmp_path):
    row = {"scheme": "int8", "file": "a.tflite", "thermal": 3, "latency": [{"host": "phone", "p50_ms": 2, "clock": 1}]}
    (tmp_path / "report.json").write_text(json.dumps({"rows": [row], "app": "1.0"}))
    loaded = load(tmp_path).rows[0]
    assert loaded.latency == (Latency("phone", "unknown runtime", 1, 2.0),)


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
        "int8 is 3.9× smaller and 2.1× faster than float32 and gives the same top-1 on 19 of 20 photos "
        "(95 % interval 76–99 %)."
    )
    slow = row("dynamic_int8", 4_769_231, 29.61, agreement=1.0)
    assert sentences.headline((float32, slow)) == (
        "dynamic_int8 is 3.9× smaller but 3.0× slower than float32, and gives the same top-1 on all 20 photos."
    )
    half = row("float16", 9_300_000, 9.9)
    assert sentences.headline((float32, half)) == "float16 is 2.0× smaller than float32 and about as fast."
    assert sentences.headline(()) == "Nothing was measured."
    assert sentences.headline((float32,)) == "float32: 18.6 MB, 9.87 ms median latency with 1 thread."


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


def test_the_page_loads_nothing_and_its_ids_are_unique():
    html = to_html(example(jpeg=b"\xff\xd8\xff"))
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("svg") == 4
    assert page.tags.count("style") == 1
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert "@import" not in html
    assert all(image["alt"] for image in page.images)


def test_hostile_names_are_shown_as_text():
    row = Row(
        tflite(HOSTILE),
        HOSTILE,
        10,
        layers=({"layer": HOSTILE, "sqnr_db": 3.0},),
        images=3,
        top1=0.5,
        agreement=0.5,
        latency=(dataclasses.replace(latency(2.0, host=HOSTILE), runtime=HOSTILE),),
    )
    report = Report(
        {"name": HOSTILE, HOSTILE: HOSTILE},
        {HOSTILE: {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}},
        (HOSTILE,),
        (Row(FLOAT32, HOSTILE, 20), row),
        (PhotoResult(HOSTILE, HOSTILE, b"\xff", {HOSTILE: ((HOSTILE, 0.9),), "float32": (("a", 1.0),)}),),
        (HOSTILE,),
    )
    page = Page(to_html(report))
    assert page.open == []
    assert "script" not in page.tags
    assert page.handlers == []
    assert page.text.count(HOSTILE) > 10
    assert "1851" not in page.text


def test_control_characters_reach_neither_terminal_nor_plots():
    row = Row(
        tflite("int8\x1b[31m\x00\n"), "a", 10, images=3, agreement=0.5, layers=({"layer": "\x00", "sqnr_db": 1.0},)
    )
    report = Report({}, {}, rows=(Row(FLOAT32, "b", 20, images=3, agreement=1.0), row))
    out = io.StringIO()
    show(report, out)
    assert "\x1b" not in out.getvalue()
    assert "\x00" not in (plots.accuracy_against(report.rows, "size") or "")


def test_broken_limits_come_first():
    report = dataclasses.replace(bare(example()), violations=("int8 is 5.0 MB, more than the 4 MB allowed",))
    words = Page(to_html(report)).text
    assert (
        words.index("This run breaks a limit")
        < words.index("int8 is 5.0 MB")
        < words.index(sentences.headline(report.rows))
    )


def test_photos_with_disagreement_come_first_and_the_rest_is_counted():
    report = bare(example(photos=MAX_PHOTOS + 6))
    words = Page(to_html(report)).text
    assert words.count("different top-1") == 2
    assert words.index("imagenet_04_124.jpg") < words.index("imagenet_00_0.jpg")
    assert "24 of 30 photos are shown" in words


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (Row(FLOAT32, "a.tflite"),),
        (Row(INT8, "a.tflite", 10, images=0, top1=None),),
        (Row(FLOAT32, "a.tflite", 10, images=5, top1=0.0, top1_ci95=(0.0, 0.0)),),
        (Row(FLOAT32, "a", 10, latency=(latency(1.0, samples=False),)), Row(INT8, "b", 5)),
        (Row(FLOAT32, "a", 0, latency=(Latency("h", "r", 1, 0.0),), images=1, top1=1.0), Row(INT8, "b", 0)),
        tuple(dataclasses.replace(row, top1=None, top1_ci95=None, top5=None) for row in example().rows),
        tuple(dataclasses.replace(row, latency=()) for row in example().rows),
        example(layers=70).rows,
        example(layers=2).rows,
    ],
    ids=["none", "bare", "no_reference", "all_wrong", "no_samples", "zeros", "no_labels", "no_latency", "70_layers",
         "2_layers"],
)  # fmt: skip
def test_page_and_table_need_no_particular_figure(rows):
    report = Report({}, {}, rows=rows)
    assert Page(to_html(report)).open == []
    out = io.StringIO()
    show(report, out)
    assert all(row.scheme in out.getvalue() for row in rows)


def test_without_labels_the_plots_show_agreement():
    rows = [dataclasses.replace(row, top1=None, top1_ci95=None) for row in example().rows]
    assert "agreement with float" in plots.accuracy_against(rows, "latency")
    assert "top-1 accuracy" in plots.accuracy_against(example().rows, "latency")


def test_the_worst_layers_are_the_lowest_of_all():
    row = example(layers=70).rows[3]
    assert len(row.layers) == 70
    lowest = sorted(layer["sqnr_db"] for layer in row.layers)[:5]
    assert [layer["sqnr_db"] for layer in plots.worst_layers(row)] == lowest


def test_plots_are_the_same_each_time():
    assert plots.accuracy_against(example().rows, "size") == plots.accuracy_against(example().rows, "size")


def test_labels_of_crowded_points_do_not_overlap():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = np.random.default_rng(3)
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(float(x), float(y), f"scheme_{n}", "#000000") for n, (x, y) in enumerate(rng.uniform(4, 6, (8, 2)))]
    axes.set(xlim=(0, 10), ylim=(0, 10))
    label_points(figure, axes, points, [None] * len(points))
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


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


def test_a_merged_report_comes_back_from_json():
    merged = merge([example(), example()])
    assert from_dict(json.loads(json.dumps(to_dict(merged)))) == merged


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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["example", "hostile"])
def test_nothing_overflows_in_a_browser(tmp_path, width, kind):
    report = example()
    if kind == "hostile":
        long = "averyveryverylongnamewithoutanyspace" * 4
        rows = tuple(dataclasses.replace(row, output=tflite(f"{row.scheme}_{long}"), file=long) for row in report.rows)
        photos = (PhotoResult(long, long, None, {"float32_" + long: ((long, 1.0),)}),)
        report = dataclasses.replace(
            report, recipe={"name": long}, environment={long: long}, violations=(long,), rows=rows, photos=photos
        )
    save(report, tmp_path)
    found = measured_in_a_browser(tmp_path, width)
    assert found["sheets"] == 1
    assert found["scroll"] <= width
    assert (found["past"], found["cut"], found["small"]) == ([], [], [])


def test_previous_methods_of_a_report_name_the_function_to_use(tmp_path):
    report = Report(
        recipe={"name": "mine"}, environment={}, rows=(Row(Output("", "tflite", "int8"), "mine_int8.tflite"),)
    )
    with pytest.warns(DeprecationWarning, match=r"use edge_cv\.report\.save"):
        report.save(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"use edge_cv\.report\.load"):
        assert Report.load(tmp_path) == report
