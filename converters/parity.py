"""The difference between a converted model and its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from converters.decisions import LOGITS, OutputMeaning, agreeing

MAX_SQNR_DB = 150.0  # float32 has about 24 bits: smaller differences count as none


@dataclass(frozen=True)
class LayerError:
    """The error of one layer of a converted model against the float model.

    Attributes:
        layer: the name of the layer's output in the float graph.
        sqnr_db: signal-to-noise ratio of its output, at most 150.
        operator: the operator that computes it, such as `CONV_2D`.
        weights_sqnr_db: the same for its weights; None where it has none, or they are not quantized.
        saturated: share of the float values, 0..1, outside the range of the output's integers.
        unused: share of the output's integers, 0..1, below the smallest and above the largest that occurred.
    """

    layer: str
    sqnr_db: float
    operator: str = ""
    weights_sqnr_db: float | None = None
    saturated: float | None = None
    unused: float | None = None


@dataclass(frozen=True)
class Parity:
    """A converted model compared with its reference on the same images.

    Attributes:
        top1_agreement: share of images, 0..1, on which both have the same top-1; for outputs of sigmoids, all the same
            decisions at a probability of 0.5.
        max_abs_error: largest difference of two logits.
        sqnr_db: 10 log10(sum of reference^2 / sum of difference^2) over all logits, at most 150.
        worst_layers: the activations with the lowest SQNR, lowest first; empty where layers cannot be matched.
        images: the number of images that were compared.
    """

    top1_agreement: float
    max_abs_error: float
    sqnr_db: float
    worst_layers: tuple[LayerError, ...] = ()
    images: int = 0


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in dB, within -150..150."""
    reference = np.asarray(reference, np.float64)
    return ratio_db(float(np.sum(reference**2)), float(np.sum((reference - other) ** 2)))


def ratio_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within -150..150."""
    if noise <= 0:
        return MAX_SQNR_DB
    if signal <= 0:
        return -MAX_SQNR_DB
    return float(np.clip(10 * math.log10(signal / noise), -MAX_SQNR_DB, MAX_SQNR_DB))


def compare(
    reference: np.ndarray,
    other: np.ndarray,
    worst_layers: tuple[LayerError, ...] = (),
    *,
    meaning: OutputMeaning = LOGITS,
) -> Parity:
    """The Parity of two sets of outputs `(n, outputs)`, whose meaning decides what agreement is."""
    return Parity(
        top1_agreement=float(np.mean(agreeing(reference, other, meaning))),
        max_abs_error=float(np.max(np.abs(reference - other))),
        sqnr_db=sqnr_db(reference, other),
        worst_layers=worst_layers,
        images=len(reference),
    )
