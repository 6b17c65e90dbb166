"""`convert_all`: several files of one model, converted side by side."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from converters.conversion import Conversion
from converters.convert import OPSET, InputSize, check_onnx, onnx_of, prepare, suited, tflite_of
from converters.images.preprocessing import Preprocessing
from converters.schemes import Mixed, Scheme, parse
from converters.sources import open_source

BEHIND = 10  # steps of niceness
Task = Callable[[], Conversion]


def convert_all(
    model: Any,
    schemes: Sequence[str | Scheme] = (),
    onnx: Sequence[str | Scheme] = (),
    *,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    target: str | None = None,
    opset: int = OPSET,
    batch: int | str = 1,
    input_size: InputSize = None,
    output: str | None = None,
) -> Iterator[Conversion]:
    """Convert a model to several files, each as `to_tflite` and `to_onnx` make it, in less time than one by one.

    The model is opened and converted to float32 once. An integer TFLite file is made beside the float and ONNX ones.

    Args:
        model, calibration, labels, preprocessing, input_size, output: as in `to_tflite`.
        schemes: of the TFLite files.
        onnx: of the ONNX files, as in `to_onnx`.
        target: of the TFLite files, as in `to_tflite`.
        opset, batch: of the ONNX files, as in `to_onnx`.

    Returns:
        An iterator over the Conversions, each as soon as it and those before it are made: the TFLite files in the order
        of `schemes`, then the ONNX files. What is not yet begun when the iterator is closed is not converted.

    Raises:
        InputError: as in `to_tflite`, before any file is converted.
        CheckFailed: as in `to_tflite`, in place of the first result that fails; no further ones follow.
    """
    values = [suited(scheme, target) for scheme in schemes]
    for scheme in onnx:
        check_onnx(scheme, opset, batch=batch)
    of_onnx = [parse(scheme) for scheme in onnx]
    required = any(scheme.integer for scheme in (*values, *of_onnx))
    source = open_source(model, input_size=input_size, output=output)
    job = prepare(source, preprocessing, calibration, labels, required=required)
    tasks = [(_kind(scheme), functools.partial(tflite_of, job, scheme, target)) for scheme in values]
    tasks += [(_kind(scheme), functools.partial(onnx_of, job, scheme, opset, batch=batch)) for scheme in of_onnx]
    return _side_by_side(tasks)


def _kind(scheme: Scheme) -> str:
    """`integer` and `float` schemes can be converted side by side; an `alone` one measures latencies."""
    if isinstance(scheme, Mixed):
        return "alone"
    return "integer" if scheme.integer else "float"


def _side_by_side(tasks: Sequence[tuple[str, Task]]) -> Iterator[Conversion]:
    """The results in order; one integer and one float task run at a time, which bounds the memory.

    A task that must run alone runs in the caller's thread: `mixed` measures latencies.
    """
    if len(tasks) == 1:
        yield tasks[0][1]()
        return
    with ThreadPoolExecutor(1) as integer, ThreadPoolExecutor(1, initializer=_lower_priority) as others:
        pools = {"integer": integer, "float": others}
        pending: list[Future[Conversion] | None] = [
            pools[kind].submit(task) if kind in pools else None for kind, task in tasks
        ]
        running = [future for future in pending if future is not None]
        try:
            for future, (_, task) in zip(pending, tasks, strict=True):
                if future is None:
                    wait(running)
                    yield task()
                else:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


def _lower_priority() -> None:
    """Let this thread, and those that it starts, use the cores that the slowest file leaves idle."""
    if sys.platform == "linux":  # elsewhere the priority is the process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + BEHIND)
