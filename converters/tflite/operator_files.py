"""A graph's operators as TFLite files of one operator each, from a single packed file.

All operators are packed once, each as a subgraph with constants of its own. A file of one operator is that file with
one subgraph left in its list, so that an operator's constants can change without packing again.
"""

from __future__ import annotations

import copy
import struct
from typing import Any

import numpy as np

from converters.tflite.graph import Graph, Operator
from converters.tflite.packing import pack


class OperatorFiles:
    """The one-operator files of a graph.

    Attributes:
        inputs: for each operator the tensors of the graph that are its file's inputs: those that are not constant.
    """

    def __init__(self, graph: Graph) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.inputs: list[tuple[int, ...]] = []
        self._buffers: dict[tuple[int, int], int] = {}  # (operator, position of a constant among its inputs) -> buffer
        model = copy.copy(graph.model)
        model.buffers, model.subgraphs, model.signatureDefs, model.metadata = [schema.BufferT()], [], None, None
        for operator in graph.operators():
            model.subgraphs.append(self._subgraph(graph, operator, model.buffers))
        self._content = pack(model)
        root = schema.Model.GetRootAs(self._content, 0)
        self._list = root._tab.Vector(
            root._tab.Offset(8)
        )  # where the list of subgraphs begins; its length is before it
        self._places = [root.Subgraphs(i)._tab.Pos for i in range(root.SubgraphsLength())]
        self._data = {buffer: self._span(root.Buffers(buffer)) for buffer in self._buffers.values()}

    def _subgraph(self, graph: Graph, operator: Operator, buffers: list[Any]) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        read = [tensor for tensor in operator.inputs if tensor >= 0]
        place = {tensor: index for index, tensor in enumerate(dict.fromkeys([*read, *operator.outputs]))}
        subgraph = copy.copy(graph.subgraph)
        subgraph.tensors = [copy.copy(graph.tensors[tensor]) for tensor in place]
        fed = []
        for tensor, index in place.items():
            data = graph.model.buffers[graph.tensors[tensor].buffer].data
            subgraph.tensors[index].buffer = 0
            if data is not None:
                buffer = schema.BufferT()
                buffer.data = data
                buffers.append(buffer)
                subgraph.tensors[index].buffer = len(buffers) - 1
                if tensor in operator.inputs:
                    self._buffers[operator.index, operator.inputs.index(tensor)] = len(buffers) - 1
            elif tensor not in operator.outputs:
                fed.append(tensor)
        raw = copy.copy(graph.subgraph.operators[operator.index])
        raw.inputs = np.array([place.get(tensor, -1) for tensor in operator.inputs], np.int32)
        raw.outputs = np.array([place[tensor] for tensor in operator.outputs], np.int32)
        raw.intermediates = None
        subgraph.operators = [raw]
        subgraph.inputs = np.array([place[tensor] for tensor in fed], np.int32)
        subgraph.outputs = raw.outputs
        self.inputs.append(tuple(fed))
        return subgraph

    def _span(self, buffer: Any) -> slice:
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        return slice(start, start + buffer.DataLength())

    def content(self, operator: int) -> bytes:
        """The file of one operator; its outputs are all tensors that the operator writes."""
        struct.pack_into("<II", self._content, self._list - 4, 1, self._places[operator] - self._list)
        return bytes(self._content)

    def set_constant(self, operator: int, position: int, values: np.ndarray) -> None:
        """Replace the constant at a position among an operator's inputs with values of the same shape and type."""
        span = self._data[self._buffers[operator, position]]
        self._content[span] = np.ascontiguousarray(values).tobytes()
