"""What looks at a training between its steps: progress, checkpoints in time, and a loss that is not a number."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from converters.errors import InputError
from edge_cv.progress import Update
from edge_cv.training import checkpoint

UPDATE_SECONDS = 0.5  # between two words on the progress
LOOK_SECONDS = 5.0  # looking waits for the device and, on JAX, takes every variable back from it: tens of milliseconds


class TrainingMonitor(keras.callbacks.Callback):
    """One epoch's; afterwards it has `logs`, `learning_rate`, `seconds` and `images_per_second`."""

    def __init__(
        self,
        *,
        first_step: int,
        steps: int,
        batch_size: int,
        epoch: int,
        seconds: float,
        metrics: Sequence[np.ndarray],
        rate_at: Callable[[int], float],
        save: Callable[[int, float, list[np.ndarray]], None],
        save_seconds: float,
        update: Update,
    ) -> None:
        """
        Args:
            first_step: with which the epoch is begun, or gone on with.
            steps: of a whole epoch.
            batch_size: images a step.
            epoch: its number, counted from 1, for messages.
            seconds: that the epoch took before it was interrupted.
            metrics: the values of the metrics then; none at the beginning of an epoch.
            rate_at: the learning rate at a step of the epoch.
            save: called with the next step, the seconds and the metrics' values.
            save_seconds: how often.
            update: told the steps that are done.
        """
        super().__init__()
        self.first_step = self.next_step = first_step
        self.steps = steps
        self.batch_size = batch_size
        self.epoch = epoch
        self.seconds_before = seconds
        self.restored = list(metrics)
        self.rate_at = rate_at
        self.save = save
        self.save_seconds = save_seconds
        self.update = update
        self.logs: dict[str, float] = {}
        self.learning_rate = 0.0
        self.images_per_second = 0.0

    @property
    def seconds(self) -> float:
        """Of the epoch's steps so far."""
        return self.seconds_before + time.monotonic() - self.began

    def on_train_begin(self, logs: Any = None) -> None:
        self.began = self.told = self.looked = self.saved = time.monotonic()
        self.timed_from: tuple[int, float] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.restored:  # Keras has just set them to zero
            checkpoint.restore(self.model.metrics_variables, self.restored, "the metrics' checkpoint")
        self.model.step.assign(0)

    # Not at a step's end: for that Keras fetches the step's logs, and so waits for the device at every step.
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.next_step = self.first_step + batch
        if not batch:
            return
        if self.timed_from is None:  # the first step compiles
            self._look()
            self.timed_from = (self.next_step, time.monotonic())
        now = time.monotonic()
        if now - self.looked >= LOOK_SECONDS:
            self.looked = now
            self._look()
        if now - self.told >= UPDATE_SECONDS:
            self.told = now
            self.update(self.next_step, self.steps, self._speed())
        if now - self.saved >= self.save_seconds and self.next_step < self.steps:
            self._look()
            self.save(self.next_step, self.seconds, checkpoint.values(self.model.metrics_variables))
            self.saved = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.next_step += 1
        self._look()
        self.logs = {name: float(value) for name, value in logs.items()}
        self.learning_rate = self.rate_at(self.next_step - 1)
        self._speed()
        self.seconds_before, self.began = self.seconds, time.monotonic()

    def _speed(self) -> str:
        step, since = self.timed_from or (self.next_step, self.began)
        done, seconds = self.next_step - step, time.monotonic() - since
        if not done:  # an epoch of one step
            done, seconds = self.next_step - self.first_step, time.monotonic() - self.began
        self.images_per_second = done * self.batch_size / max(seconds, 1e-9)
        return f"{self.images_per_second:,.0f} images/s"

    def _look(self) -> None:
        """Raise InputError when the loss was not a number; the checkpoint before it is kept."""
        broken = int(checkpoint.values([self.model.broken_at])[0])
        if broken >= 0:
            step = self.first_step + broken
            raise InputError(
                f"the loss must be a number. Received: NaN or infinity at step {step + 1} of {self.steps} of epoch "
                f"{self.epoch}, at a learning rate of {self.rate_at(step):.3g}; the last good checkpoint is kept. "
                "Try a lower fit.learning_rate, more fit.warmup_epochs, or fit.clip_norm=1"
            )
