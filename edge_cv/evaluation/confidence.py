"""Whether an artifact's confidence can be trusted: of the answers given with 80 %, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np

BINS = 15
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-8, 9))
"""1/4 to 4, each 19 % above the one before: where the loss is computed; between them it is interpolated."""

DRAWS = 200  # for the error that chance alone makes; its mean then is known to some hundredths of itself
_SEED = 0


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one fifteenth of 0..1.

    Attributes:
        images: how many.
        confidence: their mean confidence.
        accuracy: share of them that are right.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Temperature:
    """What the logits would have to be divided by for the confidences to be right: the answers stay as they are.

    The temperature with the least mean cross-entropy. Source: Guo et al. (2017), section 4.2.

    Attributes:
        value: fitted on all labelled photos; above 1 it makes the artifact less sure.
        ece: expected calibration error with it, each half of the photos scaled by what was fitted on the other half.
    """

    value: float
    ece: float


@dataclass(frozen=True)
class Confidence:
    """The confidence of first answers (their softmax probability) against how often they are right.

    The expected calibration error is the mean over the photos of |accuracy - confidence| of the bin that a photo's
    confidence lies in: `sum_b n_b / n |accuracy_b - confidence_b|`, with 15 bins of equal width over 0..1.
    Source: Guo et al. (2017), On calibration of modern neural networks, https://arxiv.org/abs/1706.04599, after
    Naeini et al. (2015), Obtaining well calibrated probabilities using Bayesian binning, AAAI.

    Few photos make it large even where every confidence is exactly right: bins hold some answers too many or too few by
    chance. `ece_by_chance` is what such a perfect model would show.

    Attributes:
        images: labelled photos.
        accuracy: share of the answers that are right.
        confidence: mean confidence; above `accuracy`, the artifact is overconfident.
        ece: expected calibration error, 0..1.
        ece_by_chance: mean ECE if each answer were right with just the probability that its confidence says.
        ece_by_chance_95: its 95th percentile: an `ece` above cannot be put down to chance.
        bins: those that hold photos, least confidence first.
        temperature: what would mend it; None where none from 1/4 to 4 is the best.
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
            raise InputError(f"images must be 1 or more, and no bin's negative. Received: {self.images}")


def confidence_of(confidences: np.ndarray, right: np.ndarray) -> Confidence | None:
    """Confidence against accuracy.

    Args:
        confidences: probability 0..1 of each photo's first class, `(photos,)`.
        right: whether that class is the true one, bool `(photos,)`.

    Returns:
        The figures; None without photos.
    """
    import numpy as np

    count = len(confidences)
    if not count:
        return None
    confidences = confidences.astype(np.float64).clip(0, 1)
    places = _places(confidences)
    images = np.bincount(places, minlength=BINS)
    sums = np.bincount(places, confidences, minlength=BINS)

    def error(hits: np.ndarray) -> float:
        return float(np.abs(np.bincount(places, hits, minlength=BINS) - sums).sum() / count)

    rng = np.random.default_rng(_SEED)
    by_chance = [error(rng.random(count) < confidences) for _ in range(DRAWS)]
    hits = np.bincount(places, right, minlength=BINS)
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
    """The temperature that fits, from what each photo shows at `TEMPERATURES`.

    Args:
        losses: cross-entropy of the true class `(photos, 17)`.
        confidences: probability of the first class `(photos, 17)`.
        right: whether that class is the true one, bool `(photos,)`.

    Returns:
        None with fewer than two photos, or where a temperature outside of the range would be better.
    """
    import numpy as np

    first = np.arange(len(right)) % 2 == 0
    fits = [_least(losses[half].mean(axis=0)) if half.any() else None for half in (first | True, first, ~first)]
    if None in fits:
        return None
    value, *halves = fits
    steps = np.log(TEMPERATURES)
    scaled = np.empty(len(right))
    for half, fitted in zip((~first, first), halves, strict=True):
        scaled[half] = [np.interp(np.log(fitted), steps, row) for row in confidences[half]]
    places = _places(scaled)
    gaps = np.bincount(places, right, minlength=BINS) - np.bincount(places, scaled, minlength=BINS)
    return Temperature(value, float(np.abs(gaps).sum() / len(right)))


def _least(losses: np.ndarray) -> float | None:
    """The temperature of the least loss, by a parabola through the least three; None at the ends."""
    import numpy as np

    best = int(np.argmin(losses))
    if best in (0, len(losses) - 1):
        return None
    below, least, above = losses[best - 1 : best + 2].astype(float)
    curve = below - 2 * least + above
    steps = np.log(TEMPERATURES)
    offset = 0.5 * (below - above) / curve if curve > 0 else 0.0
    return float(np.exp(steps[best] + offset * (steps[1] - steps[0])))


def _places(confidences: np.ndarray) -> np.ndarray:
    """The bin of each: a bin holds its upper end, as in the paper; 0 itself goes into the first."""
    import numpy as np

    return np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
