"""`TrainingModel`: a network with its loss, penalty, teacher and metrics, as Keras's `fit` trains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from edge_cv.data.input_pipeline.augmentation import PIXELS, augmented
from edge_cv.models.heads import class_logits, features, output_meaning
from edge_cv.recipe import Augment, Teacher
from edge_cv.training.devices import after


class TrainingModel(keras.Model):
    """A network of logits with its loss: cross-entropy, an L2 penalty, and distillation from a teacher.

    With several labels per image the loss is the binary cross-entropy of each class. The network itself is neither
    compiled nor changed, and it alone is saved.

    Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        multi_label: bool,
        l2: float = 0.0,
        class_weights: Sequence[float] | None = None,
        teacher: keras.Model | None = None,
        distillation: Teacher | None = None,
        augment: Augment | None = None,
        labelled: bool = True,
    ) -> None:
        """
        Args:
            network: model from pixels `(batch, height, width, channels)` to logits or probabilities `(batch, classes)`.
                One output decides between two classes.
            multi_label: whether targets are 0 or 1 per class instead of probabilities that sum to 1.
            l2: weight of the penalty; each trainable kernel adds l2 / 2 times the sum of its squares to the loss.
            class_weights: factors `(classes,)` of the loss, by the class of the image.
            teacher: model with the same input and classes as the network.
            distillation: share and temperature of the teacher's part of the loss; required with `teacher`.
            augment: augmentation whose steps after the flip are a part of the train step, where the inputs are a
                dictionary as from `SampleBatches.feed`.
            labelled: whether the images have labels. If not, the teacher's probabilities take their place in the loss
                and in the metrics: the score is the share of images on which both models agree.
        """
        super().__init__(name="training_model")
        self.network = network
        self.multi_label = multi_label
        self.l2 = l2
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.distillation = distillation
        self.augment = augment
        self.labelled = labelled
        self.teacher = teacher
        # Both with their features as a second output, where these are compared.
        self._student: Any = network
        self._tutor: Any = teacher
        if teacher is not None:
            teacher.trainable = False
            if distillation is not None and distillation.features and _same_features(network, teacher):
                self._student, self._tutor = _with_features(network), _with_features(teacher)
        # The step at which the loss first was not finite, or -1. Reading it is the only moment that waits for the
        # device.
        self.step = self._counter(0, "step")
        self.broken_at = self._counter(-1, "broken_at")

    def _counter(self, start: int, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(),
            dtype="int32",
            initializer=keras.initializers.Constant(start),
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    def train_step(self, *arguments: Any) -> Any:
        """One step on a batch of `SampleBatches.feed`. On JAX the state of the model comes before the batch."""
        *state, (inputs, targets, *weights) = arguments
        if self.augment is not None and isinstance(inputs, dict):
            draws = {name: values for name, values in inputs.items() if name != PIXELS}
            inputs, targets = augmented(inputs[PIXELS], targets, draws, self.augment)
        with after(arguments):
            return super().train_step(*state, (inputs, targets, *weights))

    def call(self, pixels: Any, training: bool = False) -> Any:
        """Float32 logits `(batch, classes)` of pixels `(batch, height, width, channels)`."""
        pixels = pixels[PIXELS] if isinstance(pixels, dict) else pixels  # Keras builds the model with a batch
        if training and self.l2:
            kernels = [v for v in self.network.trainable_variables if len(v.shape) > 1]
            self.add_loss(self.l2 / 2 * ops.sum(ops.stack([ops.sum(ops.square(kernel)) for kernel in kernels])))
        if self.teacher is None or (self.labelled and not training):
            return self._logits(self.network, self.network(pixels, training=training))
        outputs, *own = keras.tree.flatten(self._student(pixels, training=training))
        taught, *others = self._taught(self.teacher, pixels)
        if training and self.distillation is not None:
            for one, other in zip(own, others, strict=True):
                self.add_loss(self.distillation.features * _relative_error(one, other))
        return ops.concatenate([self._logits(self.network, outputs), taught], axis=-1)  # for the loss and the metrics

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of one batch. In training it is weighted by class and mixed with the distance from the teacher."""
        if training and self.class_weights is not None:
            sample_weight = ops.matmul(y, ops.convert_to_tensor(self.class_weights, "float32"))
        targets, logits, taught = self._without_labels(y, y_pred)
        loss = super().compute_loss(x, targets, logits, sample_weight, training)
        if training and taught is not None and self.distillation is not None:
            share, temperature = self.distillation.share, self.distillation.temperature
            labelled = self.loss(targets, logits, sample_weight)
            penalty = loss - labelled if self.losses else 0.0  # of the weights and the features: beside the share
            loss = (1 - share) * labelled + share * self._distance_from_teacher(taught, temperature, logits) + penalty
        if training:
            broken = self.broken_at.value
            now = ops.logical_and(broken < 0, ops.logical_not(ops.isfinite(loss)))
            self.broken_at.assign(ops.where(now, self.step.value, broken))
            self.step.assign_add(1)
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The metrics of one batch, by its labels or by the teacher's probabilities."""
        targets, logits, _ = self._without_labels(y, y_pred)
        return super().compute_metrics(x, targets, logits, sample_weight)

    def _without_labels(self, targets: Any, outputs: Any) -> tuple[Any, Any, Any]:
        """Targets, logits, and the teacher's logits `(batch, classes)` where these are a part of the outputs."""
        classes = targets.shape[-1]
        if outputs.shape[-1] == classes:
            return targets, outputs, None
        logits, taught = outputs[:, :classes], outputs[:, classes:]
        if self.labelled:
            return targets, logits, taught
        return (ops.sigmoid if self.multi_label else ops.softmax)(taught), logits, taught

    def _logits(self, network: keras.Model, outputs: Any) -> Any:
        """The float32 logits of the classes, two for a network of one output."""
        return class_logits(ops.cast(outputs, "float32"), output_meaning(network), self.multi_label)

    def _taught(self, teacher: keras.Model, pixels: Any) -> list[Any]:
        """The teacher's float32 logits of the student's crops, resized to the teacher's input, and its features."""
        size = teacher.input_shape[1:3]
        pixels = ops.cast(pixels, "float32")
        if teacher.input_shape[-1] == 3 and pixels.shape[-1] == 1:  # a teacher of RGB sees the student's grey images
            pixels = ops.repeat(pixels, 3, axis=-1)
        if None not in size and tuple(pixels.shape[1:3]) != size:
            pixels = ops.image.resize(pixels, size, interpolation="bilinear", data_format="channels_last")
        outputs, *others = keras.tree.flatten(self._tutor(pixels, training=False))
        return [ops.stop_gradient(value) for value in (self._logits(teacher, outputs), *others)]

    def _distance_from_teacher(self, taught: Any, temperature: float, logits: Any) -> Any:
        """The Kullback-Leibler divergence of softened probabilities, times temperature squared (section 2)."""
        target = taught / temperature
        if self.multi_label:
            distance = keras.losses.BinaryCrossentropy(from_logits=True)
            return temperature**2 * distance(ops.sigmoid(target), logits / temperature)
        # The divergence is the cross-entropy minus the teacher's entropy. Their gradients are equal, and the
        # divergence is 0 when student and teacher agree.
        distance = keras.losses.KLDivergence()
        return temperature**2 * distance(ops.softmax(target), ops.softmax(logits / temperature))


def _same_features(network: keras.Model, teacher: keras.Model) -> bool:
    own, other = features(network), features(teacher)
    return own is not None and other is not None and own.shape[1:] == other.shape[1:]


def _with_features(network: keras.Model) -> keras.Model:
    return keras.Model(network.inputs, [network.outputs[0], features(network)])


def _relative_error(values: Any, targets: Any) -> Any:
    """The sum of the squared differences as a part of the sum of the targets' squares."""
    values, targets = ops.cast(values, "float32"), ops.cast(targets, "float32")
    squares = ops.maximum(ops.sum(ops.square(targets)), keras.config.epsilon())
    return ops.sum(ops.square(values - targets)) / squares


def loss_and_metrics(multi_label: bool, classes: int) -> dict[str, Any]:
    """The `loss` and `metrics` with which a `TrainingModel` is compiled.

    The metrics are `score`, which chooses the epoch, and `cross_entropy`: the loss without penalty and teacher,
    comparable between training and validation.
    """
    if multi_label:
        return {
            "loss": keras.losses.BinaryCrossentropy(from_logits=True),
            "metrics": [
                keras.metrics.AUC(curve="PR", multi_label=True, num_labels=classes, from_logits=True, name="score"),
                keras.metrics.BinaryCrossentropy(from_logits=True, name="cross_entropy"),
            ],
        }
    return {
        "loss": keras.losses.CategoricalCrossentropy(from_logits=True),
        "metrics": [
            keras.metrics.CategoricalAccuracy(name="score"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
    }
