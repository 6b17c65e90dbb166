"""TensorFlow Lite for Microcontrollers: the memory that a TFLite file needs, and the file as a C array.

There is no file system and no heap: weights stay in flash, and everything else must fit into one block of memory, the
arena, whose size is fixed when the program is built. Both are computed from the file alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from converters.devices.diagnostics import Memory
from converters.errors import InputError
from converters.tflite.graph import Graph, Operator

ALIGNMENT_BYTES = 16
# The runtime's structures for each tensor, each operator, and each input or output, on a 64-bit host (they are smaller
# on a 32-bit core); measured with tflite-micro 0.dev20261023.
_TENSOR_BYTES, _OPERATOR_BYTES, _END_BYTES = 24, 64 + 80, 112
_CHANNEL_BYTES = 8  # multiplier and shift of an output channel
_BASE_BYTES = 2048
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


# where a compiler placed tensors ahead: version, subgraph, number of tensors, an offset in bytes for each; -1 is none.
# https://github.com/tensorflow/tflite-micro/blob/main/tensorflow/lite/micro/docs/memory_management.md
_OFFLINE = b"OfflineMemoryAllocation"


@dataclass(frozen=True)
class _Block:
    size: int
    first: int
    last: int
    at: int | None = None  # the place that a compiler gave it

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def memory(content: bytes) -> Memory:
    """The memory that a TFLite file needs under TensorFlow Lite for Microcontrollers with CMSIS-NN.

    Raises:
        InputError: the content is not a TFLite file, or the shape or type of a tensor is unknown before it runs.
    """
    graph = Graph(content)
    operators = list(graph.operators())
    blocks = _blocks(graph, operators)
    busy = [sum(b.size for b in blocks if b.first <= i <= b.last) for i in range(len(operators))]
    widest = operators[int(np.argmax(busy))].outputs[0] if operators else graph.outputs[0]
    return Memory(_planned(blocks), _records(graph, operators), len(content), graph.name(widest))


def _blocks(graph: Graph, operators: list[Operator]) -> list[_Block]:
    """The computed tensors and scratch buffers, with the first and the last operator that uses them."""
    lives: dict[int, list[int]] = {tensor: [0, 0] for tensor in graph.inputs}
    for operator in operators:
        for tensor in operator.outputs:
            lives.setdefault(tensor, [operator.index, operator.index])
        for tensor in operator.inputs:
            if tensor not in lives and _is_working_memory(graph, tensor):
                lives[tensor] = [operator.index, operator.index]
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor in lives:
                lives[tensor][1] = operator.index
    for tensor in graph.outputs:
        lives.setdefault(tensor, [0, 0])[1] = max(0, len(operators) - 1)
    places = _places(graph)
    blocks = [
        _Block(_bytes(graph, tensor), first, last, places.get(tensor))
        for tensor, (first, last) in sorted(lives.items())
    ]
    for operator in operators:
        scratch = _scratch_bytes(graph, operator)
        if scratch:
            blocks.append(_Block(_aligned(scratch), operator.index, operator.index))
    return blocks


def _is_working_memory(graph: Graph, tensor: int) -> bool:
    """Whether a tensor that no operator computes holds no values either, as the working memory of an NPU."""
    if tensor < 0 or min(graph.shape(tensor), default=1) < 1:
        return False
    data = graph.model.buffers[graph.tensors[tensor].buffer].data
    return data is None or len(data) == 0


def _places(graph: Graph) -> dict[int, int]:
    """The offsets that a compiler gave to tensors."""
    offsets = np.frombuffer(graph.metadata(_OFFLINE) or b"", np.uint8)
    values = offsets[: len(offsets) // 4 * 4].view("<i4").tolist()[3:]
    return {tensor: offset for tensor, offset in enumerate(values) if offset >= 0}


def _bytes(graph: Graph, tensor: int) -> int:
    dtype, shape = graph.dtype(tensor), graph.shape(tensor)
    if dtype is None or min(shape, default=1) < 1:
        raise InputError(
            f"for a microcontroller every tensor must have a known shape and type. Received: {graph.name(tensor)!r}"
        )
    return _aligned(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _scratch_bytes(graph: Graph, operator: Operator) -> int:
    """The scratch buffer of CMSIS-NN's int8 kernels for cores with the DSP extension (Cortex-M4, M7).

    A convolution unrolls two columns of its input to int16, a pointwise one none, a depthwise one its kernel's window.
    https://arm-software.github.io/CMSIS-NN
    """
    if operator.name not in _CONVOLUTIONS or graph.dtype(operator.outputs[0]) != np.int8:
        return 0
    shape = graph.shape(operator.inputs[1])
    _, height, width, channels = shape
    if operator.name == "DEPTHWISE_CONV_2D":
        return 2 * height * width * channels
    return 0 if height == width == 1 else 2 * 2 * height * width * channels


def _planned(blocks: list[_Block]) -> int:
    """The size of the arena by the runtime's greedy planner.

    What a compiler placed stays there. Of the others the largest block is placed first, of equal ones the last; each in
    the first gap that is free while it is used.
    """
    placed = [(block.at, block) for block in blocks if block.at is not None]
    end = max((at + block.size for at, block in placed), default=0)
    others = [block for block in blocks if block.at is None]
    for _, block in sorted(enumerate(others), key=lambda pair: (-pair[1].size, -pair[0])):
        at = 0
        for start, other in sorted(((s, o) for s, o in placed if o.meets(block)), key=lambda pair: pair[0]):
            if start - at >= block.size:
                break
            at = max(at, start + other.size)
        placed.append((at, block))
        end = max(end, at + block.size)
    return end


def _records(graph: Graph, operators: list[Operator]) -> int:
    used = {t for operator in operators for t in (*operator.inputs, *operator.outputs) if t >= 0}
    channels = sum(graph.shape(o.outputs[0])[-1] for o in operators if o.name in _CONVOLUTIONS)
    ends = len(graph.inputs) + len(graph.outputs)
    records = len(used) * _TENSOR_BYTES + len(operators) * _OPERATOR_BYTES + channels * _CHANNEL_BYTES
    return _aligned(records + ends * _END_BYTES + _BASE_BYTES)


def c_array(content: bytes, name: str) -> tuple[str, str]:
    """A file as C source, constant and aligned so that it stays in flash.

    Args:
        content: the file.
        name: of the array: letters, digits and _, not starting with a digit.

    Returns:
        The text of NAME.h and that of NAME.cc.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise InputError(f"a C array's name must be letters, digits and _. Received: {name!r}")
    header = (
        f"#pragma once\n\n// {len(content)} bytes.\n"
        f"extern const unsigned char {name}[];\nextern const unsigned int {name}_len;\n"
    )
    rows = (content[i : i + 12] for i in range(0, len(content), 12))
    lines = ",\n".join("  " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    source = (
        f'#include "{name}.h"\n\nalignas({ALIGNMENT_BYTES}) const unsigned char {name}[] = {{\n{lines}\n}};\n'
        f"const unsigned int {name}_len = {len(content)};\n"
    )
    return header, source
