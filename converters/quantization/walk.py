"""Running a graph operator by operator, so that one operator's weights can change before the next one runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from converters.quantization.activations import Activations
from converters.tflite.graph import Graph
from converters.tflite.operator_files import OperatorFiles
from converters.tflite.runtime import interpreter

LEAST_COMPACT = 4096  # values an image, of a float tensor that is held in 16 bits
Values = np.ndarray | Activations


class Walk:
    """Runs a graph operator by operator on all images; a tensor is kept until its last reader has run.

    Attributes:
        graph: the graph, as it was at the beginning.
        operators: its operators.
        values: the tensors that are still to be read, each `(n, ...)`.
    """

    values: dict[int, Values]

    def __init__(self, graph: Graph, inputs: np.ndarray) -> None:
        self.graph = graph
        self.operators = list(graph.operators())
        self.values = {graph.inputs[0]: inputs}
        self._files = OperatorFiles(graph)
        self._position = 0
        self._last_reader = {t: operator.index for operator in self.operators for t in operator.inputs}

    def run_until(self, position: int) -> None:
        """Run the operators before this position that have not run yet."""
        while self._position < position:
            feeds = [self.values[tensor] for tensor in self._files.inputs[self._position]]
            outputs = run(self._files.content(self._position), feeds)
            self.values.update(zip(self.operators[self._position].outputs, outputs, strict=True))
            self._position += 1
            for tensor in [t for t in self.values if self._last_reader.get(t, -1) < self._position]:
                del self.values[tensor]

    def set_constant(self, operator: int, position: int, values: np.ndarray) -> None:
        """Change a constant, before its operator runs; see `OperatorFiles.set_constant`."""
        self._files.set_constant(operator, position, values)


def run(content: bytes, feeds: Sequence[Values]) -> list[Values]:
    """The outputs of a graph of batch 1, each `(n, ...)`, for inputs `(n, ...)`. Large float ones take 16 bits a value.

    The converter drops the batch axis of tensors of 1 x 1 pixel: such a tensor `(channels,)` is `(n, channels)` here.
    """
    count = len(feeds[0])
    interpreters = [interpreter(content) for _ in range(max(1, min(os.cpu_count() or 1, count)))]
    results: list[Values] = [
        _empty((count, *(shape[1:] if shape[:1] == [1] else shape)), detail["dtype"])
        for detail in interpreters[0].get_output_details()
        for shape in [detail["shape"].tolist()]
    ]

    def every(first: int) -> None:
        at = interpreters[first]
        inputs, outputs = at.get_input_details(), at.get_output_details()
        for image in range(first, count, len(interpreters)):
            for detail, feed in zip(inputs, feeds, strict=True):
                at.set_tensor(detail["index"], feed[image].reshape(detail["shape"]))
            at.invoke()
            for detail, result in zip(outputs, results, strict=True):
                # Copied from a view, which must be gone before the interpreter runs again.
                result[image] = at.tensor(detail["index"])().reshape(result.shape[1:])

    with ThreadPoolExecutor(len(interpreters)) as pool:
        list(pool.map(every, range(len(interpreters))))
    return results


def _empty(shape: tuple[int, ...], dtype: type) -> Values:
    large = dtype == np.float32 and np.prod(shape[1:]) >= LEAST_COMPACT
    return Activations.empty(shape) if large else np.empty(shape, dtype)


def bytes_per_image(graph: Graph) -> int:
    """The most memory, in bytes, that one image's activations take while a float graph and its int8 form are walked."""
    operators = list(graph.operators())
    last_reader = {t: operator.index for operator in operators for t in operator.inputs}
    alive, most = {graph.inputs[0]}, 1
    for operator in operators:
        alive.update(operator.outputs)
        most = max(most, sum(3 * int(np.prod(graph.shape(t))) for t in alive))
        alive = {t for t in alive if last_reader.get(t, -1) > operator.index}
    return most
