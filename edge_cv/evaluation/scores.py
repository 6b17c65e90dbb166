"""The figures of an evaluation: shares with their intervals, and how much of the reference's signal is left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile


@dataclass(frozen=True)
class Score:
    """How one artifact did on the photos.

    Attributes:
        images: photos that were classified.
        top1, top5: share of the labelled photos whose label came first, or among the first five; None without labels.
        top1_ci95: Wilson's 95 % interval of `top1`.
        agreement: share of photos with the reference's first class; None without a reference.
        agreement_ci95: Wilson's 95 % interval of `agreement`.
        sqnr_db: the reference's logits against the difference from them, in dB; see `sqnr_db`.
        seconds_per_image: mean time of one inference in the workers, where every core is busy; not a latency.
    """

    images: int
    top1: float | None
    top5: float | None
    top1_ci95: tuple[float, float] | None
    agreement: float | None
    agreement_ci95: tuple[float, float] | None
    sqnr_db: float | None
    seconds_per_image: float = field(compare=False)


def wilson_interval(hits: int, trials: int) -> tuple[float, float] | None:
    """Wilson's 95 % score interval for the share `hits / trials`, both ends in 0..1; None without trials.

    Unlike the normal approximation it stays inside 0..1 and does not collapse at 0 or at `trials` hits.
    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.

    Raises:
        ValueError: hits outside 0..trials.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must be in 0..trials. Received: hits={hits}, trials={trials}")
    if trials == 0:
        return None
    share, z2 = hits / trials, _Z95 * _Z95
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == trials else min(1.0, centre + half)
    return low, high


def sqnr_db(signal: float, noise: float) -> float | None:
    """10 log10(signal / noise), in dB.

    None where it is no finite number: without noise (the artifact gives the reference's very logits, as the reference
    itself does) or without signal. JSON has no infinity, and a cap would be a number that nobody measured.

    Args:
        signal: sum of the squared reference logits over all photos, 0 or more.
        noise: sum of the squared differences from them, 0 or more.
    """
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
