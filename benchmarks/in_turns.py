"""Latencies of several TFLite files, measured in turns in one process, so that other load affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

ROUNDS, INFERENCES = 40, 10


def medians_ms(contents: Sequence[bytes]) -> list[float]:
    """The median of 400 single inferences of each file with one thread, in milliseconds."""
    from converters.tflite.runtime import interpreter

    interpreters = [interpreter(content) for content in contents]
    samples: list[list[float]] = [[] for _ in interpreters]
    for model in interpreters:
        detail = model.get_input_details()[0]
        noise = np.random.default_rng(0).integers(0, 256, detail["shape"])
        pixels = (noise - 128 if detail["dtype"] == np.int8 else noise).astype(detail["dtype"])
        model.set_tensor(detail["index"], pixels)
        for _ in range(INFERENCES):
            model.invoke()
    for _ in range(ROUNDS):
        for model, durations in zip(interpreters, samples, strict=True):
            for _ in range(INFERENCES):
                start = time.perf_counter()
                model.invoke()
                durations.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(durations) for durations in samples]
