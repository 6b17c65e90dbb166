"""The quantizers that simulate an int8 file in a tf_keras model. Importing this loads TensorFlow.

tensorflow-model-optimization's wrapper calls them: the weights of a wrapped layer and its output pass through a
quantizer, and gradients pass through the rounding unchanged (straight-through estimator).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from converters.quantization.qat import FakeQuantRange
from edge_cv.compression.pruning import PRUNED_SPARSITY

INT8_STEPS = 127  # from 0 to the largest weight
MAX_CLUSTERS = 256  # a layer with at most this many different weights, and far fewer than weights, is clustered

KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}  # attributes in tf_keras
AXES = {"Conv2D": [0, 1, 2], "DepthwiseConv2D": [0, 1], "Dense": [0, 1]}  # that share one scale


class OutputQuantizer(quantizers.MovingAverageQuantizer):
    """Rounds an output to 256 values in a range, which follows the activations until it is frozen.

    Attributes:
        frozen: whether the range is constant.
        trainable: whether training may change the range.
    """

    def __init__(self, initial: FakeQuantRange) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self.initial = initial
        self.frozen = initial.fixed
        self.trainable = not initial.fixed

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        self.variables = {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}", initializer=tf_keras.initializers.Constant(value), trainable=False
            )
            for end, value in (("min", self.initial.low), ("max", self.initial.high))
        }
        return self.variables

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **kwargs: Any) -> Any:
        return super().__call__(inputs, training and not self.frozen, self.variables)

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return float(self.variables["min_var"].numpy()), float(self.variables["max_var"].numpy())


class SharedQuantizer(OutputQuantizer):
    """Rounds an output to the values of another tensor, as behind a pooling."""

    def __init__(self, source: OutputQuantizer) -> None:
        super().__init__(source.initial)
        self.source, self.frozen, self.trainable = source, True, False

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        self.variables = self.source.variables
        return self.variables


class WeightQuantizer(quantizers.Quantizer):
    """Rounds a kernel to 127 steps of the largest absolute weight, per output channel or for a whole dense layer."""

    def __init__(
        self,
        kernel: np.ndarray,
        *,
        axes: list[int],
        steps: int = INT8_STEPS,
        gain: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            kernel: the initial weights. Zeros of a pruned kernel stay zero, equal weights of a clustered one equal.
            axes: axes that share one scale.
            steps: steps of the largest weight to which weights are rounded first, at most 127.
            gain: factor for each input channel by which the int8 file multiplies the weights before rounding.
        """
        self.axes, self.steps = axes, steps
        self.mask = (kernel != 0).astype(np.float32) if np.mean(kernel == 0) > PRUNED_SPARSITY else None
        self.gain = None if gain is None else gain.astype(np.float32)[:, None]
        # the different values, and the index of each weight's value
        self.clusters: tuple[np.ndarray, np.ndarray] | None = None
        values, index = np.unique(kernel, return_inverse=True)
        if len(values) <= MAX_CLUSTERS and 4 * len(values) <= kernel.size:
            self.clusters = values, index.reshape(kernel.shape)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        if self.clusters is None:
            return {}
        values, _ = self.clusters
        initializer = tf_keras.initializers.Constant(values)
        return {"values": layer.add_weight(f"{name}_values", shape=values.shape, initializer=initializer)}

    def unrounded(self, kernel: Any, variables: dict[str, Any]) -> Any:
        """The trained kernel before it is rounded to int8: clustered, masked, and of few values if so configured."""
        if self.clusters is not None:
            # The product gives the kernel's variable a gradient of 0. Without it TensorFlow warns.
            kernel = tf.gather(variables["values"], self.clusters[1]) + 0 * kernel
        kernel = kernel if self.mask is None else kernel * self.mask
        return kernel if self.steps == INT8_STEPS else self._round(kernel, self.steps)

    def _round(self, kernel: Any, steps: int) -> Any:
        largest = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), self.axes, keepdims=True))
        step = tf.maximum(largest, 1e-20) / steps
        return kernel + tf.stop_gradient(tf.round(kernel / step) * step - kernel)

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **kwargs: Any) -> Any:
        kernel = self.unrounded(inputs, weights)
        kernel = kernel if self.gain is None else kernel * self.gain
        kernel = self._round(kernel, INT8_STEPS)
        return kernel if self.gain is None else kernel / self.gain

    def assign_unrounded(self, layer: Any, variables: dict[str, Any]) -> None:
        """Assign the trained kernel to the layer's variable."""
        for variable, quantizer, _ in layer._weight_vars:
            if quantizer is self:
                variable.assign(self.unrounded(variable, variables))

    def get_config(self) -> dict[str, Any]:
        return {}


class _Config(quantize_config.QuantizeConfig):
    """Quantizes a kernel, an output, or both."""

    def __init__(self, attribute: str | None, weights: WeightQuantizer | None, output: OutputQuantizer | None) -> None:
        self.attribute, self.weights, self.output = attribute, weights, output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [] if self.attribute is None else [(getattr(layer, self.attribute), self.weights)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        for value in quantize_weights:
            setattr(layer, str(self.attribute), value)

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [] if self.output is None else [self.output]

    def get_config(self) -> dict[str, Any]:
        return {}


class FakeQuantizer:
    """Wraps tf_keras layers with quantizers, see `to_tf_keras`.

    Attributes:
        outputs: the quantizer of each tensor of the int8 file that a layer computes.
    """

    def __init__(
        self,
        ranges: dict[str, FakeQuantRange],
        tensors: dict[str, list[str]],
        *,
        steps: int,
        gain: np.ndarray | None,
    ) -> None:
        """
        Args:
            ranges: the tensors that the int8 file quantizes.
            tensors: those that are the output of a layer, by the layer's name.
            steps: steps of the largest weight, below 127 for fewer weight values. Depthwise filters use 127.
            gain: see `WeightQuantizer`; applies to the first convolution.
        """
        self.outputs: dict[str, OutputQuantizer] = {}
        self._ranges = ranges
        self._tensors = tensors
        self._steps = steps
        self._gain = gain

    def __call__(self, layer: Any, name: str) -> Any:
        weights = self._weights(layer)
        output = self._output(self._tensors.get(name, []))
        if weights is None and output is None:
            return layer
        attribute = None if weights is None else KERNELS[type(layer).__name__]
        return QuantizeWrapperV2(layer, _Config(attribute, weights, output))

    def _weights(self, layer: Any) -> WeightQuantizer | None:
        kind = type(layer).__name__
        if kind not in KERNELS:
            return None
        gain = None
        if kind == "Conv2D":
            gain, self._gain = self._gain, None
        return WeightQuantizer(
            np.asarray(getattr(layer, KERNELS[kind])),
            axes=AXES[kind],
            steps=INT8_STEPS if kind == "DepthwiseConv2D" else self._steps,
            gain=gain,
        )

    def _output(self, tensors: list[str]) -> OutputQuantizer | None:
        """The quantizer of a layer whose output is these tensors, preferably with a trainable range."""
        output: OutputQuantizer | None = None
        for tensor in sorted(tensors, key=lambda tensor: self._ranges[tensor].follows is not None):
            follows = self._ranges[tensor].follows
            if output is None and follows is None:
                output = OutputQuantizer(self._ranges[tensor])
            elif output is None and follows in self.outputs:
                output = SharedQuantizer(self.outputs[follows])
        if output is not None:
            self.outputs.update(dict.fromkeys(tensors, output))
        return output
