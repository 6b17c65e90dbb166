"""int8 with the layers that hurt most kept wider: which they are, and what each further one costs and brings.

First each layer alone is quantized in the float model, and the layers are ranked by the error of the logits that each
causes. Then the worst ones, more and more of them, are kept wide in the int8 file, until a budget holds; every file on
that way is measured, so that the search ends with the trade-off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converters.parity import compare, sqnr_db
from converters.tflite.graph import WEIGHTED, Graph, Operator
from converters.tflite.runtime import interpreter, predict
from converters.tflite.versions import set_versions

TRIAL_IMAGES = 8  # show which layer is worse than which
MAX_TRIALS = 60  # layers beyond, those with the fewest weights, are not tried alone
LATENCY_RUNS = 15
# Operators that have kernels for int16 activations, all their computed inputs and outputs being int16.
INT16_KERNELS = (*WEIGHTED, "ADD", "MEAN")


@dataclass(frozen=True)
class Point:
    """One file on the way: so many layers are wide, and what was measured of it on images held out."""

    wide_layers: int
    sqnr_db: float
    agreement: float
    latency_ms: float
    size_bytes: int


@dataclass(frozen=True)
class Search:
    """What a search ends with.

    Attributes:
        content: the fastest file for which the budget holds, or the one with the highest SQNR.
        met: whether the budget holds.
        wide: the names of its wide layers, the worst first.
        errors: by layer, the logits' SQNR in dB when it alone is quantized.
        curve: every file that was measured, from none to most wide layers.
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
    """The file with the fewest wide layers for which a budget holds, and the trade-off on the way.

    Args:
        float_content: the float graph that the int8 file was made of; layers are matched by name.
        int8_content: int8 at both ends.
        inputs: `(n, height, width, 3)` float32, what the float graph takes; none that corrected the int8 file.
        holds: whether a measured file is within the budget.
        kind: `float32`, or `int16`: int8 weights with int16 activations where there are kernels, else float32.
    """
    errors = alone(float_content, int8_content, inputs[:TRIAL_IMAGES])
    ranked = sorted(errors, key=lambda name: errors[name])
    wanted = predict(float_content, inputs)
    measured: dict[int, tuple[Point, bytes]] = {}

    def at(count: int) -> Point:
        if count not in measured:
            content = widened(float_content, int8_content, ranked[:count], kind=kind)
            outputs = predict(content, inputs)
            parity = compare(wanted, outputs)
            point = Point(count, parity.sqnr_db, parity.top1_agreement, _latency_ms(content), len(content))
            measured[count] = point, content
        return measured[count][0]

    count = 0
    while not holds(at(count)) and count < len(ranked):
        count = min(len(ranked), max(1, 2 * count))
    met = holds(at(count))
    low = count // 2 if met else count
    while met and count - low > 1:  # between the last that failed and the first that held
        middle = (low + count) // 2
        low, count = (low, middle) if holds(at(middle)) else (middle, count)
    curve = tuple(measured[n][0] for n in sorted(measured))
    within = [point for point in curve if holds(point)]
    chosen = min(within, key=lambda p: p.latency_ms) if within else max(curve, key=lambda p: p.sqnr_db)
    content = measured[chosen.wide_layers][1]
    return Search(content, bool(within), tuple(ranked[: chosen.wide_layers]), errors, curve)


def alone(float_content: bytes, int8_content: bytes, inputs: np.ndarray) -> dict[str, float]:
    """The SQNR of the logits, in dB, when one layer alone has the int8 file's weights and output; by layer's name."""
    graph, quantized = Graph(float_content), Graph(int8_content)
    twins = {quantized.name(op.outputs[0]): op for op in quantized.operators()}
    operators = [op for op in graph.operators() if graph.name(op.outputs[0]) in twins]

    def weights(operator: Operator) -> int:
        return max((int(np.prod(graph.shape(t))) for t in operator.inputs[1:2] if t >= 0), default=0)

    operators = sorted(operators, key=weights, reverse=True)[:MAX_TRIALS]
    wanted = predict(float_content, inputs)
    errors = {}
    for operator in operators:
        trial = Graph(float_content)
        name = trial.name(operator.outputs[0])
        _quantize_one(trial, operator, quantized, twins[name])
        errors[name] = round(sqnr_db(wanted, predict(trial.to_bytes(), inputs)), 2)
    return errors


def _quantize_one(graph: Graph, operator: Operator, quantized: Graph, twin: Operator) -> None:
    """Give one operator of a float graph the rounded weights of its twin, and round what it answers."""
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
        graph.subgraph.operators[operator.index].inputs = np.array(inputs, np.int32)
    parameters = quantized.quantization(twin.outputs[0])
    if parameters is None:
        return
    made = operator.outputs[0]
    stored = graph.add_tensor(
        "rounded/int8", "INT8", graph.shape(made), scale=float(parameters[0][0]), zero_point=int(parameters[1][0])
    )
    rounded = graph.add_tensor("rounded/float", "FLOAT32", graph.shape(made))
    for reader in graph.subgraph.operators:
        reader.inputs = np.array([rounded if t == made else t for t in reader.inputs], np.int32)
    if made in graph.outputs:
        graph.replace_output(made, rounded)
    graph.add_operator("QUANTIZE", [made], [stored], at=operator.index + 1)
    graph.add_operator("DEQUANTIZE", [stored], [rounded], at=operator.index + 2)
    set_versions(graph)


def widened(float_content: bytes, int8_content: bytes, names: Sequence[str], *, kind: str = "float32") -> bytes:
    """The int8 file with some layers wide: what they read is widened, and narrowed again where int8 layers read on.

    Args:
        float_content, int8_content, kind: as `search` takes them.
        names: of the layers' outputs.
    """
    if not names:
        return int8_content
    reference, graph = Graph(float_content), Graph(int8_content)
    twins = {reference.name(op.outputs[0]): op for op in reference.operators()}
    wide_of: dict[tuple[int, str], int] = {}  # (int8 tensor, type) -> the tensor that holds the same, wider
    new, constants = [], {t for t in range(len(graph.tensors)) if graph.constant(t) is not None}
    chosen = set(names)
    readers = graph.readers()
    types = {op.index: _wide_type(graph, op, kind) for op in graph.operators() if graph.name(op.outputs[0]) in chosen}

    def widen(tensor: int, to: str) -> int:
        if (tensor, to) not in wide_of:
            scale, zero_point = (float(x[0]) for x in graph.quantization(tensor))
            most = max(abs(-128 - zero_point), abs(127 - zero_point)) * scale
            wider = {"scale": most / 32767} if to == "INT16" else {}
            wide_of[tensor, to] = graph.add_tensor(
                f"{graph.name(tensor)}/{to.lower()}", to, graph.shape(tensor), **wider
            )
        return wide_of[tensor, to]

    def convert(source: int, made: int) -> None:
        floats = [graph.dtype(t) == np.float32 for t in (source, made)]
        new.append((None, "DEQUANTIZE" if floats[1] else "QUANTIZE", [source], [made]))

    computed: set[int] = set()
    for operator in graph.operators():
        to = types.get(operator.index)
        if to is None:
            new.append((operator, None, None, None))
            continue
        for tensor in operator.inputs:
            if tensor >= 0 and tensor not in constants and (known := widen(tensor, to)) not in computed:
                convert(next((wide_of[tensor, o] for o in ("FLOAT32", "INT16") if (tensor, o) in wide_of
                              and wide_of[tensor, o] in computed), tensor), known)  # fmt: skip
                computed.add(known)
        inputs = [widen(t, to) if t >= 0 and t not in constants else t for t in operator.inputs]
        if to == "FLOAT32":
            twin = twins[graph.name(operator.outputs[0])]
            for place, tensor in enumerate(operator.inputs):
                if tensor in constants and graph.quantization(tensor) is not None:
                    values = reference.constant(twin.inputs[place])
                    inputs[place] = graph.add_tensor(
                        f"{graph.name(tensor)}/float_{operator.index}", "FLOAT32", values.shape, values=values
                    )
        elif operator.name in WEIGHTED:
            scale = graph.quantization(operator.inputs[1])[0] * graph.quantization(inputs[0])[0][0]
            old = graph.constant(operator.inputs[2]) * graph.quantization(operator.inputs[2])[0].astype(np.float64)
            bias = graph.add_tensor(f"{graph.name(operator.inputs[2])}/int64_{operator.index}", "INT64", old.shape,
                                    scale=1.0, values=np.rint(old / scale).astype(np.int64))  # fmt: skip
            parameters = graph.tensors[bias].quantization
            parameters.scale, parameters.zeroPoint = scale.astype(np.float32), np.zeros(len(scale), np.int64)
            inputs[2] = bias
        made = operator.outputs[0]
        wide = widen(made, to)
        computed.add(wide)
        raw = graph.subgraph.operators[operator.index]
        raw.inputs, raw.outputs = np.array(inputs, np.int32), np.array([wide], np.int32)
        new.append((operator, None, None, None))
        if made in graph.outputs or any(reader.index not in types for reader in readers.get(made, ())):
            convert(wide, made)
        else:
            name = graph.name(made)
            graph.rename(made, f"{name}/int8")
            graph.rename(wide, name)
    old = list(graph.subgraph.operators)
    graph.subgraph.operators = []
    for operator, name, inputs, outputs in new:
        if operator is None:
            graph.add_operator(name, inputs, outputs, at=len(graph.subgraph.operators))
        else:
            graph.subgraph.operators.append(old[operator.index])
    set_versions(graph)
    return graph.to_bytes()


def _wide_type(graph: Graph, operator: Operator, kind: str) -> str:
    """`INT16` where that is asked for and the operator has a kernel for it, else `FLOAT32`."""
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
