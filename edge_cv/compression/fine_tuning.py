"""Training on what compression left: the same loop for Keras 3 and tf_keras models, epoch by epoch, resumable.

The loss is the labels' cross-entropy, mixed with what a teacher, mostly the model before it was compressed, says of
the same images: Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.files import write_atomic

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import FineTuning

TEMPERATURE = 2.0  # by which both models' logits are divided where one learns from the other
STATISTICS_STEPS = 32  # batches over which batch normalization's statistics are taken at the end
FORGETTING = 10.0  # e^-10 of the old mean is left after a training


def fine_tune(
    model: Any,
    batches: Batches,
    tuning: FineTuning,
    *,
    teacher: Any = None,
    callbacks: Sequence[Any] = (),
    before_epoch: Callable[[int], bool] = lambda epoch: False,
    checkpoint: Path | None = None,
    title: str = "fine-tuning",
    progress: Progress | None = None,
) -> None:
    """Train a model in place, with Adam and a cosine schedule.

    Args:
        model: a Keras 3 or tf_keras model, from pixels to logits or to probabilities.
        batches: the training images.
        tuning: for how long, how fast, and how much is learned from the teacher.
        teacher: a Keras 3 model of the same classes; None, or a distillation of 0, leaves the labels alone.
        callbacks: of the model's own Keras.
        before_epoch: told the number of the epoch to come; returns whether it changed what is trained.
        checkpoint: written after each epoch and removed at the end; where it exists the training goes on from it.
        title: for the progress.
        progress: told the steps.

    Raises:
        InputError: the targets are not of as many classes as the model's outputs.
    """
    from edge_cv.progress import silent

    keras = _library(model)
    classes = int(model.outputs[0].shape[-1])
    if len(batches.classes) != classes:
        raise InputError(
            f"the training data must have the model's classes, {classes}. Received: {len(batches.classes)}"
        )
    steps = len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(tuning.learning_rate, max(1, steps * tuning.epochs))
    optimizer = keras.optimizers.Adam(schedule)
    taught = teacher is not None and tuning.distillation > 0
    loss = _loss(classes, tuning.distillation if taught else 0.0, batches.multi_label, ends_in_probabilities(model))
    model.compile(optimizer, loss=loss)
    optimizer.build(model.trainable_variables)
    first = _restore(checkpoint, model, optimizer)
    with _statistics_that_follow(model, steps * tuning.epochs), (progress or silent)(title) as update:
        for epoch in range(tuning.epochs):
            if before_epoch(epoch):
                model.compile(optimizer, loss=loss)
            if epoch < first:
                continue
            done = keras.callbacks.LambdaCallback(
                on_batch_end=lambda batch, logs, before=epoch * steps: update(before + batch + 1, steps * tuning.epochs)
            )
            images = _dataset(batches, epoch, model, teacher if taught else None)
            with warnings.catch_warnings():  # a dataset that ends is what an epoch is
                warnings.filterwarnings("ignore", message=".*(ran out of data|shuffle=True).*")
                history = model.fit(
                    images, epochs=epoch + 1, initial_epoch=epoch, verbose=0, callbacks=[*callbacks, done]
                )
            if not math.isfinite(history.history["loss"][-1]):
                raise InputError(
                    f"{title}: the loss must stay finite; lower the learning rate, {tuning.learning_rate:g}. "
                    f"Received: {history.history['loss'][-1]} in epoch {epoch + 1}"
                )
            _save(checkpoint, model, optimizer, epoch + 1)
    model.compiled = False  # a saved or copied model shall not ask for a loss that only this file has
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def settle_statistics(model: Any, batches: Batches) -> None:
    """Batch normalization's means and variances as the finished weights make them, over some training batches.

    While weights become zero the activations shrink, and a moving mean is a few percent of what was long ago: enough,
    over fifty layers, to lose most answers. Rethinking "Batch" in BatchNorm, Wu and Johnson 2021, section 3,
    https://arxiv.org/abs/2105.07576

    Args:
        model: a Keras 3 model, changed in place; what is not trainable stays.
        batches: the images that it was trained on.
    """
    layers = [layer for layer in inner_layers(model) if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in layers]
    for step, (images, _) in enumerate(batches.epoch(0) if layers else ()):
        if step == STATISTICS_STEPS:
            break
        for layer in layers:
            layer.momentum = step / (step + 1)  # the mean of all steps so far
        model(np.asarray(images, np.float32), training=True)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


@contextlib.contextmanager
def _statistics_that_follow(model: Any, steps: int) -> Iterator[None]:
    """Batch normalization that has forgotten its old means at the end of so many steps.

    Compression changes what layers put out; a mean that moves by 1 % a step is wrong for some hundred steps.
    """
    layers = [layer for layer in inner_layers(model) if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = min(layer.momentum, max(0.0, 1 - FORGETTING / max(steps, 1)))
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def inner_layers(model: Any) -> Iterator[Any]:
    """The layers of a Keras 3 or tf_keras model, those inside models and wrappers included."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from inner_layers(layer)
        else:
            yield getattr(layer, "layer", layer)


def ends_in_probabilities(model: Any) -> bool:
    """Whether the last layer is a softmax or a sigmoid."""
    last = model.layers[-1]
    while hasattr(last, "layers"):
        last = last.layers[-1]
    last = getattr(last, "layer", last)  # of a wrapper
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return type(last).__name__ == "Softmax" or activation in ("softmax", "sigmoid")


def _library(model: Any) -> Any:
    if any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__):
        import tf_keras

        return tf_keras
    import keras

    return keras


def _loss(classes: int, distillation: float, multi_label: bool, probabilities: bool) -> Callable[[Any, Any], Any]:
    """The loss of outputs against targets, behind which the teacher's logits stand."""
    import tensorflow as tf

    def cross_entropy(targets: Any, logits: Any) -> Any:
        if multi_label:
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def loss(wanted: Any, outputs: Any) -> Any:
        logits = _logits(outputs, multi_label) if probabilities else outputs
        hard = cross_entropy(wanted[:, :classes], logits)
        if not distillation:
            return hard
        soften = tf.nn.sigmoid if multi_label else tf.nn.softmax
        soft = cross_entropy(soften(wanted[:, classes:] / TEMPERATURE), logits / TEMPERATURE)
        return (1 - distillation) * hard + distillation * TEMPERATURE**2 * soft

    return loss


def _logits(probabilities: Any, multi_label: bool) -> Any:
    import tensorflow as tf

    p = tf.clip_by_value(probabilities, 1e-7, 1 - 1e-7)
    return tf.math.log(p) - tf.math.log(1 - p) if multi_label else tf.math.log(p)


def _dataset(batches: Batches, epoch: int, model: Any, teacher: Any) -> Any:
    """One epoch as TensorFlow takes it: images, and targets with the teacher's logits behind them."""
    import tensorflow as tf

    shape, classes = model.inputs[0].shape, int(model.outputs[0].shape[-1])
    width = classes if teacher is None else 2 * classes
    if teacher is not None:
        as_logits = ends_in_probabilities(teacher)

        @tf.function(reduce_retracing=True)
        def said(images: Any) -> Any:
            outputs = teacher(images, training=False)
            return _logits(outputs, batches.multi_label) if as_logits else outputs

    def stream() -> Iterable[tuple[Any, Any]]:
        for images, targets in batches.epoch(epoch):
            images, targets = np.asarray(images, np.float32), np.asarray(targets, np.float32)
            if teacher is not None:
                targets = np.concatenate([targets, said(images).numpy()], axis=1)
            yield images, targets

    signature = (
        tf.TensorSpec((None, *shape[1:]), tf.float32),
        tf.TensorSpec((None, width), tf.float32),
    )
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(2)


def _state(model: Any, optimizer: Any) -> list[Any]:
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [*model.weights, *variables]


def _save(checkpoint: Path | None, model: Any, optimizer: Any, epochs: int) -> None:
    if checkpoint is None:
        return
    stream = io.BytesIO()
    state = {f"v{i}": np.asarray(variable) for i, variable in enumerate(_state(model, optimizer))}
    np.savez(stream, epochs=epochs, **state)
    write_atomic(checkpoint, stream.getvalue())


def _restore(checkpoint: Path | None, model: Any, optimizer: Any) -> int:
    """How many epochs are done already; the model and the optimizer then are as they were after them."""
    if checkpoint is None or not checkpoint.is_file():
        return 0
    state = _state(model, optimizer)
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(checkpoint, allow_pickle=False) as saved:
        values = [saved[f"v{i}"] for i in range(len(state))]
        if all(value.shape == tuple(variable.shape) for value, variable in zip(values, state, strict=True)):
            for value, variable in zip(values, state, strict=True):
                variable.assign(value)
            return int(saved["epochs"])
    return 0
