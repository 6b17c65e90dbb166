"""Quantization-aware training (QAT): training with the rounding of the int8 file simulated.

Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, Jacob et al. 2017,
https://arxiv.org/abs/1712.05877

The converted graph defines where the int8 file rounds. The float model is converted first; an operation whose output
equals a tensor of that graph, by its values on an image, gets a rounding with that tensor's range. So nothing that the
converter folds or fuses (batch normalization, ReLU, padding) is rounded in between. Where Keras does not run on
TensorFlow, `rounding_rules` take the converter's place, and the tensors are found when the file is made.

Weights are rounded as in the file, to 127 steps of the largest weight of a channel. Batch normalization multiplies
whole channels, so this rounds the folded weights in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.fine_tuning import calibration_images, fine_tune
from edge_cv.compression.keras_graph import check_float, clone, leaf_layers

if TYPE_CHECKING:
    import keras

    from converters.quantization.qat import FakeQuantRange
    from edge_cv.compression.fake_quantization import RoundedOutput
    from edge_cv.compression.simulated_network import KernelName, SimulatedNetwork
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Qat

CALIBRATION_IMAGES = 100
MAX_CLUSTERS = 256  # a layer with at most this many different weights, and far fewer than weights, is clustered


@dataclass(frozen=True, eq=False)
class QuantizationAware:
    """The result of quantization-aware training.

    Attributes:
        model: the Keras 3 model. Rounding its weights gives the weights of the int8 file.
        ranges: the trained range of each quantized tensor of the int8 file, for `Int8FromQat`.
        simulation: the Keras 3 model that computes with the rounding of the int8 file; of tf_keras by tfmot.
    """

    model: keras.Model
    ranges: dict[str, tuple[float, float]]
    simulation: Any = field(repr=False)

    def predict(self, images: np.ndarray, *, batch: int = 32) -> np.ndarray:
        """Outputs `(n, classes)` of the simulation for pixels `(n, height, width, channels)`."""
        return np.asarray(self.simulation.predict(images.astype(np.float32), batch_size=batch, verbose=0))


def quantization_aware(
    model: keras.Model,
    part: Qat,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> QuantizationAware:
    """Train a model for int8.

    Zeros of a pruned model stay zero, and equal weights of a clustered one stay equal.

    Args:
        model: a Keras 3 model with float weights; it is not changed.
        part: length, learning rate, number of weight values, and the epoch that freezes statistics and ranges.
        batches: images for training. The first ones calibrate the initial ranges.
        teacher: model for distillation; None is `model`.
        folder: where the training saves its state, and from which it resumes.
        progress: reports the steps.

    Returns:
        The trained model, its ranges and the simulation.

    Raises:
        InputError: if the model is already quantized or not supported, or the data does not fit it.
    """
    if part.engine == "tfmot":
        from edge_cv.compression.tfmot_engine import qat_by_tfmot

        return QuantizationAware(*qat_by_tfmot(model, part, batches, progress=progress))
    from edge_cv.compression.simulated_network import strip

    simulation, ranges = simulate(model, calibration_images(batches, CALIBRATION_IMAGES), part)
    fine_tune(
        simulation,
        batches,
        part.fine_tuning,
        steps=part.steps(len(batches)),
        teacher=teacher or model,
        callbacks=[_freezing(part.freeze(len(batches)) * len(batches))],
        folder=folder,
        title="quantization-aware training",
        progress=progress,
    )
    trained = {name: rounding.range() for name, rounding in ranges.items()}
    return QuantizationAware(strip(simulation), trained, simulation)


def quantize_aware(model: keras.Model, part: Qat | None = None, images: np.ndarray | None = None) -> keras.Model:
    """A model to train with Keras's own `fit`, which computes with the rounding of the int8 file.

        aware = quantize_aware(model)
        aware.compile("adam", "sparse_categorical_crossentropy")
        aware.fit(images, labels)
        conversion = to_tflite(strip(aware), Int8FromQat(learned_ranges(aware)), calibration=images)

    Args:
        model: a Keras 3 model with float weights; it is not changed.
        part: number of weight values and kind of ranges. Its length and its freezing of ranges are the caller's.
        images: pixels `(n, height, width, channels)` that calibrate the initial ranges. None takes them from the first
            training batch.

    Returns:
        A Keras 3 model of the same inputs and outputs. `strip` returns the trained model without the rounding,
        `learned_ranges` the ranges of its int8 file.

    Raises:
        InputError: if the model is already quantized or not supported.
    """
    from edge_cv.recipe import Qat

    return simulate(model, images, part or Qat())[0]


def learned_ranges(model: keras.Model) -> dict[str, tuple[float, float]]:
    """The range of each quantized tensor of the int8 file, for `Int8FromQat`, of a model of `quantize_aware`.

    Args:
        model: trained here, or loaded from the file of one that was trained on another backend.

    Raises:
        InputError: if the model is another one.
    """
    from edge_cv.compression.simulated_network import simulated_network

    layer = simulated_network(model)
    if layer is None:
        raise InputError(f"learned_ranges needs a model of quantize_aware. Received: {model.name!r}")
    known = {name: part.range() for part in layer.parts for name in getattr(part, "tensors", ())}
    return known or _ranges_by_tensor(layer)


def _ranges_by_tensor(layer: SimulatedNetwork) -> dict[str, tuple[float, float]]:
    """The ranges of roundings that were placed by rules."""
    network = layer.trained()
    _, ranges, tensors, _ = _places_in_file(network, None)
    outputs = layer.outputs
    return {
        tensor: outputs[operation].range()
        for operation, names in tensors.items()
        for tensor in names
        if operation in outputs and not ranges[tensor].fixed and ranges[tensor].follows is None
    }


def _freezing(step: int) -> Any:
    from edge_cv.compression.simulated_network import simulated_network
    from edge_cv.training.callbacks import StepCallback

    class Freezing(StepCallback):
        """Freezes ranges and statistics from a step on."""

        def on_step(self) -> None:
            if self.step >= step and not self.frozen:
                self.frozen = True
                layer = simulated_network(self.model.network)  # on JAX `self.model` brings the trained values back
                if layer is not None:
                    layer.frozen.assign(1.0)

        frozen = False

    return Freezing()


def simulate(model: keras.Model, images: np.ndarray | None, part: Qat) -> tuple[keras.Model, dict[str, RoundedOutput]]:
    """A copy of a Keras 3 model that computes with the rounding of its int8 file.

    Args:
        model: a Keras 3 model with float weights.
        images: pixels `(n, height, width, channels)` that calibrate the initial ranges; None leaves them open.
        part: number of weight values and kind of ranges.

    Returns:
        The model, and the roundings with ranges that training may change, by the name of the int8 file's tensor.

    Raises:
        InputError: if the model is already quantized or not supported.
    """
    import keras

    from edge_cv.compression import rounding_rules
    from edge_cv.compression.simulated_network import simulated

    check_float(model)
    if keras.backend.backend() == "tensorflow":
        from converters.quantization.qat import input_gain

        float_model, ranges, tensors, preprocessing = _places_in_file(model, images)
        outputs = _roundings(ranges, tensors, part.ranges, open_ranges=images is None)
        gain = input_gain(float_model, preprocessing)
    else:
        outputs, gain = rounding_rules.rounded_outputs(model, part.ranges), rounding_rules.input_gain(model)
    network = clone(model)
    kernels = rounded_kernels(network, part.weight_values // 2, gain)
    simulation = simulated(network, kernels, outputs, train_statistics=not part.fine_tuning.freeze_statistics)
    if images is not None and keras.backend.backend() != "tensorflow":
        simulation(images.astype(np.float32), training=True)  # sets the ranges
    trainable = {tensor: rounding for rounding in outputs.values() for tensor in rounding.tensors}
    return simulation, trainable


def _places_in_file(model: keras.Model, images: np.ndarray | None) -> tuple[Any, ...]:
    """The float model, the ranges of its tensors, the tensors of each operation, and the model's preprocessing."""
    from converters.float_model import convert_float
    from converters.quantization.qat import fake_quant_ranges
    from converters.sources import open_source

    float_model = convert_float(open_source(model))
    given, preprocessing = _noise(model) if images is None else images, float_model.source.preprocessing
    given = given[..., None] if given.ndim == 3 else given  # grey images
    ranges = fake_quant_ranges(float_model, given, preprocessing)
    return float_model, ranges, _tensors_of_operations(model, float_model, ranges, given[0]), preprocessing


def _noise(model: keras.Model) -> np.ndarray:
    shape = [size or 96 for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)


def rounded_kernels(network: keras.Model, steps: int, gain: np.ndarray | None) -> dict[KernelName, Any]:
    """The rounding of each kernel of a network.

    Args:
        network: a Keras 3 model.
        steps: from 0 to the largest weight; depthwise filters, of which there are few, have those of int8.
        gain: factors `(inputs,)` by which the file multiplies the first convolution's weights; None for none.
    """
    from edge_cv.compression.fake_quantization import INT8_STEPS, RoundedKernel
    from edge_cv.compression.pruning import PRUNED_SPARSITY, total_sparsity
    from edge_cv.models.kernels import KERNELS

    fewest = 0.0 if total_sparsity(network) > PRUNED_SPARSITY else PRUNED_SPARSITY  # zeros of a pruned kernel
    parts: dict[KernelName, Any] = {}
    for name, layer in leaf_layers(network).items():
        kind = type(layer).__name__
        for kernel in KERNELS.get(kind, ()):
            variable = getattr(layer, kernel.attribute)
            value = np.asarray(variable)
            values = len(np.unique(value))
            axes = range(value.ndim - (2 if kernel.depthwise else 0 if kind == "Dense" else 1))
            first = kind == "Conv2D" and gain is not None
            part = parts[name, kernel.attribute] = RoundedKernel(
                value.shape,
                axes,
                steps=INT8_STEPS if kernel.depthwise else steps,
                gain=gain if first else None,
                pruned=bool(np.mean(value == 0) > fewest),
                values=values if values <= MAX_CLUSTERS and 4 * values <= value.size else 0,
            )
            part.start(value)
            gain = None if first or kernel.depthwise else gain  # a depthwise filter has a scale for each channel
    return parts


def _roundings(
    ranges: dict[str, FakeQuantRange], tensors: dict[str, list[str]], kind: str, *, open_ranges: bool
) -> dict[str, RoundedOutput]:
    """The rounding of each operation's output. Equal tensors, and a tensor and those that keep its range, share one.

    Args:
        ranges: the tensors that the int8 file rounds.
        tensors: those that equal an operation's output, by the operation's name, in the order of the graph.
        kind: `ema` or `lsq`.
        open_ranges: whether the calibrated ranges say nothing.
    """
    from edge_cv.compression.fake_quantization import RoundedOutput

    by_tensor: dict[str, RoundedOutput] = {}
    outputs: dict[str, RoundedOutput] = {}
    for operation, names in tensors.items():
        for name in sorted(names, key=lambda name: ranges[name].follows is not None):
            wanted = ranges[name]
            shared = by_tensor.get(name) or by_tensor.get(wanted.follows or "")
            if shared is None and wanted.follows is None:
                ends = (None, None) if open_ranges and not wanted.fixed else (wanted.low, wanted.high)
                own = {"ranges": "fixed"} if wanted.fixed else {"ranges": kind, "tensors": (name,)}
                shared = RoundedOutput(*ends, **own)
            if shared is not None:
                by_tensor[name] = shared
                outputs.setdefault(operation, shared)
    return outputs


def _tensors_of_operations(
    model: keras.Model, float_model: Any, ranges: dict[str, FakeQuantRange], image: np.ndarray
) -> dict[str, list[str]]:
    """For each elementary operation the tensors of the int8 file that equal its output, by their values."""
    from converters.quantization.qat import equal_tensors, tensor_values
    from edge_cv.compression.elementary import ElementaryCalls
    from edge_cv.compression.keras_graph import walk

    values = {name: value for name, value in tensor_values(float_model, image).items() if name in ranges}
    tensors: dict[str, list[str]] = {}

    def compute(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if "training" in getattr(operation, "_call_context_args", {}):
            kwargs = {**kwargs, "training": False}
        output = operation(*args, **kwargs)
        if equal := equal_tensors(values, output):
            tensors[name] = equal
        return output

    pixels = image[None].astype(np.float32)
    pixels = pixels.reshape(pixels.shape[: len(model.inputs[0].shape)])  # a grey model may have no axis of channels
    walk(model, [pixels], ElementaryCalls(compute))
    return tensors
