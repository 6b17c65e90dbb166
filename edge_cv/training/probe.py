"""The linear probe: a logistic regression on the features of the frozen backbone.

It is what a user has without fine-tuning, in seconds, so a fine-tuned model must not end below it. Its weights are a
valid head: `fit.probe="only"` makes a model of them.

Understanding intermediate layers using linear classifier probes, Alain and Bengio 2016,
https://arxiv.org/abs/1610.01644

Its logits are scaled so that the probabilities are right on images that it was not fitted on: a strong penalty, which
few images need, makes them far too small. On calibration of modern neural networks, Guo et al. 2017, section 4.2,
https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from converters.errors import InputError
from converters.packages import require
from edge_cv.intervals import interval_of_share
from edge_cv.training.features import SplitNetwork, compute_features, count_hits, split_network

INVERSE_PENALTIES = (0.003, 0.01, 0.03, 0.1, 1.0)  # scikit-learn's C; the best is chosen by cross-validation
SCALES = (0.01, 100.0)  # of the logits
FOLDS = 5  # of the cross-validation, if every class has as many images
MOST_IMAGES = 5000  # more do not change the comparison, and cost minutes


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        kernel: float32 `(features, classes)`.
        bias: float32 `(classes,)`.
        inverse_penalty: scikit-learn's C.
        images: number of images that it was fitted on.
        cross_validated: share of these images, 0..1, that probes fitted on other folds classify correctly; None if a
            class has only one image.
        seconds: duration, features included.
    """

    kernel: np.ndarray
    bias: np.ndarray
    inverse_penalty: float
    images: int
    cross_validated: float | None
    seconds: float

    @property
    def cross_validated_ci95(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of `cross_validated`."""
        if self.cross_validated is None:
            return None
        return interval_of_share(self.cross_validated, self.images)

    def hits(self, split: SplitNetwork, batches: Iterable[tuple[Any, Any]]) -> tuple[int, int]:
        """The number of images that the probe classifies correctly, and the number of images.

        Args:
            split: the network that the probe was fitted on.
            batches: images and one-hot targets, as for `count_hits`.
        """
        features, targets = compute_features(split.backbone, batches)
        return count_hits(features @ self.kernel + self.bias, targets)


def split_for_probe(network: keras.Model) -> SplitNetwork:
    """Backbone and head of a network. Raises InputError if it does not end in a dense layer of logits."""
    split = split_network(network)
    if split is None:
        raise InputError(
            f"a linear probe needs a model that ends in a dense layer of logits. Received: {network.name}, which ends "
            f"in {network.layers[-1].name}"
        )
    return split


def fit_probe(split: SplitNetwork, batches: Iterable[tuple[Any, Any]], *, seed: int = 0) -> Probe:
    """Fit a linear probe. The network is not changed.

    Args:
        split: backbone and head of the network.
        batches: training images without augmentation, and one-hot targets `(batch, classes)`.
        seed: of the folds.

    Raises:
        InputError: scikit-learn is not installed, or there are fewer than two classes.
    """
    check_installed()
    from threadpoolctl import threadpool_limits

    start = time.monotonic()
    features, targets = compute_features(split.backbone, batches)
    labels = targets.argmax(1)
    counts = np.bincount(labels, minlength=targets.shape[1])
    if np.count_nonzero(counts) < 2:
        raise InputError("a linear probe needs images of at least two classes. Received: one")
    folds = min(FOLDS, int(counts[counts > 0].min()))
    with threadpool_limits(1):  # the products are small: on a busy machine several threads take 40 times as long
        tried = INVERSE_PENALTIES if folds > 1 else ()
        left_out = {c: _left_out_logits(features, labels, c, folds, seed) for c in tried}
        scores = {c: float((logits.argmax(1) == labels).mean()) for c, logits in left_out.items()}
        chosen = max(scores, key=lambda c: (scores[c], -c)) if scores else 0.1
        kernel, bias = _regression(features, labels, chosen, len(counts))
        scale = calibrating_scale(left_out[chosen], labels) if scores else 1.0
    return Probe(scale * kernel, scale * bias, chosen, len(labels), scores.get(chosen), time.monotonic() - start)


def assign_probe(split: SplitNetwork, probe: Probe) -> None:
    """Give the network's head the weights of the probe."""
    kernel, bias = probe.kernel, probe.bias
    if split.head.units == 1:  # one output decides between two classes
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    split.head.set_weights([kernel, bias] if split.head.use_bias else [kernel])


def check_installed() -> None:
    """Raise InputError if scikit-learn is not installed."""
    require("a linear probe (fit.probe)", "probe")


def calibrating_scale(logits: np.ndarray, labels: np.ndarray) -> np.float32:
    """The factor of logits with which their probabilities have the lowest cross-entropy, in `SCALES`.

    By Laplace's rule one label of n + 1 is taken to be any class, so that the factor is finite where all are right.

    Args:
        logits: `(n, classes)`, of a model that was fitted on other images.
        labels: int `(n,)`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    of_label, mean = logits[np.arange(len(labels)), labels], logits.mean(1)
    targets = of_label + (mean - of_label) / (len(labels) + 1)

    def cross_entropy(exponent: float) -> float:
        scale = np.exp(exponent)
        return float((logsumexp(scale * logits, axis=1) - scale * targets).mean())

    return np.float32(np.exp(minimize_scalar(cross_entropy, bounds=np.log(SCALES), method="bounded").x))


def _left_out_logits(features: np.ndarray, labels: np.ndarray, c: float, folds: int, seed: int) -> np.ndarray:
    """The logits `(n, classes)` of each image by a regression on the other folds."""
    from sklearn.model_selection import StratifiedKFold

    classes = labels.max() + 1
    logits = np.empty((len(labels), classes))
    for train, rest in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels):
        kernel, bias = _regression(features[train], labels[train], c, classes)
        logits[rest] = features[rest] @ kernel + bias
    return logits


def _regression(features: np.ndarray, labels: np.ndarray, c: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel `(features, classes)` and bias of a multinomial logistic regression with an L2 penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred more steps change no prediction
        fitted = LogisticRegression(C=c, max_iter=200).fit(features, labels)
    kernel = np.zeros((features.shape[1], classes), np.float32)
    if len(fitted.classes_) == 2:  # one logit, of the second class
        rows, offsets = (
            np.vstack([-fitted.coef_, fitted.coef_]) / 2,
            np.append(-fitted.intercept_, fitted.intercept_) / 2,
        )
    else:
        rows, offsets = fitted.coef_, fitted.intercept_
    bias = np.full(classes, offsets.min() - 10, np.float32)  # a class without an image is not predicted
    kernel[:, fitted.classes_], bias[fitted.classes_] = rows.T, offsets
    return kernel, bias
