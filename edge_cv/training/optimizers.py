"""The optimizers as the papers have them, and how their learning rate runs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edge_cv.recipe import Fit, Phase

RMSPROP_DECAY = 0.9  # of the mean of squared gradients: MobileNetV2 section 6.1, EfficientNet section 5.2
RMSPROP_EPSILON = 1e-3  # added to that mean under the root, as the EfficientNet authors' code has it


def optimizer(settings: Fit, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of one phase; its own step count is what the schedule runs on."""
    rate = phase.learning_rate if settings.schedule == "plateau" else schedule(settings, phase, steps_per_epoch)
    common = {
        "learning_rate": rate,
        "global_clipnorm": settings.clip_norm,
        "use_ema": settings.ema is not None,
        "ema_momentum": 0.99 if settings.ema is None else settings.ema,
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
    }
    if settings.optimizer == "sgd":
        made = keras.optimizers.SGD(momentum=settings.momentum, **common)
    elif settings.optimizer == "rmsprop":
        made = keras.optimizers.RMSprop(
            rho=RMSPROP_DECAY, momentum=settings.momentum, epsilon=RMSPROP_EPSILON, **common
        )
    else:
        made = keras.optimizers.AdamW(weight_decay=settings.weight_decay, **common)
    return keras.optimizers.LossScaleOptimizer(made) if settings.precision == "float16" else made


def l2_penalty(settings: Fit) -> float:
    """The weight decay that belongs into the loss; AdamW has its own."""
    return 0.0 if settings.optimizer == "adamw" else settings.weight_decay


def schedule(settings: Fit, phase: Phase, steps_per_epoch: int) -> Schedule:
    """The learning rate of one phase, step by step."""
    return Schedule(
        settings.schedule,
        peak=phase.learning_rate,
        steps=phase.epochs * steps_per_epoch,
        warmup_steps=round(min(settings.warmup_epochs, phase.epochs / 2) * steps_per_epoch),
        decay_rate=settings.decay_rate,
        decay_steps=max(1, round(settings.decay_epochs * steps_per_epoch)),
    )


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then `cosine` (https://arxiv.org/abs/1608.03983, without restarts), `step` or `constant`."""

    def __init__(
        self, kind: str, *, peak: float, steps: int, warmup_steps: int, decay_rate: float, decay_steps: int
    ) -> None:
        """
        Args:
            kind: `cosine`, `step` or `constant`.
            peak: the highest rate.
            steps: in the whole phase.
            warmup_steps: during which the rate grows from peak / warmup_steps to the peak.
            decay_rate, decay_steps: of `step`: the factor, and after how many steps it comes each time.
        """
        super().__init__()
        self.config = {
            "kind": kind,
            "peak": peak,
            "steps": steps,
            "warmup_steps": warmup_steps,
            "decay_rate": decay_rate,
            "decay_steps": decay_steps,
        }

    def __call__(self, step: Any) -> Any:
        c = self.config
        step = ops.cast(step, "float32")
        after = step - c["warmup_steps"]
        if c["kind"] == "cosine":
            progress = ops.clip(after / max(1, c["steps"] - c["warmup_steps"]), 0.0, 1.0)
            rate = c["peak"] * 0.5 * (1 + ops.cos(3.141592653589793 * progress))
        elif c["kind"] == "step":
            rate = c["peak"] * ops.power(c["decay_rate"], ops.floor(after / c["decay_steps"]))
        else:
            rate = c["peak"] * ops.ones_like(step)
        if not c["warmup_steps"]:
            return rate
        return ops.where(after < 0, c["peak"] * (step + 1) / c["warmup_steps"], rate)

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)
