"""Mixed precision: the search for the layers of an int8 file that must stay wide.

1. Each layer alone is quantized in the float graph; the layers are ranked by the error of the logits.
2. The most sensitive layers, more and more of them, are kept wide in the int8 file until a budget holds. A layer's
   activation, such as swish, is kept wide with it: in int8 it would round the layer's output after all.

Every file on the way is measured, so that the result includes the trade-off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.float_model import output_meaning
from converters.parity import compare, sqnr_db
from converters.quantization.ranges import activations_of
from converters.tflite.graph import WEIGHTED, Graph, Operator
from converters.tflite.runtime import interpreter, predict
from converters.tflite.versions import set_versions

TRIAL_IMAGES = 8  # enough to rank the layers
MAX_TRIALS = 200  # only the layers with the most weights are ranked
LATENCY_RUNS = 15
# Operators with kernels for int16 activations, where all computed inputs and outputs are int16.
INT16_KERNELS = (*WEIGHTED, "ADD", "MEAN")


@dataclass(frozen=True)
class Point:
    """One file of the search, measured on held-out images.

    Attributes:
        wide_layers: the number of wide layers.
        sqnr_db: of the logits against the float model.
        agreement: share of images, 0..1, with the float model's top-1.
        latency_ms: median of single inferences at one thread.
        size_bytes: of the file.
    """

    wide_layers: int
    sqnr_db: float
    agreement: float
    latency_ms: float
    size_bytes: int


@dataclass(frozen=True)
class Search:
    """The result of a search.

    Attributes:
        content: the fastest file that keeps the budget, or the one with the highest SQNR.
        met: whether it keeps the budget.
        wide: the names of its wide layers, the most sensitive first.
        errors: for each layer the logits' SQNR in dB when it alone is quantized.
        curve: every measured file, from none to the most wide layers.
    """

    content: bytes
    met: bool
    wide: tuple[str, ...]
    errors: dict[str, float]
    curve: tuple[Point, ...]


def search(
    float_content: bytes,
    int8_content: bytes,
    inputs: np.ndarray,
    holds: Callable[[Point], bool],
    *,
    kind: str = "float32",
) -> Search:
    """Search the file with the fewest wide layers that keeps a budget.

    Args:
        float_content: the float graph that the int8 file was made from; layers are matched by name.
        int8_content: the file, with int8 input and output.
        inputs: held-out images `(n, height, width, 3)`, float32, the float graph's input.
        holds: whether a measured file keeps the budget.
        kind: `float32`; or `int16`, int8 weights with int16 activations where kernels exist, else float32.
    """
    errors = alone(float_content, int8_content, inputs[:TRIAL_IMAGES])
    ranked = sorted(errors, key=lambda name: errors[name])
    reference, meaning = predict(float_content, inputs), output_meaning(Graph(float_content))
    measured: dict[int, tuple[Point, bytes]] = {}

    def at(count: int) -> Point:
        if count not in measured:
            content = widened(float_content, int8_content, ranked[:count], kind=kind)
            outputs = predict(content, inputs)
            parity = compare(reference, outputs, meaning=meaning)
            point = Point(count, parity.sqnr_db, parity.top1_agreement, _latency_ms(content), len(content))
            measured[count] = point, content
        return measured[count][0]

    count = 0
    while not holds(at(count)) and count < len(ranked):
        count = min(len(ranked), max(1, 2 * count))
    met = holds(at(count))
    low = count // 2 if met else count
    while met and count - low > 1:  # bisect between the last that failed and the first that held
        middle = (low + count) // 2
        low, count = (low, middle) if holds(at(middle)) else (middle, count)
    curve = tuple(measured[n][0] for n in sorted(measured))
    within = [point for point in curve if holds(point)]
    chosen = min(within, key=lambda p: p.latency_ms) if within else max(curve, key=lambda p: p.sqnr_db)
    content = measured[chosen.wide_layers][1]
    return Search(content, bool(within), tuple(ranked[: chosen.wide_layers]), errors, curve)


def alone(float_content: bytes, int8_content: bytes, inputs: np.ndarray) -> dict[str, float]:
    """The SQNR of the logits, in dB, when one layer alone has the int8 file's weights and output; by name of layer."""
    graph, quantized = Graph(float_content), Graph(int8_content)
    twins = quantized.by_output()

    def can_be_wide(operator: Operator) -> bool:
        twin = twins.get(graph.name(operator.outputs[0]))
        if twin is None or twin.name != operator.name:  # a table of a function's results stays narrow
            return False
        integers = [t for t in (*twin.inputs, *twin.outputs) if quantized.quantization(t) is not None]
        return len(twin.outputs) == 1 and twin.outputs[0] in integers and len(integers) > 1

    followers = _activations(quantized)
    operators = [o for o in graph.operators() if can_be_wide(o) and graph.name(o.outputs[0]) not in followers]

    def weights(operator: Operator) -> int:
        return max(
            (int(np.prod(graph.shape(t))) for t in operator.inputs[1:2] if graph.constant(t) is not None), default=0
        )

    operators = sorted(operators, key=weights, reverse=True)[:MAX_TRIALS]
    reference = predict(float_content, inputs)
    errors = {}
    for operator in operators:
        trial = Graph(float_content)
        name = trial.name(operator.outputs[0])
        _quantize_one(trial, operator, quantized, twins[name])
        errors[name] = round(sqnr_db(reference, predict(trial.to_bytes(), inputs)), 2)
    return errors


def _quantize_one(graph: Graph, operator: Operator, quantized: Graph, twin: Operator) -> None:
    """Give one operator of a float graph the int8 weights of its twin, and round its output."""
    if operator.name in WEIGHTED and operator.name == twin.name and len(operator.inputs) == len(twin.inputs):
        inputs = list(operator.inputs)
        for place in range(1, len(inputs)):
            values, quantization = quantized.constant(twin.inputs[place]), quantized.quantization(twin.inputs[place])
            if values is None or quantization is None:
                continue
            scale = quantization[0]
            if operator.name != "DEPTHWISE_CONV_2D" and len(scale) > 1:
                scale = scale.reshape(-1, *[1] * (values.ndim - 1))
            inputs[place] = graph.add_tensor(
                f"{graph.name(inputs[place])}/rounded",
                "FLOAT32",
                values.shape,
                values=(values * scale.astype(np.float64)).astype(np.float32),
            )
        graph.set_inputs(operator, inputs)
    parameters = quantized.quantization(twin.outputs[0])
    if parameters is None:
        return
    output = operator.outputs[0]
    stored = graph.add_tensor(
        "rounded/int8", "INT8", graph.shape(output), scale=float(parameters[0][0]), zero_point=int(parameters[1][0])
    )
    rounded = graph.add_tensor("rounded/float", "FLOAT32", graph.shape(output))
    for reader in graph.subgraph.operators:
        reader.inputs = np.array([rounded if t == output else t for t in reader.inputs], np.int32)
    if output in graph.outputs:
        graph.replace_output(output, rounded)
    graph.add_operator("QUANTIZE", [output], [stored], at=operator.index + 1)
    graph.add_operator("DEQUANTIZE", [stored], [rounded], at=operator.index + 2)
    set_versions(graph)


def widened(float_content: bytes, int8_content: bytes, names: Sequence[str], *, kind: str = "float32") -> bytes:
    """The int8 file with some layers wide: their inputs are widened, and their outputs narrowed for int8 layers.

    Args:
        float_content, int8_content, kind: as in `search`.
        names: of the layers' outputs.
    """
    if not names:
        return int8_content
    graph = Graph(int8_content)
    return _Widening(Graph(float_content), graph, _with_activations(graph, names), kind).content()


def _with_activations(graph: Graph, names: Sequence[str]) -> frozenset[str]:
    """The names of layers' outputs, and of the outputs of the activations that read them."""
    return frozenset(names) | {name for name, layer in _activations(graph).items() if layer in names}


def _activations(graph: Graph) -> dict[str, str]:
    """For the output of each activation after a weighted layer the name of the layer's output."""
    readers, activated = graph.readers(), activations_of(graph)
    return {
        graph.name(reader.outputs[0]): graph.name(operator.outputs[0])
        for operator in graph.operators()
        if operator.name in WEIGHTED and graph.name(operator.outputs[0]) in activated
        for reader in readers[operator.outputs[0]]
    }


class _Widening:
    """Rewrites an int8 graph so that some of its layers are wide."""

    def __init__(self, reference: Graph, graph: Graph, names: frozenset[str], kind: str) -> None:
        self._reference, self._graph = reference, graph
        self._twins = reference.by_output()
        self._constants = {t for t in range(len(graph.tensors)) if graph.constant(t) is not None}
        self._readers = graph.readers()
        self._types = {
            op.index: _wide_type(graph, op, kind) for op in graph.operators() if graph.name(op.outputs[0]) in names
        }
        self._wide: dict[tuple[int, str], int] = {}  # (int8 tensor, type) -> the tensor with the same values, wider
        self._computed: set[int] = set()
        self._order: list[Any] = []  # the new operators: those of the schema, or (name, input, output) of a conversion

    def content(self) -> bytes:
        graph = self._graph
        for operator in graph.operators():
            to = self._types.get(operator.index)
            if to is not None:
                self._widen_layer(operator, to)
            self._order.append(graph.subgraph.operators[operator.index])
            if to is not None:
                self._narrow_output(operator, to)
        graph.subgraph.operators = []
        for entry in self._order:
            if isinstance(entry, tuple):
                name, source, result = entry
                graph.add_operator(name, [source], [result], at=len(graph.subgraph.operators))
            else:
                graph.subgraph.operators.append(entry)
        set_versions(graph)
        return graph.to_bytes()

    def _widen_layer(self, operator: Operator, to: str) -> None:
        """Let the operator read and write wide tensors."""
        graph, computed = self._graph, self._computed
        variable = [t for t in operator.inputs if t not in self._constants and graph.quantization(t) is not None]
        for tensor in variable:
            wide = self._widen(tensor, to)
            if wide not in computed:
                others = (self._wide.get((tensor, other)) for other in ("FLOAT32", "INT16"))
                self._convert(next((t for t in others if t is not None and t in computed), tensor), wide)
                computed.add(wide)
        inputs = [self._widen(t, to) if t in variable else t for t in operator.inputs]
        if to == "FLOAT32":
            self._float_constants(operator, inputs)
        elif operator.name in WEIGHTED:
            self._int64_bias(operator, inputs)
        output = self._widen(operator.outputs[0], to)
        computed.add(output)
        graph.set_inputs(operator, inputs)
        graph.set_outputs_of(operator, [output])

    def _narrow_output(self, operator: Operator, to: str) -> None:
        """Convert the operator's output back to int8, where that is read; else the wide tensor takes its name."""
        graph, narrow = self._graph, operator.outputs[0]
        wide = self._wide[narrow, to]
        if narrow in graph.outputs or any(r.index not in self._types for r in self._readers.get(narrow, ())):
            self._convert(wide, narrow)
        else:
            name = graph.name(narrow)
            graph.rename(narrow, f"{name}/int8")
            graph.rename(wide, name)

    def _widen(self, tensor: int, to: str) -> int:
        """The tensor of type `to` with the values of an int8 tensor."""
        if (tensor, to) not in self._wide:
            graph = self._graph
            scale, zero_point = (float(x[0]) for x in graph.parameters(tensor))
            most = max(abs(-128 - zero_point), abs(127 - zero_point)) * scale
            self._wide[tensor, to] = graph.add_tensor(
                f"{graph.name(tensor)}/{to.lower()}",
                to,
                graph.shape(tensor),
                scale=most / 32767 if to == "INT16" else None,
            )
        return self._wide[tensor, to]

    def _convert(self, source: int, result: int) -> None:
        name = "DEQUANTIZE" if self._graph.dtype(result) == np.float32 else "QUANTIZE"
        self._order.append((name, source, result))

    def _float_constants(self, operator: Operator, inputs: list[int]) -> None:
        """Replace the operator's quantized constants with the float graph's."""
        graph = self._graph
        twin = self._twins[graph.name(operator.outputs[0])]
        for place, tensor in enumerate(operator.inputs):
            if tensor in self._constants and graph.quantization(tensor) is not None:
                values = self._reference.constant(twin.inputs[place])
                if values is None:
                    raise InputError(f"{graph.name(tensor)!r} must be a constant of the float graph too")
                inputs[place] = graph.add_tensor(
                    f"{graph.name(tensor)}/float_{operator.index}", "FLOAT32", values.shape, values=values
                )

    def _int64_bias(self, operator: Operator, inputs: list[int]) -> None:
        """Replace the operator's int32 bias with an int64 one for its int16 input."""
        graph = self._graph
        scale = graph.parameters(operator.inputs[1])[0] * graph.parameters(inputs[0])[0][0]
        values = graph.values(operator.inputs[2]) * graph.parameters(operator.inputs[2])[0].astype(np.float64)
        name = f"{graph.name(operator.inputs[2])}/int64_{operator.index}"
        integers = np.rint(values / scale).astype(np.int64)
        inputs[2] = graph.add_tensor(name, "INT64", values.shape, scale=1.0, values=integers)
        parameters = graph.tensors[inputs[2]].quantization
        parameters.scale, parameters.zeroPoint = scale.astype(np.float32), np.zeros(len(scale), np.int64)


def _wide_type(graph: Graph, operator: Operator, kind: str) -> str:
    """`INT16` where `kind` is int16 and the operator has a kernel for it, else `FLOAT32`."""
    if kind != "int16" or operator.name not in INT16_KERNELS:
        return "FLOAT32"
    if operator.name in WEIGHTED:
        return "INT16" if len(operator.inputs) == 3 and graph.constant(operator.inputs[2]) is not None else "FLOAT32"
    quantized = [t for t in operator.inputs if graph.constant(t) is not None and graph.quantization(t) is not None]
    return "FLOAT32" if quantized else "INT16"


def _latency_ms(content: bytes) -> float:
    """The median of a few single inferences at one thread."""
    at = interpreter(content)
    at.set_tensor(at.get_input_details()[0]["index"], np.zeros_like(at.get_tensor(at.get_input_details()[0]["index"])))
    taken = []
    for _ in range(LATENCY_RUNS + 2):
        start = time.perf_counter()
        at.invoke()
        taken.append(1e3 * (time.perf_counter() - start))
    return round(float(np.median(taken[2:])), 3)
