"""The model that is trained: a network, the loss that it learns by, and what is measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from edge_cv.recipe import Teacher


class TrainingModel(keras.Model):
    """A network of logits with its loss: cross-entropy, an L2 penalty, and the distance from a teacher.

    Several labels an image make it the binary cross-entropy of each class. The network itself stays uncompiled and
    unchanged: it is what is saved.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        multi_label: bool,
        l2: float = 0.0,
        class_weights: Sequence[float] | None = None,
        teacher: keras.Model | None = None,
        teaching: Teacher | None = None,
    ) -> None:
        """
        Args:
            network: from pixels `(batch, height, width, 3)` to logits `(batch, classes)`.
            multi_label: whether targets are 0 or 1 a class, instead of shares that sum to 1.
            l2: each kernel that is trained adds l2 / 2 * the sum of its squares to the loss.
            class_weights: `(classes,)`, factors of the loss of the classes' images.
            teacher: a network with the same input and classes; `teaching` says how it is listened to.
        """
        super().__init__(name="trainee")
        self.network = network
        self.multi_label = multi_label
        self.l2 = l2
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.teaching = teaching
        self.teacher = teacher
        if teacher is not None:
            teacher.trainable = False
        # The step at which the loss was first not a number, -1 while there is none: found without waiting each step.
        self.step = self._count(0, "step")
        self.broken_at = self._count(-1, "broken_at")

    def _count(self, start: int, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(),
            dtype="int32",
            initializer=keras.initializers.Constant(start),
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    def call(self, pixels: Any, training: bool = False) -> Any:
        if training and self.l2:
            kernels = [v for v in self.network.trainable_variables if len(v.shape) > 1]
            self.add_loss(self.l2 / 2 * ops.sum(ops.stack([ops.sum(ops.square(kernel)) for kernel in kernels])))
        return ops.cast(self.network(pixels, training=training), "float32")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if training and self.class_weights is not None:
            sample_weight = ops.matmul(y, ops.convert_to_tensor(self.class_weights, "float32"))
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self.teacher is not None:
            share = self.teaching.share
            loss = (1 - share) * loss + share * self._distance_from_teacher(x, y_pred)
        if training:
            broken = self.broken_at.value
            now = ops.logical_and(broken < 0, ops.logical_not(ops.isfinite(loss)))
            self.broken_at.assign(ops.where(now, self.step.value, broken))
            self.step.assign_add(1)
        return loss

    def _distance_from_teacher(self, pixels: Any, logits: Any) -> Any:
        """The Kullback-Leibler divergence of softened probabilities, times temperature squared (section 2)."""
        temperature = self.teaching.temperature
        taught = ops.stop_gradient(ops.cast(self.teacher(pixels, training=False), "float32")) / temperature
        if self.multi_label:
            distance = keras.losses.BinaryCrossentropy(from_logits=True)
            return temperature**2 * distance(ops.sigmoid(taught), logits / temperature)
        # Against the cross-entropy only the teacher's own entropy is missing, which has no gradient; with it taken
        # off the loss says how far the student is.
        distance = keras.losses.KLDivergence()
        return temperature**2 * distance(ops.softmax(taught), ops.softmax(logits / temperature))


def loss_and_metrics(multi_label: bool, classes: int) -> dict[str, Any]:
    """What Keras compiles a trainee with.

    Its metrics are `score`, by which epochs are compared, and `cross_entropy`: the loss without penalty and teacher,
    the same for images to train and to validate on.
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
