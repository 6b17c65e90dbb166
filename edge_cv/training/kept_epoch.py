"""The epoch whose weights a training keeps, and the reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_cv.intervals import interval_of_share

CHANCE = 4  # images: as many lost and none gained may be chance (one-sided sign test, p = 0.06)


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of the epoch whose weights are kept.

    It is the latest epoch whose validation score is within one standard error, or `CHANCE` images, of the highest: such
    epochs differ by chance only, and the learning rate falls. Choosing the highest score of a few dozen images cost up
    to 9 points on kinds of ImageNet photos. With several labels an image the score has no known error:
    then the highest score is kept, of a tie the lower validation loss. Without validation images it is the last epoch.

    The rule is Breiman's of one standard error: Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        history: one entry per epoch, with the keys of `logs.COLUMNS`.
    """
    if best_score(history) is None:
        return history[-1]
    best = max(history, key=_rank)
    error = _standard_error(best)
    if not error:
        return best
    least = best["validation_score"] - error - 1e-9  # of rounding
    return next(entry for entry in reversed(history) if (entry["validation_score"] or 0.0) >= least)


def best_score(history: Sequence[Mapping[str, Any]]) -> float | None:
    """The highest validation score, of whichever epoch. None without validation images."""
    return max((entry["validation_score"] for entry in history if entry["validation_score"] is not None), default=None)


def _rank(entry: Mapping[str, Any]) -> tuple[float, float, int]:
    score, loss = entry["validation_score"], entry["validation_loss"]
    return -math.inf if score is None else score, -math.inf if loss is None else -loss, entry["epoch"]


def _standard_error(entry: Mapping[str, Any]) -> float:
    """Of a validation accuracy, at least `CHANCE` images; 0 for a score without a count of images."""
    images, score = entry.get("validation_images"), entry["validation_score"]
    if not images or score is None:
        return 0.0
    return max(math.sqrt(score * (1 - score) / images), CHANCE / images)


def why_kept(history: Sequence[Mapping[str, Any]]) -> str:
    """Which epoch was kept, why, and which phases were thrown away whole.

    Args:
        history: as for `kept_epoch`.
    """
    kept, best = kept_epoch(history), best_score(history)
    score = kept["validation_score"]
    if score is None or best is None:
        return f"The weights of the last epoch, {kept['epoch']}, were kept, because there are no validation images."
    share = f"{100 * score:.1f} %{validation_interval(kept)}"
    which = f"the last epoch, {kept['epoch']}," if kept is history[-1] else f"epoch {kept['epoch']}"
    text = f"The weights of {which} were kept: "
    if score < best:
        text += f"the validation score, {share}, is not clearly below the highest, {100 * best:.1f} %"
        text += "" if kept is history[-1] else ", and those of later epochs are"
    else:
        text += f"the highest validation score, {share}"
        ties = sum(entry["validation_score"] == score for entry in history)
        if ties > 1 and not _standard_error(kept) and kept["validation_loss"] is not None:
            text += (
                f", and of the {ties} epochs that reach it the lowest validation loss, {kept['validation_loss']:.4f}"
            )
    phases = dict.fromkeys(entry["phase"] for entry in history)
    lost = [str(phase) for phase in phases if phase > kept["phase"]]
    if lost:
        text += (
            f". Phase {' and '.join(lost)} of {max(phases)} was discarded whole, because none of its epochs comes near "
            "that score on the validation images"
        )
    return f"{text}."


def validation_interval(entry: Mapping[str, Any]) -> str:
    """Wilson's 95 % interval of an epoch's validation accuracy and the number of images, in brackets after a space.

    It is empty where the number is not known, and for a mean average precision, which is no share of images.
    """
    images, score = entry.get("validation_images"), entry["validation_score"]
    if not images or score is None:
        return ""
    low, high = interval_of_share(score, images)
    return f" ({100 * low:.1f} to {100 * high:.1f}, n = {images})"
