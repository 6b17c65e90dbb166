"""Measuring on the device itself: boards and computers by ssh, Android phones by adb.

measurement = measure_on("ssh://pi@raspberrypi.local", "model_int8.tflite", threads=(1, 4))
measurement.save("pi.json")  # edge-cv report RUN pi.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cv.evaluation.benchmark import check_counts
from edge_cv.evaluation.measurement import Measurement, compare
from edge_cv.evaluation.remote.address import Adb, Address, Host, Ssh, parse
from edge_cv.evaluation.remote.golden import IMAGES, DescribedModel, describe, golden_inputs, golden_outputs
from edge_cv.evaluation.runner_events import RunnerEvents, runner_events, runner_options

if TYPE_CHECKING:
    from edge_cv.evaluation.remote.device import RemoteDevice

__all__ = ["Adb", "Address", "Host", "Ssh", "measure_on", "parse"]


def measure_on(
    device: str | Address,
    artifact: str | os.PathLike,
    *,
    threads: Sequence[int] = (1,),
    runs: int = 50,
    warmup: int = 10,
    golden_images: int = IMAGES,
    on_progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measures an artifact on a device, and compares its answers there with those here.

    Args:
        device: `host`, `ssh://[user@]host[:port][?python=PATH]` or `adb[:serial][?delegate=gpu]`.
        artifact: a .tflite or .onnx file; a phone takes .tflite alone.
        threads, runs, warmup, on_progress: as `edge_cv.evaluation.measure` takes them.
        golden_images: inputs whose outputs are compared, 1 or more.

    Returns:
        What was measured. Where the device failed or vanished before the end, the part that came, and why in `error`.

    Raises:
        InputError: nothing could be measured, for a reason that the message tells.
    """
    address = parse(device) if isinstance(device, str) else device
    check_counts(threads, runs, warmup)
    known = describe(Path(artifact))
    options = {"threads": tuple(threads), "runs": runs, "warmup": warmup, "on_progress": on_progress}
    if isinstance(address, Host):
        return _measure_here(known, **options)
    inputs = golden_inputs(known, golden_images) if known.single else None
    golden = None if inputs is None else (hashlib.sha256(inputs).hexdigest(), inputs)
    measurement = connect(address).measure(known, golden, **options)
    if measurement.golden is None or inputs is None:
        return measurement
    likeness = compare(golden_outputs(known, inputs), measurement.golden.outputs, known.runtime)
    return dataclasses.replace(measurement, likeness=likeness)


def connect(address: Ssh | Adb) -> RemoteDevice:
    """The device at the address; it is not spoken to before it is used."""
    if isinstance(address, Ssh):
        from edge_cv.evaluation.remote.board import Board

        return Board(address)
    from edge_cv.evaluation.remote.phone import Phone

    return Phone(address)


def _measure_here(
    artifact: DescribedModel,
    *,
    threads: Sequence[int],
    runs: int,
    warmup: int,
    on_progress: Callable[[int, int], None] | None,
) -> Measurement:
    from edge_cv.evaluation.remote.results import measurement_of

    gathered = RunnerEvents(threads, runs, on_progress)
    for event in runner_events(artifact.path, *runner_options(threads, runs, warmup)):
        gathered.add(event)
    return measurement_of(artifact, gathered, None, None)
