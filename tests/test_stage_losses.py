"""Warnings about stages of compression that cost accuracy: when there is one, and what it says."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest

from edge_cv.evaluation.paired import paired_accuracy, sign_test
from edge_cv.evaluation.predictions import Predictions
from edge_cv.pipeline.stage_losses import warnings_of_stages
from edge_cv.recipe import Output
from edge_cv.report import Report, load, save
from edge_cv.report.terminal import show


def outputs(*stages: str, dense: str = "") -> list[Output]:
    return [Output(dense, "tflite", "float32"), *(Output(stage, "tflite", "int8") for stage in (dense, *stages))]


def predicted(images: int, **right: range) -> Predictions:
    """Predictions of two classes that are right on these images, and of all other models on all of them."""
    names = ["float32", "int8", *right]
    indices = np.zeros((images, len(names), 5), np.int32)
    indices[:, :, 0] = 1
    for column, name in enumerate(names):
        if name in right:
            indices[:, column, 0] = np.isin(np.arange(images), right[name])
    files = [Path(f"{i}.png") for i in range(images)]
    return Predictions(names, files, np.ones(images, np.int32), indices, np.ones(indices.shape, np.float32))


@pytest.mark.parametrize(("lost", "gained"), [(9, 1), (1, 9), (6, 0), (5, 5), (20, 8)])
def test_the_exact_test_sums_the_binomial_probabilities_of_both_tails(lost, gained):
    n, most = lost + gained, max(lost, gained)
    tail = sum(comb(n, k) for k in range(most, n + 1)) / 2**n
    assert sign_test(lost, gained) == pytest.approx(min(1.0, 2 * tail))
    assert sign_test(0, 0) == 1.0


def test_a_pair_is_counted_on_the_labelled_images():
    predictions = predicted(100, int8=range(5, 100), pruned_int8=range(0, 80))
    predictions.labels[95:] = -1
    found = paired_accuracy(predictions, "pruned_int8", "int8")
    assert (found.images, found.hits, found.reference_hits) == (95, 80, 90)
    assert (found.lost, found.gained) == (15, 5)
    assert found.drop == pytest.approx(10 / 95)


def test_a_sparse_model_that_is_clearly_below_the_dense_one_is_named_with_its_figures():
    (sentence,) = warnings_of_stages(outputs("pruned"), predicted(400, pruned_int8=range(0, 370)))["pruned_int8"]
    assert sentence.startswith("pruned_int8 has 7.5 points less top-1 than int8: 92.5 % against 100.0 % on 400 photos")
    assert "(30 lost, 0 gained; exact sign test: p = 1.9e-09)" in sentence
    assert sentence.endswith("or compress less.")


def test_a_drop_that_may_be_chance_is_named_as_such_if_it_is_larger_than_expected():
    lost_and_gained = predicted(100, int8=range(6, 100), pruned_int8=range(0, 88))  # 12 lost, 6 gained
    (sentence,) = warnings_of_stages(outputs("pruned"), lost_and_gained)["pruned_int8"]
    assert "p = 0.24, which may be chance" in sentence


@pytest.mark.parametrize(
    ("images", "right"),
    [
        (400, range(0, 395)),  # 1.2 points, p = 0.06
        (20, range(0, 17)),  # 15 points of too few photos
        (10_000, range(0, 9_950)),  # certain, but half a point
        (400, range(0, 400)),
    ],
)
def test_a_small_drop_and_one_of_few_photos_are_no_reason_to_warn(images, right):
    assert warnings_of_stages(outputs("pruned"), predicted(images, pruned_int8=right)) == {}


def test_training_for_int8_is_compared_with_the_int8_file_that_needed_none():
    (sentence,) = warnings_of_stages(outputs("qat"), predicted(133, qat_int8=range(0, 115)))["qat_int8"]
    assert "13.5 points less top-1 than int8" in sentence
    assert "Use int8, or train for int8 with more steps" in sentence


def test_after_another_stage_training_for_int8_is_compared_with_that_stage_and_the_dense_model():
    predictions = predicted(200, pruned_int8=range(0, 195), qat_int8=range(0, 180))
    of_dense, of_stage = warnings_of_stages(outputs("pruned", "qat"), predictions)["qat_int8"]
    assert "than int8:" in of_dense
    assert "than pruned_int8: 90.0 % against 97.5 %" in of_stage
    assert "Use pruned_int8" in of_stage


def test_the_rows_of_a_compressed_file_have_the_same_warnings():
    predictions = predicted(200, pruned_int8=range(0, 150))
    predictions.names = ("dense_float32", "dense_int8", "pruned_int8")
    (sentence,) = warnings_of_stages(outputs("pruned", dense="dense"), predictions)["pruned_int8"]
    assert "than dense_int8" in sentence


def test_images_without_one_label_each_give_no_warnings():
    predictions = predicted(200, pruned_int8=range(0, 0))
    predictions.labels[:] = -1
    assert warnings_of_stages(outputs("pruned"), predictions) == {}


def test_a_warning_is_on_the_page_in_the_terminal_and_in_report_json(tmp_path, capsys):
    report = Report({"name": "trial"}, {}, warnings=("pruned_int8 has 7.5 points less top-1.",))
    save(report, tmp_path)
    assert load(tmp_path).warnings == report.warnings
    page = (tmp_path / "report.html").read_text()
    assert "Compression costs accuracy" in page
    assert "7.5\u00a0points less" in page
    show(report)
    assert "Warning: pruned_int8 has 7.5 points less top-1." in capsys.readouterr().out
