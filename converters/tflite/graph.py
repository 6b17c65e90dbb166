"""A TFLite file as a graph that can be read and edited.

A thin layer over the flatbuffer schema of ai-edge-litert: operators with their inputs and outputs, constants,
quantization, metadata, and the edits that conversion needs. Schema: https://ai.google.dev/edge/litert
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.tflite.checks import check_identifier, check_references
from converters.tflite.packing import pack
from converters.tflite.parsing import parse

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # the operators whose weights are quantized


@functools.cache
def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


@functools.cache
def _operator_names() -> dict[int, str]:
    return {code: name for name, code in vars(_schema().BuiltinOperator).items() if isinstance(code, int)}


def _operator_name(number: int) -> str:
    return _operator_names().get(number, f"OPERATOR_{number}")


_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "UINT8": np.uint8,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "INT16": np.int16,
    "INT8": np.int8,
}


@functools.cache
def _dtype_by_code() -> dict[int, Any]:
    return {getattr(_schema().TensorType, name): np.dtype(dtype) for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Operator:
    """One operator of a graph.

    Attributes:
        index: its position.
        name: in the schema, such as `CONV_2D`.
        inputs, outputs: indices of the tensors that it reads and writes; -1 is an optional input that is left out.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph:
    """The one subgraph of a TFLite model, mutable; `to_bytes` writes the file.

    Raises:
        InputError: the bytes are not a TFLite model, its references are wrong, or it has several subgraphs.
    """

    def __init__(self, content: bytes) -> None:
        check_identifier(content)
        self.model = parse(content)
        self.subgraph = self.model.subgraphs[0]
        check_references(self.model, _operator_name, _dtype_by_code())

    @property
    def tensors(self) -> list[Any]:
        return self.subgraph.tensors

    @property
    def inputs(self) -> list[int]:
        return [int(i) for i in self.subgraph.inputs]

    @property
    def outputs(self) -> list[int]:
        return [int(i) for i in self.subgraph.outputs]

    def operators(self) -> Iterator[Operator]:
        for index, operator in enumerate(self.subgraph.operators):
            code = self.model.operatorCodes[operator.opcodeIndex]
            name = _operator_name(max(code.builtinCode, code.deprecatedBuiltinCode))
            inputs = () if operator.inputs is None else tuple(int(i) for i in operator.inputs)
            outputs = () if operator.outputs is None else tuple(int(i) for i in operator.outputs)
            yield Operator(index, name, inputs, outputs)

    def name(self, tensor: int) -> str:
        return (self.tensors[tensor].name or b"").decode(errors="replace")

    def shape(self, tensor: int) -> tuple[int, ...]:
        shape = self.tensors[tensor].shape
        return () if shape is None else tuple(int(n) for n in shape)

    def dtype(self, tensor: int) -> np.dtype | None:
        """The tensor's numpy type; None for a type that numpy does not have."""
        return _dtype_by_code().get(self.tensors[tensor].type)

    def quantization(self, tensor: int) -> tuple[np.ndarray, np.ndarray] | None:
        """`(scales, zero points)` of a quantized tensor; None for any other, and for -1."""
        if tensor < 0:
            return None
        q = self.tensors[tensor].quantization
        if q is None or q.scale is None or len(q.scale) == 0:
            return None
        return np.asarray(q.scale, np.float32), np.asarray(q.zeroPoint, np.int64)

    def parameters(self, tensor: int) -> tuple[np.ndarray, np.ndarray]:
        """`(scales, zero points)` of a quantized tensor; InputError for any other."""
        parameters = self.quantization(tensor)
        if parameters is None:
            raise InputError(f"the tensor {self.name(tensor)!r} must be quantized. Received: {self.dtype(tensor)}")
        return parameters

    def values(self, tensor: int) -> np.ndarray:
        """A copy of a constant tensor's values; InputError for any other."""
        values = self.constant(tensor)
        if values is None:
            raise InputError(f"the tensor {self.name(tensor)!r} must be a constant. Received: a computed tensor")
        return values

    def constant(self, tensor: int) -> np.ndarray | None:
        """A copy of a constant tensor's values; None for a computed tensor, for -1, and for what numpy cannot hold."""
        if tensor < 0:
            return None
        data, dtype = self.model.buffers[self.tensors[tensor].buffer].data, self.dtype(tensor)
        if data is None or len(data) == 0 or dtype is None or self.tensors[tensor].sparsity is not None:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype).reshape(self.shape(tensor))

    def metadata(self, name: bytes) -> bytes | None:
        """The metadata of this name; None when there is none."""
        for entry in self.model.metadata or []:
            if entry.name == name:
                data = self.model.buffers[entry.buffer].data
                return None if data is None else np.asarray(data, np.uint8).tobytes()
        return None

    def rename(self, tensor: int, name: str) -> None:
        self.tensors[tensor].name = name.encode()

    def readers(self) -> dict[int, list[Operator]]:
        """The operators that read each tensor, in order; a tensor without readers has no entry."""
        readers: dict[int, list[Operator]] = {}
        for operator in self.operators():
            for tensor in dict.fromkeys(operator.inputs):
                readers.setdefault(tensor, []).append(operator)
        return readers

    def by_output(self) -> dict[str, Operator]:
        """The operators by the names of the tensors that they write."""
        return {self.name(tensor): operator for operator in self.operators() for tensor in operator.outputs}

    def options(self, operator: Operator) -> Any:
        """The operator's options table of the schema; None where it has none."""
        return self.subgraph.operators[operator.index].builtinOptions

    def set_constant(self, tensor: int, values: np.ndarray) -> None:
        """Store the values in a new buffer of the tensor."""
        values = np.ascontiguousarray(values)
        buffer = _schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.tensors[tensor].buffer = len(self.model.buffers) - 1
        self.tensors[tensor].shape = np.array(values.shape, np.int32)

    def set_metadata(self, name: bytes, data: bytes) -> None:
        """Set the metadata of this name, replacing any that exists."""
        self.remove_metadata(name)
        buffer, entry = _schema().BufferT(), _schema().MetadataT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(self.model.buffers) - 1
        self.model.metadata = [*self.model.metadata, entry]

    def remove_metadata(self, name: bytes) -> None:
        """Remove the metadata of this name, if there is any."""
        self.model.metadata = [entry for entry in self.model.metadata or [] if entry.name != name]

    def add_tensor(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        *,
        scale: float | None = None,
        zero_point: int = 0,
        values: np.ndarray | None = None,
    ) -> int:
        """Append a tensor and return its index. `dtype` is the schema's name, such as `INT8`."""
        schema = _schema()
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.type = getattr(schema.TensorType, dtype)
        tensor.shape = np.array(shape, np.int32)
        tensor.buffer = 0
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([scale], np.float32)
            tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
        self.tensors.append(tensor)
        index = len(self.tensors) - 1
        if values is not None:
            self.set_constant(index, values)
        return index

    def add_tensor_like(self, tensor: int, name: str, shape: Sequence[int]) -> int:
        """Append a computed tensor of the type, scales and zero points of another one, and return its index."""
        index = self.add_tensor(name, "FLOAT32", shape)
        self.tensors[index].type = self.tensors[tensor].type
        self.tensors[index].quantization = copy.deepcopy(self.tensors[tensor].quantization)
        return index

    def add_operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        at: int,
        version: int = 1,
        options: Any = None,
    ) -> None:
        """Insert an operator before the one at position `at`."""
        schema = _schema()
        operator = schema.OperatorT()
        operator.opcodeIndex = self._operator_code(name, version)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.subgraph.operators.insert(at, operator)

    def _operator_code(self, name: str, version: int) -> int:
        """The index of this operator and version among the model's operator codes; added if it is missing."""
        schema, codes = _schema(), self.model.operatorCodes
        code = getattr(schema.BuiltinOperator, name)
        for index, entry in enumerate(codes):
            if max(entry.builtinCode, entry.deprecatedBuiltinCode) == code and entry.version == version:
                return index
        added = schema.OperatorCodeT()
        added.builtinCode, added.deprecatedBuiltinCode, added.version = code, min(code, 127), version
        codes.append(added)
        return len(codes) - 1

    def version(self, operator: Operator) -> int:
        """The operator's version in the file."""
        return self.model.operatorCodes[self.subgraph.operators[operator.index].opcodeIndex].version

    def set_version(self, operator: Operator, version: int) -> None:
        self.subgraph.operators[operator.index].opcodeIndex = self._operator_code(operator.name, version)

    def set_inputs(self, operator: Operator, tensors: Sequence[int]) -> None:
        self.subgraph.operators[operator.index].inputs = np.array(tensors, np.int32)

    def set_outputs_of(self, operator: Operator, tensors: Sequence[int]) -> None:
        self.subgraph.operators[operator.index].outputs = np.array(tensors, np.int32)

    def remove_operators(self, indices: Sequence[int]) -> None:
        removed = set(indices)
        self.subgraph.operators = [op for i, op in enumerate(self.subgraph.operators) if i not in removed]

    def drop_unread(self) -> None:
        """Remove the operators whose results nothing reads."""
        read, unread = set(self.outputs), []
        for operator in reversed(list(self.operators())):
            if read.isdisjoint(operator.outputs):
                unread.append(operator.index)
            else:
                read.update(operator.inputs)
        self.remove_operators(unread)

    def replace_input(self, old: int, new: int) -> None:
        """Replace the graph's input `old` with `new`, also in the signatures."""
        self.subgraph.inputs = np.array([new if i == old else i for i in self.inputs], np.int32)
        for signature in self.model.signatureDefs or []:
            for entry in signature.inputs or []:
                if entry.tensorIndex == old:
                    entry.tensorIndex = new

    def replace_output(self, old: int, new: int) -> None:
        """Replace the graph's output `old` with `new`, also in the signatures."""
        self.subgraph.outputs = np.array([new if i == old else i for i in self.outputs], np.int32)
        for signature in self.model.signatureDefs or []:
            for entry in signature.outputs or []:
                if entry.tensorIndex == old:
                    entry.tensorIndex = new

    def set_outputs(self, tensors: Sequence[int]) -> None:
        """Make these tensors the graph's outputs and remove the signatures: for inspection, not for deployment."""
        self.subgraph.outputs = np.array(tensors, np.int32)
        self.model.signatureDefs = None

    def make_names_unique(self) -> None:
        """Rename tensors so that no two share a name; TensorFlow's converter repeats names."""
        seen: set[str] = set()
        for index in range(len(self.tensors)):
            base = name = self.name(index) or "tensor"
            count = 1
            while name in seen:
                count += 1
                name = f"{base}#{count}"
            seen.add(name)
            self.tensors[index].name = name.encode()

    def to_bytes(self) -> bytes:
        """The TFLite file: buffers aligned to 16 bytes, unused tensors and buffers left out."""
        self._drop_unused()
        return bytes(pack(self.model))

    def _drop_unused(self) -> None:
        subgraph, model = self.subgraph, self.model
        used = set(self.inputs) | set(self.outputs)
        for operator in subgraph.operators:
            for group in (operator.inputs, operator.outputs, operator.intermediates):
                used.update(int(i) for i in (group if group is not None else ()) if i >= 0)
        place = {old: new for new, old in enumerate(sorted(used))}

        def renumber(group: Any) -> Any:
            return None if group is None else np.array([place.get(int(i), -1) for i in group], np.int32)

        subgraph.tensors = [subgraph.tensors[i] for i in sorted(used)]
        subgraph.inputs, subgraph.outputs = renumber(subgraph.inputs), renumber(subgraph.outputs)
        for operator in subgraph.operators:
            operator.inputs, operator.outputs = renumber(operator.inputs), renumber(operator.outputs)
            operator.intermediates = renumber(operator.intermediates)
        for signature in model.signatureDefs or []:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = place[entry.tensorIndex]

        buffers = {0} | {t.buffer for t in subgraph.tensors} | {m.buffer for m in model.metadata or []}
        place = {old: new for new, old in enumerate(sorted(buffers))}
        model.buffers = [model.buffers[i] for i in sorted(buffers)]
        for tensor in subgraph.tensors:
            tensor.buffer = place[tensor.buffer]
        for metadata in model.metadata or []:
            metadata.buffer = place[metadata.buffer]
        codes = sorted({operator.opcodeIndex for operator in subgraph.operators})
        place = {old: new for new, old in enumerate(codes)}
        model.operatorCodes = [model.operatorCodes[i] for i in codes]
        for operator in subgraph.operators:
            operator.opcodeIndex = place[operator.opcodeIndex]


def read_graph(path: Path, content: bytes) -> Graph:
    """The graph of a file, whose content was read; InputError, with the path, if it is not a TFLite model."""
    try:
        return Graph(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def count_operators(graph: Graph) -> tuple[int, int]:
    """The number of integer operators, which neither read nor write floats, and of all operators."""
    floats = (np.dtype(np.float32), np.dtype(np.float16))
    operators = list(graph.operators())
    integer = sum(
        all(graph.dtype(t) not in floats for t in (*operator.inputs, *operator.outputs) if t >= 0)
        for operator in operators
    )
    return integer, len(operators)


def count_macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference in convolutions and dense layers; others are not counted, as in papers."""
    total = 0
    for operator in graph.operators():
        if operator.name not in (*WEIGHTED, "TRANSPOSE_CONV"):
            continue
        weights = graph.shape(operator.inputs[1])
        output = graph.shape(operator.outputs[0])
        if operator.name == "DEPTHWISE_CONV_2D":  # weights (1, height, width, channels)
            per_value = weights[1] * weights[2]
        elif operator.name == "TRANSPOSE_CONV":
            output, per_value = graph.shape(operator.inputs[2]), int(np.prod(weights[:3]))
        else:  # weights (outputs, ...): each output value costs one row of them, grouped or not
            per_value = int(np.prod(weights[1:]))
        total += int(np.prod(output)) * per_value
    return total
