"""The model card of a run: front matter that YAML reads, and the report's figures."""

from __future__ import annotations

import dataclasses
import re

import pytest
from report_examples import HOSTILE, example

from converters import Preprocessing
from edge_cv.evaluation.conformance import Conformance, ExecutorResult
from edge_cv.recipe import Data, Model, Recipe
from edge_cv.report.model_card import model_card, write
from edge_cv.report.sentences import top1_against_labels

PREPROCESSING = Preprocessing(224, resize_to=256)
RECIPE = Recipe("demo", Model("efficientnet_lite0", weights="imagenet"), Data(measure="sample"))


def front_matter(card: str) -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def test_the_front_matter_holds_every_measured_top1_with_its_number_of_photos():
    report = example()
    (model,) = front_matter(model_card(report, RECIPE, PREPROCESSING))["model-index"]
    metrics = {metric["name"]: metric["value"] for metric in model["results"][0]["metrics"]}
    assert metrics == {f"top-1, {row.scheme}, n = 20": pytest.approx(row.top1) for row in report.rows}


def test_each_file_has_its_size_its_shares_with_intervals_and_its_sqnr():
    card = model_card(example(), RECIPE, PREPROCESSING)
    line = next(line for line in card.splitlines() if "lite0\\_int8.tflite" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert "\nint8 has 4.99 MB instead of 18.6 MB, and predicts the same class on 19 of 20 photos" in card
    assert cells[1:] == ["int8", "4.99 MB", "90 % (70–97 %)", "95 % (76–99 %)", "19.8 dB"]


def test_the_card_has_the_findings_of_the_report():
    results = (ExecutorResult("XNNPACK", "2", 0.0, 0.0, 0), ExecutorResult("reference", "2", 3.0, 0.1, 1))
    compared = Conformance("a.tflite", "XNNPACK", 20, results, {})
    report = example()
    rows = tuple(dataclasses.replace(row, conformance=compared) if row.scheme == "int8" else row for row in report.rows)
    card = model_card(dataclasses.replace(report, rows=rows), RECIPE, PREPROCESSING).replace("\\", "")
    assert f"\n- {top1_against_labels(rows)}\n" in card
    assert "\n- On 20 photos, a difference of less than 30 points between two models may be chance.\n" in card
    assert "\n- With int8, XNNPACK and reference predict different classes for 1 of 20 photos.\n" in card


def test_the_preprocessing_says_what_the_model_takes():
    assert "224 x 224 pixels, RGB" in model_card(example(), RECIPE, PREPROCESSING)
    assert "normalization is part of the model" in model_card(example(), RECIPE, PREPROCESSING)
    normalized = Preprocessing(96, mean=127.5, std=127.5, channels=1)
    assert "mean 127.5, std 127.5" in model_card(example(), RECIPE, normalized)


def test_text_of_others_is_neither_markup_nor_front_matter():
    hostile = f"a\n---\nlicense: mit\n# {HOSTILE} | cell"
    recipe = dataclasses.replace(RECIPE, data=Data(measure=hostile, calibrate=None))
    card = model_card(dataclasses.replace(example(), notes=(hostile,)), recipe, PREPROCESSING)
    assert front_matter(card)["license"] == "other"
    assert front_matter(card)["model-index"][0]["results"][0]["dataset"]["name"] == hostile
    assert "<script>" not in card.split("\n---\n", 1)[1].replace("\\<script\\>", "")
    assert card.count("\n# ") == 1


def test_the_same_report_leaves_the_file_as_it_is(tmp_path):
    path = write(example(), RECIPE, PREPROCESSING, tmp_path)
    before = path.stat().st_mtime_ns
    assert write(example(), RECIPE, PREPROCESSING, tmp_path).stat().st_mtime_ns == before
    write(dataclasses.replace(example(), notes=("another note",)), RECIPE, PREPROCESSING, tmp_path)
    assert "another note" in path.read_text()


def test_a_report_without_figures_has_a_card():
    report = dataclasses.replace(example(), rows=(), notes=())
    assert "model-index" not in front_matter(model_card(report, RECIPE, PREPROCESSING))
