"""The epoch whose weights a training keeps, and the reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_cv.intervals import interval_of_share


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of the epoch whose weights are kept.

    It has the highest validation score. A few dozen validation images tie often: then the lower validation loss
    decides, and the later epoch if that is equal too. Without validation images it is the last epoch.

    Args:
        history: one entry per epoch, with the keys of `logs.COLUMNS`.
    """
    return history[-1] if history[-1]["validation_score"] is None else max(history, key=_rank)


def _rank(entry: Mapping[str, Any]) -> tuple[float, float, int]:
    score, loss = entry["validation_score"], entry["validation_loss"]
    return -math.inf if score is None else score, -math.inf if loss is None else -loss, entry["epoch"]


def why_kept(history: Sequence[Mapping[str, Any]]) -> str:
    """Which epoch was kept, why, and which phases were thrown away whole.

    Args:
        history: as for `kept_epoch`.
    """
    kept = kept_epoch(history)
    score, loss = kept["validation_score"], kept["validation_loss"]
    if score is None:
        return f"The weights of the last epoch, {kept['epoch']}, were kept, because there are no validation images."
    share = f"{100 * score:.1f} %{validation_interval(kept)}"
    text = f"The weights of epoch {kept['epoch']} were kept: the highest validation score, {share}"
    ties = sum(entry["validation_score"] == score for entry in history)
    if ties > 1:
        text += f", and of the {ties} epochs that reach it the lowest validation loss"
        text += "" if loss is None else f", {loss:.4f}"
    phases = dict.fromkeys(entry["phase"] for entry in history)
    lost = [str(phase) for phase in phases if phase > kept["phase"]]
    if lost:
        text += (
            f". Phase {' and '.join(lost)} of {max(phases)} was discarded whole, because none of its epochs is better "
            "on the validation images"
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
