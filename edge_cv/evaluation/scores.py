"""The figures of one model in an evaluation, and the confidence interval of a share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """Accuracy of one model, and its agreement with a reference.

    Attributes:
        images: classified images.
        top1, top5: share 0..1 of the labelled images whose label is the first class, or among the first five; None
            without labels.
        top1_ci95: Wilson's 95 % interval of `top1`.
        agreement: share 0..1 of the images with the same first class as the reference; None without a reference.
        agreement_ci95: Wilson's 95 % interval of `agreement`.
        sqnr_db: signal-to-quantization-noise ratio of the logits against the reference's, in dB; None without a
            reference and where the logits are equal to the reference's.
        seconds_per_image: mean duration of an inference while every core is busy; not a latency.
    """

    images: int
    top1: float | None
    top5: float | None
    top1_ci95: tuple[float, float] | None
    agreement: float | None
    agreement_ci95: tuple[float, float] | None
    sqnr_db: float | None
    seconds_per_image: float = field(compare=False)


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of the share `hits / trials`.

    Unlike the normal approximation, it stays inside 0..1 and has a width above 0 for 0 hits and for `trials` hits.
    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.

    Args:
        hits: 0 to `trials`.
        trials: 1 or more.

    Returns:
        The lower and the upper end, 0..1.

    Raises:
        ValueError: a count is out of range.
    """
    from scipy.stats import binomtest

    if not 0 <= hits <= trials or not trials:
        raise ValueError(f"hits must be in 0..trials, trials 1 or more. Received: hits={hits}, trials={trials}")
    interval = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
