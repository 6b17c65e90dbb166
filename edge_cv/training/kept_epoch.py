"""The epoch whose weights a training keeps, and the reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_cv.intervals import interval_of_share


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of the epoch whose weights are kept.

    The highest validation score decides, as far as the validation images can tell: a few dozen of them tie often, and
    chance alone moves the score by its standard error. So an epoch replaces the kept one if its score is within one
    standard error of the highest so far and its validation loss is not higher, or if the kept one is no longer within
    it. (Among models that the data cannot tell apart, choosing by a second criterion is the one-standard-error rule of
    Breiman et al. 1984, Classification and Regression Trees, section 3.4.3.) Without validation images the last epoch
    is kept.

    Args:
        history: one entry per epoch, with the keys of `logs.COLUMNS`.
    """
    if history[-1]["validation_score"] is None:
        return history[-1]
    kept, highest = history[0], -math.inf
    for entry in history:
        highest = max(highest, _score(entry))
        least = highest - standard_error(highest, entry.get("validation_images"))
        if _score(entry) >= least and (_score(kept) < least or _loss(entry) <= _loss(kept)):
            kept = entry
    return kept


def standard_error(score: float, images: int | None) -> float:
    """Standard error of a share of images, with one more image right and one more wrong, so that 100 % has one too.

    It is 0 if the number of images is not known, as for a mean average precision, which is no share of images.
    """
    if not images or not 0 <= score <= 1:
        return 0.0
    share = (score * images + 1) / (images + 2)
    return math.sqrt(share * (1 - share) / images)


def _score(entry: Mapping[str, Any]) -> float:
    return -math.inf if entry["validation_score"] is None else entry["validation_score"]


def _loss(entry: Mapping[str, Any]) -> float:
    return math.inf if entry["validation_loss"] is None else entry["validation_loss"]


def why_kept(history: Sequence[Mapping[str, Any]]) -> str:
    """Which epoch was kept, why, and which phases were thrown away whole.

    Args:
        history: as for `kept_epoch`.
    """
    kept = kept_epoch(history)
    if kept["validation_score"] is None:
        return f"The weights of the last epoch, {kept['epoch']}, were kept, because there are no validation images."
    best = max(history, key=_score)
    least = _score(best) - standard_error(_score(best), best.get("validation_images"))
    alike = sum(_score(entry) >= least for entry in history)
    text = f"The weights of epoch {kept['epoch']} were kept: "
    if alike == 1:
        text += f"the highest validation score, {_percent(kept)}"
    else:
        loss = kept["validation_loss"]
        text += (
            f"of the {alike} epochs whose validation score is within one standard error of the highest, "
            f"{_percent(best)}, the lowest validation loss{'' if loss is None else f', {loss:.4f}'}"
        )
        text += "" if _score(kept) == _score(best) else f", with a score of {100 * _score(kept):.1f} %"
    phases = dict.fromkeys(entry["phase"] for entry in history)
    lost = [str(phase) for phase in phases if phase > kept["phase"]]
    if lost:
        text += (
            f". Phase {' and '.join(lost)} of {max(phases)} was discarded whole, because none of its epochs is better "
            "on the validation images"
        )
    return f"{text}."


def _percent(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['validation_score']:.1f} %{validation_interval(entry)}"


def validation_interval(entry: Mapping[str, Any]) -> str:
    """Wilson's 95 % interval of an epoch's validation accuracy and the number of images, in brackets after a space.

    It is empty where the number is not known, and for a mean average precision, which is no share of images.
    """
    images, score = entry.get("validation_images"), entry["validation_score"]
    if not images or score is None:
        return ""
    low, high = interval_of_share(score, images)
    return f" ({100 * low:.1f} to {100 * high:.1f}, n = {images})"
