"""`TrainingModel`: a network with its loss, penalty, teacher and metrics, as Keras's `fit` trains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from edge_cv.recipe import Teacher


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
    ) -> None:
        """
        Args:
            network: model from pixels `(batch, height, width, 3)` to logits `(batch, classes)`.
            multi_label: whether targets are 0 or 1 per class instead of probabilities that sum to 1.
            l2: weight of the penalty; each trainable kernel adds l2 / 2 times the sum of its squares to the loss.
            class_weights: factors `(classes,)` of the loss, by the class of the image.
            teacher: model with the same input and classes as the network.
            distillation: share and temperature of the teacher's part of the loss; required with `teacher`.
        """
        super().__init__(name="training_model")
        self.network = network
        self.multi_label = multi_label
        self.l2 = l2
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.distillation = distillation
        self.teacher = teacher
        if teacher is not None:
            teacher.trainable = False
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

    def call(self, pixels: Any, training: bool = False) -> Any:
        """Float32 logits `(batch, classes)` of pixels `(batch, height, width, 3)`."""
        if training and self.l2:
            kernels = [v for v in self.network.trainable_variables if len(v.shape) > 1]
            self.add_loss(self.l2 / 2 * ops.sum(ops.stack([ops.sum(ops.square(kernel)) for kernel in kernels])))
        return ops.cast(self.network(pixels, training=training), "float32")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of one batch. In training it is weighted by class and mixed with the distance from the teacher."""
        if training and self.class_weights is not None:
            sample_weight = ops.matmul(y, ops.convert_to_tensor(self.class_weights, "float32"))
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self.teacher is not None and self.distillation is not None:
            share, temperature = self.distillation.share, self.distillation.temperature
            loss = (1 - share) * loss + share * self._distance_from_teacher(self.teacher, temperature, x, y_pred)
        if training:
            broken = self.broken_at.value
            now = ops.logical_and(broken < 0, ops.logical_not(ops.isfinite(loss)))
            self.broken_at.assign(ops.where(now, self.step.value, broken))
            self.step.assign_add(1)
        return loss

    def _distance_from_teacher(self, teacher: keras.Model, temperature: float, pixels: Any, logits: Any) -> Any:
        """The Kullback-Leibler divergence of softened probabilities, times temperature squared (section 2)."""
        target = ops.stop_gradient(ops.cast(teacher(pixels, training=False), "float32")) / temperature
        if self.multi_label:
            distance = keras.losses.BinaryCrossentropy(from_logits=True)
            return temperature**2 * distance(ops.sigmoid(target), logits / temperature)
        # The divergence is the cross-entropy minus the teacher's entropy. Their gradients are equal, and the
        # divergence is 0 when student and teacher agree.
        distance = keras.losses.KLDivergence()
        return temperature**2 * distance(ops.softmax(target), ops.softmax(logits / temperature))


def loss_and_metrics(multi_label: bool, classes: int) -> dict[str, Any]:
    """The `loss` and `metrics` with which a `TrainingModel` is compiled.

    The metrics are `score`, which selects the best epoch, and `cross_entropy`: the loss without penalty and teacher,
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
