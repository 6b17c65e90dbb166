"""Reports and measurements of strangers, changed at random, are shown, merged and saved whole, or refused."""

from __future__ import annotations

import functools
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from mutations import SEEDS, document, refused_or_done
from report_examples import HOST, Page, example

from edge_cv.data.corruptions import NAMES
from edge_cv.evaluation.measurement import Measurement
from edge_cv.report import load, merge, save
from edge_cv.report.comparison import with_measurements
from edge_cv.report.files import load_all, to_dict
from edge_cv.report.page import to_html
from edge_cv.report.terminal import show

CASES = 15  # of each subject in the quick tests
PAGES = 3  # cases of a page with all its plots, which takes long
SHA256 = "5" * 64

CLASSES = {
    **{"names": ["cat", "dog"], "images": [3, 2], "recall": [1.0, 0.5], "precision": [0.75, 1.0], "f1": [0.86, 0.67]},
    **{"balanced_accuracy": 0.75, "macro_precision": 0.87, "macro_f1": 0.76, "weighted_precision": 0.85},
    **{"weighted_f1": 0.78, "confusions": [{"label": "dog", "answer": "cat", "photos": 1, "of": 2}]},
    **{"matrix_names": ["cat", "dog"], "matrix": [[3, 0], [1, 1]]},
}
CONFIDENCE = {
    **{"images": 5, "accuracy": 0.8, "confidence": 0.7, "ece": 0.1, "ece_by_chance": 0.12, "ece_by_chance_95": 0.3},
    **{"bins": [{"images": 5, "confidence": 0.7, "accuracy": 0.8}], "temperature": {"value": 0.9, "ece": 0.1}},
}
FAR = {"label": "dog", "answer": "cat", "ancestor": "carnivore", "height": 3, "photos": 1}
MISTAKES = {"wrong": 1, "height": 3.0, "steps": 4.0, "height_by_chance": 8.0, "worst": [FAR]}
GROUP = {"name": "day", "images": 3, "accuracy": 1.0, "accuracy_ci95": [0.4, 1.0], "others": 0.5, "p": 0.4}
GROUPS = [{"column": "light", "groups": [GROUP, {**GROUP, "name": "night", "p": 0.01}], "without": 1}]
ROBUSTNESS = {
    **{"images": 5, "clean": 0.8, "clean_ci95": [0.3, 0.9], "corruptions": list(NAMES)},
    **{"accuracy": [[0.8, 0.7, 0.6, 0.4, 0.2]] * len(NAMES), "mean_corruption_error": 0.5},
    "relative_corruption_error": 0.3,
}
MULTI_LABEL = {
    **{"images": 5, "mean_average_precision": 0.8, "names": ["cat", "dog"], "positives": [3, 2]},
    "average_precision": [0.9, 0.7],
}
EPOCH = {
    **{"epoch": 1, "phase": 1, "learning_rate": 0.01, "loss": 1.2, "score": 0.5, "validation_loss": 1.4},
    **{"validation_score": 0.4, "images_per_second": 90.0, "seconds": 3.0, "validation_images": 20},
}
CONFORMANCE = {
    **{"file": "a.tflite", "reference": "XNNPACK", "images": 5, "not_run": {"LiteRT on arm64": "edge-cv benchmark"}},
    "results": [
        {
            "executor": "XNNPACK",
            "version": "2.3",
            "max_steps": 0.0,
            "differing": 0.0,
            "flipped": 0,
            "ms_per_image": 4.0,
        },
        {
            **{"executor": "reference", "version": "2.3", "max_steps": 3.0, "differing": 0.1, "flipped": 1},
            **{"flipped_ci95": [0.01, 0.6], "operator": "CONV_2D", "layer": "stem", "ms_per_image": 900.0},
        },
        {"executor": "micro", "version": "1", "error": "the arena is too small"},
    ],
}
SENSITIVITY = {
    "alone_sqnr_db": {"stem": 31.5, "head": None},
    "wide_layers": ["stem"],
    "curve": [
        {"wide_layers": 0, "sqnr_db": 24.0, "agreement": 0.9, "latency_ms": 4.0, "size_bytes": 100},
        {"wide_layers": 1, "sqnr_db": None, "agreement": 1.0, "latency_ms": 4.5, "size_bytes": 120},
    ],
}
DELIVERY = {
    **{"name": "board", "processor": "Cortex-M7", "runtime": "TFLM", "scheme": "int8", "target": "micro"},
    "findings": [{"level": "warning", "what": "a rule", "remedy": "a remedy", "layers": ["stem"]}],
    "memory": {"activations_bytes": 9, "records_bytes": 8, "flash_bytes": 7, "widest": "stem"},
    "files": ["model.cc"],
}
PROBE = {
    **{"images": 20, "top1": 0.7, "top1_ci95": [0.5, 0.9], "fine_tuned": 0.6, "fine_tuned_ci95": [0.4, 0.8]},
    **{"cross_validated": 0.65, "cross_validated_ci95": [0.6, 0.7], "training_images": 90},
    **{"inverse_penalty": 0.1, "seconds": 3.0},
}


@functools.cache
def report_text() -> str:
    """A small report with every section."""
    fields = json.loads(json.dumps(to_dict(example(photos=2, layers=3, jpeg=b"\xff\xd8\xff"))))
    for row in fields["rows"]:
        for latency in row["latency"]:
            latency["samples_ms"], latency["runs"] = latency["samples_ms"][:3], 3
    int8 = next(row for row in fields["rows"] if row["scheme"] == "int8")
    int8 |= {"classes": CLASSES, "confidence": CONFIDENCE, "mistakes": MISTAKES, "groups": GROUPS, "sha256": SHA256}
    int8 |= {
        "conformance": CONFORMANCE,
        "sensitivity": SENSITIVITY,
        "robustness": ROBUSTNESS,
        "sparsity": {"stem": 0.5, "head": 0.7},
        "total_sparsity": 0.6,
    }
    fields["rows"][0] |= {"classes": CLASSES, "confidence": CONFIDENCE, "groups": GROUPS, "robustness": ROBUSTNESS}
    fields["rows"][-1]["multi_label"] = MULTI_LABEL
    pruned = {**int8, "scheme": "pruned_int8", "stage": "pruned", "quantization": "int8", "macs": 9}
    fields["rows"].append(pruned)
    picture = {"name": "cat", "jpeg": "/9j/"}
    fields["explained"] = [
        {"photo": "a.jpg", "label": "cat", "answer": "dog", "probability": 0.9, "jpeg": "/9j/", "overlays": [picture]}
    ]
    fields |= {"training": [EPOCH, {**EPOCH, "epoch": 2}], "delivery": DELIVERY, "probe": PROBE}
    fields["fine_tuning"] = [{"stage": "pruned", "epochs": [{**EPOCH, "sparsity": 0.5}, {**EPOCH, "sparsity": 0.7}]}]
    fields |= {"warnings": ["a warning"], "violations": ["a limit"]}
    return json.dumps(fields)


def measurement() -> dict[str, Any]:
    """A measurement with every field."""
    latency = {"host": HOST, "runtime": "LiteRT", "threads": 1, "p50_ms": 2.0, "p90_ms": 2.1, "p99_ms": 2.2, "runs": 3}
    return {
        **{"schema": 1, "kind": "measurement", "artifact": {"file": "a.tflite", "sha256": SHA256}},
        "device": {"host": "phone", "system": "Android 15", "throttled": "no"},
        "latency": [{**latency, "samples_ms": [1.9, 2.0, 2.2], "cpu_share": 0.9}, {**latency, "threads": 4}],
        **{"peak_memory_bytes": 10**7, "temperature_c": [40.0, 50.0], "clock_mhz": [1500.0, 1400.0]},
        "golden": {"sha256": "6" * 64, "images": 2, "outputs": [[1, 2, 3], [3, 2, 1]]},
        "likeness": {"runtime": "here", "images": 2, "top1_equal": 2, "max_steps": 1, "max_abs_error": None},
        "error": "the device disconnected",
    }


def use_report(content: bytes, folder: Path, *, page: bool) -> None:
    """Load a report, print it, merge it with a whole one, and save the page."""
    (folder / "report.json").write_bytes(content)
    other = folder / "other"
    other.mkdir(exist_ok=True)
    (other / "report.json").write_text(report_text())
    reports, _ = load_all([folder, other])
    alone, merged = reports[0], merge(reports)
    for report in (alone, merged):
        show(report, io.StringIO())
        json.dumps(to_dict(report), allow_nan=False).encode("ascii")
    if page:
        save(alone, folder / "saved")
        assert to_dict(load(folder / "saved")) == to_dict(alone)
        assert Page((folder / "saved" / "report.html").read_text()).open == []
        to_html(merged)


def use_measurement(content: bytes, folder: Path, *, page: bool) -> None:
    """Load a measurement and add it to a report."""
    (folder / "phone.json").write_bytes(content)
    (folder / "report.json").write_text(report_text())
    reports, measurements = load_all([folder, folder / "phone.json"])
    merged = with_measurements(reports[0], measurements)
    show(merged, io.StringIO())
    json.dumps(to_dict(merged), allow_nan=False)
    measurements[0].save(folder / "again.json")
    assert Measurement.load(folder / "again.json") == measurements[0]
    if page:
        to_html(merged)


SUBJECTS = {"report": (lambda: json.loads(report_text()), use_report), "measurement": (measurement, use_measurement)}


def fuzz(subject: str, folder: Path, cases: int, seed: int, pages: int) -> int:
    """The number of cases that were used."""
    original, use = SUBJECTS[subject]
    rng, done = random.Random(f"{subject} {seed}"), 0
    for case in range(cases):
        content = document(original(), rng)
        try:
            with refused_or_done():
                use(content, folder, page=pages > 0 and case % (cases // pages) == 0)
                done += 1
        except BaseException as error:
            (folder / "case.json").write_bytes(content)
            raise AssertionError(f"{subject}, seed {seed}, case {case}: {folder / 'case.json'}") from error
    return done


@pytest.mark.parametrize("subject", SUBJECTS)
def test_changed_reports_are_shown_or_refused(subject, tmp_path):
    assert fuzz(subject, tmp_path, CASES, 0, 0) > CASES / 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_many_changed_reports_are_shown_or_refused(subject, seed, tmp_path):
    fuzz(subject, tmp_path, 200, seed, PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_unchanged_report_is_shown(subject, tmp_path):
    original, use = SUBJECTS[subject]
    use(json.dumps(original()).encode(), tmp_path, page=True)
