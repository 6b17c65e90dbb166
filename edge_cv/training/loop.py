"""`fit`: phases and epochs, each of which leaves a checkpoint to go on from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.files import beside
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Fit, Phase

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches

CHECKPOINT = "checkpoint.npz"
BEST = "best.weights.h5"
HISTORY = "history.csv"
BOARD = "tensorboard"


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the model itself holds the best weights.

    Attributes:
        history: an entry an epoch, with the names of `logs.COLUMNS`; `loss` is the cross-entropy, `score` top-1 as a
            share 0..1, or the mean average precision of several labels an image.
        best_epoch: the one whose weights were kept, counted from 1.
        score: of the validation images in that epoch; None without any.
    """

    history: tuple[dict[str, Any], ...]
    best_epoch: int
    score: float | None


def fit(
    model: keras.Model,
    batches: Batches,
    settings: Fit,
    *,
    validation: Iterable[Any] | None = None,
    teacher: keras.Model | None = None,
    class_counts: Sequence[int] | None = None,
    folder: str | os.PathLike | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Fitted:
    """Train a model; it holds the best weights afterwards.

    The best epoch is the one with the highest score on `validation`; without validation the last. With a folder, a
    training that was killed at any point goes on from its last checkpoint to the result that it would have had.

    Args:
        model: from pixels `(batch, height, width, 3)`, RGB 0..255, to logits `(batch, classes)`.
        batches: the training images; its order and augmentation must depend on the epoch and the step alone.
        settings: how; `data`, `validation` and `augment` are the caller's, who made the batches.
        validation: batches of images and targets, the same each time, that choose the best epoch.
        teacher: the trained model that `settings.teacher` speaks of.
        class_counts: images of each class, int `(classes,)`, for `balance="loss"`.
        folder: for `checkpoint.npz`, `best.weights.h5`, `history.csv` and TensorBoard's files; made when missing.
        progress: told what is being done, with images per second.
        on_epoch: given each epoch's entry of the history once it is saved; what it raises ends the training.

    Returns:
        The Fitted.

    Raises:
        InputError: settings that do not fit the model or the batches, a checkpoint of another training, a loss that is
            not a number (at which step and rate), too little memory, a disk that is full.
    """
    from edge_cv.training.devices import all_devices

    _check(model, batches, settings, teacher, class_counts)
    with all_devices() as devices:
        if (batches.batch_size * devices.hosts) % devices.replicas:
            raise InputError(
                f"fit.batch_size must be a multiple of the {devices.replicas} devices. "
                f"Received: {batches.batch_size * devices.hosts}"
            )
        network, taught = model, teacher
        if devices.replicas > 1:  # the variables have to be made where they are to lie
            network, taught = _copied(model), None if teacher is None else _copied(teacher)
        training = _Training(
            network, batches, settings, validation, taught, class_counts, folder, progress, on_epoch, devices
        )
        try:
            fitted = training.run()
        except Exception as error:
            if _is_out_of_memory(error):
                height, width = model.input_shape[1:3]
                raise InputError(
                    f"a batch of {settings.batch_size} images of {height}x{width} does not fit into memory: "
                    f"try fit.batch_size={max(1, settings.batch_size // 2)} with fit.accumulate="
                    f"{2 * settings.accumulate}, or fit.precision=bfloat16"
                ) from error
            raise
        if network is not model:
            model.set_weights(network.get_weights())
    return fitted


def _check(
    model: keras.Model,
    batches: Batches,
    settings: Fit,
    teacher: keras.Model | None,
    class_counts: Sequence[int] | None,
) -> None:
    classes = model.output_shape[-1]
    if len(batches.classes) != classes:
        raise InputError(f"the data's classes must be the model's {classes}. Received: {len(batches.classes)}")
    if (settings.teacher is None) != (teacher is None):
        raise InputError("a teacher needs both its settings, Fit.teacher, and the model. Received: one of them")
    if teacher is not None and (teacher.input_shape != model.input_shape or teacher.output_shape[-1] != classes):
        raise InputError(
            f"the teacher must take {model.input_shape[1:]} and give {classes} logits as the student does. "
            f"Received: {teacher.input_shape[1:]} and {teacher.output_shape[-1]}"
        )
    if settings.balance == "loss" and (class_counts is None or batches.multi_label):
        raise InputError("balance='loss' needs the images of each class, with one label an image. Received: none")
    if settings.balance == "loss" and min(class_counts) < 1:
        raise InputError("balance='loss' needs an image of every class. Received: a class without one")


def _copied(model: keras.Model) -> keras.Model:
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _is_out_of_memory(error: Exception) -> bool:
    said = f"{type(error).__name__} {error}"[:2000]
    return isinstance(error, MemoryError) or "ResourceExhausted" in said or "RESOURCE_EXHAUSTED" in said


@dataclass
class _Position:
    """Where a training stands, as its checkpoint has it; counts begin at 0."""

    phase: int = 0
    epoch: int = 0  # within the phase
    step: int = 0  # within the epoch: the next one
    seconds: float = 0.0  # of this epoch so far
    rate: float | None = None  # the plateau schedule's
    waited: int = 0  # epochs since the best one
    plateau: int = 0  # epochs since the rate fell or something was better
    best: float | None = None
    best_epoch: int = 0
    done: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class _Training:
    def __init__(
        self,
        network: keras.Model,
        batches: Batches,
        settings: Fit,
        validation: Iterable[Any] | None,
        teacher: keras.Model | None,
        class_counts: Sequence[int] | None,
        folder: str | os.PathLike | None,
        progress: Progress,
        on_epoch: Callable[[dict[str, Any]], None] | None,
        devices: Any,
    ) -> None:
        self.network = network
        self.batches = batches
        self.settings = settings
        self.validation = validation
        self.teacher = teacher
        self.folder = None if folder is None else Path(folder)
        self.progress = progress
        self.on_epoch = on_epoch
        self.writes = devices.host_index == 0
        self.hosts, self.replicas = devices.hosts, devices.replicas
        self.class_weights = None
        if settings.balance == "loss":
            total, classes = sum(class_counts), len(class_counts)
            self.class_weights = [total / (classes * count) for count in class_counts]
        self.position = _Position()
        self.best_weights: list[Any] | None = None  # where there is no folder for them

    def run(self) -> Fitted:
        from edge_cv.training import checkpoint
        from edge_cv.training.layers import batch_norm_momentum, learning, precision
        from edge_cv.training.logs import TensorBoard

        found = None if self.folder is None else checkpoint.load(self.folder / CHECKPOINT)
        if found is not None:
            if found.state.pop("key") != self._key():
                raise InputError(
                    f"{self.folder} must be a folder of this training. Received: one with other settings, data or "
                    "model; take another folder, or remove it to start anew"
                )
            self.position = _Position(**found.state)
        phases = self.settings.all_phases()
        board = None
        if self.folder is not None and self.writes:
            board = TensorBoard(self.folder / BOARD, self.position.history)
        try:
            with (
                precision(self.network, self.settings.precision),
                batch_norm_momentum(self.network, self.settings.batch_norm_momentum),
            ):
                while not self.position.done:
                    number = self.position.phase
                    with learning(self.network, phases[number]):
                        self._phase(number, phases[number], found, board)
                    found = None
        finally:
            if board is not None:
                board.close()
        self._take_best()
        position = self.position
        return Fitted(tuple(position.history), position.best_epoch, position.best)

    def _key(self) -> str:
        """What a checkpoint belongs to. Where it is kept and how often says nothing of the result."""
        settings = dataclasses.asdict(self.settings)
        del settings["checkpoint_seconds"]
        shapes = [(v.path.split("/", 1)[-1], tuple(v.shape)) for v in self.network.variables]
        text = json.dumps([settings, len(self.batches), list(self.batches.classes), shapes], default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _phase(self, number: int, phase: Phase, found: Any, board: Any) -> None:
        from edge_cv.training import checkpoint
        from edge_cv.training.callbacks import TrainingMonitor
        from edge_cv.training.devices import spread
        from edge_cv.training.optimizers import l2_penalty, optimizer
        from edge_cv.training.training_model import TrainingModel, loss_and_metrics

        settings, position, steps = self.settings, self.position, len(self.batches)
        trainee = TrainingModel(
            self.network,
            multi_label=self.batches.multi_label,
            l2=l2_penalty(settings),
            class_weights=self.class_weights,
            teacher=self.teacher,
            teaching=settings.teacher,
        )
        rule = optimizer(settings, phase, steps)
        average = rule.finalize_variable_values
        # Keras puts the averaged weights into the model whenever its fit ends, which here is every epoch.
        rule.finalize_variable_values = lambda variables: None
        trainee.compile(
            optimizer=rule,
            jit_compile=_compiles(),
            **loss_and_metrics(self.batches.multi_label, len(self.batches.classes)),
        )
        rule.build(trainee.trainable_variables)
        shape = (1, len(self.batches.classes))
        trainee.compute_metrics(None, np.zeros(shape, np.float32), np.zeros(shape, np.float32))  # which makes them
        metrics: list[Any] = []
        if found is not None:
            where = str(self.folder / CHECKPOINT)
            checkpoint.restore(self.network.variables, found.arrays["network"], where)
            if "optimizer" in found.arrays:  # there is none yet where a phase begins
                checkpoint.restore(rule.variables, found.arrays["optimizer"], where)
            metrics = found.arrays.get("metrics", [])
        if position.rate is not None:
            rule.learning_rate = position.rate

        before = sum(p.epochs for p in settings.all_phases()[:number])
        total = sum(p.epochs for p in settings.all_phases())
        while position.epoch < phase.epochs and position.phase == number and not position.done:
            epoch = before + position.epoch
            with self.progress(f"training, epoch {epoch + 1} of {total}") as update:
                watch = TrainingMonitor(
                    first_step=position.step,
                    steps=steps,
                    batch_size=self.batches.batch_size * self.hosts,
                    epoch=epoch + 1,
                    seconds=position.seconds,
                    metrics=metrics,
                    rate_at=functools.partial(self._rate, rule, position.epoch * steps),
                    save=functools.partial(self._save, rule),
                    save_seconds=settings.checkpoint_seconds,
                    update=update,
                )
                trainee.fit(
                    spread(functools.partial(self.batches.epoch, epoch, position.step)),
                    epochs=1,
                    steps_per_epoch=steps - position.step,
                    shuffle=False,
                    verbose=0,
                    callbacks=[watch],
                )
                entry = self._entry(trainee, rule, average, watch, epoch, number)
                update(steps, steps, _said(entry, self.batches.multi_label))
            metrics = []
            self._end_epoch(entry, trainee, rule, average, phase)
            if board is not None:
                board.add(entry)
            if self.on_epoch is not None:
                self.on_epoch(entry)

    def _rate(self, rule: Any, before: int, step: int) -> float:
        """The learning rate at a step of the epoch; `before` are the steps of the phase's earlier epochs."""
        inner = getattr(rule, "inner_optimizer", rule)
        return _number(
            inner.learning_rate if self.settings.schedule == "plateau" else inner._learning_rate(before + step)
        )

    def _entry(self, trainee: Any, rule: Any, average: Any, watch: Any, epoch: int, number: int) -> dict[str, Any]:
        """The epoch in numbers; validated with the averaged weights, where there is an average."""
        from edge_cv.training.devices import even, spread

        validated: dict[str, Any] = {"cross_entropy": None, "score": None}
        if self.validation is not None:
            with _averaged(trainee, rule, average), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Your input ran out of data")  # which is how batches end
                validated = trainee.evaluate(
                    spread(lambda: even(self.validation, self.replicas)),
                    verbose=0,
                    return_dict=True,
                )
        return {
            "epoch": epoch + 1,
            "phase": number + 1,
            "learning_rate": watch.learning_rate,
            "loss": _finite(watch.logs["cross_entropy"]),
            "score": _finite(watch.logs["score"]),
            "validation_loss": _finite(validated["cross_entropy"]),
            "validation_score": _finite(validated["score"]),
            "images_per_second": round(watch.images_per_second, 1),
            "seconds": round(watch.seconds, 3),
        }

    def _end_epoch(self, entry: dict[str, Any], trainee: Any, rule: Any, average: Any, phase: Phase) -> None:
        """Whether it was the best, what comes next, and all of it on disk."""
        settings, position = self.settings, self.position
        position.history.append(entry)
        score = entry["validation_score"]
        # Without validation images the last epoch is the one to keep, and the training loss is what may stagnate.
        better = score is None or position.best is None or score > position.best
        if score is None:
            losses = [e["loss"] for e in position.history if e["loss"] is not None]
            improved = len(losses) < 2 or losses[-1] < min(losses[:-1])
        else:
            improved = better
        if better:
            position.best, position.best_epoch = score, entry["epoch"]
            with _averaged(trainee, rule, average):
                self._keep()
        position.waited = 0 if improved else position.waited + 1
        position.plateau = 0 if improved else position.plateau + 1
        if settings.schedule == "plateau":
            if position.plateau >= settings.decay_epochs:
                rule.learning_rate = _number(rule.learning_rate) * settings.decay_rate
                position.plateau = 0
            position.rate = _number(rule.learning_rate)
        position.step, position.seconds = 0, 0.0
        position.epoch += 1
        if position.epoch == phase.epochs:
            position.phase, position.epoch, position.rate, position.plateau = position.phase + 1, 0, None, 0
        stop = settings.early_stopping is not None and position.waited >= settings.early_stopping
        position.done = position.phase == len(settings.all_phases()) or stop
        self._save(rule, 0, 0.0, [])
        if self.folder is not None and self.writes:
            from edge_cv.training.logs import write_csv

            write_csv(self.folder / HISTORY, position.history)

    def _save(self, rule: Any, step: int, seconds: float, metrics: list[Any]) -> None:
        from edge_cv.training import checkpoint

        if self.folder is None or not self.writes:
            return
        self.position.step, self.position.seconds = step, seconds
        arrays = {"network": checkpoint.values(self.network.variables), "metrics": metrics}
        if not (step == 0 and self.position.epoch == 0):  # the next phase has an optimizer of its own
            arrays["optimizer"] = checkpoint.values(rule.variables)
        state = {"key": self._key(), **dataclasses.asdict(self.position)}
        checkpoint.save(self.folder / CHECKPOINT, arrays, state)

    def _keep(self) -> None:
        """The network as it is now is the best so far."""
        from edge_cv.training import checkpoint

        if self.folder is None:
            self.best_weights = checkpoint.values(self.network.variables)
        elif self.writes:
            with beside(self.folder / BEST) as temporary:
                self.network.save_weights(temporary)

    def _take_best(self) -> None:
        from edge_cv.training import checkpoint

        if self.best_weights is not None:
            checkpoint.restore(self.network.variables, self.best_weights, "the best epoch")
        elif self.folder is not None:
            path = self.folder / BEST
            if not path.is_file():
                raise InputError(f"{path} must be there, beside {CHECKPOINT}. Received: no such file")
            self.network.load_weights(path)


class _averaged:
    """Within it the network has its averaged weights; nothing changes where no average is kept."""

    def __init__(self, trainee: Any, rule: Any, average: Any) -> None:
        inner = getattr(rule, "inner_optimizer", rule)
        self.variables = list(trainee.trainable_variables) if inner.use_ema else []
        self.average = average

    def __enter__(self) -> None:
        from edge_cv.training import checkpoint

        self.own = checkpoint.values(self.variables)
        if self.variables:
            self.average(self.variables)

    def __exit__(self, *_: object) -> None:
        for variable, value in zip(self.variables, self.own, strict=True):
            variable.assign(value)


def _compiles() -> bool:
    """Whether steps are compiled by XLA: always on JAX, on TensorFlow where there is a GPU; on CPUs it is slower."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    return bool(keras.distribution.list_devices("gpu"))


def _number(value: Any) -> float:
    import keras

    return float(keras.ops.convert_to_numpy(value))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _said(entry: dict[str, Any], multi_label: bool) -> str:
    name = "mAP" if multi_label else "top-1"
    parts = [f"loss {entry['loss']:.4f}", f"{name} {entry['score']:.1%}"] if entry["loss"] is not None else []
    if entry["validation_score"] is not None:
        parts.append(f"validation {entry['validation_score']:.1%}")
    return ", ".join([*parts, f"{entry['images_per_second']:,.0f} images/s"])
