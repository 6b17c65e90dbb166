"""tfmot's quantizers at the tensors that an int8 file rounds. Importing this loads TensorFlow."""

from __future__ import annotations

from typing import Any

import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from converters.quantization.qat import FakeQuantRange

KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}  # attributes in tf_keras


class OutputQuantizer(quantizers.MovingAverageQuantizer):
    """tfmot's quantizer of outputs, which starts with a calibrated range."""

    def __init__(self, initial: FakeQuantRange) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self.initial = initial

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        ends = (("min", self.initial.low), ("max", self.initial.high))
        constant = tf_keras.initializers.Constant
        self.variables = {
            f"{end}_var": layer.add_weight(f"{name}_{end}", initializer=constant(value), trainable=False)
            for end, value in ends
        }
        return self.variables

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **kwargs: Any) -> Any:
        return super().__call__(inputs, training and not self.initial.fixed, weights)


class _Config(quantize_config.QuantizeConfig):
    """Quantizes a kernel, an output, or both."""

    def __init__(self, attribute: str | None, output: OutputQuantizer | None) -> None:
        self.attribute, self.output = attribute, output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        if self.attribute is None:
            return []
        per_axis = self.attribute == "kernel" and len(layer.kernel.shape) == 4  # tfmot has no depthwise axis
        weights = quantizers.LastValueQuantizer(num_bits=8, per_axis=per_axis, symmetric=True, narrow_range=True)
        return [(getattr(layer, self.attribute), weights)]

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


class Quantizers:
    """Wraps tf_keras layers with tfmot's quantizers, see `to_tf_keras`."""

    def __init__(self, ranges: dict[str, FakeQuantRange], tensors: dict[str, list[str]]) -> None:
        """
        Args:
            ranges: the tensors that the int8 file quantizes.
            tensors: those that are the output of a layer, by the layer's name.
        """
        self._ranges, self._tensors = ranges, tensors
        self._outputs: dict[str, OutputQuantizer] = {}

    def __call__(self, layer: Any, name: str) -> Any:
        attribute = KERNELS.get(type(layer).__name__)
        own = [tensor for tensor in self._tensors.get(name, []) if self._ranges[tensor].follows is None]
        output = OutputQuantizer(self._ranges[own[0]]) if own else None
        if output is not None:
            self._outputs.update(dict.fromkeys(own, output))
        return layer if attribute is None and output is None else QuantizeWrapperV2(layer, _Config(attribute, output))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The trained range of each tensor that has one of its own."""
        return {
            name: (float(quantizer.variables["min_var"]), float(quantizer.variables["max_var"]))
            for name, quantizer in self._outputs.items()
            if not quantizer.initial.fixed
        }
