"""Quantization-aware training (QAT): training with the rounding of the int8 file simulated.

Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, Jacob et al. 2017,
https://arxiv.org/abs/1712.05877

The converted graph defines where the int8 file rounds. The float model is converted first; a layer whose output equals
a tensor of that graph, by its values on a photo, gets a quantizer with that tensor's range. So nothing that the
converter folds or fuses (batch normalization, ReLU, padding) is rounded in between. Weights are rounded as in the
file, to 127 steps of the largest weight of a channel. Batch normalization multiplies whole channels, so this rounds
the folded weights in the same way.
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
from edge_cv.compression.tf_keras_bridge import TfKerasTwin, to_tf_keras
from edge_cv.recipe import INT8_VALUES

if TYPE_CHECKING:
    import keras

    from converters.float_model import FloatModel
    from converters.quantization.qat import FakeQuantRange
    from edge_cv.compression.fake_quantization import OutputQuantizer
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Qat

CALIBRATION_IMAGES = 100
EQUAL_TOLERANCE = 1e-3  # largest difference of a layer's output from a tensor, relative to the tensor's largest value


@dataclass(frozen=True, eq=False)
class QuantizationAware:
    """The result of quantization-aware training.

    Attributes:
        model: the Keras 3 model. Rounding its weights gives the weights of the int8 file.
        ranges: the trained range of each quantized tensor of the int8 file, for `Int8FromQat`.
        simulation: the tf_keras model that computes with the rounding of the int8 file.
    """

    model: keras.Model
    ranges: dict[str, tuple[float, float]]
    simulation: Any = field(repr=False)

    def predict(self, images: np.ndarray, *, batch: int = 32) -> np.ndarray:
        """Outputs `(n, classes)` of the simulation for pixels `(n, height, width, 3)`."""
        outputs = [
            np.asarray(self.simulation(images[i : i + batch].astype(np.float32), training=False))
            for i in range(0, len(images), batch)
        ]
        return np.concatenate(outputs)


def quantization_aware(
    model: keras.Model,
    part: Qat,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> QuantizationAware:
    """Train a model for int8.

    Zeros of a pruned model stay zero, and equal weights of a clustered one stay equal.

    Args:
        model: a Keras 3 model with float weights; it is not changed.
        part: epochs, learning rate, number of weight values, and the epoch that freezes statistics and ranges.
        batches: images for training. The first ones calibrate the initial ranges.
        teacher: model for distillation; None is `model`.
        checkpoint: file in which the training saves its state and from which it resumes.
        progress: reports the steps.

    Returns:
        The trained model, its ranges and the simulation.

    Raises:
        InputError: if the model is already quantized or not supported, or the data does not fit it.
    """
    twin, quantizers = simulate(model, calibration_images(batches, CALIBRATION_IMAGES), part.weight_values)
    frozen_from = part.freeze(len(batches))

    def freeze(epoch: int) -> bool:
        if epoch < frozen_from:
            return False
        changed = False
        for layer in () if part.fine_tuning.freeze_statistics else inner_layers(twin.model):
            if type(layer).__name__ == "BatchNormalization" and layer.trainable:
                layer.trainable, changed = False, True
        for quantizer in quantizers.values():
            changed |= not quantizer.frozen
            quantizer.frozen = True
        return changed

    fine_tune(
        twin.model,
        batches,
        part.fine_tuning,
        steps=part.steps(len(batches)),
        teacher=teacher or model,
        before_epoch=freeze,
        checkpoint=checkpoint,
        title="quantization-aware training",
        progress=progress,
    )
    ranges = {name: quantizer.range() for name, quantizer in quantizers.items()}
    for layer in twin.model.layers:
        for _, quantizer, variables in getattr(layer, "_weight_vars", ()):
            quantizer.assign_unrounded(layer, variables)
    return QuantizationAware(twin.to_keras(), ranges, twin.model)


def calibration_images(batches: Batches, count: int) -> np.ndarray:
    """The first images of the first epoch, `(n, height, width, 3)` with n of at most `count`."""
    parts: list[np.ndarray] = []
    total = 0
    for images, _ in batches.epoch(0):
        parts.append(np.asarray(images)[: count - total])
        total += len(parts[-1])
        if total >= count:
            break
    return np.concatenate(parts)


def simulate(
    model: keras.Model, images: np.ndarray, weight_values: int = INT8_VALUES
) -> tuple[TfKerasTwin, dict[str, OutputQuantizer]]:
    """Convert a Keras 3 model to a tf_keras model that computes with the rounding of its int8 file.

    Args:
        model: a Keras 3 model with float weights.
        images: pixels `(n, height, width, 3)` that calibrate the initial ranges.
        weight_values: number of different weights per channel; see `Qat`.

    Returns:
        Both models, and the quantizers with trainable ranges by the name of the int8 file's tensor.

    Raises:
        InputError: if the model is already quantized or not supported.
    """
    from converters.float_model import convert_float
    from converters.quantization.qat import fake_quant_ranges, input_gain
    from converters.sources import open_source

    check_float(model)
    float_model = convert_float(open_source(model))
    preprocessing = float_model.source.preprocessing
    ranges = fake_quant_ranges(float_model, images, preprocessing)
    tensors = _tensors_of_layers(to_tf_keras(model).model, float_model, ranges, images[0])

    from edge_cv.compression.fake_quantization import FakeQuantizer  # after TensorFlow, with its messages suppressed

    gain = input_gain(float_model, preprocessing)
    quantizer = FakeQuantizer(ranges, tensors, steps=weight_values // 2, gain=gain)
    twin = to_tf_keras(model, wrap=quantizer, check=False)
    return twin, {name: output for name, output in quantizer.outputs.items() if output.trainable}


def check_float(model: keras.Model) -> None:
    """Raise InputError if the weights of a model are already quantized."""
    for name, layer in leaf_layers(model).items():
        if getattr(layer, "quantization_mode", None) or "quant" in type(layer).__name__.lower():
            raise InputError(
                "a model to compress must have float weights. "
                f"Received: {model.name!r}, whose layer {name!r} is already quantized"
            )


def _tensors_of_layers(
    model: Any, float_model: FloatModel, ranges: dict[str, FakeQuantRange], image: np.ndarray
) -> dict[str, list[str]]:
    """For each layer of the tf_keras model the tensors of the int8 file that equal its output, by their values."""
    import tf_keras

    from converters.quantization.qat import tensor_values

    values = {name: value.reshape(-1) for name, value in tensor_values(float_model, image).items() if name in ranges}
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    outputs = tf_keras.Model(model.inputs, [layer.output for layer in layers])(
        image[None].astype(np.float32), training=False
    )
    tensors: dict[str, list[str]] = {}
    for layer, output in zip(layers, outputs if isinstance(outputs, Sequence) else [outputs], strict=True):
        flat = np.asarray(output).reshape(-1)
        for name, value in values.items():
            if value.size == flat.size and np.abs(value - flat).max() <= EQUAL_TOLERANCE * np.abs(value).max():
                tensors.setdefault(layer.name, []).append(name)
    return tensors
