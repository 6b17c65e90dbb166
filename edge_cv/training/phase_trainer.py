"""One phase of a training: its optimizer, its epochs, and their validation."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from converters.sources.source import forward_pass
from edge_cv.data.input_pipeline.batches import SampleBatches, is_labelled
from edge_cv.progress import Progress, duration
from edge_cv.recipe import Augment, Fit, Phase
from edge_cv.training import checkpoint
from edge_cv.training.callbacks import StepCallback, TrainingMonitor
from edge_cv.training.devices import (
    Devices,
    distribute,
    divisible,
    precision_of_device,
    steps_per_execution,
    uses_xla,
)
from edge_cv.training.features import FeatureBatches, compute_features, head_network, split_network
from edge_cv.training.kept_epoch import validation_interval
from edge_cv.training.optimizers import l2_penalty, optimizer
from edge_cv.training.state import TrainingState
from edge_cv.training.training_model import TrainingModel, loss_and_metrics

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches

EXPECTED_FROM_SECONDS = 60.0  # a shorter training is done before its expected time is read

# Called with the optimizer, the next step, the seconds of the epoch so far and the values of the metrics.
Save = Callable[[keras.optimizers.Optimizer, int, float, list[np.ndarray]], None]


@dataclass(frozen=True)
class TrainingJob:
    """Everything that stays the same over the phases of a training.

    Attributes:
        network: the model that is trained, from pixels to logits.
        batches: the training images.
        settings: the hyperparameters.
        validation: batches of images and targets that choose the epoch whose weights are kept.
        teacher: model for distillation.
        class_weights: factor of the loss for each class.
        devices: the devices and hosts that take part.
        progress: reports epochs and images per second.
        callbacks: further callbacks of Keras's `fit`.
    """

    network: keras.Model
    batches: Batches
    settings: Fit
    validation: Iterable[Any] | None
    teacher: keras.Model | None
    class_weights: tuple[float, ...] | None
    devices: Devices
    progress: Progress
    callbacks: tuple[keras.callbacks.Callback, ...] = ()

    def callback_states(self) -> dict[str, list[np.ndarray]]:
        """What the step callbacks keep, by group of a checkpoint."""
        return {group: callback.state() for group, callback in self._step_callbacks().items()}

    def restore_callbacks(self, arrays: dict[str, list[np.ndarray]]) -> None:
        """Restore what `callback_states` returned."""
        for group, callback in self._step_callbacks().items():
            callback.restore(arrays.get(group, []))

    def callback_figures(self) -> dict[str, float]:
        """What the step callbacks add to the entry of an epoch in the history."""
        return {name: value for one in self._step_callbacks().values() for name, value in one.figures().items()}

    def _step_callbacks(self) -> dict[str, StepCallback]:
        steps = [callback for callback in self.callbacks if isinstance(callback, StepCallback)]
        return {f"callback{index}": callback for index, callback in enumerate(steps)}


class PhaseTrainer:
    """Trains the layers of one phase. `optimizer` holds the state that a checkpoint stores beside the network."""

    def __init__(self, job: TrainingJob, number: int) -> None:
        """
        Args:
            job: the training.
            number: index of the phase.
        """
        self.job = job
        self.number = number
        self.phase: Phase = job.settings.all_phases()[number]
        self.metrics: list[np.ndarray] = []  # restored values of an interrupted epoch
        self.network, self.batches, self.validation = job.network, job.batches, job.validation
        self._use_features()
        self._validation_seconds = 0.0  # of the last epoch
        self._expected = False  # whether the expected time has been reported
        self.model = TrainingModel(
            self.network,
            multi_label=job.batches.multi_label,
            l2=l2_penalty(job.settings),
            class_weights=job.class_weights,
            teacher=job.teacher,
            distillation=job.settings.teacher,
            augment=self._step_augmentation,
            labelled=is_labelled(job.batches),
        )
        self.optimizer = optimizer(job.settings, self.phase, len(job.batches))
        # Keras assigns the averaged weights to the model at the end of each call of its `fit`, here every epoch.
        self._assign_average = self.optimizer.finalize_variable_values
        self.optimizer.finalize_variable_values = lambda variables: None
        self.model.compile(
            optimizer=self.optimizer,
            jit_compile=uses_xla(),
            steps_per_execution=steps_per_execution(job.settings.steps_per_execution, job.devices),
            **loss_and_metrics(job.batches.multi_label, len(job.batches.classes)),
        )
        self.optimizer.build(self.model.trainable_variables)
        shape = (1, len(job.batches.classes))
        # The first call creates the variables of the metrics.
        self.model.compute_metrics(None, np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def _use_features(self) -> None:
        """Train the head on features that are computed once, if the phase asks for it and they fit into memory."""
        job, views = self.job, self.phase.views
        split = split_network(job.network) if views is not None and job.teacher is None else None
        if split is None or views is None or job.devices.replicas > 1:
            return
        batches = FeatureBatches(split, job.batches, views, job.settings.seed)
        if not batches.in_memory:
            return
        self.network, self.batches = head_network(split), batches
        if job.validation is not None:
            self.validation = _Computed(split.backbone, job.validation)

    def restore(self, arrays: dict[str, list[np.ndarray]], where: str) -> None:
        """Assign the arrays of a checkpoint to the network, the optimizer and the metrics.

        Args:
            arrays: groups `network`, `optimizer` (missing at the start of a phase) and `metrics`.
            where: the checkpoint's path, for messages.
        """
        checkpoint.restore(self.job.network.variables, arrays["network"], where)
        if "optimizer" in arrays:
            checkpoint.restore(self.optimizer.variables, arrays["optimizer"], where)
        self.metrics = arrays.get("metrics", [])
        self.job.restore_callbacks(arrays)

    def run_epoch(self, state: TrainingState, save: Save) -> dict[str, Any]:
        """Train one epoch, from the state's step on, and validate it.

        Returns:
            The epoch's entry of the history.
        """
        job, steps = self.job, len(self.job.batches)
        phases = job.settings.all_phases()
        epoch = sum(phase.epochs for phase in phases[: self.number]) + state.epoch
        total = sum(phase.epochs for phase in phases)
        with job.progress(f"training, epoch {epoch + 1} of {total}") as update:
            watch = functools.partial(
                TrainingMonitor,
                steps=steps,
                batch_size=job.batches.batch_size * job.devices.hosts,
                epoch=epoch + 1,
                rate_at=functools.partial(self._rate_at, state.epoch * steps),
                save=functools.partial(save, self.optimizer),
                save_seconds=job.settings.checkpoint_seconds,
                update=update,
                expect=functools.partial(self._expect, epochs_left=total - epoch - 1),
            )
            with forward_pass(self.model.network.name):
                monitor = self._fit(watch, epoch, state)
            entry = self._entry(monitor, epoch)
            update(steps, steps, _summary(entry, self._score_name))
        self.metrics = []
        return entry

    def _fit(self, watch: Callable[..., TrainingMonitor], epoch: int, state: TrainingState) -> TrainingMonitor:
        """Train the rest of an epoch; a step whose images cannot be decoded as planned is repeated."""
        first, seconds, metrics = state.step, state.seconds, self.metrics
        while True:
            monitor = watch(first_step=first, seconds=seconds, metrics=metrics)
            try:
                self.model.fit(
                    distribute(functools.partial(self._feed, epoch, first)),
                    epochs=1,
                    steps_per_epoch=len(self.job.batches) - first,
                    shuffle=False,
                    verbose=0,
                    callbacks=[monitor, *self.job.callbacks],
                )
                return monitor
            except Exception as error:
                batches = self.batches
                if not isinstance(batches, SampleBatches) or keras.backend.backend() != "tensorflow":
                    raise  # nothing to recover, and JAX's variables cannot be read now
                first += int(_scalar(self.model.step))
                if not batches.recover(epoch, first, error):
                    raise
                seconds, metrics = monitor.seconds, checkpoint.values(self.model.metrics_variables)

    @property
    def _score_name(self) -> str:
        batches = self.job.batches
        return "agreement" if not is_labelled(batches) else "mAP" if batches.multi_label else "top-1"

    @property
    def _step_augmentation(self) -> Augment | None:
        """What the train step does to images; nothing where the images of a pair would be on two devices."""
        batches = self.batches
        if not isinstance(batches, SampleBatches):
            return None
        whole_pairs = keras.backend.backend() == "jax" or not batches.batch_size // self.job.devices.replicas % 2
        return batches.augment if whole_pairs or not (batches.augment.mixup or batches.augment.cutmix) else None

    def _feed(self, epoch: int, first_step: int) -> Any:
        batches = self.batches
        if isinstance(batches, SampleBatches) and self._step_augmentation is not None:
            return batches.feed(epoch, first_step)
        return batches.epoch(epoch, first_step)

    def _expect(self, seconds_a_step: float, steps_left: int, steady: bool, epochs_left: int) -> str:
        """The time that is left of the epoch and of the training. The first steady one of a phase is reported."""
        steps = len(self.job.batches)
        whole = steps * seconds_a_step + self._validation_seconds
        left = steps_left * seconds_a_step + self._validation_seconds + epochs_left * whole
        if steady and not self._expected and left >= EXPECTED_FROM_SECONDS:
            rate = self.job.batches.batch_size * self.job.devices.hosts / seconds_a_step
            computed = precision_of_device(self.job.settings.precision)
            with self.job.progress("expected time") as update:
                text = f"{duration(whole)} an epoch, {duration(left)} for the rest of the training"
                update(1, 1, f"{text}, at {rate:,.0f} images/s in {computed}")
        self._expected = self._expected or steady
        return f"{duration(steps_left * seconds_a_step)} left of the epoch, {duration(left)} of the training"

    @property
    def learning_rate(self) -> float:
        """The rate that the plateau schedule has reached."""
        return _scalar(self.optimizer.learning_rate)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimizer.learning_rate = rate

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context in which the network has its averaged weights. It changes nothing when no average is computed."""
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        variables = list(self.model.trainable_variables) if inner.use_ema else []
        trained = checkpoint.values(variables)
        if variables:
            self._assign_average(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, trained, strict=True):
                variable.assign(value)

    def _rate_at(self, first: int, step: int) -> float:
        """The learning rate at a step of an epoch that starts at step `first` of the phase."""
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        plateau = self.job.settings.schedule == "plateau"
        return _scalar(inner.learning_rate if plateau else inner._learning_rate(first + step))

    def _entry(self, monitor: TrainingMonitor, epoch: int) -> dict[str, Any]:
        start = time.monotonic()
        validated = self._validate()
        self._validation_seconds = time.monotonic() - start
        return {
            "epoch": epoch + 1,
            "phase": self.number + 1,
            "learning_rate": monitor.learning_rate,
            "loss": _finite(monitor.logs["cross_entropy"]),
            "score": _finite(monitor.logs["score"]),
            "validation_loss": _finite(validated["cross_entropy"]),
            "validation_score": _finite(validated["score"]),
            "validation_images": validated["images"],
            "images_per_second": round(monitor.images_per_second, 1),
            "seconds": round(monitor.seconds, 3),
            **self.job.callback_figures(),
        }

    def _validate(self) -> dict[str, Any]:
        """Cross-entropy and score of the averaged weights on the validation images, and the number of these.

        The number is None with several labels per image, where the score is no share of images.
        """
        batches = self.validation
        if batches is None:
            return {"cross_entropy": None, "score": None, "images": None}
        counted = _Counted(batches)
        with self.averaged_weights(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Your input ran out of data")  # the end of the batches
            scores = self.model.evaluate(
                distribute(lambda: divisible(counted, self.job.devices.replicas)), verbose=0, return_dict=True
            )
        return {**scores, "images": None if self.job.batches.multi_label else counted.images}


class _Computed:
    """The features of batches of images, computed at the first iteration."""

    def __init__(self, backbone: keras.Model, batches: Iterable[Any]) -> None:
        self._backbone = backbone
        self._batches = batches
        self._features: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        if not self._features:
            self._features = [compute_features(self._backbone, [batch]) for batch in self._batches]
        return iter(self._features)


class _Counted:
    """Batches that count the images of their last iteration."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.images = 0

    def __iter__(self) -> Iterator[Any]:
        self.images = 0
        for batch in self.batches:
            self.images += len(batch[0])
            yield batch


def _scalar(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _summary(entry: dict[str, Any], name: str) -> str:
    parts = [f"loss {entry['loss']:.4f}", f"{name} {entry['score']:.1%}"] if entry["loss"] is not None else []
    if entry["validation_score"] is not None:
        parts.append(f"validation {entry['validation_score']:.1%}{validation_interval(entry)}")
    return ", ".join([*parts, f"{entry['images_per_second']:,.0f} images/s"])
