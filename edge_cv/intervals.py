"""Confidence intervals of shares of photos."""

from __future__ import annotations


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


def interval_of_share(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was computed from whole counts.

    Args:
        share: 0..1, a multiple of `1 / trials` but for rounding.
        trials: 1 or more.

    Returns:
        The lower and the upper end, 0..1.
    """
    return wilson_interval(round(share * trials), trials)
