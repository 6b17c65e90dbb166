"""The float32 TFLite model that every scheme of a source starts from; converted once and kept.

TensorFlow's converter folds batch normalization and fuses activations.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import math
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.decisions import SIGMOID, SOFTMAX, OutputMeaning
from converters.errors import CheckFailed, InputError
from converters.files import temporary_folder
from converters.native_logs import import_tensorflow, log_level, suppress_dump_of_failure
from converters.sources import PIXELS_INPUT, Source
from converters.sources.single_image import drop_first_reshape, with_float_input
from converters.sources.source import identifier
from converters.tflite.fake_quant import remove_fake_quantization
from converters.tflite.graph import Graph, Operator

FAKE_QUANT_SQNR_DB = 5.0  # of a float file against a model that simulates int8
# Values of variables that are frozen in memory, which takes a quarter of the time of a SavedModel for EfficientNet-B0's
# 5 million; for AlexNet's 61 million it takes twice the time and four times the memory.
MAX_FROZEN = 10_000_000
KEPT_CONVERSIONS = 4  # the models converted last; each takes as much memory as its weights
logger = logging.getLogger(__name__)
_kept: OrderedDict[str, FloatModel] = OrderedDict()
_converting = threading.Lock()  # TensorFlow's converter is not thread-safe


@dataclass(frozen=True)
class Normalization:
    """`x = scale * value + offset`, computed by the first operators of a graph.

    Attributes:
        scale, offset: the mean over the channels, where they differ.
        operators: the indices of these operators.
        output: the tensor that holds x.
        by_channel: scales and offsets, each `(channels,)`, where the channels differ; None otherwise.
    """

    scale: float
    offset: float
    operators: tuple[int, ...]
    output: int
    by_channel: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A float32 TFLite model and its source.

    Attributes:
        content: the file; its input is the source's, its operators are all float.
        source: the model that it was made from.
        input_scale: the factor, one number or one for each channel, by which the model first multiplies its input;
            None if it does not, or where the source declares what it takes.
        learned_ranges: minimum and maximum of tensors, by name, where the source is a model of quantization-aware
            training, which rounds to them itself. `content` does not round activations.
    """

    content: bytes
    source: Source
    input_scale: tuple[float, ...] | None = None
    learned_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    _measured: dict[tuple[str, tuple[int, ...], bytes], Any] = field(default_factory=dict, repr=False)
    _measuring: defaultdict[str, threading.RLock] = field(
        default_factory=lambda: defaultdict(threading.RLock), repr=False
    )

    def once(self, what: str, images: np.ndarray, measure: Callable[[], Any]) -> Any:
        """The result of `measure()`, kept for the same key and images, so that schemes share what they measure."""
        key = what, images.shape, hashlib.blake2b(np.ascontiguousarray(images).data).digest()
        with self._measuring[what]:
            if key not in self._measured:
                for old in [k for k in list(self._measured) if k[0] == what]:
                    del self._measured[old]
                self._measured[key] = measure()
            return self._measured[key]

    def least_sqnr_db(self, limit: float) -> float:
        """A limit of the SQNR against the source, in dB; lower for a source that rounds its activations itself."""
        return min(limit, FAKE_QUANT_SQNR_DB) if self.learned_ranges else limit

    @property
    def takes_pixels(self) -> bool:
        """Whether the model takes pixels 0..255, by its preprocessing, the name of its input or a rescaling."""
        if self.source.preprocessing is not None:
            return self.source.preprocessing.takes_pixels
        if self.source.input_name == PIXELS_INPUT or self.source.takes_integers:
            return True
        # pixels are divided by 255, 127.5 or 128, or by 255 and their standard deviation
        return self.input_scale is not None and all(1 / 300 < scale < 1 / 20 for scale in self.input_scale)


def convert_float(source: Source) -> FloatModel:
    """The FloatModel of a source; one that was converted recently is returned for a source with the same digest."""
    with _converting:
        kept = _kept.get(source.digest)
        if kept is None:
            kept = _with_tensorflow(source) if source.tflite is None else _from_tflite(source, source.tflite)
            if kept.learned_ranges:
                logger.warning(
                    "%s simulates int8: an int8 file takes its %d learned ranges, other files leave its rounding out",
                    source.name,
                    len(kept.learned_ranges),
                )
            _kept[source.digest] = kept
            while len(_kept) > KEPT_CONVERSIONS:
                _kept.popitem(last=False)
        _kept.move_to_end(source.digest)
        return kept


def _from_tflite(source: Source, content: bytes) -> FloatModel:
    graph = Graph(content)
    learned = remove_fake_quantization(graph)
    drop_first_reshape(graph)
    normalization = find_normalization(graph)
    scale: tuple[float, ...] | None = None
    if normalization is not None:
        scale = (normalization.scale,)
        if normalization.by_channel is not None:
            scale = tuple(normalization.by_channel[0].tolist())
    _name_ends(graph, source)
    ranges = {graph.name(tensor): ends for tensor, ends in learned.items()}
    return FloatModel(graph.to_bytes(), source, scale, ranges)


def _with_tensorflow(source: Source) -> FloatModel:
    import_tensorflow()
    import tensorflow as tf

    concrete = source.concrete
    module = tf.Module()
    module.variables_of_call = list(concrete.graph.variables)
    few = sum(variable.shape.num_elements() for variable in concrete.graph.variables) <= MAX_FROZEN
    try:
        with log_level("absl"), _without_gc():
            content = (_frozen(concrete, module) if few else None) or _saved(concrete, module)
    except InputError:
        raise
    except Exception as error:  # the converter raises its own ConverterError and plain ones
        raise CheckFailed(
            f"TensorFlow's converter cannot express {source.name!r} in TFLite operators: {_reason(str(error))}"
        ) from error
    graph = _one_graph(content, source.name)
    learned = remove_fake_quantization(graph)
    with_float_input(graph)
    drop_first_reshape(graph)
    _name_layers(graph)
    _name_ends(graph, source)
    ranges = {graph.name(tensor): ends for tensor, ends in learned.items()}
    declared = source.preprocessing is not None or source.input_name == PIXELS_INPUT
    return FloatModel(graph.to_bytes(), source, None if declared else _input_scale(concrete.graph), ranges)


def _frozen(concrete: Any, module: Any) -> bytes | None:
    """A TFLite file of a TensorFlow function whose variables become constants of its graph, in memory.

    None where that fails: through a SavedModel more may succeed, such as tables, and an error names the layer.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    converter.experimental_lower_to_saved_model = False
    try:
        with suppress_dump_of_failure():
            return converter.convert()
    except (InputError, MemoryError):
        raise
    except Exception:  # the converter raises its own ConverterError and plain ones
        return None


def _saved(concrete: Any, module: Any) -> bytes:
    """A TFLite file of a TensorFlow function, through a SavedModel."""
    import tensorflow as tf

    with temporary_folder() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        with suppress_dump_of_failure():
            return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Pause the cyclic garbage collector, which would scan TensorFlow's many Python objects again and again.

    The converter itself collects too; what exists before it is left out. Objects that the caller has frozen stay so.
    """
    enabled, freeze = gc.isenabled(), gc.get_freeze_count() == 0
    gc.disable()
    if freeze:
        gc.freeze()
    try:
        yield
    finally:
        if freeze:
            gc.unfreeze()
        if enabled:
            gc.enable()


def _one_graph(content: bytes, name: str) -> Graph:
    try:
        return Graph(content)
    except InputError as error:
        raise InputError(
            f"{name!r} must be one graph without loops. Received: a model with a loop, as of a recurrent layer (LSTM, "
            "GRU), or with a variable that keeps a state; build the layer with unroll=True, or take the variable out"
        ) from error


def _reason(text: str) -> str:
    """The operators that TFLite lacks, with their layers, from the converter's error; else its first telling line."""
    lacking: dict[str, None] = {}
    for line in text.splitlines():
        operator = re.search(r"'tf\.(\w+)' op is neither a custom op nor a flex op", line)
        place = re.search(r'fused\["[^"]*", "([^"@]+)', line)
        if operator is not None:
            layer = "" if place is None else _layer(place[1])
            lacking[f"{operator[1]} (layer {layer!r})" if layer else operator[1]] = None
    if lacking:
        names = ", ".join(list(lacking)[:5]) + (" and others" if len(lacking) > 5 else "")
        return f"TFLite has no operator for {names}; replace it in the model by operators that TFLite has"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.search(r"'tf\.|Error: |error: ", line) and "Exception encountered" not in line
    ]
    return re.sub(r"^.*?\berror: (loc\(.*?\)\)\)?: )?", "", (telling or lines or ["no reason given"])[0])[:300]


def _layer(operation: str) -> str:
    """The Keras layer of an operation such as `model_1/block_1/activation_1/Relu`, without the call's `_1`."""
    layers = [re.sub(r"_1$", "", part) for part in operation.split("/")[:-1]]
    return "/".join(layers[1:] or layers)


def _name_layers(graph: Graph) -> None:
    """Name each computed tensor after its Keras layer, for figures layer by layer.

    The converter lists the operations that it fused, `model/bn_1/batchnorm/add_1;model/conv_1/convolution;...`, with
    `_1` for the call; the convolution's layer gives the name.
    """
    for operator in graph.operators():
        for tensor in operator.outputs:
            parts = graph.name(tensor).split(";")
            weighted = [p for p in parts if re.fullmatch(r"(convolution|depthwise|MatMul)\d*", p.split("/")[-1])]
            graph.rename(tensor, _layer((weighted or parts)[0]) or operator.name.lower())


def _name_ends(graph: Graph, source: Source) -> None:
    """Name the input and the output and sign them, as LiteRT's signature runner requires."""
    graph.rename(graph.inputs[0], identifier(source.input_name))
    graph.rename(graph.outputs[0], "probabilities" if output_meaning(graph).probabilities else "logits")
    graph.make_names_unique()
    _sign(graph, source)


def output_meaning(graph: Graph) -> OutputMeaning:
    """What the outputs mean, by the last operator that computes: SOFTMAX and LOGISTIC make probabilities."""
    makers = {tensor: operator for operator in graph.operators() for tensor in operator.outputs}
    last = makers.get(graph.outputs[0])
    while last is not None and last.name in ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE"):  # `Graph` has no cycles
        last = makers.get(last.inputs[0])
    name = "" if last is None else last.name
    sigmoid = name == "LOGISTIC" or graph.shape(graph.outputs[0])[-1:] == (1,)
    return OutputMeaning(name in ("SOFTMAX", "LOGISTIC"), SIGMOID if sigmoid else SOFTMAX)


def _sign(graph: Graph, source: Source) -> None:
    from ai_edge_litert import schema_py_generated as schema

    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    entries = []
    for name, tensor in (
        (identifier(source.input_name), graph.inputs[0]),
        (graph.name(graph.outputs[0]), graph.outputs[0]),
    ):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), tensor
        entries.append(entry)
    signature.inputs, signature.outputs = entries[:1], entries[1:]
    signature.subgraphIndex = 0
    graph.model.signatureDefs = [signature]


def find_normalization(graph: Graph) -> Normalization | None:
    """The chain of MUL, DIV, ADD and SUB with constants between the input and every other operator.

    A constant is one number, or one for each channel. None where there is no such chain.
    """
    scale, offset = np.ones(1), np.zeros(1)
    chain, current = list[int](), graph.inputs[0]
    if not graph.shape(current):
        return None
    channels = graph.shape(current)[-1]
    readers = graph.readers()
    while len(reading := readers.get(current, [])) == 1:
        operator = reading[0]
        operand = _constant_operand(graph, operator, current)
        if operand is None or (operand.size != 1 and (operand.size, *operand.shape[-1:]) != (channels, channels)):
            break
        numbers = operand.reshape(-1).astype(np.float64)
        if operator.name in ("MUL", "DIV"):
            factors = numbers if operator.name == "MUL" else 1 / np.where(numbers == 0, math.nan, numbers)
            scale, offset = scale * factors, offset * factors
        else:
            offset = offset + (numbers if operator.name == "ADD" else -numbers)
        chain.append(operator.index)
        current = operator.outputs[0]
    scales, offsets = np.broadcast_to(scale, channels), np.broadcast_to(offset, channels)
    if not chain or current in graph.outputs or not np.isfinite([scales, offsets]).all() or scales.min() <= 0:
        return None
    by_channel = None if np.ptp(scales) == np.ptp(offsets) == 0 else (scales, offsets)
    return Normalization(float(scales.mean()), float(offsets.mean()), tuple(chain), current, by_channel)


def _constant_operand(graph: Graph, operator: Operator, tensor: int) -> np.ndarray | None:
    """The constant that an arithmetic operator combines with `tensor`; None for any other operator."""
    if operator.name not in ("MUL", "ADD", "SUB", "DIV") or len(operator.inputs) != 2:
        return None
    if getattr(graph.options(operator), "fusedActivationFunction", 0) != 0:
        return None
    first, second = operator.inputs
    if first == tensor:
        return graph.constant(second)
    return graph.constant(first) if operator.name in ("MUL", "ADD") and second == tensor else None


def _input_scale(graph: Any) -> tuple[float, ...] | None:
    """The total factor, one number or one for each channel, by which a TensorFlow function first multiplies its input.

    It is searched here and not in the TFLite graph, whose first convolution may have absorbed it. None where there is
    none.
    """
    from tensorflow.python.eager.wrap_function import VariableHolder, WrappedFunction

    scale, parts = None, WrappedFunction(graph, VariableHolder())
    at = graph.inputs[0]
    while len(readers := at.consumers()) == 1:
        operation = readers[0]
        if operation.type in ("Mul", "RealDiv", "AddV2", "Add", "Sub"):
            first = operation.inputs[0].op is at.op
            other = operation.inputs[1 if first else 0]
            if operation.type == "RealDiv" and not first:
                break
            try:
                values = np.asarray(parts.prune([], other)(), np.float64).reshape(-1)
            except Exception:  # it depends on the input; TensorFlow raises exceptions of several kinds
                break
            if values.size not in (1, 3):
                break
            if operation.type in ("Mul", "RealDiv"):
                factors = values if operation.type == "Mul" else 1 / np.where(values == 0, math.nan, values)
                scale = factors if scale is None else scale * factors
        elif operation.type not in ("Identity", "Cast", "Reshape"):
            break
        at = operation.outputs[0]
    return None if scale is None else tuple(scale.tolist())
