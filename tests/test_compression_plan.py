"""The plan of `edge-cv compress` for a model file, from the figures of its float and its int8 file."""

from __future__ import annotations

import json

import pytest

from edge_cv.pipeline import compress as job
from edge_cv.pipeline.compression_plan import plan
from edge_cv.recipe import Output, Prune, Qat
from edge_cv.report import Row


def rows(**figures):
    known = {"parameters": 3_400_000, "macs": 300_000_000, "gzip_bytes": 3_100_000, "images": 200, "agreement": 0.995}
    return (
        Row(Output(job.DENSE, "tflite", "float32"), "a.tflite"),
        Row(Output(job.DENSE, "tflite", "int8"), "b.tflite", **(known | figures)),
    )


@pytest.mark.parametrize(
    ("figures", "stages"),
    [
        ({}, ["--sparsity 0.75"]),
        ({"agreement": 0.95}, ["--sparsity 0.75", "--qat"]),
        ({"parameters": 20_000}, []),
        ({"parameters": 20_000, "agreement": 0.5}, ["--qat"]),
    ],
)
def test_the_plan_has_the_stages_that_the_model_gains_from_and_a_reason_for_each(figures, stages):
    planned = plan(rows(**figures))
    assert [stage.option for stage in planned if stage.part is not None] == stages
    assert [stage.field for stage in planned] == ["prune", "qat", "channel_prune"]
    reasons = [stage.reason for stage in planned]
    assert "3.10 MB after gzip" in reasons[0] or "20,000 weights" in reasons[0]
    assert f"{figures.get('agreement', 0.995):.1%} of 200 photos" in reasons[1]
    assert "300 million" in reasons[2]


@pytest.fixture
def asked(monkeypatch):
    """The stages of each call; nothing is trained."""
    calls = []

    def compress_file(model, data, out_dir, parts, fit, **options):
        calls.append(parts)
        return job.Compressed(rows(agreement=0.9), {})

    monkeypatch.setattr(job, "compress_file", compress_file)
    return calls


COMMAND = ["compress", "mine.keras", "--data", "photos", "--out", "smaller"]


def test_a_command_without_a_stage_prints_the_plan_and_does_nothing_more(edge_cv, asked):
    code, out, err = edge_cv(*COMMAND)
    assert (code, err, asked) == (0, "", [{}])
    assert out.splitlines()[-1] == "plan: --sparsity 0.75 --qat (--yes does this)"
    code, out, _ = edge_cv(*COMMAND, "--json")
    planned = json.loads(out)["plan"]
    assert [stage["recommended"] for stage in planned] == [True, True, False]


def test_yes_does_what_the_plan_says(edge_cv, asked):
    code, _, _ = edge_cv(*COMMAND, "--yes", "--steps", 7)
    assert code == 0
    assert [set(parts) for parts in asked] == [set(), {"prune", "qat"}]
    assert (asked[1]["prune"].fine_tuning.steps, asked[1]["qat"].fine_tuning.steps) == (7, 7)
    assert (asked[1]["prune"].sparsity, type(asked[1]["qat"])) == (Prune(0.75).sparsity, Qat)
