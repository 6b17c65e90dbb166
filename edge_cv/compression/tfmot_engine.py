"""Pruning, clustering and QAT by tensorflow-model-optimization (tfmot), on a tf_keras copy of the model.

For a comparison with the library's own result. It trains on the labels alone, and does not resume within a stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import import_tensorflow
from converters.packages import require
from edge_cv.compression.fine_tuning import calibration_images
from edge_cv.compression.keras_graph import check_float
from edge_cv.compression.tf_keras_bridge import TfKerasTwin, to_tf_keras
from edge_cv.models.heads import class_logits, output_meaning
from edge_cv.progress import silent

if TYPE_CHECKING:
    import keras

    from converters.quantization.qat import FakeQuantRange
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Prune, Qat, WeightClustering

MASK_UPDATES = 50  # at most, between the begin and the end of a schedule
CALIBRATION_IMAGES = 100
SEED = 0


def check_tfmot(model: keras.Model) -> None:
    """Raise InputError if a Keras 3 model cannot be expressed in tf_keras, or tfmot is not installed."""
    require("the engine tfmot", "compress")
    to_tf_keras(model)


def prune_by_tfmot(
    model: keras.Model, selected: set[str], part: Prune, batches: Batches | None, *, progress: Progress | None = None
) -> keras.Model:
    """`prune` by tfmot's `prune_low_magnitude`.

    Args:
        model, part, batches, progress: as in `prune`.
        selected: names of the layers to prune.

    Raises:
        InputError: without batches, or if the model is not supported.
    """
    import_tensorflow()
    import tensorflow_model_optimization as tfmot

    batches = _required(batches, "Prune")
    schedule, wrappers = _schedule(part, len(batches)), []

    def wrap(layer: Any, name: str) -> Any:
        if name.removesuffix(".pointwise") not in selected or not hasattr(layer, "kernel"):
            return layer
        pattern = {"sparsity_m_by_n": (2, 4)} if part.pattern == "2:4" else {}
        wrappers.append(tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, **pattern))
        return wrappers[-1]

    twin = to_tf_keras(model, wrap=wrap, check=False)
    _train(twin, batches, part, [tfmot.sparsity.keras.UpdatePruningStep()], progress, "pruning by tfmot")
    for wrapper in wrappers:
        for weight, mask, _ in wrapper.pruning_vars:  # the last training step changed the zeros
            weight.assign(weight * mask)
    return twin.to_keras()


def _schedule(part: Prune, steps_per_epoch: int) -> Any:
    import tensorflow_model_optimization as tfmot

    begin, end = part.schedule_steps(steps_per_epoch)
    frequency, begin = max(1, (end - begin) // MASK_UPDATES), max(1, begin)
    if part.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(part.sparsity, begin, frequency=frequency)
    # The masks are updated at begin + n * frequency; the end must be one of these steps.
    end = begin + max(1, (end - begin) // frequency) * frequency
    return tfmot.sparsity.keras.PolynomialDecay(0.0, part.sparsity, begin, end, frequency=frequency)


def cluster_by_tfmot(
    model: keras.Model,
    selected: set[str],
    part: WeightClustering,
    batches: Batches | None,
    *,
    pruned: bool,
    progress: Progress | None = None,
) -> keras.Model:
    """`cluster` by tfmot's `cluster_weights`.

    Args:
        model, part, batches, progress: as in `cluster`.
        selected: names of the layers to cluster.
        pruned: whether zeros stay zero.

    Raises:
        InputError: without batches, or if the model is not supported.
    """
    import_tensorflow()
    import tensorflow_model_optimization as tfmot

    batches, wrappers = _required(batches, "WeightClustering"), []

    def wrap(layer: Any, name: str) -> Any:
        if name.removesuffix(".pointwise") not in selected or not hasattr(layer, "kernel"):
            return layer
        if layer.kernel.shape.num_elements() <= part.clusters:
            return layer
        wrapper = tfmot.clustering.keras.cluster_weights(
            layer,
            number_of_clusters=part.clusters,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=pruned,
        )
        if wrapper is not layer:
            wrappers.append(wrapper)
        return wrapper

    twin = to_tf_keras(model, wrap=wrap, check=False)
    _train(twin, batches, part, [], progress, "clustering by tfmot")
    for wrapper in wrappers:
        wrapper.update_clustered_weights_associations()
        for name, variable in wrapper.original_clusterable_weights.items():
            variable.assign(getattr(wrapper.layer, name))
    return twin.to_keras()


def qat_by_tfmot(
    model: keras.Model, part: Qat, batches: Batches, *, progress: Progress | None = None
) -> tuple[keras.Model, dict[str, tuple[float, float]], Any]:
    """`quantization_aware` with tfmot's quantizers: the Keras 3 model, its ranges, and the tf_keras simulation.

    Raises:
        InputError: if the part asks for what tfmot does not have, or the model is not supported.
    """
    from converters.float_model import convert_float
    from converters.quantization.qat import fake_quant_ranges
    from converters.sources import open_source
    from edge_cv.recipe import INT8_VALUES

    if part.weight_values != INT8_VALUES or part.ranges != "ema":
        raise InputError(
            "Qat by tfmot has 255 weight values and ranges='ema'. "
            f"Received: weight_values={part.weight_values}, ranges={part.ranges!r}"
        )
    check_float(model)
    float_model, images = convert_float(open_source(model)), calibration_images(batches, CALIBRATION_IMAGES)
    ranges = fake_quant_ranges(float_model, images, float_model.source.preprocessing)
    tensors = _tensors_of_layers(to_tf_keras(model).model, float_model, ranges, images[0])

    from edge_cv.compression.tfmot_quantizers import Quantizers  # after TensorFlow, with its messages suppressed

    quantizers = Quantizers(ranges, tensors)
    twin = to_tf_keras(model, wrap=quantizers, check=False)
    _train(twin, batches, part, [], progress, "quantization-aware training by tfmot")
    return twin.to_keras(), quantizers.ranges(), twin.model


def _tensors_of_layers(
    model: Any, float_model: Any, ranges: dict[str, FakeQuantRange], image: np.ndarray
) -> dict[str, list[str]]:
    """For each layer of the tf_keras model the tensors of the int8 file that equal its output, by their values."""
    import tf_keras

    from converters.quantization.qat import equal_tensors, tensor_values

    values = {name: value for name, value in tensor_values(float_model, image).items() if name in ranges}
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    outputs = tf_keras.Model(model.inputs, [layer.output for layer in layers])(
        image[None].astype(np.float32), training=False
    )
    outputs = outputs if isinstance(outputs, Sequence) else [outputs]
    return {layer.name: equal_tensors(values, output) for layer, output in zip(layers, outputs, strict=True)}


def _required(batches: Batches | None, part: str) -> Batches:
    if batches is None:
        raise InputError(f"{part} by tfmot needs images to train on. Received: batches=None")
    return batches


def _train(
    twin: TfKerasTwin, batches: Batches, part: Any, callbacks: list[Any], progress: Progress | None, title: str
) -> None:
    """Train the tf_keras model on the labels, with Adam and a cosine schedule."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(SEED)
    steps, meaning = part.steps(len(batches)), output_meaning(twin.model)
    rate = tf_keras.optimizers.schedules.CosineDecay(part.fine_tuning.learning_rate, steps)
    entropy = (
        tf.nn.sigmoid_cross_entropy_with_logits if batches.multi_label else tf.nn.softmax_cross_entropy_with_logits
    )

    def loss(targets: Any, outputs: Any) -> Any:
        return entropy(targets, class_logits(outputs, meaning, batches.multi_label))

    for layer in twin.model.layers:
        if part.fine_tuning.freeze_statistics and type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
    twin.model.compile(tf_keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    with (progress or silent)(title) as update:
        done = tf_keras.callbacks.LambdaCallback(on_train_batch_begin=lambda step, logs: update(step, steps))
        images = _dataset(batches, steps, twin.model.inputs[0].shape)
        twin.model.fit(images, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[*callbacks, done])
        update(steps, steps)


def _dataset(batches: Batches, steps: int, shape: Sequence[int | None]) -> Any:
    """The batches of `steps` steps as a TensorFlow dataset of images and targets."""
    import tensorflow as tf

    def stream() -> Iterable[tuple[Any, Any]]:
        for epoch in range(-(-steps // len(batches))):
            for images, labels in batches.epoch(epoch):
                images = np.asarray(images, np.float32)  # a grey model may have no axis of channels
                yield images.reshape(images.shape[: len(shape)]), np.asarray(labels, np.float32)

    signature = (
        tf.TensorSpec((None, *shape[1:]), tf.float32),
        tf.TensorSpec((None, len(batches.classes)), tf.float32),
    )
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(2)
