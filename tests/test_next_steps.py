"""What the report suggests to do next: the findings that have a remedy, and commands that run."""

from __future__ import annotations

import dataclasses
import shlex

import pytest
from report_examples import FLOAT32, HOSTILE, INT8, Page, example, latency, tflite

from edge_cv.cli.app import app
from edge_cv.evaluation.confidence import Bin, Confidence, Temperature
from edge_cv.evaluation.conformance import Conformance, ExecutorResult
from edge_cv.report import Report, Row, merge
from edge_cv.report.next_steps import NextStep, meanings, next_steps
from edge_cv.report.page import to_html
from edge_cv.report.values import Epoch, ProbeResult


def report(*, images: int = 1000, recipe: dict | None = None, float_fields: dict | None = None, **int8) -> Report:
    """A run whose int8 file is twice as fast and agrees on all photos, with other figures on request."""
    fields = {"images": images, "top1": 0.9, "agreement": 1.0, "latency": (latency(4.0),), "size_bytes": 400}
    rows = (
        Row(FLOAT32, "net_float32.tflite", **fields | {"latency": (latency(8.0),)} | (float_fields or {})),
        Row(INT8, "net_int8.tflite", **fields | {"size_bytes": 100} | int8),
    )
    return Report(
        recipe or {"name": "net", "model": {"name": "mobilenet_v1"}, "data": {"measure": "photos"}}, {}, (), rows
    )


def actions(found: Report) -> list[str]:
    return [step.action for step in next_steps(found)]


def step(found: Report, action: str) -> NextStep:
    (one,) = (one for one in next_steps(found) if one.action.startswith(action))
    return one


DEVICE = "Measure on the device that will run the model."


def test_a_good_run_is_still_to_be_measured_on_its_device():
    (only,) = next_steps(report())
    assert only.action == DEVICE
    assert only.commands == (
        "edge-cv benchmark net_int8.tflite --device ssh://user@board --out board.json",
        "edge-cv report . board.json --out with_board",
    )
    phone = report(recipe={"device": {"package": "android"}})
    assert "--device adb --out phone.json" in step(phone, DEVICE).commands[0]
    assert actions(dataclasses.replace(report(), environment={"devices": {"phone": {}}})) == []


def test_a_loss_beyond_chance_leads_to_the_layers_and_to_training_for_int8():
    found = report(top1=0.85, agreement=0.9)
    assert (
        step(found, "Find the layers").reason == "int8 and float32 predict different classes for 100 of 1,000 photos."
    )
    assert step(found, "Find the layers").commands == (
        "edge-cv debug net_float32.tflite net_int8.tflite --data PHOTOS",
    )
    assert step(found, "Train the model for int8").commands == (
        "edge-cv compress model.keras --data PHOTOS --qat --out trained_for_int8",
    )
    assert "PHOTOS is a folder of labelled photos" in meanings(found, next_steps(found))
    assert actions(report(top1=0.897, agreement=0.997)) == [DEVICE]  # three photos


def test_a_loss_beyond_chance_leads_to_more_effort_unless_that_was_spent():
    assert step(report(agreement=0.9), "Convert with high effort").commands == ("edge-cv run RECIPE --set effort=high",)
    assert "Convert with high effort." not in actions(report(agreement=0.9, recipe={"effort": "high"}))
    elsewhere = report(agreement=0.9, recipe={"artifacts": {"int8": "/files/net.tflite"}})
    assert "Convert with high effort." not in actions(elsewhere)


def test_a_file_beyond_a_limit_leads_to_an_architecture_within_it():
    limits = [{"scheme": "int8", "max_size_bytes": 4_000_000, "max_p50_ms": 10.0, "max_size_ratio": 0.3}]
    recipe = {"limits": limits}
    assert step(report(recipe=recipe, size_bytes=5_000_000), "Choose an architecture").commands == (
        "edge-cv choose --max-size 4MB",
    )
    slow = report(recipe=recipe, size_bytes=5_000_000, latency=(latency(30.0),))
    assert step(slow, "Choose").commands == ("edge-cv choose --max-latency 10ms --max-size 4MB",)
    assert actions(report(recipe=recipe, size_bytes=3_000_000)) == [DEVICE]
    assert actions(report(recipe={"limits": [3, {"scheme": "int8", "max_size_bytes": "x"}]})) == [DEVICE]


def test_photos_that_every_folder_can_name_are_named():
    recipe = {"model": {"name": "net.h5"}, "data": {"measure": "sample"}}
    found = report(top1=0.5, agreement=0.5, recipe=recipe)
    assert step(found, "Find the layers").commands[0].endswith("--data sample")
    assert step(found, "Train the model").commands[0].startswith("edge-cv compress MODEL --data sample")


def test_few_photos_and_photos_without_labels_are_not_enough():
    assert "20 photos can only show differences of 30 points" in step(report(images=20), "Measure on more").reason
    assert "3 photos cannot show a difference" in step(report(images=3), "Measure on more").reason
    unlabelled = report(top1=None, float_fields={"top1": None})
    assert "one folder for each class" in step(unlabelled, "Measure on labelled").reason


def test_a_slow_scheme_is_replaced_by_a_fast_one():
    assert actions(example())[0] == "Use int8 instead of dynamic_int8."
    slow = (Row(FLOAT32, "a", 400, latency=(latency(4.0),)), Row(tflite("dynamic_int8"), "b", latency=(latency(8.0),)))
    found = dataclasses.replace(report(), rows=slow)
    assert step(found, "Convert to int8").commands == (
        "edge-cv convert model.keras --scheme int8 --calibration PHOTOS",
    )


def test_a_busy_machine_measures_again():
    busy = dataclasses.replace(latency(4.0), cpu_share=0.5)
    assert step(report(latency=(busy,)), "Measure the latency again").commands[0] == "rm stages/measure.json"


def test_runtimes_that_differ_are_compared_on_more_photos():
    results = (ExecutorResult("XNNPACK", "2", 0.0, 0.0, 0), ExecutorResult("reference", "2", 3.0, 0.1, 1))
    found = report(conformance=Conformance("net_int8.tflite", "XNNPACK", 20, results, {}))
    assert step(found, "Compare the runtimes").commands[0].endswith("--limit 200")
    same = Conformance("net_int8.tflite", "XNNPACK", 20, results[:1], {})
    assert actions(report(conformance=same)) == [DEVICE]


def test_a_confidence_that_is_wrong_beyond_chance_is_corrected_by_the_temperature():
    wrong = Confidence(1000, 0.8, 0.95, 0.15, 0.02, 0.03, (Bin(1000, 0.95, 0.8),), Temperature(1.52, 0.02))
    assert actions(report(confidence=wrong))[-1] == "Divide the logits by 1.52 before the softmax."
    assert actions(report(confidence=dataclasses.replace(wrong, ece=0.025))) == [DEVICE]


def test_a_training_that_still_improved_goes_on_and_one_below_the_probe_does_not():
    epochs = tuple(Epoch(n, 1, 0.1, 1.0, 0.5, 1.0, n / 10, 9.0, 9.0, 100) for n in (1, 2, 3))
    found = dataclasses.replace(report(), training=epochs)
    assert step(found, "Train longer").commands == ("edge-cv run RECIPE --set fit.epochs=6",)
    assert "Train longer." not in actions(dataclasses.replace(found, training=epochs[::-1]))
    probe = ProbeResult(100, 0.8, (0.7, 0.9), 0.7, (0.6, 0.8), None, None, 100, 1.0, 1.0)
    assert step(dataclasses.replace(report(), probe=probe), "Use the linear probe").commands


def test_zeros_lead_to_channels():
    pruned = dataclasses.replace(report().rows[1], output=tflite("int8", "pruned"), total_sparsity=0.75)
    found = dataclasses.replace(report(), rows=(*report().rows, pruned))
    assert "--channels 0.5" in step(found, "Remove channels").commands[0]


def test_a_comparison_of_runs_has_no_steps_of_its_own():
    assert next_steps(merge([report(), report()])) == []
    assert next_steps(dataclasses.replace(report(), rows=report().rows[:1])) == []


@pytest.mark.parametrize(
    "name", [HOSTILE, "a; rm -rf ~", "$(id)`id`", "--out", "a\nb\x1b[31m", "with space", "\u202ertl"]
)
def test_names_of_others_are_single_harmless_arguments(name):
    found = report(top1=0.5, agreement=0.5, recipe={"data": {"measure": f"/{name}"}, "model": {"name": name}})
    found = dataclasses.replace(found, rows=(found.rows[0], dataclasses.replace(found.rows[1], file=name)))
    command = step(found, "Find the layers").commands[0]
    arguments = shlex.split(command)
    assert len(arguments) == 6
    assert "\n" not in command
    assert "\x1b" not in command
    assert not arguments[3].startswith("-")
    assert Page(to_html(found)).open == []


def test_files_elsewhere_are_named_by_their_paths(tmp_path):
    path = tmp_path / "mine.tflite"
    found = report(top1=0.5, agreement=0.5, recipe={"artifacts": {"float32": str(path), "int8": "/b.tflite"}})
    assert step(found, "Find the layers").commands[0] == f"edge-cv debug {path} /b.tflite --data PHOTOS"
    assert meanings(found, next_steps(found)).startswith("PHOTOS is")
    assert meanings(report(), next_steps(report())).startswith("The commands are for the run's folder")
    assert meanings(report(), []) == ""


def test_every_command_is_one_that_the_command_line_has():
    import typer

    known = set(typer.main.get_command(app).commands)
    pruned = dataclasses.replace(report().rows[1], output=tflite("int8", "pruned"), total_sparsity=0.75)
    found = report(images=200, top1=0.5, agreement=0.5, latency=(dataclasses.replace(latency(9.0), cpu_share=0.5),))
    found = dataclasses.replace(found, rows=(*found.rows, pruned))
    commands = [shlex.split(command) for one in next_steps(found) for command in one.commands]
    assert len(commands) > 6
    for program, name, *arguments in commands:
        if program != "edge-cv":
            continue
        assert name in known
        options = {
            option for parameter in typer.main.get_command(app).commands[name].params for option in parameter.opts
        }
        assert {one for one in arguments if one.startswith("--")} <= options
