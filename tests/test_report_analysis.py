"""The page's sections on predictions: compact for a thousand classes, and safe with any name."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_examples import CHROMIUM, HOSTILE, Page, example, measured_in_a_browser

from converters.errors import InputError
from edge_cv.data import imagenet_labels
from edge_cv.data.corruptions import NAMES
from edge_cv.evaluation.analysis import analyze, class_names
from edge_cv.evaluation.confidence import Bin, Confidence
from edge_cv.evaluation.grad_cam import Explained, Overlay
from edge_cv.evaluation.predictions import Predictions
from edge_cv.evaluation.robustness import Robustness
from edge_cv.report import PhotoResult, Report, load, save
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.page import to_html
from edge_cv.report.photos import worth_showing
from edge_cv.report.sections import confidence, groups, per_class
from edge_cv.report.terminal import show

IMAGENET = tuple(label.name for label in imagenet_labels())
SCHEMES = ("float32", "int8")


def predictions(classes: int, photos: int, *, seed: int = 0) -> Predictions:
    """Predictions of a float model with 80 % accuracy and of an int8 model with 95 % agreement."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, photos).astype(np.int32)
    first = np.where(rng.random(photos) < 0.8, labels, rng.integers(0, classes, photos))
    second = np.where(rng.random(photos) < 0.95, first, rng.integers(0, classes, photos))
    indices = np.stack([first, second], axis=1)[:, :, None].repeat(5, axis=2).astype(np.int32)
    shares = rng.beta(5, 2, (photos, 2, 1)).repeat(5, axis=2).astype(np.float32)
    return Predictions(SCHEMES, [Path(f"{n}.jpg") for n in range(photos)], labels, indices, shares)


def jpeg() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)).save(stream, "JPEG", quality=50)
    return stream.getvalue()


def full_report(names: tuple[str, ...] = IMAGENET, photos: int = 1500, *, column: str = "light") -> Report:
    """A report of two models with every section on predictions."""
    found = predictions(len(names), photos)
    groups = {column: [("day", "dusk", "night")[n % 3] for n in range(photos)], "one": ["all"] * photos}
    fields = analyze(found, names, groups)
    rng = np.random.default_rng(1)
    picture = jpeg()
    rows = []
    for row in example(photos=0).rows:
        if row.name not in SCHEMES:
            continue
        shares = tuple(tuple(np.sort(rng.random(5))[::-1].tolist()) for _ in NAMES)
        robust = Robustness(100, 0.9, (0.83, 0.94), NAMES, shares, 0.5, 0.4)
        rows.append(dataclasses.replace(row, images=photos, robustness=robust, **fields[row.scheme]))
    explained = tuple(
        Explained(f"{n}.jpg", label, answer, 0.9, picture, tuple(Overlay(name, picture) for name in {label, answer}))
        for n, (label, answer) in enumerate([(names[1], names[2]), (names[0], names[0])])
    )
    return dataclasses.replace(example(photos=3), rows=tuple(rows), explained=explained)


@pytest.fixture(scope="module")
def report() -> Report:
    return full_report()


def test_every_section_is_on_the_page(report):
    page = Page(to_html(report))
    for title in ("Accuracy by class", "Confidence calibration", "Severity of mistakes", "Accuracy by group",
                  "Robustness to corruptions", "Grad-CAM"):  # fmt: skip
        assert title in page.text
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert all(image["alt"] for image in page.images)


def test_a_thousand_classes_take_twenty_five_rows(report):
    section = per_class.section(report)
    _, pairs, table = section.tables
    assert len(report.rows[0].classes.names) > 700
    assert len(table.rows) == 25
    assert len(pairs.rows) == 12
    assert section.figures == ()
    recalls = [float(cells[2].rstrip(" %")) for cells in table.rows]
    assert recalls == sorted(recalls)
    assert recalls[0] == 100 * min(report.rows[0].classes.recall)
    assert recalls[-1] == 100
    assert len(to_html(report)) < 600_000


def test_few_classes_are_shown_whole_with_their_matrices():
    report = full_report(tuple("abcdefghij"), 400)
    section = per_class.section(report)
    assert [len(table.rows) for table in section.tables] == [2, 12, 10]
    assert len(section.figures) == 2
    page = Page(to_html(report))
    assert "Confusion matrix of int8" in page.text
    assert len(page.ids) == len(set(page.ids))
    assert "Severity of mistakes" not in page.text  # these are no classes of ImageNet


def test_a_report_without_such_figures_has_no_such_section():
    page = Page(to_html(example()))
    for title in ("Accuracy by class", "Confidence calibration", "Accuracy by group", "Robustness", "Grad-CAM"):
        assert title not in page.text


def test_photos_with_several_labels_have_average_precision():
    found = predictions(6, 200)
    rng = np.random.default_rng(0)
    truth = rng.random((200, 6)) < 0.3
    found = Predictions(SCHEMES, found.files, np.full(200, -1, np.int32), found.indices, found.probabilities, truth,
                        rng.normal(truth[:, None, :] * np.array([2.0, 1.0])[:, None], 1, (200, 2, 6)))  # fmt: skip
    fields = analyze(found, tuple("abcdef"))
    assert fields["int8"]["classes"] is None
    rows = tuple(dataclasses.replace(row, **fields[row.scheme]) for row in example().rows if row.name in SCHEMES)
    better, worse = (row.multi_label.mean_average_precision for row in rows)
    assert 1 > better > worse > 0.3
    page = Page(to_html(dataclasses.replace(example(), rows=rows)))
    assert f"{better:.3f}" in page.text
    assert "Average precision by class" in page.text
    several = dataclasses.replace(
        example(), rows=tuple(dataclasses.replace(r, top1=None, top1_ci95=None) for r in rows)
    )
    out = io.StringIO()
    show(several, out)
    assert f"{better:.3f} for float32, {worse:.3f} for int8" in out.getvalue()
    assert "no labels" not in out.getvalue()


def test_a_photo_of_several_classes_is_right_with_any_of_them(tmp_path):
    seen = (("cat", 0.9), ("dog", 0.8), ("sofa", 0.1))
    photos = (
        PhotoResult("both.jpg", None, None, {"float32": seen, "int8": seen}, ("dog", "cat")),
        PhotoResult("none.jpg", None, None, {"float32": seen, "int8": seen}, ()),
    )
    report = dataclasses.replace(example(), photos=photos)
    page = Page(to_html(report))
    assert "dog, cat" in page.text
    assert "none of the classes" in page.text
    assert "both wrong" not in page.text
    assert page.text.count("✓") == 4  # cat and dog, on both sides
    save(report, tmp_path)
    assert load(tmp_path) == report


def test_photos_on_which_the_models_differ_are_shown_first():
    found = predictions(10, 400)
    shown = worth_showing(found)
    differs = [len({top5[0][0] for top5 in p.top5.values()}) > 1 for p in shown]
    assert len(shown) == len({p.file for p in shown}) == 24
    assert differs == sorted(differs, reverse=True)
    every = sum(len({top5[0][0] for top5 in p.top5.values()}) > 1 for p in found)
    assert sum(differs) == min(24, every) > 5
    assert max(int(p.file.stem) for p, d in zip(shown, differs, strict=True) if not d) > 300


def test_the_figures_come_back_from_json(report, tmp_path):
    save(report, tmp_path)
    assert load(tmp_path) == report
    fields = json.loads((tmp_path / "report.json").read_text())
    assert {"classes", "confidence", "mistakes", "groups", "robustness", "multi_label"} <= set(fields["rows"][0])
    assert fields["rows"][0]["confidence"]["ece"] == report.rows[0].confidence.ece


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("classes", lambda v: 3, "a row's classes must be an object"),
        ("classes", lambda v: {**v, "recall": v["recall"][1:]}, "must have its images, recall"),
        ("classes", lambda v: {k: v[k] for k in v if k != "f1"}, "classes must have f1"),
        ("classes", lambda v: {**v, "matrix_names": ["a"], "matrix": [[1, 2]]}, "must be square"),
        ("classes", lambda v: {**v, "macro_f1": "high"}, "macro_f1 must be a number"),
        ("classes", lambda v: {**v, "matrix_names": ["a"], "matrix": [[-1]]}, "counts, 0 or more"),
        (
            "classes",
            lambda v: {**v, "names": [], "images": [], "recall": [], "precision": [], "f1": []},
            "at least one",
        ),
        ("confidence", lambda v: {**v, "images": 0}, "images must be 1 or more"),
        ("confidence", lambda v: {**v, "bins": [1]}, "bins must be an object"),
        ("confidence", lambda v: {**v, "ece": None}, "ece must be a number"),
        ("groups", lambda v: {}, "groups must be a list"),
        ("groups", lambda v: [{**v[0], "groups": [{**v[0]["groups"][0], "accuracy_ci95": [0]}]}], "2 values"),
        ("robustness", lambda v: {**v, "accuracy": v["accuracy"][:3]}, "15 corruptions must have"),
        ("mistakes", lambda v: {**v, "wrong": 1.5}, "wrong must be a whole number"),
    ],
)
def test_wrong_figures_are_refused_with_a_message_of_one_line(report, field, change, message):
    fields = to_dict(report)
    fields["rows"][0][field] = change(fields["rows"][0][field])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        from_dict(fields)
    assert "\n" not in str(caught.value)


def test_hostile_class_and_group_names_are_shown_as_text():
    report = full_report((HOSTILE, "\x00\x1b[31m", *"cde"), 60, column=HOSTILE)
    page = Page(to_html(report))
    assert page.open == []
    assert len(page.scripts) == 1
    assert page.handlers == []
    assert page.text.count(HOSTILE) > 10


def test_a_significant_gap_is_named_and_a_gap_by_chance_is_not():
    from edge_cv.evaluation.groups import group_scores

    right = [n % 10 < 9 for n in range(500)] + [n % 10 < 6 for n in range(100)]
    (two,) = group_scores({"skin": ["light"] * 500 + ["dark"] * 100}, right)
    assert groups.gaps("int8", two) == (
        "int8 by skin: significant gap for “dark” 60 % against 90 % on all other photos (p < 0.001)."
    )
    (same,) = group_scores({"hand": ["left", "left", "right", "right"] * 150}, right)
    assert "no significant gap" in groups.gaps("int8", same)
    (one,) = group_scores({"hand": ["left"] * 600}, right)
    assert "nothing to compare" in groups.gaps("int8", one)


def test_an_error_within_chance_is_no_sign_of_miscalibration():
    within = Confidence(20, 0.85, 0.80, 0.246, 0.19, 0.297, (Bin(20, 0.80, 0.85),))
    assert confidence.calibration("int8", within) == (
        "There is no sign that the confidence of int8 is wrong: its ECE 0.246 is within what chance alone produces "
        "with 20 photos (up to 0.297)."
    )
    beyond = dataclasses.replace(within, images=1000, confidence=0.95, ece=0.1, ece_by_chance_95=0.03)
    assert confidence.calibration("int8", beyond) == (
        "int8 is overconfident: its mean confidence is 95.0 % and its accuracy 85.0 % "
        "(ECE 0.100; chance alone produces up to 0.030 with 1,000 photos)."
    )
    assert "is underconfident" in confidence.calibration("int8", dataclasses.replace(beyond, confidence=0.75))
    assert "for some predictions and" in confidence.calibration("int8", dataclasses.replace(beyond, confidence=0.86))


def test_the_terminal_shows_one_line_on_calibration(report):
    out = io.StringIO()
    show(report, out)
    (line,) = [line for line in out.getvalue().splitlines() if "ECE" in line]
    first, second = report.rows
    for row in (first, second):
        assert f"{row.confidence.ece:.3f} for {row.name}" in line
    assert "Group" not in out.getvalue()


def test_classes_without_a_name_get_one():
    assert class_names(predictions(4, 50), ("a", "a")) == ("a (0)", "a (1)", "class 2", "class 3")


def test_findings_of_fifty_thousand_photos_take_seconds():
    import time

    found = predictions(1000, 50_000)
    start = time.process_time()
    analyze(found, IMAGENET, {"light": ["day", "night"] * 25_000})
    assert time.process_time() - start < 20  # about 2 on a machine that does nothing else


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["imagenet", "few", "long"])
def test_nothing_overflows_in_a_browser(tmp_path, width, kind):
    names = {
        "imagenet": IMAGENET,
        "few": tuple(f"kind {c}" for c in "abcdefghij"),
        "long": tuple(f"{c}{'averylongname' * 8}" for c in "abc"),
    }
    save(full_report(names[kind], 300), tmp_path)
    found = measured_in_a_browser(tmp_path, width)
    assert found["scroll"] <= width
    assert (found["past"], found["cut"], found["small"]) == ([], [], [])
