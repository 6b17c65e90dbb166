"""Fine-tuning of compressed models: `edge_cv.training.fit` for a number of steps, the dense model as its teacher.

Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.keras_graph import inner_layers
from edge_cv.progress import silent
from edge_cv.recipe import Fit, Model, Teacher

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import FineTuning
    from edge_cv.training import Fitted

TEMPERATURE = 2.0  # divides the logits of student and teacher for distillation
STATISTICS_STEPS = 32  # batches from which `update_statistics` computes batch normalization's statistics
DECAY_EXPONENT = 10.0  # e^-10 of the initial moving mean is left after fine-tuning
ROUND_STEPS = 20  # of a round, at least: a checkpoint takes as long as a few steps
RANDOM_LAYERS = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D", "StochasticDepth")
SEED = 0  # of what a layer draws; the order and augmentation of the images have the seed of the batches
WARM_UP_STEPS = 20  # at most, and at most a tenth of the training: Adam's first steps have the size of its rate


def fine_tune(
    model: keras.Model,
    batches: Batches,
    settings: FineTuning,
    *,
    steps: int | None = None,
    teacher: keras.Model | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    folder: Path | None = None,
    title: str = "fine-tuning",
    progress: Progress | None = None,
) -> Fitted:
    """Train a model in place with Adam and a cosine schedule.

    Args:
        model: a Keras 3 model from pixels `(batch, height, width, channels)` to logits or probabilities
            `(batch, classes)`.
        batches: the training images, with the model's classes.
        settings: length, learning rate, share of distillation, averaging, precision, and whether batch normalization's
            statistics change.
        steps: the length of the training, in batches. Default: `settings.total_steps(len(batches))`. It is rounded up
            to whole rounds, see `Rounds`.
        teacher: a Keras 3 model with the same classes; None, or a distillation of 0, uses the labels only.
        callbacks: of Keras.
        folder: where the training saves its state, and from which it resumes.
        title: title of the progress.
        progress: reports the rounds.

    Returns:
        The history, one entry for each round.

    Raises:
        InputError: if data and model have a different number of classes, or the loss becomes NaN or infinite.
    """
    import keras

    from edge_cv.training import fit
    from edge_cv.training.callbacks import LossNotFinite

    total = settings.total_steps(len(batches)) if steps is None else steps
    rounds = Rounds(batches, total, settings.mixup)
    teacher = None if settings.distillation == 0 else teacher
    tuned = Fit(
        epochs=rounds.count,
        learning_rate=settings.learning_rate,
        batch_size=batches.batch_size,
        optimizer="adamw",  # without decay: Adam
        weight_decay=0.0,
        warmup_epochs=min(WARM_UP_STEPS, total // 10) / len(rounds),
        ema=settings.ema,
        precision=settings.precision,
        teacher=None
        if teacher is None
        else Teacher(Model(teacher.name), settings.distillation, TEMPERATURE, settings.features),
        seed=SEED,
    )

    def titled(step: str) -> Any:
        return (progress or silent)(f"{title}: {step}".replace(": training, epoch", ", round"))

    keras.utils.set_random_seed(SEED)
    behaviour = _short_training(total, settings)
    try:
        return fit(
            model, rounds, tuned, teacher=teacher, folder=folder, progress=titled, callbacks=(behaviour, *callbacks)
        )
    except LossNotFinite as error:
        raise InputError(
            f"{title}: the loss must stay finite; lower the learning rate of {settings.learning_rate:g}. "
            "Received: NaN or infinity"
        ) from error
    finally:
        behaviour.on_train_end()


class Rounds:
    """`Batches` of a number of steps, in rounds of equal length: epochs that need not end where those of the images do.

    Attributes:
        count: number of rounds; each has at least `ROUND_STEPS` steps and an epoch of the images.
    """

    def __init__(self, batches: Batches, total: int, mixup: float = 0.0) -> None:
        """
        Args:
            batches: the images.
            total: steps of all rounds together, at least.
            mixup: alpha of Mixup's Beta distribution; 0 leaves the images as they are.
        """
        self.classes, self.batch_size, self.multi_label = batches.classes, batches.batch_size, batches.multi_label
        self.count = max(1, total // max(len(batches), ROUND_STEPS))
        self._batches, self._mixup = batches, mixup
        self._steps = -(-total // self.count)

    def __len__(self) -> int:
        return self._steps

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[Any, Any]]:
        """The batches of one round from `first_step`."""
        first, steps = divmod(number * self._steps + first_step, len(self._batches))
        every = (self._batches.epoch(epoch, steps if epoch == first else 0) for epoch in itertools.count(first))
        found = itertools.islice(itertools.chain.from_iterable(every), self._steps - first_step)
        for step, (images, targets) in enumerate(found, number * self._steps + first_step):
            yield _mixed(images, targets, self._mixup, step) if self._mixup else (images, targets)


def _mixed(images: Any, targets: Any, alpha: float, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Mix the first image of a batch with the last, the second with the last but one, and so on.

    mixup: Beyond Empirical Risk Minimization, Zhang et al. 2018, https://arxiv.org/abs/1710.09412
    """
    images, targets = np.asarray(images, np.float32), np.asarray(targets, np.float32)
    kept = np.random.default_rng([SEED, step]).beta(alpha, alpha, len(images)).astype(np.float32)
    of_images, of_targets = kept[:, None, None, None], kept[:, None]
    return (
        of_images * images + (1 - of_images) * images[::-1],
        of_targets * targets + (1 - of_targets) * targets[::-1],
    )


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


def update_statistics(model: keras.Model, batches: Batches) -> None:
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


def _short_training(steps: int, settings: FineTuning) -> Any:
    """A callback by which layers behave as a short fine-tuning needs, while Keras trains them.

    Frozen statistics of batch normalization normalize as in inference, while scales and offsets are trained. Otherwise
    the momentum is low enough to replace them within the steps: with the usual 0.99 the statistics are wrong for
    hundreds of steps after the activations changed. Dropout and stochastic depth are off: the teacher regularizes, and
    a training that was interrupted reaches the same weights.
    """
    import keras

    class ShortTraining(keras.callbacks.Callback):
        """Changes the layers of the network that is trained, which on several devices is a copy."""

        before: tuple[tuple[Any, float], ...] = ()
        inferring: tuple[Any, ...] = ()

        def on_train_begin(self, logs: Any = None) -> None:
            self.on_train_end()  # Keras does not call it where an error ended an epoch that is now repeated
            layers = list(inner_layers(self.model.network))
            norms = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"]
            dropping = [layer for layer in layers if type(layer).__name__ in RANDOM_LAYERS]
            self.inferring = (*dropping, *norms) if settings.freeze_statistics else tuple(dropping)
            self.before = tuple((layer, layer.momentum) for layer in norms)
            if not settings.freeze_statistics:
                for layer in norms:
                    layer.momentum = min(layer.momentum, max(0.0, 1 - DECAY_EXPONENT / max(steps, 1)))
            for layer in self.inferring:
                layer.call = _call_in_inference(layer.call)

        def on_train_end(self, logs: Any = None) -> None:
            for layer, momentum in self.before:
                layer.momentum = momentum
            for layer in self.inferring:
                del layer.call
            self.before = self.inferring = ()

    return ShortTraining()


def _call_in_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    def in_inference(inputs: Any, training: Any = None, **others: Any) -> Any:
        return call(inputs, training=False)

    return in_inference
