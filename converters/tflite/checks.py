"""The references of a TFLite file, checked once when it is read: counts, indices, shapes, buffers and quantization.

Whoever reads a graph relies on them: each index names something, each operator reads what exists before it runs, and
each constant is as long as its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.memory import MAX_TENSOR_VALUES, Step, check_activations

MAX_TABLES = 200_000  # tensors, operators, buffers and so on of one file; large classifiers have some thousands
MAX_RANK = 8
MAX_TEXT_RATIO = 4  # of all names to the file: a file may share names, but not to become a bomb
ONE_SUBGRAPH = (
    "a model must have one subgraph, no loops, branches or variables that keep a state: unroll recurrent layers "
    "(unroll=True), strip the wrappers of pruning, and take variables out. Received: {} subgraphs"
)
# Of the operators with weights: the inputs that are never left out, and the rank of the weights, the second input.
_WEIGHTED = {"CONV_2D": (2, 4), "DEPTHWISE_CONV_2D": (2, 4), "FULLY_CONNECTED": (2, 2), "TRANSPOSE_CONV": (3, 4)}


class _Text(bytes):
    """The bytes of a file, which count the bytes of the texts that are copied out of them."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        part = bytes.__getitem__(self, place)
        if isinstance(place, slice):
            self.copied += len(part)
            if self.copied > MAX_TEXT_RATIO * len(self) + 1000:
                raise InputError(
                    f"the TFLite file is corrupt: its texts are over {MAX_TEXT_RATIO} times as long as it is"
                )
        return part


def check_identifier(content: bytes) -> None:
    """Raise InputError if the bytes do not begin as a TFLite file."""
    if content[4:8] != b"TFL3":
        keras = content.startswith((b"PK\x03\x04", b"\x89HDF\r\n"))  # a .keras and an .h5 file
        received = "a zip or HDF5 file, perhaps a Keras model: convert it first" if keras else "another file"
        raise InputError(f"a TFLite file must have the identifier TFL3 at its fifth byte. Received: {received}")


def bounded(content: bytes, schema: Any) -> bytes:
    """The bytes of a TFLite file that can be unpacked in time and memory in proportion to them.

    Args:
        content: the file.
        schema: the generated module of the schema.

    Raises:
        InputError: the file has another number of subgraphs than one, or far too many parts, as when many parts share
            one that has many parts itself. Whatever the generated reader raises on broken bytes may be raised too.
    """
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise InputError(ONE_SUBGRAPH.format(model.SubgraphsLength()))
    subgraph = model.Subgraphs(0)
    count = model.OperatorCodesLength() + model.BuffersLength() + model.MetadataLength()
    count += model.ExternalBuffersLength() + model.ExternalBufferGroupsLength() + model.SignatureDefsLength()
    _check_count(count + subgraph.TensorsLength() + subgraph.OperatorsLength())
    for index in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(index)
        count = _check_count(count + signature.InputsLength() + signature.OutputsLength())
    for index in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(index)
        sparsity = tensor.Sparsity()
        count += tensor.VariantTensorsLength() + (0 if sparsity is None else sparsity.DimMetadataLength())
        _check_count(count)
    return _Text(content)


def _check_count(count: int) -> int:
    if count > MAX_TABLES:
        raise InputError(f"a TFLite file must have at most {MAX_TABLES:,} parts. Received: {count:,}")
    return count


def check_references(model: Any, operator_name: Callable[[int], str], dtypes: Mapping[int, np.dtype]) -> None:
    """Raise InputError if a part of a model refers to another that does not exist or does not fit.

    Args:
        model: `ModelT` of the schema, with one subgraph.
        operator_name: the name of an operator by its number in the schema.
        dtypes: the numpy types by the numbers of the schema.
    """
    if model.externalBuffers or model.externalBufferGroups:
        raise InputError("a TFLite file must hold its own weights. Received: one that refers to other files")
    subgraph = model.subgraphs[0]
    if not subgraph.tensors or not subgraph.operators:
        raise InputError("a TFLite file must have tensors and operators. Received: none")
    _check_tensors(model, subgraph, dtypes)
    _check_operators(model, subgraph, operator_name)
    for what, tensors in (("input", subgraph.inputs), ("output", subgraph.outputs)):
        if tensors is None or len(tensors) == 0:
            raise InputError(f"a TFLite file must have an {what}. Received: none")
        for tensor in tensors:
            _require(0 <= tensor < len(subgraph.tensors), f"its {what} is tensor {tensor} of {len(subgraph.tensors)}")
            _require(
                _values(subgraph.tensors[tensor]) > 0, f"its {what} has the shape {_shape(subgraph.tensors[tensor])}"
            )
    _check_order(model, subgraph, operator_name)
    steps: list[Step] = [((), {tensor: _values(subgraph.tensors[tensor]) for tensor in _indices(subgraph.inputs)})]
    for operator in subgraph.operators:
        written = {tensor: _values(subgraph.tensors[tensor]) for tensor in _indices(operator.outputs)}
        steps.append((_indices(operator.inputs), written))
    check_activations(steps, "a TFLite model")
    _check_ends(model, subgraph)


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise InputError(f"the TFLite file is corrupt: {fault}")


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(n) for n in tensor.shape)


def _values(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _check_tensors(model: Any, subgraph: Any, dtypes: Mapping[int, np.dtype]) -> None:
    for index, tensor in enumerate(subgraph.tensors):
        where, shape = f"tensor {index}", _shape(tensor)
        _require(0 <= tensor.buffer < len(model.buffers or ()), f"{where} has buffer {tensor.buffer}")
        _require(_is_text(tensor.name), f"the name of {where} is not UTF-8")
        _require(len(shape) <= MAX_RANK and min(shape, default=0) >= 0, f"{where} has the shape {_shortened(shape)}")
        if _values(tensor) > MAX_TENSOR_VALUES:
            raise InputError(
                f"a tensor must have at most {MAX_TENSOR_VALUES:,} values. Received: {where} of the shape {shape}"
            )
        dtype, data = dtypes.get(tensor.type), model.buffers[tensor.buffer].data
        if dtype is not None and tensor.sparsity is None and data is not None and len(data):
            size = _values(tensor) * dtype.itemsize
            _require(len(data) == size, f"{where} of {size} bytes has {len(data)} bytes of data")
        if tensor.quantization is not None:
            _check_quantization(tensor.quantization, shape, where)


def _shortened(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= MAX_RANK else f"{str(shape[:MAX_RANK])[:-1]}, ...)"


def _is_text(name: bytes | None) -> bool:
    try:
        (name or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_quantization(quantization: Any, shape: tuple[int, ...], where: str) -> None:
    """As the runtime requires it."""
    scales, zero_points = quantization.scale, quantization.zeroPoint
    if scales is None or len(scales) == 0:
        return
    _require(
        zero_points is not None and len(zero_points) == len(scales),
        f"{where} has {len(scales)} scales and {0 if zero_points is None else len(zero_points)} zero points",
    )
    _require(bool(np.isfinite(scales).all() and np.min(scales) >= 0), f"{where} has a scale below 0 or without a value")
    limits = np.iinfo(np.int32)
    _require(
        limits.min <= np.min(zero_points) and np.max(zero_points) <= limits.max, f"{where} has a zero point beyond"
    )
    if len(scales) > 1 and quantization.details is None:
        axis = quantization.quantizedDimension
        _require(
            0 <= axis < len(shape) and shape[axis] == len(scales),
            f"{where} of the shape {shape} has {len(scales)} scales for its axis {axis}",
        )


def _check_operators(model: Any, subgraph: Any, operator_name: Callable[[int], str]) -> None:
    tensors, codes = subgraph.tensors, model.operatorCodes or ()
    for index, operator in enumerate(subgraph.operators):
        _require(0 <= operator.opcodeIndex < len(codes), f"operator {index} is of kind {operator.opcodeIndex}")
        code = codes[operator.opcodeIndex]
        name = operator_name(max(code.builtinCode, code.deprecatedBuiltinCode))
        where, inputs, outputs = f"operator {index}, {name},", _indices(operator.inputs), _indices(operator.outputs)
        for tensor in (*inputs, *_indices(operator.intermediates)):  # -1 is an input that is left out
            _require(-1 <= tensor < len(tensors), f"{where} reads tensor {tensor} of {len(tensors)}")
        for tensor in outputs:
            _require(0 <= tensor < len(tensors), f"{where} writes tensor {tensor} of {len(tensors)}")
        if name == "VAR_HANDLE":
            raise InputError(
                "a TFLite file must hold its weights as constants. Received: one with variables (VAR_HANDLE); convert "
                "the model again from the SavedModel that model.export('folder') writes"
            )
        least, rank = _WEIGHTED.get(name, (1, 0))
        given = len(inputs) >= least and min(inputs[:least]) >= 0
        _require(given and len(outputs) > 0, f"{where} has {len(inputs)} inputs and {len(outputs)} outputs")
        if rank:
            shape, output = _shape(tensors[inputs[1]]), _shape(tensors[outputs[0]])
            fits = (len(shape) == rank and min(shape) > 0) or _is_computed(model, subgraph, inputs[1], shape)
            _require(fits, f"{where} has weights of the shape {shape}")
            _require(rank == 2 or len(output) == 4, f"{where} has an output of the shape {output}")


def _is_computed(model: Any, subgraph: Any, tensor: int, shape: tuple[int, ...]) -> bool:
    """Whether the runtime finds out the shape of a tensor: rounded weights of quantization-aware training have none."""
    data = model.buffers[subgraph.tensors[tensor].buffer].data
    return shape == () and (data is None or len(data) == 0) and tensor not in _indices(subgraph.inputs)


def _indices(tensors: Any) -> tuple[int, ...]:
    return () if tensors is None else tuple(int(tensor) for tensor in tensors)


def _check_order(model: Any, subgraph: Any, operator_name: Callable[[int], str]) -> None:
    """Each tensor is an input, a constant, a state or the result of one operator before those that read it.

    A custom operator may also read a tensor that nothing computes: the memory in which an NPU works.
    """
    tensors = subgraph.tensors
    constants = {
        index
        for index, tensor in enumerate(tensors)
        if (data := model.buffers[tensor.buffer].data) is not None and len(data)
    }
    inputs = set(_indices(subgraph.inputs))
    for tensor in inputs:
        _require(tensor not in constants, f"its input, tensor {tensor}, is a constant")
    known = constants | inputs | {i for i, t in enumerate(tensors) if t.isVariable or _values(t) == 0}
    computed = {tensor for operator in subgraph.operators for tensor in _indices(operator.outputs)}
    for index, operator in enumerate(subgraph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        if operator_name(max(code.builtinCode, code.deprecatedBuiltinCode)) == "CUSTOM":
            known.update(set(_indices(operator.inputs)) - computed)
        for tensor in _indices(operator.inputs):
            _require(tensor < 0 or tensor in known, f"operator {index} reads tensor {tensor} before it is computed")
        for tensor in _indices(operator.outputs):
            fresh = tensor not in known or _values(tensors[tensor]) == 0
            _require(fresh, f"operator {index} writes tensor {tensor}, which has a value already")
            known.add(tensor)
    for tensor in _indices(subgraph.outputs):
        _require(tensor in known, f"nothing computes its output, tensor {tensor}")


def _check_ends(model: Any, subgraph: Any) -> None:
    """The signatures name inputs and outputs, the metadata buffers."""
    for signature in model.signatureDefs or ():
        _require(signature.subgraphIndex == 0, f"a signature is of subgraph {signature.subgraphIndex}")
        for entries, ends in ((signature.inputs, subgraph.inputs), (signature.outputs, subgraph.outputs)):
            _check_signed(entries or (), set(_indices(ends)))
    for entry in model.metadata or ():
        _require(0 <= entry.buffer < len(model.buffers), f"its metadata is in buffer {entry.buffer}")


def _check_signed(entries: Iterable[Any], ends: set[int]) -> None:
    for entry in entries:
        _require(entry.tensorIndex in ends, f"a signature names tensor {entry.tensorIndex}, no input or output")
