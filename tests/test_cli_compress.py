"""The command `compress` without its training: what it passes on, and how it prints warnings."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edge_cv.pipeline import compress as job
from edge_cv.recipe import Output, Prune, Qat
from edge_cv.report import Row

WARNING = "qat_int8 has 13.5 points less top-1 than int8."


@pytest.fixture
def asked(monkeypatch):
    """The stages that the command asked for; nothing is trained."""
    stages = {}

    def compress_file(model, data, out_dir, parts, fit, **options):
        stages.update(parts)
        rows = (Row(Output(job.DENSE, "tflite", "int8"), "a.tflite"), Row(Output("qat", "tflite", "int8"), "b.tflite"))
        return job.Compressed(rows, {"qat_int8": (WARNING,)})

    monkeypatch.setattr(job, "compress_file", compress_file)
    return stages


def test_a_warning_is_printed_on_stderr_and_is_in_the_row_of_its_file(edge_cv, asked):
    command = ["compress", "mine.keras", "--data", "photos", "--qat", "--out", "smaller"]
    code, out, err = edge_cv(*command)
    assert (code, err) == (0, f"edge-cv: warning: {WARNING}\n")
    assert "warning" not in out
    code, out, err = edge_cv(*command, "--json")
    assert [row["warnings"] for row in json.loads(out)] == [[], [WARNING]]
    assert err == f"edge-cv: warning: {WARNING}\n"


def test_without_options_each_stage_has_the_length_and_the_rate_of_its_own(edge_cv, asked):
    edge_cv("compress", "mine.keras", "--data", "photos", "--sparsity", 0.75, "--qat", "--out", "smaller")
    assert asked == {"prune": Prune(0.75), "qat": Qat()}
    edge_cv("compress", "mine.keras", "--data", "photos", "--sparsity", 0.75, "--steps", 40, "--out", "smaller")
    assert asked["prune"].fine_tuning == dataclasses.replace(Prune().fine_tuning, steps=40)


def test_steps_and_epochs_together_are_refused(edge_cv, asked):
    code, _, err = edge_cv(
        *("compress", "mine.keras", "--data", "photos", "--qat", "--steps", 40, "--epochs", 1, "--out", "smaller")
    )
    assert code == 2
    assert "epochs or steps, not both" in err
