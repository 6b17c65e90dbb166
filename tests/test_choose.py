"""The measured table of the architectures, and the choice within a budget."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv import models
from edge_cv.cli.options import quantity
from edge_cv.cli.zoo import BYTES, MILLISECONDS
from edge_cv.models.measured import MeasuredFile, MeasuredModel, MeasuredTable, load
from edge_cv.pipeline.choose import Budget, candidates, within


def edge_cv(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "edge_cv.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def row(name: str, size_bytes: int, p50_ms: float, whole_on: tuple[str, ...] = ("cpu", "micro")) -> MeasuredModel:
    file = MeasuredFile(size_bytes, p50_ms, 1.0, None, 1_000_000)
    return MeasuredModel(name, 224, dataclasses.replace(file, size_bytes=4 * size_bytes), file, whole_on)


TABLE = MeasuredTable(
    "CPU (2 cores)",
    "runtime 1",
    "2026-11-29T12:00:00+00:00",
    {"keras": "3"},
    (
        row("mobilenet_v1", 4_500_000, 3.0),
        row("mobilenet_v2", 3_900_000, 2.0),
        row("efficientnet_lite0", 5_000_000, 4.0),
        row("mobilenet_v3_small", 2_800_000, 1.0, ("cpu",)),
    ),
)


@pytest.fixture
def table(tmp_path) -> Path:
    TABLE.save(tmp_path / "table.json")
    return tmp_path / "table.json"


# --- the packaged table -----------------------------------------------------------------------------------------------


def test_the_packaged_table_was_measured_on_a_calm_machine():
    table = load()
    assert table.host
    assert table.date[:4] == "2026"
    shares = [file.cpu_share for model in table.models for file in (model.float32, model.int8)]
    assert sum(shares) / len(shares) > 0.9


def test_the_packaged_table_has_every_architecture_but_the_giants():
    measured = {model.name: model for model in load().models}
    assert set(models.names()) - set(measured) == {"efficientnet_b5", "efficientnet_b6", "efficientnet_b7"}
    for name, model in measured.items():
        published = models.describe(name)
        assert model.image_size == published["image_size"]
        assert model.float32.size_bytes == pytest.approx(4 * published["parameters"], rel=0.02)
        assert 0.9 < model.int8.size_bytes / published["parameters"] < 1.25


# --- the choice -------------------------------------------------------------------------------------------------------


def best(**budget) -> str | None:
    fitting = within(candidates(TABLE, Budget(**budget)))
    return fitting[0].measured.name if fitting else None


def test_the_highest_published_top1_within_the_budget_is_chosen():
    assert best() == "efficientnet_lite0"  # 75.1 %
    assert best(max_latency_ms=3.5) == "mobilenet_v2"  # 72.0 %, and V1 has 70.6 %
    assert best(max_size_bytes=3_000_000) == "mobilenet_v3_small"
    assert best(max_latency_ms=2.0, max_size_bytes=3_900_000) == "mobilenet_v2"  # a limit is inclusive
    assert best(max_latency_ms=0.5) is None


def test_a_model_that_the_target_does_not_run_whole_is_not_chosen():
    assert best(target="micro", max_size_bytes=3_000_000) is None
    with pytest.raises(InputError, match="unknown target: 'fpga'"):
        candidates(TABLE, Budget("fpga"))


def test_beyond_the_budget_the_nearest_by_its_largest_excess_comes_first():
    found = candidates(TABLE, Budget(max_latency_ms=0.9, max_size_bytes=1_000_000))
    excesses = {"mobilenet_v3_small": 2.8, "mobilenet_v2": 3.9, "mobilenet_v1": 4.5, "efficientnet_lite0": 5.0}
    assert [one.measured.name for one in found] == list(excesses)
    assert [one.excess for one in found] == pytest.approx(list(excesses.values()))


@pytest.mark.parametrize(
    ("units", "text", "value"),
    [
        (MILLISECONDS, "10ms", 10),
        (MILLISECONDS, "0.02 s", 20),
        (MILLISECONDS, "500us", 0.5),
        (BYTES, "4MB", 4e6),
        (BYTES, "4mb", 4e6),
        (BYTES, "512KiB", 524_288),
        (BYTES, ".5 MB", 5e5),
    ],
)
def test_a_quantity_has_a_number_and_a_unit(units, text, value):
    assert quantity("--max", text, units) == pytest.approx(value)


@pytest.mark.parametrize("text", ["10", "ms", "-1ms", "0ms", "1e3ms", "10 parsecs", "", "nanms", "10ms 5ms"])
def test_another_quantity_is_refused(text):
    with pytest.raises(InputError, match="--max-latency must be a number above 0 with a unit: us, ms, s"):
        quantity("--max-latency", text, MILLISECONDS)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_choose_prints_the_costs_the_next_command_and_the_machine(table):
    done = edge_cv("choose", "--max-latency", "3.5ms", "--max-size", "4MB", "--table", table)
    assert done.returncode == 0, done.stderr
    assert "best: mobilenet_v2: top-1 72.0%, 2 ms, 3.9 MB" in done.stdout
    assert "next: edge-cv train mobilenet_v2 --weights imagenet --data photos --out runs/mobilenet_v2" in done.stdout
    assert "measured on CPU (2 cores) with runtime 1, one thread, 2026-11-29" in done.stderr


def test_choose_as_json_has_every_candidate_best_first(table):
    done = edge_cv("choose", "--table", table, "--max-size", "4.6MB", "--json")
    result = json.loads(done.stdout)
    assert [one["model"] for one in result["candidates"]] == ["mobilenet_v2", "mobilenet_v1", "mobilenet_v3_small"]
    assert result["next"].startswith("edge-cv train mobilenet_v2 ")
    assert result["measured"]["host"] == "CPU (2 cores)"


def test_without_a_model_within_the_budget_the_nearest_is_named_and_the_exit_code_is_2(table):
    done = edge_cv("choose", "--max-latency", "0.5ms", "--table", table)
    assert done.returncode == 2
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert "no architecture is within the budget. The nearest is mobilenet_v3_small: top-1 67.4%, 1 ms, 2.8 MB" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-latency", "10"], "--max-latency must be a number above 0 with a unit"),
        (["--max-size", "4 apples"], "--max-size must be a number above 0 with a unit"),
        (["--target", "edgetpu", "--max-latency", "10ms"], "--max-latency is measured for the target cpu only"),
        (["--target", "abacus"], "unknown target: 'abacus'"),
        (["--table", "nosuch.json"], "nosuch.json cannot be read"),
    ],
)
def test_bad_input_of_choose_is_one_line(words, message):
    done = edge_cv("choose", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields | {"kind": "measurement"}, "must have the kind 'models'"),
        (lambda fields: fields | {"models": 3}, "models"),
        (lambda fields: {name: value for name, value in fields.items() if name != "host"}, "must have host"),
        (lambda fields: fields | {"models": [{"name": "alexnet"}]}, "must have image_size"),
    ],
)
def test_a_table_with_a_wrong_field_is_refused(change, message, table):
    table.write_text(json.dumps(change(json.loads(table.read_text()))))
    with pytest.raises(InputError, match=message):
        load(table)


def test_a_saved_table_is_read_back_equal(table):
    assert load(table) == TABLE


def test_names_are_for_measuring_only():
    done = edge_cv("models", "--name", "alexnet")
    assert done.returncode == 2
    assert "--name is for --measure only" in done.stderr


@pytest.mark.slow
def test_measuring_an_architecture_writes_a_table_and_resumes(tmp_path):
    words = ("models", "--measure", "--name", "mobilenet_v3_small", "--out", tmp_path, "--json")
    done = edge_cv(*words)
    assert done.returncode == 0, done.stderr
    table = load(tmp_path / "models.json")
    (measured,) = table.models
    assert measured.name == "mobilenet_v3_small"
    for scheme in ("float32", "int8"):
        file = tmp_path / f"mobilenet_v3_small_{scheme}.tflite"
        assert getattr(measured, scheme).size_bytes == file.stat().st_size
        assert getattr(measured, scheme).p50_ms > 0
    assert measured.int8.arena_bytes < measured.float32.arena_bytes
    assert "cpu" in measured.whole_on

    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tflite")}
    assert edge_cv(*words).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tflite")} == times
    assert load(tmp_path / "models.json") == table


def test_an_unknown_architecture_is_refused_before_anything_is_measured(tmp_path):
    done = edge_cv("models", "--measure", "--name", "resnet", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "unknown model: 'resnet'" in done.stderr
    assert not (tmp_path / "out").exists()
