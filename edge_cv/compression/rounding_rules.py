"""Which outputs of a Keras model an int8 file rounds: by rules on its graph, for where there is no converter.

The rules are those of TensorFlow Lite's converter: batch normalization is folded into a kernel, ReLU is fused with the
operation before it, what only moves values keeps their range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from edge_cv.compression.elementary import ElementaryCalls
from edge_cv.compression.fake_quantization import RoundedOutput
from edge_cv.compression.keras_graph import is_augmentation, walk
from edge_cv.models.kernels import KERNELS

# fmt: off
IDENTITIES = frozenset(
    [
        "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
        "SpatialDropout2D", "StochasticDepth",
    ]
)
KEEPING_RANGE = frozenset(
    [
        "AveragePooling2D", "Cropping2D", "Flatten", "MaxPooling2D", "Permute", "Reshape", "UpSampling2D",
        "ZeroPadding2D",
    ]
)
NORMALIZING = frozenset(["Add", "Divide", "Multiply", "Normalization", "Rescaling", "Subtract", "TrueDivide"])
FUSING = frozenset([*KERNELS, "Add", "BatchNormalization", "Multiply", "Rescaling", "Subtract"])  # with a ReLU
# fmt: on
FOLDED = ("BatchNormalization", "Rescaling")  # into the kernel and bias before them
FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


@dataclass(eq=False)
class Node:
    """An elementary operation, or the model's input.

    Attributes:
        name: in `ElementaryCalls`.
        operation: the layer or raw operation; None for the input.
        inputs: the operations whose outputs it reads.
        readers: those that read its output.
    """

    name: str
    operation: Any = None
    inputs: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Name of the operation's class."""
        return type(self.operation).__name__

    @property
    def activation(self) -> str:
        """Name of the activation that it computes, with or without more; empty for none."""
        if self.kind == "ReLU":
            plain = not (self.operation.negative_slope or self.operation.threshold)
            return {None: "relu", 6.0: "relu6"}.get(self.operation.max_value, "") if plain else ""
        if self.kind == "Softmax":
            return "softmax"
        own = getattr(getattr(self.operation, "activation", None), "__name__", "")
        return self.kind.lower() if own == "" else "" if own == "linear" else own

    @property
    def is_identity(self) -> bool:
        """Whether it leaves its input as it is, after training."""
        linear = self.kind == "Activation" and not self.activation
        return self.kind in IDENTITIES or is_augmentation(self.operation) or linear

    @property
    def normalizes(self) -> bool:
        """Whether it belongs to the normalization of pixels, which an int8 file moves into the first convolution."""
        if self.operation is None:
            return True
        if not (self.kind in NORMALIZING or self.is_identity):
            return False
        return len(self.inputs) == 1 and self.inputs[0].normalizes

    def effective_readers(self) -> Iterator[Node]:
        """The readers, or theirs where they are identities."""
        for reader in self.readers:
            if reader.is_identity:
                yield from reader.effective_readers()
            else:
                yield reader

    @property
    def joins_next(self) -> bool:
        """Whether the file has no tensor of its output: it is computed together with the operation that reads it."""
        readers = list(self.effective_readers())
        if len(readers) != 1:
            return False
        (reader,) = readers
        if reader.kind in FOLDED:
            return self.kind in KERNELS and not self.activation_of_kernel
        is_relu = reader.kind not in KERNELS and reader.activation in ("relu", "relu6")
        return is_relu and self.kind in FUSING and not self.activation_of_kernel

    @property
    def activation_of_kernel(self) -> str:
        """The activation inside a convolution or dense layer."""
        return self.activation if self.kind in KERNELS else ""


def graph_of(model: keras.Model) -> tuple[Node, ...]:
    """The elementary operations of a model, in their order."""
    nodes: list[Node] = []

    def add(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Node:
        inputs = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, Node)]
        node = Node(name, operation, inputs)
        for source in inputs:
            source.readers.append(node)
        nodes.append(node)
        return node

    walk(model, [Node("input")], ElementaryCalls(add))
    return tuple(nodes)


def rounded_outputs(model: keras.Model, kind: str) -> dict[str, RoundedOutput]:
    """The rounding of each output that the int8 file rounds; the first training batch sets the ranges.

    Args:
        model: a Keras 3 model.
        kind: of the ranges, `ema` or `lsq`.

    Returns:
        By name of elementary operation. Outputs that have one range share a rounding.
    """
    outputs: dict[str, RoundedOutput] = {}
    for node in graph_of(model):
        moves_pixels = node.kind in KEEPING_RANGE and node.inputs[0].normalizes
        if node.normalizes or moves_pixels or node.joins_next or node.is_identity:
            continue
        shared = _rounding_of_input(node, outputs) if node.kind in KEEPING_RANGE else None
        fixed = None if node.kind in KERNELS else FIXED.get(node.activation)
        if shared is not None:
            outputs[node.name] = shared
        elif fixed is not None:
            outputs[node.name] = RoundedOutput(*fixed, ranges="fixed")
        else:
            outputs[node.name] = RoundedOutput(None, None, ranges=kind)
    return outputs


def _rounding_of_input(node: Node, outputs: dict[str, RoundedOutput]) -> RoundedOutput | None:
    (source, *_) = node.inputs
    while source.operation is not None and source.is_identity:
        (source,) = source.inputs
    return outputs.get(source.name)


def input_gain(model: keras.Model) -> np.ndarray | None:
    """`(channels,)`, the factors by which a normalization multiplies the channels; None where they are equal."""
    for node in graph_of(model):
        if not node.normalizes:
            break
        if node.kind == "Rescaling":
            factors = np.asarray(node.operation.scale, np.float64).reshape(-1)
        elif node.kind == "Normalization":
            factors = 1 / np.sqrt(np.asarray(node.operation.variance, np.float64)).reshape(-1)
        else:
            continue
        if factors.size > 1 and np.ptp(factors) > 0:
            return factors / factors.mean()
    return None
