"""The report's page and its plots, also as a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from report_examples import CHROMIUM, FLOAT32, HOSTILE, INT8, Page, example, latency, measured_in_a_browser, tflite

from edge_cv.evaluation.latency import Latency
from edge_cv.report import PhotoResult, Report, Row, page, plots, save, sentences
from edge_cv.report.drawing import SIZE_INCHES
from edge_cv.report.labels import label_points
from edge_cv.report.page import MAX_PHOTOS, to_html
from edge_cv.report.terminal import show

SCRIPT = Path(page.__file__).with_name("page.js").read_text()


def bare(report: Report) -> Report:
    """The report without the figures that plots are drawn of: its page takes no time."""
    nothing = {"latency": (), "layers": (), "top1": None, "agreement": None}
    return dataclasses.replace(report, rows=tuple(dataclasses.replace(row, **nothing) for row in report.rows))


def test_the_page_loads_nothing_and_its_ids_are_unique():
    html = to_html(example(jpeg=b"\xff\xd8\xff"))
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("svg") == 4
    assert page.tags.count("style") == 1
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert "@import" not in html
    assert all(image["alt"] for image in page.images)


def runs_only_its_own_script(page: Page) -> bool:
    """Whether the page's policy allows one script by its hash, and the page has no other."""
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    directives = dict(directive.split(maxsplit=1) for directive in page.policy.split("; "))
    return (
        script == SCRIPT
        and directives["default-src"] == "'none'"
        and directives["script-src"] == f"'sha256-{digest}'"
        and page.handlers == []
    )


def test_the_policy_allows_the_script_that_sorts_tables_and_no_other():
    assert runs_only_its_own_script(Page(to_html(bare(example(photos=0)))))


def test_every_section_is_in_the_contents_and_opens_with_its_finding():
    html = to_html(example())
    (contents,) = re.findall(r'<nav class="contents".*?</nav>', html, re.DOTALL)
    anchors = re.findall(r'href="#([^"]*)"', contents)
    assert anchors == ["next", "figures", "layers", "photos", "limits", "conditions"]
    assert anchors == re.findall(r'<h2 id="([^"]*)"', html)
    for anchor in ("figures", "layers", "photos", "limits"):
        assert re.search(rf'<h2 id="{anchor}">[^<]*</h2>\n<p class="finding">[^<]+\.</p>', html)


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
    assert runs_only_its_own_script(page)
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
    assert words.count("different top-1") == 2 + 1  # the photos, and the choice of photos to show
    assert "different top-1 (2)" in words
    assert "float32 and int8 predict different classes for 2 of the 24 photos shown" in words
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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_tables_are_sorted_photos_filtered_and_colours_switched_by_keyboard(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    save(example(), tmp_path)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(color_scheme="light")
        complaints: list[str] = []
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.goto((tmp_path / "report.html").as_uri())

        def order() -> list[str]:
            return [text.split("\n")[0] for text in shown.locator("table.wide tbody th").all_inner_texts()]

        original = order()
        gzip = shown.locator("table.wide thead th").filter(has_text="Gzip")
        orders = []
        for _ in range(3):
            gzip.locator("button").press("Enter")
            orders.append((gzip.get_attribute("aria-sort"), order()))
        sizes = {row.name: row.gzip_bytes for row in example().rows}
        ascending = sorted(original, key=lambda name: sizes[name])
        assert orders == [("ascending", ascending), ("descending", ascending[::-1]), ("none", original)]
        shown.locator("table.wide thead th").filter(has_text="SQNR").locator("button").click()
        assert order()[-1] == "float32"  # it has none
        shown.get_by_label("different top-1").press("Space")
        assert shown.locator(".photos > .photo:visible").count() == 2
        background = "getComputedStyle(document.body).backgroundColor"
        light = shown.evaluate(background)
        shown.get_by_label("Dark").press("Space")
        assert shown.evaluate(background) != light
        shown.emulate_media(media="print")
        assert shown.evaluate(background) == light
        browser.close()
    assert complaints == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_script_from_data_would_not_run(tmp_path):
    """The policy alone: a page into which a script was written without escaping."""
    playwright = pytest.importorskip("playwright.sync_api")
    html = to_html(bare(example(photos=0)))
    attack = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    (tmp_path / "report.html").write_text(html.replace("<main>", f"<main>{attack}"))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page()
        shown.goto((tmp_path / "report.html").as_uri())
        assert shown.title() == "demo – report"
        assert shown.locator("th button").count() > 0
        browser.close()
