"""Quantization-aware training: the model learns with the roundings of the int8 file that it will become.

Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, Jacob et al. 2017,
https://arxiv.org/abs/1712.05877

Where the int8 file rounds, its own graph says: the float model is converted first, and a layer whose output is a tensor
of that graph, by its values on a photo, gets a rounding of that tensor's range behind it. So whatever the converter
folds and fuses (batch normalization, ReLU, padding) is not rounded in between. Weights are rounded as the file rounds
them, to 127 steps of the largest in a channel; since batch normalization multiplies a channel as a whole, that is also
how the folded weights are rounded. tensorflow-model-optimization's wrapper does it, with quantizers that know this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.fine_tuning import fine_tune, inner_layers
from edge_cv.compression.keras_graph import leaf_layers
from edge_cv.compression.tf_keras_bridge import TfKerasTwin, cross
from edge_cv.recipe import INT8_VALUES

if TYPE_CHECKING:
    import keras

    from converters.float_model import FloatModel
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Qat

CALIBRATION_IMAGES = 100
INT8_STEPS = 127  # from 0 to the largest weight
EQUAL = 1e-3  # of a tensor's largest value: the most by which a layer's output may differ from it and be it
MOST_CLUSTERS = 256  # a layer of no more different weights than this, and far fewer than weights, is clustered
PRUNED = 0.1  # a layer with a larger share of zeros is pruned


@dataclass(frozen=True, eq=False)
class Trained:
    """What quantization-aware training made.

    Attributes:
        model: the Keras 3 model with the weights that rounding makes the int8 file's.
        ranges: the learned range of each tensor of the int8 file that training rounded; for `Int8FromQat`.
        simulation: the tf_keras model that rounds as the int8 file does.
    """

    model: keras.Model
    ranges: dict[str, tuple[float, float]]
    simulation: Any = field(repr=False)

    def predict(self, images: np.ndarray, *, batch: int = 32) -> np.ndarray:
        """The simulation's outputs `(n, classes)` for pixels `(n, height, width, 3)`."""
        rows = [
            np.asarray(self.simulation(images[i : i + batch].astype(np.float32), training=False))
            for i in range(0, len(images), batch)
        ]
        return np.concatenate(rows)


def quantization_aware(
    model: keras.Model,
    part: Qat,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a model for int8.

    Zeros of a pruned model stay zero, and equal weights of a clustered one stay equal.

    Args:
        model: a Keras 3 model of float weights; it stays as it is.
        part: for how long, and when statistics and ranges are frozen.
        batches: the images to train on; the first ones show the ranges to begin with.
        teacher: what the part distills from; None is the model itself.
        checkpoint: where a stopped run left its state.
        progress: told the steps.

    Raises:
        InputError: the model is quantized already or cannot be carried, or the data does not fit it.
    """
    crossing, roundings = simulate(model, calibration_images(batches, CALIBRATION_IMAGES), part.weight_values)

    def freeze(epoch: int) -> bool:
        if epoch < part.freeze():
            return False
        changed = False
        for layer in inner_layers(crossing.model):
            if type(layer).__name__ == "BatchNormalization" and layer.trainable:
                layer.trainable, changed = False, True
        for rounding in roundings.values():
            changed |= not rounding.frozen
            rounding.frozen = True
        return changed

    fine_tune(
        crossing.model,
        batches,
        part.fine_tuning,
        teacher=teacher or model,
        before_epoch=freeze,
        checkpoint=checkpoint,
        title="quantization-aware training",
        progress=progress,
    )
    ranges = {name: rounding.range() for name, rounding in roundings.items()}
    for layer in crossing.model.layers:
        for _, quantizer, values in getattr(layer, "_weight_vars", ()):
            quantizer.settle(layer, values)
    return Trained(crossing.back(), ranges, crossing.model)


def calibration_images(batches: Batches, count: int) -> np.ndarray:
    """The first images of the first epoch, `(count, height, width, 3)`, or all where there are fewer."""
    found, total = [], 0
    for images, _ in batches.epoch(0):
        found.append(np.asarray(images)[: count - total])
        total += len(found[-1])
        if total >= count:
            break
    return np.concatenate(found)


def simulate(
    model: keras.Model, images: np.ndarray, weight_values: int = INT8_VALUES
) -> tuple[TfKerasTwin, dict[str, Any]]:
    """The tf_keras model that rounds as the plain int8 file of a Keras 3 model does, and its roundings by tensor.

    Args:
        model: a Keras 3 model of float weights.
        images: pixels `(n, height, width, 3)` that show the ranges to begin with.
        weight_values: different weights a channel; see `Qat`.

    Raises:
        InputError: the model is quantized already, or cannot be carried.
    """
    from converters.float_model import convert_float
    from converters.quantization.qat import fake_quant_ranges, input_gain
    from converters.sources import open_source

    check_float(model)
    float_model = convert_float(open_source(model))
    preprocessing = float_model.source.preprocessing
    tensors = fake_quant_ranges(float_model, images, preprocessing)
    places = _places(cross(model).model, float_model, tensors, images[0])
    gain = input_gain(float_model, preprocessing)
    kinds = _quantizers(weight_values // 2)
    roundings: dict[str, Any] = {}
    first = [True]

    def wrap(layer: Any, name: str) -> Any:
        from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

        weights = None
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            attribute = "depthwise_kernel" if kind == "DepthwiseConv2D" else "kernel"
            scaled = gain if first[0] and kind == "Conv2D" else None
            first[0] = first[0] and kind != "Conv2D"
            weights = attribute, kinds.weights(layer, np.asarray(getattr(layer, attribute)), scaled)
        output = None
        found = places.get(name, ())
        for tensor in sorted(found, key=lambda tensor: tensors[tensor].follows is not None):
            rounding = tensors[tensor]
            if output is None and rounding.follows is None:
                output = kinds.range(rounding)
            elif output is None and rounding.follows in roundings:
                output = kinds.follower(roundings[rounding.follows])
        if output is not None:
            roundings.update(dict.fromkeys(found, output))
        if weights is None and output is None:
            return layer
        return QuantizeWrapperV2(layer, kinds.config(weights, output))

    crossing = cross(model, wrap=wrap, check=False)
    free = {name: quantizer for name, quantizer in roundings.items() if quantizer.learns}
    return crossing, free


def check_float(model: keras.Model) -> None:
    """Raise InputError for a model of weights that are quantized already."""
    for name, layer in leaf_layers(model).items():
        if getattr(layer, "quantization_mode", None) or "quant" in type(layer).__name__.lower():
            raise InputError(
                "a model to compress must have float weights. "
                f"Received: {model.name!r}, whose layer {name!r} is quantized already"
            )


def _places(legacy: Any, float_model: FloatModel, tensors: dict[str, Any], image: np.ndarray) -> dict[str, list[str]]:
    """For each layer of the tf_keras model the tensors of the int8 file that its output is, by its values."""
    import tf_keras

    from converters.quantization.qat import tensor_values

    values = {name: value.reshape(-1) for name, value in tensor_values(float_model, image).items() if name in tensors}
    layers = [layer for layer in legacy.layers if type(layer).__name__ != "InputLayer"]
    outputs = tf_keras.Model(legacy.inputs, [layer.output for layer in layers])(
        image[None].astype(np.float32), training=False
    )
    places: dict[str, list[str]] = {}
    for layer, output in zip(layers, outputs if isinstance(outputs, Sequence) else [outputs], strict=True):
        flat = np.asarray(output).reshape(-1)
        for name, value in values.items():
            if value.size == flat.size and np.abs(value - flat).max() <= EQUAL * np.abs(value).max():
                places.setdefault(layer.name, []).append(name)
    return places


@dataclass(frozen=True)
class _Quantizers:
    """Makers of tfmot's quantizers and configurations, whose classes need TensorFlow to be there."""

    config: Any
    range: Any
    follower: Any
    weights: Any


def _quantizers(steps: int) -> _Quantizers:
    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantizers

    class Config(quantize_config.QuantizeConfig):
        """Rounds one kernel, or none, and the output, or not."""

        def __init__(self, weights: tuple[str, Any] | None, output: Any) -> None:
            self.weights, self.output = weights, output

        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return [] if self.weights is None else [(getattr(layer, self.weights[0]), self.weights[1])]

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for value in quantize_weights:
                setattr(layer, self.weights[0], value)

        def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return []

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [] if self.output is None else [self.output]

        def get_config(self) -> dict[str, Any]:
            return {}

    class Range(quantizers.MovingAverageQuantizer):
        """Rounds to 256 values between two ends, which follow the activations' own until they are frozen."""

        def __init__(self, rounding: Any) -> None:
            super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
            self.rounding, self.frozen, self.learns = rounding, rounding.fixed, not rounding.fixed

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            self.variables = {
                f"{end}_var": layer.add_weight(
                    f"{name}_{end}", initializer=tf_keras.initializers.Constant(value), trainable=False
                )
                for end, value in (("min", self.rounding.low), ("max", self.rounding.high))
            }
            return self.variables

        def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **kwargs: Any) -> Any:
            return super().__call__(inputs, training and not self.frozen, self.variables)

        def range(self) -> tuple[float, float]:
            return float(self.variables["min_var"].numpy()), float(self.variables["max_var"].numpy())

    class Follower(Range):
        """Rounds to the values of another tensor."""

        def __init__(self, leader: Range) -> None:
            super().__init__(leader.rounding)
            self.leader, self.frozen, self.learns = leader, True, False

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            self.variables = self.leader.variables
            return self.variables

    class Weights(quantizers.Quantizer):
        """Rounds a kernel to 127 steps of the largest weight of a channel, of a dense layer's all channels.

        Args:
            axes: over which the largest weight is looked for.
            mask: 0 where weights stay zero.
            index: for each weight which of the layer's few values it has; their gradients are then summed.
            gain: what the file multiplies the weights by before it rounds them, one number an input channel.
            steps: of the largest weight to which weights are rounded first, 127 or fewer.
        """

        def __init__(self, axes: list[int], mask: Any, index: Any, gain: Any, steps: int, kernel: np.ndarray) -> None:
            self.axes, self.mask, self.index, self.gain, self.steps = axes, mask, index, gain, steps
            self.values = None if index is None else np.unique(kernel)

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            if self.index is None:
                return {}
            values = tf_keras.initializers.Constant(self.values)
            return {"values": layer.add_weight(f"{name}_values", shape=self.values.shape, initializer=values)}

        def exact(self, kernel: Any, variables: dict[str, Any]) -> Any:
            """The kernel before it is rounded."""
            if self.index is not None:
                kernel = tf.gather(variables["values"], self.index) + 0 * kernel  # a gradient of 0, and no warning
            kernel = kernel if self.mask is None else kernel * self.mask
            return kernel if self.steps == INT8_STEPS else self.rounded(kernel, self.steps)

        def rounded(self, kernel: Any, steps: int) -> Any:
            most = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), self.axes, keepdims=True))
            step = tf.maximum(most, 1e-20) / steps
            return kernel + tf.stop_gradient(tf.round(kernel / step) * step - kernel)

        def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **kwargs: Any) -> Any:
            kernel = self.exact(inputs, weights)
            kernel = kernel if self.gain is None else kernel * self.gain
            kernel = self.rounded(kernel, INT8_STEPS)
            return kernel if self.gain is None else kernel / self.gain

        def settle(self, layer: Any, variables: dict[str, Any]) -> None:
            for variable, quantizer, _ in layer._weight_vars:
                if quantizer is self:
                    variable.assign(self.exact(variable, variables))

        def get_config(self) -> dict[str, Any]:
            return {}

    def weights(layer: Any, kernel: np.ndarray, gain: np.ndarray | None) -> Weights:
        axes = {"Conv2D": [0, 1, 2], "DepthwiseConv2D": [0, 1], "Dense": [0, 1]}[type(layer).__name__]
        values, index = np.unique(kernel, return_inverse=True)
        clustered = len(values) <= MOST_CLUSTERS and 4 * len(values) <= kernel.size
        return Weights(
            axes,
            (kernel != 0).astype(np.float32) if np.mean(kernel == 0) > PRUNED else None,
            index.reshape(kernel.shape) if clustered else None,
            None if gain is None else gain.astype(np.float32)[:, None],
            INT8_STEPS if type(layer).__name__ == "DepthwiseConv2D" else steps,
            kernel,
        )

    return _Quantizers(Config, Range, Follower, weights)
