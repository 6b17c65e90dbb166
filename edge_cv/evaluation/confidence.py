"""Calibration of a model's confidence: are 80 % of the predictions with a confidence of 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np

BINS = 15
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-8, 9))
"""1/4 to 4 in steps of 19 %: where the loss is computed. Between them it is interpolated."""

DRAWS = 200  # simulations of a perfectly calibrated model; the mean ECE is then known to a few percent
_SEED = 0


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence is in one fifteenth of 0..1.

    Attributes:
        images: their number.
        confidence: their mean confidence, 0..1.
        accuracy: share 0..1 of them that are right.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Temperature:
    """The temperature that calibrates a model: the divisor of the logits with the least mean cross-entropy.

    It does not change the predicted classes. Source: Guo et al. (2017), section 4.2.

    Attributes:
        value: fitted on all labelled images; above 1 it lowers the confidences.
        ece: expected calibration error with temperatures that are fitted on one half of the images and applied to the
            other.
    """

    value: float
    ece: float


@dataclass(frozen=True)
class Confidence:
    """The confidence of a model's predictions (probability of the first class) against their accuracy.

    The expected calibration error (ECE) is the mean over the images of |accuracy - confidence| of the bin of the
    image's confidence: `sum_b n_b / n |accuracy_b - confidence_b|`, with 15 bins of equal width over 0..1. Source: Guo
    et al. (2017), On calibration of modern neural networks, https://arxiv.org/abs/1706.04599, after Naeini et al.
    (2015), Obtaining well calibrated probabilities using Bayesian binning, AAAI.

    With few images, the ECE of a perfectly calibrated model is clearly above 0 too, by chance. `ece_by_chance` is its
    expected value.

    Attributes:
        images: labelled images.
        accuracy: share 0..1 of the predictions that are right.
        confidence: mean confidence, 0..1; above `accuracy`, the model is overconfident.
        ece: expected calibration error, 0..1.
        ece_by_chance: mean ECE of a model whose predictions are right with exactly the probability of their confidence.
        ece_by_chance_95: 95th percentile of the same; a larger `ece` is not explained by chance.
        bins: the bins with images, lowest confidence first.
        temperature: the temperature that calibrates the model; None if the best one is not inside 1/4 to 4.
    """

    images: int
    accuracy: float
    confidence: float
    ece: float
    ece_by_chance: float
    ece_by_chance_95: float
    bins: tuple[Bin, ...]
    temperature: Temperature | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or any(b.images < 0 for b in self.bins):
            raise InputError(f"images must be 1 or more, and 0 or more in each bin. Received: {self.images}")
        if len(self.bins) > BINS:
            raise InputError(f"there must be at most {BINS} bins. Received: {len(self.bins)}")


def confidence_of(confidences: np.ndarray, right: np.ndarray) -> Confidence | None:
    """The calibration of a model.

    Args:
        confidences: probability 0..1 of each image's first class, `(images,)`.
        right: whether that class is the true one, bool `(images,)`.

    Returns:
        The figures; None without images.
    """
    import numpy as np

    count = len(confidences)
    if not count:
        return None
    confidences = confidences.astype(np.float64).clip(0, 1)
    bins = _bins(confidences)
    images = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, confidences, minlength=BINS)

    def error(hits: np.ndarray) -> float:
        return float(np.abs(np.bincount(bins, hits, minlength=BINS) - sums).sum() / count)

    rng = np.random.default_rng(_SEED)
    by_chance = [error(rng.random(count) < confidences) for _ in range(DRAWS)]
    hits = np.bincount(bins, right, minlength=BINS)
    return Confidence(
        images=count,
        accuracy=float(right.mean()),
        confidence=float(confidences.mean()),
        ece=error(right),
        ece_by_chance=float(np.mean(by_chance)),
        ece_by_chance_95=float(np.percentile(by_chance, 95)),
        bins=tuple(
            Bin(int(images[b]), float(sums[b] / images[b]), float(hits[b] / images[b])) for b in np.flatnonzero(images)
        ),
    )


def temperature_of(losses: np.ndarray, confidences: np.ndarray, right: np.ndarray) -> Temperature | None:
    """The temperature with the least loss, from the losses and confidences at each of `TEMPERATURES`.

    Args:
        losses: cross-entropy of the true class `(images, 17)`.
        confidences: probability of the first class `(images, 17)`.
        right: whether that class is the true one, bool `(images,)`.

    Returns:
        The temperature; None with fewer than two images, or if the least loss is at either end of the range.
    """
    import numpy as np

    first = np.arange(len(right)) % 2 == 0
    halves_and_all = (first | True, first, ~first)
    value, *halves = (_least(losses[half].mean(axis=0)) if half.any() else None for half in halves_and_all)
    if value is None:
        return None
    steps = np.log(TEMPERATURES)
    scaled = np.empty(len(right))
    for half, fitted in zip((~first, first), halves, strict=True):
        if fitted is None:
            return None
        scaled[half] = [np.interp(np.log(fitted), steps, row) for row in confidences[half]]
    bins = _bins(scaled)
    gaps = np.bincount(bins, right, minlength=BINS) - np.bincount(bins, scaled, minlength=BINS)
    return Temperature(value, float(np.abs(gaps).sum() / len(right)))


def _least(losses: np.ndarray) -> float | None:
    """The temperature of the least loss, by a parabola through the lowest three points; None at the ends."""
    import numpy as np

    best = int(np.argmin(losses))
    if best in (0, len(losses) - 1):
        return None
    below, least, above = losses[best - 1 : best + 2].astype(float)
    curve = below - 2 * least + above
    steps = np.log(TEMPERATURES)
    offset = 0.5 * (below - above) / curve if curve > 0 else 0.0
    return float(np.exp(steps[best] + offset * (steps[1] - steps[0])))


def _bins(confidences: np.ndarray) -> np.ndarray:
    """The bin of each confidence. A bin includes its upper end, as in the paper; the first one also includes 0."""
    import numpy as np

    return np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
