"""Fine-tuning of compressed models: one resumable loop for Keras 3 and tf_keras models.

The loss mixes the cross-entropy of the labels with that of a teacher, usually the model before compression:
Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.decisions import LOGITS, OutputMeaning, class_count
from converters.errors import InputError
from converters.files import write_atomic
from converters.sources.source import forward_pass
from edge_cv.models.heads import class_logits, fits, output_meaning
from edge_cv.progress import duration, silent

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress, Update
    from edge_cv.recipe import FineTuning

TEMPERATURE = 2.0  # divides the logits of student and teacher for distillation
STATISTICS_STEPS = 32  # batches from which `update_statistics` computes batch normalization's statistics
DECAY_EXPONENT = 10.0  # e^-10 of the initial moving mean is left after fine-tuning
ROUND_STEPS = 20  # of a round, at least: whole epochs between two checkpoints, which take as long as a few steps
RANDOM_LAYERS = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D", "StochasticDepth")
SEED = 0  # of what a layer draws; the order and augmentation of the images have the seed of the batches
WARM_UP_STEPS = 20  # at most, and at most a tenth of the training: Adam's first steps have the size of its rate


def fine_tune(
    model: Any,
    batches: Batches,
    settings: FineTuning,
    *,
    steps: int | None = None,
    teacher: Any = None,
    callbacks: Sequence[Any] = (),
    before_epoch: Callable[[int], bool] = lambda epoch: False,
    checkpoint: Path | None = None,
    title: str = "fine-tuning",
    progress: Progress | None = None,
) -> None:
    """Train a model in place with Adam and a cosine schedule.

    Args:
        model: a Keras 3 or tf_keras model from pixels `(batch, height, width, 3)` to logits or probabilities
            `(batch, classes)`.
        batches: the training images, with the model's classes.
        settings: length, learning rate, share of distillation, and whether batch normalization's statistics change.
        steps: the length of the training, in batches. Default: `settings.total_steps(len(batches))`.
        teacher: a Keras 3 model with the same classes; None, or a distillation of 0, uses the labels only.
        callbacks: callbacks of the model's Keras version.
        before_epoch: called with the number of the next epoch; returns whether it changed which variables are
            trainable.
        checkpoint: file that is written every some epochs and deleted at the end. If it exists, training resumes from
            it.
        title: title of the progress.
        progress: reports the steps.

    Raises:
        InputError: if data and model have a different number of classes, or the loss becomes NaN or infinite.
    """
    _check_classes(model, batches)
    keras = _keras_of(model)
    keras.utils.set_random_seed(SEED)
    total = settings.total_steps(len(batches)) if steps is None else steps
    optimizer = keras.optimizers.Adam(_schedule(keras, settings.learning_rate, total))
    if settings.distillation == 0:
        teacher = None
    distillation = 0.0 if teacher is None else settings.distillation
    loss = _loss(len(batches.classes), distillation, batches.multi_label, output_meaning(model))
    targets = _Targets(teacher, batches.multi_label)
    with _training_behaviour(model, total, settings), (progress or silent)(title) as update:
        model.compile(optimizer, loss=loss, jit_compile=False)  # XLA is slower on CPUs, and compiles for a minute
        optimizer.build(model.trainable_variables)
        first = _restore(checkpoint, model, optimizer)
        timer = _Timer(update, total)
        for epochs in _rounds(total, len(batches)):
            if any(before_epoch(epoch) for epoch in epochs):
                model.compile(optimizer, loss=loss, jit_compile=False)
            if epochs.start < first:
                continue
            keras.utils.set_random_seed(SEED + epochs.start)  # so that a resumed round draws the same
            done = epochs.start * len(batches)
            report = keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs, done=done: timer(done + batch + 1))
            images = _dataset(batches, epochs, total - done, model, targets)
            value = _train_round(model, images, epochs.start, [*callbacks, report])
            if not math.isfinite(value):
                raise InputError(
                    f"{title}: the loss must stay finite; lower the learning rate of {settings.learning_rate:g}. "
                    f"Received: {value} in epoch {epochs.stop}"
                )
            _save(checkpoint, model, optimizer, epochs.stop)
    model.compiled = False  # so that the model can be saved and cloned without this loss
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _check_classes(model: Any, batches: Batches) -> None:
    outputs = int(model.outputs[0].shape[-1])
    if not fits(outputs, len(batches.classes), batches.multi_label):
        raise InputError(
            f"the training data must have as many classes as the model, {class_count(outputs)}. "
            f"Received: {len(batches.classes)}"
        )


def _schedule(keras: Any, learning_rate: float, total: int) -> Any:
    """A linear warm-up, then a cosine down to 0."""
    warm_up = min(WARM_UP_STEPS, total // 10)
    if not warm_up:
        return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, total))
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / warm_up, total - warm_up, warmup_target=learning_rate, warmup_steps=warm_up
    )


def _rounds(total: int, steps_per_epoch: int) -> list[range]:
    """The epochs of a number of steps, in rounds of at least ROUND_STEPS steps; the last one may be cut short."""
    epochs = -(-total // steps_per_epoch)
    size = -(-ROUND_STEPS // steps_per_epoch)
    return [range(start, min(start + size, epochs)) for start in range(0, epochs, size)]


class _Timer:
    """Reports steps with the time that remains."""

    def __init__(self, update: Update, total: int) -> None:
        self._update, self._total = update, total
        self._first: tuple[int, float] | None = None  # the first step took longer: it was compiled

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        first, start = self._first
        left = (now - start) / (done - first) * (self._total - done) if done > first else None
        self._update(done, self._total, "" if left is None or done == self._total else f"{duration(left)} left")


def _train_round(model: Any, images: Any, number: int, callbacks: list[Any]) -> float:
    """The mean training loss of the images."""
    with warnings.catch_warnings():  # the dataset ends with the round
        warnings.filterwarnings("ignore", message=".*(ran out of data|shuffle=True).*")
        with forward_pass(model.name):
            history = model.fit(images, epochs=number + 1, initial_epoch=number, verbose=0, callbacks=callbacks)
    return history.history["loss"][-1]


def update_statistics(model: Any, batches: Batches) -> None:
    """Recompute batch normalization's means and variances with the final weights, over some training batches.

    Activations shrink while weights become zero, and a moving mean still contains a few percent of old values. Over
    fifty layers that is enough to lose most correct predictions. Rethinking "Batch" in BatchNorm, Wu and Johnson 2021,
    section 3, https://arxiv.org/abs/2105.07576

    Args:
        model: a Keras 3 model, changed in place. Layers that are not trainable are not changed.
        batches: the training images.
    """
    layers = [layer for layer in inner_layers(model) if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in layers]
    for step, (images, _) in enumerate(batches.epoch(0) if layers else ()):
        if step == STATISTICS_STEPS:
            break
        for layer in layers:
            layer.momentum = step / (step + 1)  # the moving average becomes the mean of all steps
        model(np.asarray(images, np.float32), training=True)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


@contextlib.contextmanager
def _training_behaviour(model: Any, steps: int, settings: FineTuning) -> Iterator[None]:
    """Context in which layers behave as a short fine-tuning needs.

    Frozen statistics of batch normalization normalize as in inference, while scales and offsets are trained. Otherwise
    the momentum is low enough to replace them within the steps: with the usual 0.99 the statistics are wrong for
    hundreds of steps after the activations changed. Dropout and stochastic depth are off: the teacher regularizes, and
    a training that was interrupted reaches the same weights.
    """
    layers = list(inner_layers(model))
    norms = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in norms]
    inferring = [layer for layer in layers if type(layer).__name__ in RANDOM_LAYERS]
    if settings.freeze_statistics:
        inferring += norms
    else:
        for layer in norms:
            layer.momentum = min(layer.momentum, max(0.0, 1 - DECAY_EXPONENT / max(steps, 1)))
    for layer in inferring:
        layer.call = _call_in_inference(layer.call)
    try:
        yield
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum
        for layer in inferring:
            del layer.call


def _call_in_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    def in_inference(inputs: Any, training: Any = None, **others: Any) -> Any:
        return call(inputs, training=False)

    return in_inference


def inner_layers(model: Any) -> Iterator[Any]:
    """The layers of a Keras 3 or tf_keras model, including those inside models and wrappers."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from inner_layers(layer)
        else:
            yield getattr(layer, "layer", layer)


def _keras_of(model: Any) -> Any:
    if any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__):
        import tf_keras

        return tf_keras
    import keras

    return keras


def _loss(classes: int, distillation: float, multi_label: bool, meaning: OutputMeaning) -> Callable[[Any, Any], Any]:
    """The loss function. Its targets are `(batch, classes)`, followed by the teacher's logits when distilling."""
    import tensorflow as tf

    def cross_entropy(targets: Any, logits: Any) -> Any:
        if multi_label:
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def loss(targets: Any, outputs: Any) -> Any:
        logits = class_logits(outputs, meaning, multi_label)
        hard = cross_entropy(targets[:, :classes], logits)
        if not distillation:
            return hard
        soften = tf.nn.sigmoid if multi_label else tf.nn.softmax
        soft = cross_entropy(soften(targets[:, classes:] / TEMPERATURE), logits / TEMPERATURE)
        return (1 - distillation) * hard + distillation * TEMPERATURE**2 * soft

    return loss


class _Targets:
    """Appends the teacher's logits, if there is one, to the targets of a batch."""

    def __init__(self, teacher: Any, multi_label: bool) -> None:
        import tensorflow as tf

        self.columns = 1 if teacher is None else 2  # of the number of classes
        meaning = LOGITS if teacher is None else output_meaning(teacher)

        @tf.function(reduce_retracing=True)
        def logits(images: Any) -> Any:
            return class_logits(teacher(images, training=False), meaning, multi_label)

        self._logits = None if teacher is None else logits

    def __call__(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if self._logits is None:
            return targets
        return np.concatenate([targets, self._logits(images).numpy()], axis=1)


def _dataset(batches: Batches, epochs: range, steps: int, model: Any, targets: _Targets) -> Any:
    """At most `steps` batches of some epochs as a TensorFlow dataset of images and targets."""
    import tensorflow as tf

    shape, classes = model.inputs[0].shape, len(batches.classes)

    def stream() -> Iterable[tuple[Any, Any]]:
        every = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in epochs)
        for images, labels in itertools.islice(every, steps):
            images, labels = np.asarray(images, np.float32), np.asarray(labels, np.float32)
            images = images.reshape(images.shape[: len(shape)])  # a grey model may have no axis of channels
            yield images, targets(images, labels)

    signature = (
        tf.TensorSpec((None, *shape[1:]), tf.float32),
        tf.TensorSpec((None, targets.columns * classes), tf.float32),
    )
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(2)


def _state(model: Any, optimizer: Any) -> list[Any]:
    """The variables that a training changes: of the model, its random layers' among them, and of the optimizer."""
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [*model.variables, *variables]


def _save(checkpoint: Path | None, model: Any, optimizer: Any, epochs: int) -> None:
    if checkpoint is None:
        return
    stream = io.BytesIO()
    state = {f"v{i}": np.asarray(variable) for i, variable in enumerate(_state(model, optimizer))}
    np.savez(stream, allow_pickle=False, epochs=np.asarray(epochs), **state)
    write_atomic(checkpoint, stream.getvalue())


def _restore(checkpoint: Path | None, model: Any, optimizer: Any) -> int:
    """Load a checkpoint that fits the model and the optimizer; returns the number of finished epochs."""
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
