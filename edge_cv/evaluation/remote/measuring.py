"""`measure_on`: latency and memory of a model on a device, and its outputs compared with those of this machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from edge_cv.evaluation.measurement import Measurement, compare
from edge_cv.evaluation.remote.address import Address, Host, parse
from edge_cv.evaluation.remote.connecting import connect
from edge_cv.evaluation.remote.golden import (
    IMAGES,
    DescribedModel,
    GoldenInputs,
    describe,
    golden_inputs,
    golden_outputs,
    stored_threshold,
)
from edge_cv.evaluation.remote.results import measurement_of
from edge_cv.evaluation.runner_events import Repetitions, RunnerEvents, check_runtime, runner_events


def measure_on(
    device: str | Address,
    artifact: str | os.PathLike,
    *,
    threads: Sequence[int] = (1,),
    runs: int = 50,
    warmup: int = 10,
    golden_images: int = IMAGES,
    declaration: Declaration = NOTHING,
    runtime: str = "interpreter",
    on_progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measure a model on a device and compare its outputs there with its outputs on this machine.

    Args:
        device: `host` (this machine), `ssh://[user@]host[:port][?python=PATH]` or `adb[:serial][?delegate=gpu]`.
        artifact: a .tflite or .onnx file; a phone takes only .tflite.
        threads, runs, warmup, on_progress: as in `edge_cv.evaluation.measure`.
        declaration: what the caller says about a file that does not declare its input.
        runtime: `interpreter`, or `compiled` for LiteRT's CompiledModel, for .tflite files on this machine.
        golden_images: number of inputs whose outputs are compared, 1 or more.

    Returns:
        The measurement. If the device failed or disconnected before the end, or answered only a part, it holds the
        results until then, and the reason in `error`.

    Raises:
        InputError: the device cannot be reached, or nothing could be measured.
    """
    address = parse(device) if isinstance(device, str) else device
    check_runtime(runtime, [Path(artifact)], here=isinstance(address, Host))
    repetitions = Repetitions(tuple(threads), runs, warmup, runtime)
    model = describe(Path(artifact))
    if isinstance(address, Host):
        return _measure_here(model, repetitions, on_progress)
    golden = golden_inputs(model, golden_images, declaration) if model.single else None
    measurement = connect(address).measure(model, golden, repetitions, on_progress)
    try:
        return _compared(measurement, model, golden, repetitions)
    except InputError as reason:  # what was measured is kept
        return dataclasses.replace(measurement, golden=None, error=measurement.error or f"{address}: {reason}")


def _compared(
    measurement: Measurement, model: DescribedModel, golden: GoldenInputs | None, repetitions: Repetitions
) -> Measurement:
    """A device's measurement with its outputs compared; InputError if a part of it is missing."""
    if measurement.error is None and len(measurement.latency) != len(repetitions.threads):
        raise InputError(
            f"the device must report a latency for each of the thread counts {repetitions.threads}. "
            f"Received: {len(measurement.latency)}"
        )
    if golden is None:
        return measurement
    if measurement.golden is None:
        if measurement.error is None:
            raise InputError("the device must give outputs for the golden inputs. Received: none")
        return measurement
    ours, theirs = golden_outputs(model, golden), measurement.golden.outputs
    likeness = compare(ours, theirs, model.runtime, stored_threshold(model))
    return dataclasses.replace(measurement, likeness=likeness)


def _measure_here(
    model: DescribedModel, repetitions: Repetitions, on_progress: Callable[[int, int], None] | None
) -> Measurement:
    events = RunnerEvents(repetitions.threads, repetitions.runs, on_progress)
    for event in runner_events(model.path, *repetitions.options()):
        events.add(event)
    return measurement_of(model, events, None, None)
