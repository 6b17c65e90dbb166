"""Optimizers with the constants of the papers, and learning rate schedules."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from edge_cv.recipe import Fit, Phase

RMSPROP_DECAY = 0.9  # of the mean of squared gradients: MobileNetV2 section 6.1, EfficientNet section 5.2
RMSPROP_EPSILON = 1e-3  # added to that mean under the root, as in the EfficientNet authors' code


def optimizer(settings: Fit, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Create the optimizer of one phase.

    Args:
        settings: optimizer, momentum, decay, clipping, averaging and precision.
        phase: epochs and peak learning rate.
        steps_per_epoch: batches per epoch; the schedule counts the optimizer's own steps.

    Returns:
        A Keras optimizer, inside a LossScaleOptimizer for float16.
    """
    rate = phase.learning_rate if settings.schedule == "plateau" else schedule(settings, phase, steps_per_epoch)
    options = {
        "learning_rate": rate,
        "global_clipnorm": settings.clip_norm,
        "use_ema": settings.ema is not None,
        "ema_momentum": 0.99 if settings.ema is None else settings.ema,
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
    }
    if settings.optimizer == "sgd":
        chosen = keras.optimizers.SGD(momentum=settings.momentum, **options)
    elif settings.optimizer == "rmsprop":
        chosen = keras.optimizers.RMSprop(
            rho=RMSPROP_DECAY, momentum=settings.momentum, epsilon=RMSPROP_EPSILON, **options
        )
    elif settings.weight_decay == 0:  # AdamW computes the learning rate once for each variable, for its decay
        chosen = keras.optimizers.Adam(**options)
    else:
        chosen = keras.optimizers.AdamW(weight_decay=settings.weight_decay, **options)
    return keras.optimizers.LossScaleOptimizer(chosen) if settings.precision == "float16" else chosen


def l2_penalty(settings: Fit) -> float:
    """The weight decay that is part of the loss: 0 for AdamW, which applies its own."""
    return 0.0 if settings.optimizer == "adamw" else settings.weight_decay


def schedule(settings: Fit, phase: Phase, steps_per_epoch: int) -> Schedule:
    """The learning rate schedule of one phase."""
    return Schedule(
        settings.schedule,
        peak=phase.learning_rate,
        steps=phase.epochs * steps_per_epoch,
        warmup_steps=round(min(settings.warmup_epochs, phase.epochs / 2) * steps_per_epoch),
        decay_rate=settings.decay_rate,
        decay_steps=max(1, round(settings.decay_epochs * steps_per_epoch)),
    )


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then cosine decay, step decay or a constant rate.

    SGDR: Stochastic Gradient Descent with Warm Restarts, Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983
    (the cosine, here without restarts)
    """

    def __init__(
        self, kind: str, *, peak: float, steps: int, warmup_steps: int, decay_rate: float, decay_steps: int
    ) -> None:
        """
        Args:
            kind: `cosine`, `step` or `constant`.
            peak: the highest rate.
            steps: steps of the whole phase.
            warmup_steps: steps in which the rate grows from peak / warmup_steps to the peak.
            decay_rate: factor of each reduction by `step`.
            decay_steps: steps between two reductions by `step`.
        """
        super().__init__()
        self.kind = kind
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.decay_rate = decay_rate
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        after = step - self.warmup_steps
        if self.kind == "cosine":
            progress = ops.clip(after / max(1, self.steps - self.warmup_steps), 0.0, 1.0)
            rate = self.peak * 0.5 * (1 + ops.cos(math.pi * progress))
        elif self.kind == "step":
            rate = self.peak * ops.power(self.decay_rate, ops.floor(after / self.decay_steps))
        else:
            rate = self.peak * ops.ones_like(step)
        if not self.warmup_steps:
            return rate
        return ops.where(after < 0, self.peak * (step + 1) / self.warmup_steps, rate)

    def get_config(self) -> dict[str, Any]:
        names = ("kind", "peak", "steps", "warmup_steps", "decay_rate", "decay_steps")
        return {name: getattr(self, name) for name in names}
