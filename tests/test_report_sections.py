"""The page's sections on runtimes and on fine-tuning after compression, and the opening sentences of others."""

from __future__ import annotations

import dataclasses

import pytest
from report_examples import Page, example

from edge_cv.evaluation.conformance import Conformance, ExecutorResult
from edge_cv.evaluation.groups import Group, Grouping
from edge_cv.evaluation.per_class import ClassScores, Confusion
from edge_cv.evaluation.sensitivity import Sensitivity, Trial
from edge_cv.report import Report, load, save
from edge_cv.report.page import to_html
from edge_cv.report.sections import conformance, fine_tuning, groups, layers, per_class, sensitivity
from edge_cv.report.values import Epoch, StageTraining

USUAL = ExecutorResult("XNNPACK", "2.3", 0.0, 0.0, 0, (0.0, 0.16), ms_per_image=4.0)
NEAR = ExecutorResult("reference", "2.3", 3.0, 0.021, 0, (0.0, 0.16), "CONV_2D", "stem", 900.0)
FAR = dataclasses.replace(NEAR, executor="micro", flipped=2)
REFUSING = ExecutorResult("compiled", "2.3", error="operator PAD is not supported")


def with_int8(**fields) -> Report:
    """The example with further fields of its int8 row."""
    report = example(photos=0)
    rows = (dataclasses.replace(row, **fields) if row.scheme == "int8" else row for row in report.rows)
    return dataclasses.replace(report, rows=tuple(rows))


def compared(*others: ExecutorResult) -> Report:
    missing = {"LiteRT on arm64": "edge-cv benchmark FILE"}
    return with_int8(conformance=Conformance("net_int8.tflite", "XNNPACK", 20, (USUAL, *others), missing))


@pytest.mark.parametrize(
    ("others", "finding"),
    [
        ((), "int8: no other runtime was compared with XNNPACK on 20 photos."),
        ((NEAR,), "The other runtime predicts the same classes as XNNPACK with int8, on 20 photos."),
        (
            (NEAR, NEAR, REFUSING),
            "All 2 other runtimes predict the same classes as XNNPACK with int8, on 20 photos; 1 runtime cannot run "
            "the file.",
        ),
        ((NEAR, FAR), "With int8, XNNPACK and micro predict different classes for 2 of 20 photos."),
    ],
)
def test_runtimes_are_said_to_agree_or_to_differ(others, finding):
    assert conformance.section(compared(*others)).finding == finding


def test_the_table_of_runtimes_has_differences_in_steps_and_the_first_operator(tmp_path):
    report = compared(NEAR, REFUSING)
    found = conformance.section(report)
    (table,) = found.tables
    assert table.rows[1] == ("reference 2.3", "3", "2.1 %", "0\n0–16 %", "900 ms", "CONV_2D\nstem")
    assert table.rows[2][1:] == ("–",) * 5
    assert found.sentences == ("compiled cannot run net_int8.tflite: operator PAD is not supported.",)
    assert "LiteRT on arm64 (edge-cv benchmark FILE)" in found.notes[-1]
    save(report, tmp_path)
    assert load(tmp_path) == report
    assert conformance.section(example()) is None


def epochs(scores, sparsity=()) -> tuple[Epoch, ...]:
    zeros = [*sparsity, *[None] * (len(scores) - len(sparsity))]
    pairs = enumerate(zip(scores, zeros, strict=True), 1)
    return tuple(Epoch(n, 1, 0.01, 1.0, score, None, None, 99.0, 3.0, None, zero) for n, (score, zero) in pairs)


TUNED = (
    StageTraining("pruned", epochs((0.61, 0.82, 0.9), (0.4, 0.7, 0.75))),
    StageTraining("qat", epochs((0.92, 0.91))),
)


def test_the_curve_of_fine_tuning_shows_score_and_sparsity_of_each_stage(tmp_path):
    report = dataclasses.replace(example(photos=0), fine_tuning=TUNED)
    found = fine_tuning.section(report)
    assert found.finding == (
        "In 3 epochs, the training score of the pruned model rose from 61.0 % to 90.0 %, and its sparsity rose from "
        "40.0 % to 75.0 %."
    )
    assert found.sentences == ("In 2 epochs, the training score of the qat model fell from 92.0 % to 91.0 %.",)
    (figure,) = found.figures
    assert "pruned" in figure.draw()
    assert "qat" in figure.draw()
    save(report, tmp_path)
    assert load(tmp_path) == report
    page = Page((tmp_path / "report.html").read_text())
    assert "Fine-tuning after compression" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_one_epoch_of_fine_tuning_needs_no_curve():
    report = dataclasses.replace(example(), fine_tuning=(StageTraining("pruned", epochs((0.9,), (0.75,))),))
    found = fine_tuning.section(report)
    assert (
        found.finding == "In 1 epoch, the training score of the pruned model was 90.0 %, and its sparsity was 75.0 %."
    )
    assert found.figures == ()
    assert fine_tuning.section(example()) is None


def test_the_layer_with_the_largest_error_is_named():
    report = with_int8(
        layers=tuple({"layer": name, "sqnr_db": db} for name, db in (("a", 30.0), ("b;c", 12.3), ("d", 28.0)))
    )
    assert layers.section(report).finding == (
        "The output of layer b has the largest quantization error in int8: 12.3 dB SQNR, while the median layer has "
        "28.0 dB."
    )
    assert layers.section(with_int8(layers=())) is None


def searched(**fields) -> Sensitivity:
    curve = (Trial(0, 24.0, 0.95, 4.0, 1000), Trial(1, 31.0, 1.0, 5.0, 1500))
    return Sensitivity(**{"alone_sqnr_db": {"a": 40.0, "b;c": 30.0}, "wide_layers": ("b;c",), "curve": curve, **fields})


def test_the_part_of_each_layer_in_the_error_is_shown_with_what_it_costs_to_keep_it_in_float():
    """Noise of 40 and 30 dB: 1 part and 10 parts of 11."""
    found = sensitivity.section(with_int8(sensitivity=searched()))
    assert found.finding == (
        "Layer b causes 91 % of the error of the logits; with 1 layer in float the SQNR is 31.0 dB instead of 24.0 dB, "
        "at 1.50 times the size and 1.25 times the latency."
    )
    assert found.figures[0].list == (("b", "91 %"), ("a", "9 %"))
    assert found.figures[0].draw().startswith("<svg")
    assert [row[0] for row in found.tables[0].rows] == ["int8", "1 layer in float"]


def test_where_int8_keeps_the_budget_no_layer_had_to_stay_in_float():
    plain = searched(wide_layers=(), curve=(Trial(0, 24.0, 0.95, 4.0, 1000),))
    finding = sensitivity.section(with_int8(sensitivity=plain)).finding
    assert finding == "Layer b causes 91 % of the error of the logits; no layer had to stay in float."
    assert sensitivity.section(with_int8(sensitivity=searched(alone_sqnr_db={"a": None}))) is None
    assert sensitivity.section(with_int8()) is None


def test_the_class_with_the_lowest_recall_is_named_with_its_confusion():
    scores = ClassScores(
        **{
            "names": ("cat", "dog"),
            "images": (20, 20),
            "recall": (0.6, 0.9),
            "precision": (0.8, 0.8),
            "f1": (0.7, 0.8),
        },
        **{"balanced_accuracy": 0.75, "macro_precision": 0.8, "macro_f1": 0.75, "weighted_precision": 0.8},
        **{"weighted_f1": 0.75, "confusions": (Confusion("cat", "dog", 8, 20),), "matrix_names": (), "matrix": ()},
    )
    assert per_class.section(with_int8(classes=scores)).finding == (
        "int8 recognizes “cat” least well: 60 % of its 20 photos, with “dog” as the most frequent wrong prediction "
        "(8 photos)."
    )
    few = dataclasses.replace(scores, images=(5, 5))
    assert "too few for conclusions about single classes" in per_class.section(with_int8(classes=few)).finding


def test_the_group_with_a_significant_gap_is_named():
    day = Group("day", 100, 0.9, (0.8, 0.95), 0.6, 0.001)
    night = Group("night", 100, 0.6, (0.5, 0.7), 0.9, 0.001)
    found = groups.section(with_int8(groups=(Grouping("light", (day, night)),)))
    assert found.finding == "int8 is less accurate where “light” is “night”: 60 % against 90 % on all other photos."
    same = Grouping("light", tuple(dataclasses.replace(group, p=0.8) for group in (day, night)))
    assert groups.section(with_int8(groups=(same,))).finding == (
        "The accuracy of int8 does not differ significantly between the groups of “light”."
    )


def test_the_page_has_the_new_sections():
    report = dataclasses.replace(compared(NEAR, FAR), fine_tuning=TUNED)
    page = Page(to_html(report))
    assert page.open == []
    for title in ("Comparison of runtimes", "Fine-tuning after compression", "What to do next"):
        assert title in page.text
