"""A TFLite graph whose input has its channels first, as PyTorch's models have, changed to channels last."""

from __future__ import annotations

import numpy as np

from converters.tflite.graph import Graph, Operator

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
CHANNELS = (1, 3)
ARITHMETIC = ("ADD", "DIV", "MUL", "SUB")


def has_channels_first(graph: Graph) -> bool:
    """Whether the graph takes images `(batch, channels, height, width)`."""
    shape = graph.shape(graph.inputs[0])
    return len(shape) == 4 and shape[1] in CHANNELS and shape[3] not in CHANNELS


def with_channels_last(graph: Graph) -> None:
    """Let the graph take images `(batch, height, width, channels)`.

    Such a graph usually transposes its input itself, behind the arithmetic of its normalization: then this arithmetic
    is done with channels last and the transposition is removed. Otherwise one is added at the input.
    """
    image = graph.inputs[0]
    chain = _normalization(graph, image)
    if chain is None:
        _add_transposition(graph, image)
        return
    arithmetic, transpositions = chain
    current = image
    for operator in arithmetic:
        _turn(graph, current)
        _turn_constant(graph, operator, current)
        current = operator.outputs[0]
    _turn(graph, current)
    outputs = {transposition.outputs[0] for transposition in transpositions}
    for operator in graph.operators():
        if not outputs.isdisjoint(operator.inputs):
            graph.set_inputs(operator, [current if tensor in outputs else tensor for tensor in operator.inputs])
    graph.remove_operators([transposition.index for transposition in transpositions])


def _normalization(graph: Graph, image: int) -> tuple[list[Operator], list[Operator]] | None:
    """The arithmetic with constants at the input, and the transpositions to channels last that alone read it."""
    readers, arithmetic, current = graph.readers(), list[Operator](), image
    channels = graph.shape(image)[1]
    while True:
        reading = readers.get(current, [])
        if reading and all(_transposes_to_last(graph, operator) for operator in reading):
            outputs = {operator.outputs[0] for operator in reading}
            return (arithmetic, reading) if outputs.isdisjoint(graph.outputs) else None
        if len(reading) != 1 or reading[0].name not in ARITHMETIC or current in graph.outputs:
            return None
        constants = [graph.constant(tensor) for tensor in reading[0].inputs if tensor != current]
        if len(constants) != 1 or constants[0] is None or not _is_by_channel(constants[0].shape, channels):
            return None
        arithmetic.append(reading[0])
        current = reading[0].outputs[0]


def _transposes_to_last(graph: Graph, operator: Operator) -> bool:
    if operator.name != "TRANSPOSE":
        return False
    order = graph.constant(operator.inputs[1])
    return order is not None and tuple(order.tolist()) == TO_LAST


def _is_by_channel(shape: tuple[int, ...], channels: int) -> bool:
    """Whether a constant is one number, or one for each channel: `(1, channels, 1, 1)` or `(channels, 1, 1)`."""
    return int(np.prod(shape)) == 1 or (shape[-3:] == (channels, 1, 1) and int(np.prod(shape)) == channels)


def _turn(graph: Graph, tensor: int) -> None:
    shape = graph.shape(tensor)
    graph.tensors[tensor].shape = np.array([shape[axis] for axis in TO_LAST], np.int32)
    signature = graph.tensors[tensor].shapeSignature
    if signature is not None:
        graph.tensors[tensor].shapeSignature = np.array([signature[axis] for axis in TO_LAST], np.int32)


def _turn_constant(graph: Graph, operator: Operator, tensor: int) -> None:
    inputs = list(operator.inputs)
    for place, constant in enumerate(operator.inputs):
        if constant != tensor:
            values = graph.values(constant).reshape(-1)
            inputs[place] = graph.add_tensor(f"{graph.name(constant)}/last", "FLOAT32", values.shape, values=values)
    graph.set_inputs(operator, inputs)


def _add_transposition(graph: Graph, image: int) -> None:
    shape = graph.shape(image)
    last = graph.add_tensor(graph.name(image), "FLOAT32", [shape[axis] for axis in TO_LAST])
    graph.tensors[last].type = graph.tensors[image].type
    signature = graph.tensors[image].shapeSignature
    if signature is not None:
        graph.tensors[last].shapeSignature = np.array([signature[axis] for axis in TO_LAST], np.int32)
    graph.rename(image, f"{graph.name(image)}_channels_first")
    order = graph.add_tensor("channels_first", "INT32", (4,), values=np.array(TO_FIRST, np.int32))
    graph.add_operator("TRANSPOSE", [last, order], [image], at=0)
    graph.replace_input(image, last)
