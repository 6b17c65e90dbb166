"""The state of a training between two steps, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_cv.recipe import Fit
from edge_cv.training.kept_epoch import best_score, kept_epoch


@dataclass(frozen=True)
class Fitted:
    """The result of a training. The model itself holds the weights that are kept.

    Attributes:
        history: one entry per epoch, with the keys of `logs.COLUMNS`. `loss` is the cross-entropy; `score` is the
            top-1 accuracy 0..1, or the mean average precision with several labels per image.
        best_epoch: the epoch whose weights were kept, counted from 1 (see `kept_epoch`).
        score: validation score of that epoch; None without validation images.
        kept: one sentence that names the epoch and says why it was kept.
    """

    history: tuple[dict[str, Any], ...]
    best_epoch: int
    score: float | None
    kept: str = ""


@dataclass
class TrainingState:
    """The position and the history of a training, as stored in its checkpoint. Counts start at 0.

    Attributes:
        phase: index of the current phase.
        epoch: epoch within the phase.
        step: next step within the epoch.
        seconds: time spent in the epoch so far.
        rate: learning rate of the plateau schedule; None for the other schedules.
        waited: epochs since the last improvement, for early stopping.
        plateau: epochs since the last improvement or reduction of the rate, for the plateau schedule.
        best: validation score of the weights that are kept.
        best_epoch: the epoch of these weights, counted from 1.
        done: whether the training has finished.
        history: see `Fitted`.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    rate: float | None = None
    waited: int = 0
    plateau: int = 0
    best: float | None = None
    best_epoch: int = 0
    done: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self, entry: dict[str, Any]) -> bool:
        """Add an epoch to the history.

        Returns:
            Whether its weights are the ones to keep. Without validation images these are always the latest.
        """
        score, highest = entry["validation_score"], best_score(self.history)
        self.history.append(entry)
        kept = kept_epoch(self.history) is entry
        if score is None:
            losses = [e["loss"] for e in self.history if e["loss"] is not None]
            improved = len(losses) < 2 or losses[-1] < min(losses[:-1])
        else:
            improved = highest is None or score > highest  # a lower loss at the same score is none
        if kept:
            self.best, self.best_epoch = score, entry["epoch"]
        self.waited = 0 if improved else self.waited + 1
        self.plateau = 0 if improved else self.plateau + 1
        return kept

    def advance(self, settings: Fit) -> None:
        """Move to the next epoch, to the next phase after the last epoch of one, or to the end."""
        phases = settings.all_phases()
        self.step, self.seconds = 0, 0.0
        self.epoch += 1
        if self.epoch == phases[self.phase].epochs:
            self.phase, self.epoch, self.rate, self.plateau = self.phase + 1, 0, None, 0
        stop = settings.early_stopping is not None and self.waited >= settings.early_stopping
        self.done = self.phase == len(phases) or stop
