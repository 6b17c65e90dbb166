"""Latencies of several TFLite files in one process, taken alternately: what else the machine does falls on all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

ROUNDS, INFERENCES = 40, 10


def medians_ms(contents: Sequence[bytes]) -> list[float]:
    """The median of 400 single inferences of each file at one thread, in milliseconds."""
    from converters.tflite.runtime import interpreter

    runners = [interpreter(content) for content in contents]
    samples: list[list[float]] = [[] for _ in runners]
    for at in runners:
        detail = at.get_input_details()[0]
        noise = np.random.default_rng(0).integers(0, 256, detail["shape"])
        at.set_tensor(detail["index"], (noise - 128 if detail["dtype"] == np.int8 else noise).astype(detail["dtype"]))
        for _ in range(INFERENCES):
            at.invoke()
    for _ in range(ROUNDS):
        for at, into in zip(runners, samples, strict=True):
            for _ in range(INFERENCES):
                start = time.perf_counter()
                at.invoke()
                into.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(of) for of in samples]
