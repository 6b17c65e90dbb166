"""The normalization at a float graph's input, and the input and output of an integer graph.

A model that takes pixels 0..255 and normalizes them begins with a multiplication and an addition. Integer schemes
remove both: the input tensor's scale and zero point carry their meaning, at no cost in latency.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.float_model import FloatModel, find_normalization
from converters.images.preprocessing import Preprocessing
from converters.quantization.exact import exactly_rewritten
from converters.quantization.integer import int8_parameters
from converters.tflite.graph import Graph, Operator
from converters.tflite.versions import set_versions

MAX_PADDING_ERROR_PIXELS = 16  # ImageNet's means of R, G and B are 9, 2 and 11 pixels from a common integer


@dataclass(frozen=True, eq=False)
class NormalizedGraph:
    """A float graph that takes normalized input, as integer schemes quantize it.

    Attributes:
        content: the TFLite file; its input is `scale * value + offset` of the whole model's input.
        scale, offset: see `content`.
        zero_point: the int8 value of the graph's 0.0 when pixels are stored as `pixel - 128`; None when the model does
            not take pixels.
        gain: `(3,)`, the factor by which the first convolution's weights of R, G and B were multiplied; None where
            they were not.
    """

    content: bytes
    scale: float = 1.0
    offset: float = 0.0
    zero_point: int | None = None
    gain: np.ndarray | None = None

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """The graph's input for images `(n, height, width, 3)` in the range that the whole model takes."""
        return np.float32(self.scale) * images.astype(np.float32) + np.float32(self.offset)

    def input_range(self, inputs: np.ndarray) -> tuple[float, float]:
        """The range of the input tensor: that of all pixels, or of `inputs` where the model does not take pixels."""
        if self.zero_point is None:
            return float(inputs.min()), float(inputs.max())
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)


def strip_normalization(model: FloatModel, preprocessing: Preprocessing | None) -> NormalizedGraph:
    """The part of a float model that an integer scheme quantizes.

    With pixels at the input, int8 `q = pixel - 128` and the normalization x = a * pixel + b, the input tensor's scale
    is a and its zero point the q at which x is 0. Where that q is not an integer (pixel 127.5 for a model that takes
    -1..1), the nearest integer is used, and the rest, less than half a pixel, goes exactly into the bias of the
    convolution that reads the input; only its zero padding is then off by half a pixel.

    Channels normalized with numbers of their own differ from the mean by some pixels and per cent. The difference goes
    into the convolution's bias and weights in the same way; its padding is then off by those pixels, a slightly
    different grey at the image's edge. (Left in the graph, the two operators take 4 % of EfficientNet B0's time and
    round each pixel twice.) Where this is not possible, the operators stay.

    Operators without int8 kernels are rewritten exactly, see `converters.quantization.exact`.

    Args:
        model: the float model.
        preprocessing: states whether the model takes pixels; None uses what the model declares.
    """
    stripped = _stripped(model, preprocessing)
    return dataclasses.replace(stripped, content=exactly_rewritten(stripped.content))


def _stripped(model: FloatModel, preprocessing: Preprocessing | None) -> NormalizedGraph:
    takes_pixels = preprocessing.takes_pixels if preprocessing is not None else model.takes_pixels
    if not takes_pixels:
        return NormalizedGraph(model.content)
    graph = Graph(model.content)
    normalization = find_normalization(graph)
    whole = NormalizedGraph(model.content, zero_point=-128)
    if normalization is None:
        return whole
    zero_pixel = -normalization.offset / normalization.scale
    nearest = math.floor(zero_pixel + 0.5)
    if not 0 <= nearest <= 255:
        return whole
    scales, offsets = normalization.by_channel or (np.array(normalization.scale), np.array(normalization.offset))
    rest = scales * nearest + offsets  # each channel's x at the pixel that now represents 0.0
    if np.abs(rest / scales).max() > MAX_PADDING_ERROR_PIXELS:
        return whole
    exact = normalization.by_channel is None and np.abs(rest).max() <= 1e-6
    gain = scales / normalization.scale
    if not exact and not _fold(graph, normalization.output, gain, rest):
        return whole
    name = graph.name(graph.inputs[0])
    graph.replace_input(graph.inputs[0], normalization.output)
    graph.rename(normalization.output, name)
    graph.remove_operators(normalization.operators)
    return NormalizedGraph(
        graph.to_bytes(),
        normalization.scale,
        -normalization.scale * nearest,
        nearest - 128,
        None if normalization.by_channel is None else gain,
    )


def _readers_past_padding(graph: Graph, tensor: int) -> list[Operator]:
    """The operators that read a tensor, directly or through a PAD, which adds zeros as a convolution does."""
    result = []
    for reader in graph.readers().get(tensor, ()):
        padded = reader.name == "PAD" and reader.outputs[0] not in graph.outputs
        result += _readers_past_padding(graph, reader.outputs[0]) if padded else [reader]
    return result


def _fold(graph: Graph, tensor: int, gain: np.ndarray, shift: np.ndarray) -> bool:
    """Change the readers of `tensor` to compute their outputs as if it were `gain * tensor + shift`.

    Args:
        graph: changed in place.
        tensor: its readers must be convolutions, depthwise or not, with constant weights.
        gain, shift: one number, or one for each channel of the tensor.

    Returns:
        Whether that was possible; if not, the graph is unchanged.
    """
    readers = _readers_past_padding(graph, tensor)
    foldable = all(
        reader.name in ("CONV_2D", "DEPTHWISE_CONV_2D")
        and len(reader.inputs) == 3
        and reader.inputs[2] >= 0
        and graph.constant(reader.inputs[1]) is not None
        and graph.constant(reader.inputs[2]) is not None
        and graph.shape(reader.inputs[1])[-1] % graph.shape(tensor)[-1] == 0
        and (reader.name == "DEPTHWISE_CONV_2D" or graph.shape(reader.inputs[1])[-1] == graph.shape(tensor)[-1])
        for reader in readers
    )
    if not foldable:
        return False
    for reader in readers:
        weights, bias = graph.values(reader.inputs[1]), graph.values(reader.inputs[2])
        summed: tuple[int, ...] = (1, 2, 3)
        of_gain, of_shift = gain, shift
        if reader.name == "DEPTHWISE_CONV_2D":  # its last axis is that of the outputs, some for each channel
            summed = (0, 1, 2)
            channels = graph.shape(tensor)[-1]
            of_gain, of_shift = (
                np.repeat(np.broadcast_to(n, channels), weights.shape[-1] // channels) for n in (gain, shift)
            )
        shifted = graph.add_tensor(graph.name(reader.inputs[2]) + "/shifted", "FLOAT32", bias.shape)
        graph.set_constant(shifted, (bias + (weights * of_shift).sum(axis=summed)).astype(np.float32))
        inputs = [*reader.inputs[:2], shifted]
        if np.any(gain != 1):
            inputs[1] = graph.add_tensor(graph.name(inputs[1]) + "/scaled", "FLOAT32", weights.shape)
            graph.set_constant(inputs[1], (weights * of_gain).astype(np.float32))
        graph.set_inputs(reader, inputs)
    return True


def with_io(
    content: bytes,
    io_type: str,
    normalized: NormalizedGraph | None,
    io_ranges: Sequence[tuple[float, float]] | None = None,
) -> bytes:
    """A full-integer file with another type of input and output.

    `int8` and `uint8` are 128 steps apart: a QUANTIZE at each end converts. `float32` restores the model's
    normalization in float, followed by a QUANTIZE, and adds a DEQUANTIZE at the output.

    Args:
        content: the file; its input and output are int8, or int16.
        io_type: `int8`, `uint8` or `float32`.
        normalized: the float graph that the file was made from; None is enough for integers.
        io_ranges: `(low, high)` of an 8-bit input and output that replace int16 ones.

    Returns:
        The file; `content` itself where it already has these types.
    """
    graph = Graph(content)
    if io_type == graph.dtype(graph.inputs[0]):
        return content
    old_in, old_out = graph.inputs[0], graph.outputs[0]
    inner = graph.dtype(old_in)
    names = graph.name(old_in), graph.name(old_out)
    graph.rename(old_in, f"{names[0]}_{inner}")
    graph.rename(old_out, f"{names[1]}_{inner}")
    if normalized is not None and io_type == "float32":
        new_in, new_out = _add_float_io(graph, names, normalized)
        last = "DEQUANTIZE"
    else:
        new_in, new_out = _add_8_bit_io(graph, names, io_type, io_ranges)
        last = "QUANTIZE"
    graph.add_operator(last, [old_out], [new_out], at=len(graph.subgraph.operators))
    graph.replace_input(old_in, new_in)
    graph.replace_output(old_out, new_out)
    set_versions(graph)
    return graph.to_bytes()


def _add_8_bit_io(
    graph: Graph, names: tuple[str, str], io_type: str, io_ranges: Sequence[tuple[float, float]] | None
) -> tuple[int, int]:
    """Add the new input with its QUANTIZE and the new output tensor; return both."""
    old_in, old_out = graph.inputs[0], graph.outputs[0]
    if io_ranges is not None:
        parameters = [int8_parameters(*ends) for ends in io_ranges]
    else:
        parameters = [(float(scale[0]), int(zero[0])) for scale, zero in map(graph.parameters, (old_in, old_out))]
    shift = 128 if io_type == "uint8" else 0
    new_in, new_out = (
        graph.add_tensor(name, io_type.upper(), graph.shape(old), scale=scale, zero_point=zero + shift)
        for name, old, (scale, zero) in zip(names, (old_in, old_out), parameters, strict=True)
    )
    graph.add_operator("QUANTIZE", [new_in], [old_in], at=0)
    return new_in, new_out


def _add_float_io(graph: Graph, names: tuple[str, str], normalized: NormalizedGraph) -> tuple[int, int]:
    """Add the new input with its normalization and QUANTIZE and the new output tensor; return both."""
    from ai_edge_litert import schema_py_generated as schema

    old_in, old_out = graph.inputs[0], graph.outputs[0]
    shape = graph.shape(old_in)
    new_in = graph.add_tensor(names[0], "FLOAT32", shape)
    new_out = graph.add_tensor(names[1], "FLOAT32", graph.shape(old_out))
    current, position = new_in, 0
    steps: tuple[tuple[str, float, float, Any], ...] = (
        ("MUL", normalized.scale, 1.0, schema.MulOptionsT()),
        ("ADD", normalized.offset, 0.0, schema.AddOptionsT()),
    )
    for operator, number, neutral, options in steps:
        if number != neutral:
            operand = graph.add_tensor(
                f"{operator.lower()}_operand", "FLOAT32", (), values=np.array(number, np.float32)
            )
            result = graph.add_tensor(f"{names[0]}_{operator.lower()}", "FLOAT32", shape)
            graph.add_operator(operator, [current, operand], [result], at=position, options=options)
            current, position = result, position + 1
    graph.add_operator("QUANTIZE", [current], [old_in], at=position)
    return new_in, new_out
