"""The report: its values and their JSON, the sentences, the plots and the page, as a browser shows it too."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.report import PhotoResult, Report, Row, merge, plots, sentences
from edge_cv.report.page import MOST_PHOTOS, columns

HOST = "AMD EPYC 7B13, 2 cores"
HOSTILE = "<script>alert('x')</script>\"'&{{ 617*3 }}$\\frac"


def latency(median_ms: float, threads: int = 1, *, samples: bool = True, seed: int = 0) -> dict:
    drawn = median_ms * np.random.default_rng(seed).gamma(8, 1 / 80, 50) + median_ms * 0.9
    p50, p90, p99 = (float(v) for v in np.percentile(drawn, (50, 90, 99)))
    entry = {"host": HOST, "runtime": "LiteRT 2.3.0 (XNNPACK)", "threads": threads, "runs": 50}
    entry |= {"p50_ms": median_ms if not samples else p50, "p90_ms": p90, "p99_ms": p99}
    return entry | ({"samples_ms": [float(v) for v in drawn]} if samples else {})


def wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def example(photos: int = 20, layers: int = 64, jpeg: bytes | None = None) -> Report:
    """A report such as the demo's: EfficientNet-Lite0 as float32, float16, dynamic_int8, int8 and ONNX."""
    rng = np.random.default_rng(7)
    names = ["stem_conv", *(f"block{b}{'abc'[r]}_{part}" for b in range(1, 8) for r in range(3)
                            for part in ("expand_conv", "depthwise_conv", "project_conv")), "head_conv"]  # fmt: skip
    noise = [{"layer": f"efficientnet_lite0/{name}/Relu6;efficientnet_lite0/{name}/batch_norm", "sqnr_db": float(v)}
             for name, v in zip(names[:layers] + [f"extra_{n}" for n in range(layers - len(names))],
                                30 - np.linspace(0, 8, layers) + rng.normal(0, 2, layers), strict=False)]  # fmt: skip
    table = (
        ("float32", "efficientnet_lite0_float32.tflite", 18_577_964, 17_240_113, 18, None, 1.0, 9.8, 42e6),
        ("float16", "efficientnet_lite0_float16.tflite", 9_342_016, 8_611_402, 18, 72.3, 1.0, 9.9, 61e6),
        ("dynamic_int8", "efficientnet_lite0_dynamic_int8.tflite", 5_023_440, 4_402_113, 17, 20.5, 0.95, 26.4, 38e6),
        ("int8", "efficientnet_lite0_int8.tflite", 4_986_312, 4_330_090, 18, 19.8, 0.95, 4.7, 21e6),
        ("float32", "efficientnet_lite0_float32.onnx", 18_590_210, 17_251_000, 18, 118.0, 1.0, 11.2, 55e6),
    )
    rows = tuple(
        Row(
            scheme=scheme,
            file=file,
            size_bytes=size,
            gzip_bytes=gzip,
            parameters=4_652_008,
            macs=385_000_000,
            images=20,
            top1=right / 20,
            top5=0.95,
            top1_ci95=wilson(right / 20, 20),
            agreement=agreement,
            agreement_ci95=wilson(agreement, 20),
            sqnr_db=sqnr,
            latency=(latency(ms, 1, seed=n), latency(ms * 0.6, 2, seed=n + 9)),
            peak_memory_bytes=int(memory),
            layers=tuple(noise) if scheme == "int8" else (),
        )
        for n, (scheme, file, size, gzip, right, sqnr, agreement, ms, memory) in enumerate(table)
    )
    classes = [
        "golden retriever",
        "black-and-white colobus monkey",
        "volcano",
        "espresso",
        "lycaenid butterfly",
        "space shuttle",
    ]

    def seen(place: int, swap: bool) -> list[list]:
        order = list(np.roll(classes, -place)[:5])
        order[:2] = order[1::-1] if swap else order[:2]
        return [[str(name), share] for name, share in zip(order, (0.72, 0.13, 0.06, 0.012, 0.003), strict=True)]

    return Report(
        recipe={"name": "demo", "model": "efficientnet_lite0", "schemes": [row[0] for row in table], "fit": None},
        environment={
            "host": HOST,
            "system": "Linux 6.1, x86_64",
            "python": "3.11.2",
            "date": "2026-03-01",
            "versions": {"tensorflow": "2.21.0", "keras": "3.15.1", "ai-edge-litert": "2.3.0", "numpy": "2.4.1"},
        },
        rows=rows,
        photos=tuple(
            PhotoResult(
                f"imagenet_{n:02d}_{n * 31}.jpg",
                classes[n % len(classes)],
                jpeg,
                {"float32": seen(n, False), "int8": seen(n, n in (4, 11))},
            )
            for n in range(photos)
        ),
        notes=("The 20 photos are ImageNet's, from the foolbox package; calibration used other photos.",),
    )


class Page(HTMLParser):
    """What a page holds: its ids, what it refers to, its elements, its text, and whether its tags are balanced."""

    VOID = ("meta", "img", "wbr", "br", "link", "input", "use", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.references: set[str] = set(re.findall(r"url\(#([^)]*)\)", text))
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self.images: list[dict] = []
        self.feed(text)
        self.text = " ".join(self.words).replace("\u00a0", " ").replace("\u2011", "-")

    def handle_starttag(self, tag: str, attributes: list) -> None:
        fields = dict(attributes)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in fields:
            self.ids.append(fields["id"])
        if tag == "img":
            self.images.append(fields)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.add(value[1:]) if value.startswith("#") else self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def test_report_json_has_the_contracts_keys_and_comes_back_equal(tmp_path):
    report = example(photos=3)
    report.save(tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["schema"] == 1
    assert {"recipe", "environment", "violations", "rows"} <= set(fields)
    contract = ["scheme", "file", "size_bytes", "gzip_bytes", "parameters", "macs", "images", "top1", "top5",
                "top1_ci95", "agreement", "sqnr_db", "latency", "peak_memory_bytes"]  # fmt: skip
    assert list(fields["rows"][0])[: len(contract)] == contract
    assert {"host", "runtime", "threads", "p50_ms", "p90_ms", "p99_ms", "runs"} <= set(fields["rows"][0]["latency"][0])
    assert Report.load(tmp_path) == report
    assert Report.load(tmp_path / "report.json") == report


def test_thumbnails_come_back_from_json(tmp_path):
    report = example(photos=1, jpeg=b"\xff\xd8\xff\x00jpeg\xff\xd9")
    report.save(tmp_path)
    assert Report.load(tmp_path).photos[0].thumbnail_jpeg == b"\xff\xd8\xff\x00jpeg\xff\xd9"


def test_values_that_json_lacks_are_written_as_null_or_text(tmp_path):
    row = Row("float32", "a.tflite", size_bytes=np.int64(7), sqnr_db=math.inf, top1=np.float32(0.5), images=2)
    Report({"path": Path("x"), "bad": float("nan")}, {"n": np.float64(1.5)}, rows=(row,)).save(tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert fields["recipe"] == {"path": "x", "bad": None}
    assert fields["rows"][0]["sqnr_db"] is None
    assert (fields["rows"][0]["size_bytes"], fields["rows"][0]["top1"]) == (7, 0.5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "There is none"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
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
def test_load_refuses_what_is_not_a_report_in_one_line(tmp_path, content, says):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        Report.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_load_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="There is none"):
        Report.load(tmp_path / "nowhere")


def test_load_leaves_out_keys_of_others(tmp_path):
    row = {"scheme": "int8", "file": "a.tflite", "thermal": 3, "latency": [{"host": "phone", "p50_ms": 2, "clock": 1}]}
    (tmp_path / "report.json").write_text(json.dumps({"rows": [row], "app": "1.0"}))
    loaded = Report.load(tmp_path).rows[0]
    assert loaded.latency[0]["p50_ms"] == 2
    assert loaded.latency[0]["clock"] == 1
    assert loaded.latency[0]["threads"] == 1


def test_headline_is_the_closed_form():
    def row(scheme: str, size: int, p50: float, **fields) -> Row:
        return Row(scheme, f"{scheme}.tflite", size, latency=(latency(p50, samples=False),), images=20, **fields)

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
    assert sentences.headline((float32, half)) == "float16 is 2.0× smaller than float32, about as fast."
    assert sentences.headline(()) == "Nothing was measured."
    assert sentences.headline((float32,)) == "float32: 18.6 MB, 9.87 ms median latency with 1 thread."


def test_headline_compares_no_latencies_of_different_hosts():
    other = {**latency(1.0, samples=False), "host": "a phone"}
    rows = (
        Row("float32", "a.tflite", 400, latency=(latency(9.0, samples=False),)),
        Row("int8", "b.tflite", 100, latency=(other,)),
    )
    assert sentences.headline(rows) == "int8 is 4.0× smaller than float32."


def test_slower_schemes_are_named_with_their_factor():
    found = sentences.slower(example().rows)
    assert len(found) == 2  # dynamic_int8 and ONNX
    assert re.match(r"dynamic_int8 is 2\.\d× slower than float32 on AMD EPYC", found[0])
    assert "int8 is" not in found[1].replace("dynamic_int8", "")


@pytest.mark.parametrize(("images", "least"), [(20, "30 points"), (400, "1.5 points"), (50_000, "0.01 points")])
def test_the_smallest_difference_that_n_can_tell_is_the_sign_tests(images, least):
    assert 2 * 0.5**sentences.SIGN_TEST_PHOTOS < 0.05 < 2 * 0.5 ** (sentences.SIGN_TEST_PHOTOS - 1)
    (text,) = sentences.limits_of((Row("int8", "a", images=images, top1=0.9),))
    assert f"n = {images:,}" in text
    assert f"smaller than {least}" in text


def test_best_is_marked_only_where_the_photos_can_tell():
    few = {c.title: c for c in columns(example().rows)}
    assert not any(cell.best for cell in few["Top-1"].cells)
    assert [cell.best for cell in few["Size"].cells] == [False, False, False, True, False]
    many = [Row("float32", "a", images=400, top1=0.75), Row("int8", "b", images=400, top1=0.70)]
    assert [cell.best for cell in columns(many)[0].cells] == [True, False]


def test_the_page_loads_nothing_and_its_ids_are_unique():
    page = Page(example(jpeg=b"\xff\xd8\xff").to_html())
    assert example().to_html().startswith("<!DOCTYPE html>")
    assert page.open == []
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("svg") == 4
    assert page.tags.count("style") == 1
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert "@import" not in example().to_html()
    assert all(image["alt"] for image in page.images)


def test_hostile_names_are_shown_as_text():
    row = Row(HOSTILE, HOSTILE, 10, layers=({"layer": HOSTILE, "sqnr_db": 3.0},), images=3, top1=0.5, agreement=0.5,
              latency=({**latency(2.0), "host": HOSTILE, "runtime": HOSTILE},))  # fmt: skip
    report = Report(
        {"name": HOSTILE, HOSTILE: HOSTILE},
        {HOSTILE: {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}},
        (HOSTILE,),
        (Row("float32", HOSTILE, 20), row),
        (PhotoResult(HOSTILE, HOSTILE, b"\xff", {HOSTILE: ((HOSTILE, 0.9),), "float32": (("a", 1.0),)}),),
        (HOSTILE,),
    )
    page = Page(report.to_html())
    assert page.open == []
    assert "script" not in page.tags
    assert page.handlers == []
    assert page.text.count(HOSTILE) > 10
    assert "1851" not in page.text


def test_control_characters_reach_neither_terminal_nor_plots():
    row = Row("int8\x1b[31m\x00\n", "a", 10, images=3, agreement=0.5, layers=({"layer": "\x00", "sqnr_db": 1.0},))
    report = Report({}, {}, rows=(Row("float32", "b", 20, images=3, agreement=1.0), row))
    out = io.StringIO()
    report.show(out)
    assert "\x1b" not in out.getvalue()
    assert "\x00" not in (plots.accuracy_against(report.rows, "size") or "")


def test_broken_limits_come_first():
    report = dataclasses.replace(example(), violations=("int8 is 5.0 MB, more than the 4 MB allowed",))
    words = Page(report.to_html()).text
    assert words.index("A limit of this run is broken") < words.index("int8 is 5.0 MB") < words.index(report.headline)


def test_photos_with_disagreement_come_first_and_the_rest_is_counted():
    report = example(photos=MOST_PHOTOS + 6)
    words = Page(report.to_html()).text
    assert words.count("different top-1") == 2
    assert words.index("imagenet_04_124.jpg") < words.index("imagenet_00_0.jpg")
    assert "24 of 30 photos; 6 more are not shown" in words


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (Row("float32", "a.tflite"),),
        (Row("int8", "a.tflite", 10, images=0, top1=None),),
        (Row("float32", "a.tflite", 10, images=5, top1=0.0, top1_ci95=(0.0, 0.0)),),
        (Row("float32", "a", 10, latency=(latency(1.0, samples=False),)), Row("int8", "b", 5)),
        (Row("float32", "a", 0, latency=({"host": "h", "p50_ms": 0.0},), images=1, top1=1.0), Row("int8", "b", 0)),
        tuple(dataclasses.replace(row, top1=None, top1_ci95=None, top5=None) for row in example().rows),
        tuple(dataclasses.replace(row, latency=()) for row in example().rows),
        example(layers=70).rows,
        example(layers=2).rows,
    ],
    ids=["none", "bare", "no_reference", "all_wrong", "no_samples", "zeros", "no_labels", "no_latency", "70_layers",
         "2_layers"],
)  # fmt: skip
def test_page_and_table_are_made_of_whatever_was_measured(rows):
    report = Report({}, {}, rows=rows)
    assert Page(report.to_html()).open == []
    out = io.StringIO()
    report.show(out)
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
    figure = Figure(figsize=plots.SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(float(x), float(y), f"scheme_{n}", "#000000") for n, (x, y) in enumerate(rng.uniform(4, 6, (8, 2)))]
    axes.set(xlim=(0, 10), ylim=(0, 10))
    plots._label_points(figure, axes, points, [None] * len(points))
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
    assert merged.headline.startswith(
        "Of 15 models from 3 runs, the smallest is demo: int8 with 4.99 MB and the fastest is"
    )
    assert sentences.verdicts(merged.rows)[0] == ("demo", first.headline)
    page = Page(merged.to_html())
    assert page.open == []
    assert "pixel: int8" in page.text
    assert merge([first]) is first
    assert [row.run for row in merge([first, second], ["a", "b"]).rows] == ["a"] * 5 + ["b"] * 5
    with pytest.raises(InputError, match="at least one"):
        merge([])
    with pytest.raises(InputError, match="a name for each"):
        merge([first, second], ["a"])


def test_a_merged_report_comes_back_from_json(tmp_path):
    merged = merge([example(), example()])
    merged.save(tmp_path)
    assert Report.load(tmp_path) == merged


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_figure_is_cut_in_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    example().show(out)
    words = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "…" not in words
    for figure in ("18.6 MB", "4.99 MB", "19.8 dB", "3.7×"):
        assert figure in words


def test_a_pipe_gets_the_whole_table_without_escape_codes():
    out = io.StringIO()
    example().show(out)
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


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PROBE = """<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;height:2000px"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement
  const past = e => {{ const box = e.getBoundingClientRect()
    return box.width && (box.right > {width} + 1 || box.left < -1) && !e.closest(".scroll, .hidden") }}
  const cut = [...page.querySelectorAll("svg text")].filter(t => {{
    const a = t.getBoundingClientRect(), b = t.closest("figure").getBoundingClientRect()
    return a.left < b.left || a.right > b.right || a.top < b.top || a.bottom > b.bottom }})
  const small = [...page.querySelectorAll("svg text")].filter(t => t.getBoundingClientRect().height < 9)
  document.title = JSON.stringify({{ scroll: root.scrollWidth, sheets: page.styleSheets.length,
    past: [...page.querySelectorAll("body *")].filter(past).map(e => e.tagName + "." + e.className).slice(0, 5),
    cut: cut.map(t => t.textContent), small: small.map(t => t.textContent) }})
}}</script></body>"""


def measured_in_a_browser(folder: Path, width: int) -> dict:
    """What chromium says of the folder's report.html in a window of that width."""
    (folder / "probe.html").write_text(PROBE.format(width=width))
    flags = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", "--allow-file-access-from-files", "--virtual-time-budget=5000",
             f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 100},2000"]  # fmt: skip
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    page = (folder / "probe.html").as_uri()
    out = subprocess.run([CHROMIUM, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", out.stdout, re.S)[1]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["example", "hostile"])
def test_nothing_overflows_in_a_browser(tmp_path, width, kind):
    report = example()
    if kind == "hostile":
        long = "averyveryverylongnamewithoutanyspace" * 4
        rows = tuple(dataclasses.replace(row, scheme=row.scheme + "_" + long, file=long) for row in report.rows)
        photos = (PhotoResult(long, long, None, {"float32_" + long: ((long, 1.0),)}),)
        report = dataclasses.replace(
            report, recipe={"name": long}, environment={long: long}, violations=(long,), rows=rows, photos=photos
        )
    report.save(tmp_path)
    found = measured_in_a_browser(tmp_path, width)
    assert found["sheets"] == 1
    assert found["scroll"] <= width
    assert (found["past"], found["cut"], found["small"]) == ([], [], [])
