"""Features of a frozen backbone, computed once: for the linear probe, and for phases that train the head alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from edge_cv.models import heads
from edge_cv.training.devices import uses_xla

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches

MOST_BYTES = 2**30  # of features in memory


@dataclass(frozen=True)
class SplitNetwork:
    """A network as a backbone and a head.

    Attributes:
        backbone: model from pixels to features `(batch, features)`; it shares the network's layers.
        head: the dense layer from features to logits `(batch, classes)`.
        dropout: rate of the dropout between both; 0 if there is none.
    """

    backbone: keras.Model
    head: keras.layers.Dense
    dropout: float


def split_network(network: keras.Model) -> SplitNetwork | None:
    """Split a network before its last layer.

    Args:
        network: a functional or sequential model from pixels to logits.

    Returns:
        Backbone and head; None if the network does not end in a linear dense layer on a vector of features.
    """
    head = network.layers[-1]
    if not isinstance(head, keras.layers.Dense) or head.activation is not keras.activations.linear:
        return None
    if len(network.inputs) != 1 or network.outputs[0] is not head.output or len(head.input.shape) != 2:
        return None
    features = heads.features(network)
    dropout = 0.0 if features is head.input else head.input._keras_history.operation.rate
    return SplitNetwork(_inference(network.inputs[0], features), head, dropout)


def compute_features(backbone: keras.Model, batches: Iterable[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The features of images, in batches that use all cores.

    Args:
        backbone: of `split_network`.
        batches: images `(batch, height, width, 3)` and targets `(batch, classes)`.

    Returns:
        Features, float32 `(n, features)`, and targets, float32 `(n, classes)`, in the order of the batches.
    """
    features, targets, size = [], [], 0
    for images, target in batches:
        pixels = keras.ops.cast(images, "float32")
        count = len(pixels)
        size = size or count
        if count < size:  # a smaller last batch is filled up, because Keras traces each new shape
            pixels = keras.ops.pad(pixels, ((0, size - count), (0, 0), (0, 0), (0, 0)))
        features.append(np.asarray(backbone.predict_on_batch(pixels), np.float32)[:count])
        targets.append(keras.ops.convert_to_numpy(target))
    return np.concatenate(features), np.concatenate(targets)


def compute_logits(network: keras.Model, batches: Iterable[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The outputs `(n, classes)` of images, and their targets, as `compute_features` returns features."""
    outputs, targets = compute_features(_inference(network.inputs[0], network.outputs[0]), batches)
    return heads.output_meaning(network).class_outputs(outputs), targets


def count_hits(logits: np.ndarray, targets: np.ndarray) -> tuple[int, int]:
    """The number of correctly classified images, and of images with a label.

    Args:
        logits: `(n, classes)`.
        targets: one-hot `(n, classes)`. An image whose target is all zeros has no label and is left out.
    """
    labelled = targets.any(axis=1)
    return int((logits.argmax(1) == targets.argmax(1))[labelled].sum()), int(labelled.sum())


def _inference(inputs: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.Model:
    """A model for prediction. It is compiled, so that Keras does not choose XLA where that is slower."""
    model = keras.Model(inputs, outputs)
    model.compile(jit_compile=uses_xla())
    return model


class FeatureBatches:
    """`Batches` of features instead of images. The images of each augmented view pass through the backbone once.

    Epoch e takes view e modulo `views`, and its images in an order of its own.

    Attributes:
        classes, batch_size, multi_label: as in `Batches`.
    """

    def __init__(self, split: SplitNetwork, batches: Batches, views: int, seed: int) -> None:
        """
        Args:
            split: the network; its backbone must not change while this object is used.
            batches: the images.
            views: number of augmented views of each image, at least 1.
            seed: of the order of the images.
        """
        self.classes, self.batch_size, self.multi_label = batches.classes, batches.batch_size, batches.multi_label
        self.seed = seed
        self._split, self._batches, self._count = split, batches, views
        self._views: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def in_memory(self) -> bool:
        """Whether all views fit into `MOST_BYTES`."""
        images = len(self._batches) * self.batch_size
        return images * self._count * self._split.backbone.output_shape[-1] * 4 <= MOST_BYTES

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of features `(batch, features)` and targets `(batch, classes)`, from `first_step` on."""
        view = number % self._count
        if view not in self._views:
            self._views[view] = compute_features(self._split.backbone, self._batches.epoch(view))
        features, targets = self._views[view]
        order = np.random.default_rng([self.seed, number]).permutation(len(features))
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield features[chosen], targets[chosen]


def head_network(split: SplitNetwork) -> keras.Model:
    """The network from features to logits; it shares the head, and drops features out as the whole network does."""
    features = keras.Input(split.backbone.output_shape[1:], name="features")
    dropped = keras.layers.Dropout(split.dropout)(features) if split.dropout else features
    return keras.Model(features, split.head(dropped), name="head")
