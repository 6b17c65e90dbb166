"""The one float conversion that every scheme of a model starts from.

The Keras graph goes through TensorFlow's converter, which folds batch normalization and fuses activations. Then the
normalization at the graph's beginning, if there is one, is recognised: integer schemes take it off and give its meaning
to the input tensor's own scale and zero point, at no cost and no loss.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.images.preprocessing import Preprocessing
from converters.native_logs import import_tensorflow, log_level
from converters.sources.source import PIXELS_INPUT, Source
from converters.tflite.graph import Graph, Operator

KEPT_CONVERSIONS = 4  # of the models converted last; each is as large as its weights
MAX_PADDING_ERROR_PIXELS = 16  # ImageNet's means of R, G and B are 9, 2 and 11 pixels from a common whole one
_kept: OrderedDict[str, FloatModel] = OrderedDict()
_converting = threading.Lock()  # TensorFlow's converter is not made for several threads


@dataclass(frozen=True)
class Normalization:
    """`model input = scale * given value + offset`, the operators that did it being at the graph's beginning.

    Where the channels differ, scale and offset are their means and `by_channel` has those of each channel.
    """

    scale: float
    offset: float
    operators: tuple[int, ...]
    output: int
    by_channel: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A float32 TFLite model and where it came from.

    Attributes:
        content: the file; its input is what the source takes, its operators are all float.
        source: the model that it was made from.
        input_scale: what it first multiplies its input by, one number or one a channel; None if it does not.
    """

    content: bytes
    source: Source
    input_scale: tuple[float, ...] | None = None
    _measured: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _measuring: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def once(self, what: str, images: np.ndarray, measure: Callable[[], Any]) -> Any:
        """`measure()`, or its result of the last time for the same images: schemes share what they measure."""
        key = what, images.shape, hashlib.blake2b(np.ascontiguousarray(images)).digest()
        with self._measuring:
            if key not in self._measured:
                for old in [k for k in self._measured if k[0] == what]:
                    del self._measured[old]
                self._measured[key] = measure()
            return self._measured[key]

    @functools.cached_property
    def normalization(self) -> Normalization | None:
        """The scaling and shift of the input by which the graph begins, None when it begins otherwise."""
        return find_normalization(Graph(self.content))

    @property
    def takes_pixels(self) -> bool:
        """Whether the model itself says that it takes pixels 0..255: by name, by description or by a rescaling."""
        if self.source.preprocessing is not None:
            return self.source.preprocessing.takes_pixels
        if self.source.input_name == PIXELS_INPUT:
            return True
        # pixels are divided by 255, 127.5, 128, or by 255 and their deviation
        return self.input_scale is not None and all(1 / 300 < scale < 1 / 20 for scale in self.input_scale)


def convert_float(source: Source) -> FloatModel:
    """The FloatModel of a source; the same one again for a source with the same digest that was converted lately."""
    with _converting:
        kept = _kept.get(source.digest)
        if kept is None:
            kept = _kept[source.digest] = _to_tflite(source)
            while len(_kept) > KEPT_CONVERSIONS:
                _kept.popitem(last=False)
        _kept.move_to_end(source.digest)
        return kept


def _to_tflite(source: Source) -> FloatModel:
    import_tensorflow()
    import tensorflow as tf

    spec = tf.TensorSpec((1, *source.input_shape), tf.float32, name=_identifier(source.input_name))
    module = tf.Module()
    module.call = tf.function(source.call, input_signature=[spec])
    concrete = module.call.get_concrete_function()
    module.captured = list(concrete.graph.variables)
    try:
        # By way of a file: frozen in memory, AlexNet's 0.24 GB of weights took 6.3 GB and four times as long.
        with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder, log_level("absl"):
            tf.saved_model.save(module, folder, signatures=concrete)
            content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    except Exception as error:  # the converter raises its own ConverterError and plain ones
        operations = [line for line in str(error).splitlines() if "tf." in line or "Custom" in line]
        reason = (operations or str(error).splitlines() or ["no reason given"])[0].strip()[:300]
        raise CheckFailed(
            f"TensorFlow's converter cannot express {source.name!r} in TFLite operators: {reason}"
        ) from error
    graph = Graph(content)
    _name_tensors(graph, source)
    _sign(graph, source)
    return FloatModel(graph.to_bytes(), source, _input_scale(concrete.graph))


def _name_tensors(graph: Graph, source: Source) -> None:
    """Give computed tensors the names of the layers that they come from, for people who read figures layer by layer.

    The converter lists what it fused, `model/bn_1/batchnorm/add_1;model/conv_1/convolution;...`, with a `_1` for
    the call; the convolution's layer is the name to keep.
    """
    for operator in graph.operators():
        for tensor in operator.outputs:
            parts = graph.name(tensor).split(";")
            weighted = [p for p in parts if re.fullmatch(r"(convolution|depthwise|MatMul)\d*", p.split("/")[-1])]
            layers = [re.sub(r"_1$", "", layer) for layer in (weighted or parts)[0].split("/")[:-1]]
            graph.rename(tensor, "/".join(layers[1:] or layers) or operator.name.lower())
    graph.rename(graph.inputs[0], _identifier(source.input_name))
    graph.rename(graph.outputs[0], output_values(graph))
    graph.make_names_unique()


def output_values(graph: Graph) -> str:
    """`probabilities` where the graph ends in SOFTMAX or LOGISTIC, before a QUANTIZE or not; else `logits`."""
    makers = {tensor: operator for operator in graph.operators() for tensor in operator.outputs}
    last = makers.get(graph.outputs[0])
    while last is not None and last.name in ("QUANTIZE", "DEQUANTIZE"):
        last = makers.get(last.inputs[0])
    return "probabilities" if last is not None and last.name in ("SOFTMAX", "LOGISTIC") else "logits"


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).lstrip("_")
    return cleaned or "image"


def _sign(graph: Graph, source: Source) -> None:
    """Name the input and the output, as LiteRT's signature runner wants them."""
    from ai_edge_litert import schema_py_generated as schema

    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    entries = []
    for name, tensor in (
        (_identifier(source.input_name), graph.inputs[0]),
        (graph.name(graph.outputs[0]), graph.outputs[0]),
    ):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), tensor
        entries.append(entry)
    signature.inputs, signature.outputs = entries[:1], entries[1:]
    signature.subgraphIndex = 0
    graph.model.signatureDefs = [signature]


def find_normalization(graph: Graph) -> Normalization | None:
    """The chain of MUL, DIV, ADD and SUB with constants that stands between the input and everything else.

    A constant is one number, or one for each channel.
    """
    scale, offset, chain, at = np.float64(1.0), np.float64(0.0), [], graph.inputs[0]
    channels = graph.shape(at)[-1]
    while True:
        readers = graph.readers(at)
        if len(readers) != 1 or readers[0].name not in ("MUL", "ADD", "SUB", "DIV"):
            break
        operator = readers[0]
        if operator.inputs[0] != at or len(operator.inputs) != 2:
            if operator.name not in ("MUL", "ADD") or operator.inputs[1] != at:
                break
            operand = graph.constant(operator.inputs[0])
        else:
            operand = graph.constant(operator.inputs[1])
        options = graph.subgraph.operators[operator.index].builtinOptions
        if operand is None or getattr(options, "fusedActivationFunction", 0) != 0:
            break
        if operand.size != 1 and (operand.size != channels or operand.shape[-1] != channels):
            break
        numbers = operand.reshape(-1).astype(np.float64)
        if operator.name in ("MUL", "DIV"):
            factors = numbers if operator.name == "MUL" else 1 / np.where(numbers == 0, math.nan, numbers)
            scale, offset = scale * factors, offset * factors
        else:
            offset = offset + (numbers if operator.name == "ADD" else -numbers)
        chain.append(operator.index)
        at = operator.outputs[0]
    scales, offsets = np.broadcast_to(scale, channels), np.broadcast_to(offset, channels)
    if not chain or at in graph.outputs or not np.isfinite([scales, offsets]).all() or scales.min() <= 0:
        return None
    by_channel = None if np.ptp(scales) == np.ptp(offsets) == 0 else (scales, offsets)
    return Normalization(float(scales.mean()), float(offsets.mean()), tuple(chain), at, by_channel)


def _input_scale(graph: Any) -> tuple[float, ...] | None:
    """What a TensorFlow function's graph first multiplies its input by, all in all: one number, or one a channel.

    Looked for here and not in the TFLite graph, whose first convolution may hold it already. None if there is none.
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
            except Exception:  # it depends on the input, which TensorFlow says in several ways
                break
            if values.size not in (1, 3):
                break
            if operation.type in ("Mul", "RealDiv"):
                factors = values if operation.type == "Mul" else 1 / np.where(values == 0, math.nan, values)
                scale = factors if scale is None else scale * factors
        elif operation.type not in ("Identity", "Cast"):
            break
        at = operation.outputs[0]
    return None if scale is None else tuple(scale.tolist())


@dataclass(frozen=True)
class NormalizedGraph:
    """A float model without its normalization, as integer schemes quantize it.

    Attributes:
        content: the TFLite file; its input is `scale * value + offset` of what the whole model takes.
        scale, offset: as above.
        zero_point: the int8 value that stands for the body's 0.0 when pixels p come as `p - 128`; None when the input
            is not pixels, or when its range does not fit.
    """

    content: bytes
    scale: float = 1.0
    offset: float = 0.0
    zero_point: int | None = None

    def feed(self, images: np.ndarray) -> np.ndarray:
        """The body's input for images in the range that the whole model takes."""
        return np.float32(self.scale) * images.astype(np.float32) + np.float32(self.offset)

    def range_of(self, inputs: np.ndarray) -> tuple[float, float]:
        """What the input tensor must hold: every pixel, or where it is not pixels what these inputs are."""
        if self.zero_point is None:
            return float(inputs.min()), float(inputs.max())
        return tuple(self.scale * (q - self.zero_point) for q in (-128, 127))


def strip_normalization(model: FloatModel, preprocessing: Preprocessing | None) -> NormalizedGraph:
    """The part of the model that an integer scheme quantizes.

    With pixels at the input, int8 `q = pixel - 128` and the normalization x = a * pixel + b, the input tensor's scale
    is a and its zero point the q at which x is 0. Where that q is not whole (pixel 127.5 for a model that takes -1..1)
    the nearest is taken and the rest, less than half a pixel, goes exactly into the bias of the convolution that reads
    the input; only its zero padding is then half a pixel off. Channels that are normalized by numbers of their own
    differ from the mean by some pixels and per cent: that goes into the convolution's bias and weights in the same way,
    and its padding is then off by those pixels, a slightly other grey at the photo's edge. (Left in the graph, the two
    operators take 4 % of EfficientNet B0's time and round each pixel twice.) Where none of this can be, they stay.
    """
    takes_pixels = preprocessing.takes_pixels if preprocessing is not None else model.takes_pixels
    if not takes_pixels:
        return NormalizedGraph(model.content)
    graph = Graph(model.content)
    normalization = model.normalization
    whole = NormalizedGraph(model.content, zero_point=-128)
    if normalization is None:
        return whole
    zero_pixel = -normalization.offset / normalization.scale
    nearest = math.floor(zero_pixel + 0.5)
    if not 0 <= nearest <= 255:
        return whole
    scales, offsets = normalization.by_channel or (np.float64(normalization.scale), np.float64(normalization.offset))
    rest = scales * nearest + offsets  # what each channel of x is at the pixel that now stands for 0.0
    if np.abs(rest / scales).max() > MAX_PADDING_ERROR_PIXELS:
        return whole
    exact = normalization.by_channel is None and np.abs(rest).max() <= 1e-6
    if not exact and not _fold(graph, normalization.output, scales / normalization.scale, rest):
        return whole
    name = graph.name(graph.inputs[0])
    graph.replace_input(graph.inputs[0], normalization.output)
    graph.rename(normalization.output, name)
    graph.remove_operators(normalization.operators)
    return NormalizedGraph(graph.to_bytes(), normalization.scale, -normalization.scale * nearest, nearest - 128)


def _behind_padding(graph: Graph, tensor: int) -> list[Operator]:
    """The operators that read a tensor, a PAD with zeros being passed by: it pads like a convolution itself."""
    found = []
    for reader in graph.readers(tensor):
        padded = reader.name == "PAD" and reader.outputs[0] not in graph.outputs
        found += _behind_padding(graph, reader.outputs[0]) if padded else [reader]
    return found


def _fold(graph: Graph, tensor: int, gain: np.ndarray, shift: np.ndarray) -> bool:
    """Let the readers of `tensor` compute what they would if it were `gain * tensor + shift`; False if they cannot.

    `gain` and `shift` are one number, or one for each channel of the tensor.
    """
    readers = _behind_padding(graph, tensor)
    plain = all(
        reader.name == "CONV_2D"
        and len(reader.inputs) == 3
        and reader.inputs[2] >= 0
        and graph.constant(reader.inputs[1]) is not None
        and graph.constant(reader.inputs[2]) is not None
        and graph.shape(reader.inputs[1])[-1] == graph.shape(tensor)[-1]
        for reader in readers
    )
    if not plain:
        return False
    for reader in readers:
        weights, bias = graph.constant(reader.inputs[1]), graph.constant(reader.inputs[2])
        own = graph.add_tensor(graph.name(reader.inputs[2]) + "/shifted", "FLOAT32", bias.shape)
        graph.set_constant(own, (bias + (weights * shift).sum(axis=(1, 2, 3))).astype(np.float32))
        inputs = [*reader.inputs[:2], own]
        if np.any(gain != 1):
            inputs[1] = graph.add_tensor(graph.name(inputs[1]) + "/scaled", "FLOAT32", weights.shape)
            graph.set_constant(inputs[1], (weights * gain).astype(np.float32))
        graph.subgraph.operators[reader.index].inputs = np.array(inputs, np.int32)
    return True
