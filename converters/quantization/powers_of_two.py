"""Weights whose scales are powers of two, for processors that requantize by shifting bits."""

from __future__ import annotations

import numpy as np

from converters.tflite.graph import WEIGHTED, Graph


def with_powers_of_two(float_graph: Graph, content: bytes) -> bytes:
    """The int8 file with each layer's weights rounded again, to the next power of two above their scale.

    Args:
        float_graph: the float graph that the file was made from.
        content: the int8 file, whose weights have one scale a tensor.
    """
    graph, twins = Graph(content), float_graph.by_output()
    for operator in graph.operators():
        twin = twins.get(graph.name(operator.outputs[0]))
        scales = graph.quantization(operator.inputs[1]) if operator.name in WEIGHTED else None
        of_input = graph.quantization(operator.inputs[0])
        if twin is None or scales is None or of_input is None or graph.constant(operator.inputs[1]) is None:
            continue
        scale = np.exp2(np.ceil(np.log2(scales[0].astype(np.float64))))
        integers = np.clip(np.rint(float_graph.values(twin.inputs[1]) / scale), -127, 127)
        graph.set_constant(operator.inputs[1], integers.astype(np.int8))
        graph.tensors[operator.inputs[1]].quantization.scale = scale.astype(np.float32)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            of_bias, bias = scale * of_input[0], graph.values(operator.inputs[2])
            values = np.rint(float_graph.values(twin.inputs[2]) / of_bias)
            graph.set_constant(operator.inputs[2], values.astype(bias.dtype))
            graph.tensors[operator.inputs[2]].quantization.scale = of_bias.astype(np.float32)
    return graph.to_bytes()
