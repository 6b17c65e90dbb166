"""Callbacks of a training: progress, timed checkpoints, a count of steps, and a check of the loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from converters.errors import InputError
from edge_cv.progress import Update
from edge_cv.training import checkpoint

UPDATE_SECONDS = 0.5  # between two updates of the progress
STEADY_SECONDS = 5.0  # of steps, after which their mean predicts the rest
CHECK_SECONDS = 5.0  # between two checks of the loss: each waits for the device, tens of milliseconds on JAX


class LossNotFinite(InputError):
    """The loss became NaN or infinite."""


class StepCallback(keras.callbacks.Callback):
    """Counts the steps of a training over its epochs, and over the interruptions of a training by `fit`.

    Attributes:
        step: number of the step that begins, from 0 on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self._first = 0  # step at which the current call of Keras's `fit` began, or its current epoch

    # Not `on_train_batch_end`: see `TrainingMonitor`.
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self._first = self.step
        self.step = self._first + batch
        self.on_step()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        steps = (self.params or {}).get("steps")
        self.step = self.step + 1 if steps is None else self._first + steps

    def on_step(self) -> None:
        """Called before each step."""

    def figures(self) -> dict[str, float]:
        """Figures of the epoch that has just ended, which `fit` adds to its entry of the history."""
        return {}

    def state(self) -> list[np.ndarray]:
        """What a checkpoint must hold."""
        return [np.asarray(self.step)]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Continue from what `state` returned; nothing continues from nothing."""
        if arrays:
            self.step = int(arrays[0])


class TrainingMonitor(keras.callbacks.Callback):
    """Monitors one epoch. Afterwards `logs`, `learning_rate`, `seconds` and `images_per_second` describe it."""

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
        expect: Callable[[float, int, bool], str],
    ) -> None:
        """
        Args:
            first_step: step at which the epoch starts or resumes.
            steps: steps in a whole epoch.
            batch_size: images per step.
            epoch: number of the epoch, counted from 1, for messages.
            seconds: duration of the epoch before it was interrupted.
            metrics: values of the metrics at that moment; empty at the start of an epoch.
            rate_at: returns the learning rate at a step of the epoch.
            save: called with the next step, the seconds and the values of the metrics.
            save_seconds: seconds between two calls of `save`.
            update: reports the steps that are done.
            expect: returns the time that is left, from the seconds of a step, the number of steps left, and whether
                enough steps were timed.
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
        self.expect = expect
        self.logs: dict[str, float] = {}
        self.learning_rate = 0.0
        self.images_per_second = 0.0

    @property
    def seconds(self) -> float:
        """Duration of the epoch's steps so far."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, logs: Any = None) -> None:
        self.started = self.updated = self.checked = self.saved = time.monotonic()
        self.timed_from: tuple[int, float] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.restored:  # Keras has just reset the metrics
            checkpoint.restore(self.model.metrics_variables, self.restored, "the metrics' checkpoint")
        self.model.step.assign(0)

    # Not `on_train_batch_end`: if a callback has it, Keras fetches the logs and waits for the device at every step.
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.next_step = self.first_step + batch
        if not batch:
            return
        if self.timed_from is None:  # the first step includes compilation
            self._check_loss()
            self.timed_from = (self.next_step, time.monotonic())
        now = time.monotonic()
        if now - self.checked >= CHECK_SECONDS:
            self.checked = now
            self._check_loss()
        if now - self.updated >= UPDATE_SECONDS:
            self.updated = now
            self.update(self.next_step, self.steps, self._measure_speed())
        if now - self.saved >= self.save_seconds and self.next_step < self.steps:
            self._check_loss()
            self.save(self.next_step, self.seconds, checkpoint.values(self.model.metrics_variables))
            self.saved = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.next_step = self.steps  # one call of the device may have done several
        self._check_loss()
        self.logs = {name: float(value) for name, value in logs.items()}
        self.learning_rate = self.rate_at(self.next_step - 1)
        self._measure_speed()
        self.seconds_before, self.started = self.seconds, time.monotonic()

    def _measure_speed(self) -> str:
        step, since = self.timed_from or (self.next_step, self.started)
        done, seconds = self.next_step - step, time.monotonic() - since
        steps_left = self.steps - self.next_step
        if not done and steps_left:
            return "the first step is done"
        if not done:  # an epoch of one step
            done, seconds = self.next_step - self.first_step, time.monotonic() - self.started
        self.images_per_second = done * self.batch_size / max(seconds, 1e-9)
        steady = seconds >= STEADY_SECONDS
        left = self.expect(self.batch_size / self.images_per_second, steps_left, steady or not steps_left)
        return f"{self.images_per_second:,.0f} images/s, {left}"

    def _check_loss(self) -> None:
        """Raise InputError if the loss was not finite. The last checkpoint was written before that step."""
        broken = int(checkpoint.values([self.model.broken_at])[0])
        if broken >= 0:
            step = self.first_step + broken
            raise LossNotFinite(
                f"the loss must be finite. Received: NaN or infinity at step {step + 1} of {self.steps} of epoch "
                f"{self.epoch}, at a learning rate of {self.rate_at(step):.3g}; the last good checkpoint is kept. "
                "Try a lower fit.learning_rate, more fit.warmup_epochs, or fit.clip_norm=1"
            )
