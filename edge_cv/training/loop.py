"""`fit`: the training loop over phases and epochs, with checkpoints from which training can resume."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.decisions import class_count
from converters.errors import InputError
from edge_cv.data.input_pipeline.batches import is_labelled
from edge_cv.models.heads import fits
from edge_cv.progress import Progress, silent
from edge_cv.recipe import FIELDS_WITHOUT_EFFECT, Fit
from edge_cv.training import checkpoint
from edge_cv.training.checkpoint import Checkpoint
from edge_cv.training.devices import all_devices, precision_of_device
from edge_cv.training.kept_epoch import why_kept
from edge_cv.training.logs import TensorBoard, write_csv
from edge_cv.training.state import Fitted, TrainingState

if TYPE_CHECKING:
    import keras
    import numpy as np

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.training.phase_trainer import PhaseTrainer, TrainingJob

CHECKPOINT = "checkpoint.npz"
BEST = "best.weights.h5"
HISTORY = "history.csv"
BOARD = "tensorboard"
SHORT_EPOCHS_SECONDS = 30.0  # epochs that end sooner after a checkpoint have none: it costs as much as a step


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
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Train a model in place; afterwards it has the weights of the epoch that `kept_epoch` chooses.

    That is the latest epoch whose score on `validation` is within one standard error, or four images, of the highest.
    With a folder, a training that was interrupted resumes from its last checkpoint and reaches the same result.

    Args:
        model: a Keras 3 model from pixels 0..255 `(batch, height, width, channels)` to logits `(batch, classes)`.
        batches: the training images. Their order and augmentation may depend only on the epoch and the step.
        settings: the hyperparameters. `data`, `validation`, `images` and `augment` are not read: they apply to
            `batches`.
        validation: batches of images and targets, the same at each iteration.
        teacher: trained model for knowledge distillation, with the options of `settings.teacher`.
        class_counts: training images per class, int `(classes,)`; required for `balance="loss"`.
        folder: where to write `checkpoint.npz`, `best.weights.h5`, `history.csv` and TensorBoard files. Created if
            missing.
        progress: reports the current epoch and the images per second.
        on_epoch: called with each entry of the history. An exception that it raises stops training.
        callbacks: of Keras, called while a phase's epochs are trained. What a `StepCallback` keeps is part of the
            checkpoint.

    Returns:
        The history, the epoch that was kept and its validation score.

    Raises:
        InputError: if the settings do not fit the model or the batches, the folder has a checkpoint of another
            training, the loss is not finite, memory is exhausted, or a file cannot be written.
    """
    _check(model, batches, settings, teacher, class_counts)
    settings = settings.for_steps(len(batches))
    with all_devices() as devices:
        devices.check_batch_size(batches.batch_size)
        from edge_cv.training.layers import untrained
        from edge_cv.training.phase_trainer import TrainingJob

        distributed = devices.replicas > 1  # then the variables must be created inside `all_devices`
        job = TrainingJob(
            network=_copy(model) if distributed else model,
            batches=batches,
            settings=settings,
            validation=validation,
            teacher=_copy(teacher) if distributed and teacher is not None else teacher,
            class_weights=_class_weights(class_counts) if settings.balance == "loss" else None,
            devices=devices,
            progress=progress,
            callbacks=tuple(callbacks),
        )
        try:
            with untrained(job.teacher):
                fitted = TrainingLoop(job, None if folder is None else Path(folder), on_epoch).run()
        except Exception as error:
            if _is_out_of_memory(error):
                raise _memory_exhausted(model, settings) from error
            raise
        if distributed:
            model.set_weights(job.network.get_weights())
    return fitted


class TrainingLoop:
    """Runs the phases of a training, saves checkpoints and keeps the best weights."""

    def __init__(
        self, job: TrainingJob, folder: Path | None, on_epoch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.job = job
        self.folder = folder
        self.output = folder if job.devices.host_index == 0 else None  # only the first host writes files
        self.on_epoch = on_epoch
        self.state = TrainingState()
        self.best_weights: list[np.ndarray] = []
        self.saved = time.monotonic()  # the last checkpoint

    def run(self) -> Fitted:
        """Train from the last checkpoint, or from the beginning, to the end."""
        from edge_cv.training.layers import batch_norm_momentum, precision, trainable_layers
        from edge_cv.training.phase_trainer import PhaseTrainer

        network, settings, phases = self.job.network, self.job.settings, self.job.settings.all_phases()
        resumed = self._load()
        with (
            self._tensorboard() as board,
            precision(network, precision_of_device(settings.precision)),
            batch_norm_momentum(network, settings.batch_norm_momentum),
        ):
            while not self.state.done:
                number = self.state.phase
                with trainable_layers(network, phases[number]):
                    trainer = PhaseTrainer(self.job, number)
                    if resumed is not None:
                        trainer.restore(resumed.arrays, f"{self.folder}/{CHECKPOINT}")
                        resumed = None
                    self._run_phase(trainer, board)
        self._restore_best()
        state = self.state
        kept = why_kept(state.history)
        with self.job.progress("choosing the epoch") as update:
            update(len(state.history), len(state.history), kept)
        return Fitted(tuple(state.history), state.best_epoch, state.best, kept)

    def _run_phase(self, trainer: PhaseTrainer, board: TensorBoard | None) -> None:
        state = self.state
        if state.rate is not None:
            trainer.learning_rate = state.rate
        while state.phase == trainer.number and not state.done:
            entry = trainer.run_epoch(state, self._save)
            self._end_epoch(trainer, entry)
            if board is not None:
                board.add(entry)
            if self.on_epoch is not None:
                self.on_epoch(entry)

    def _end_epoch(self, trainer: PhaseTrainer, entry: dict[str, Any]) -> None:
        """Keep the weights if they are the best, update the plateau schedule, and save a checkpoint if one is due."""
        settings, state = self.job.settings, self.state
        if state.record(entry):
            with trainer.averaged_weights():
                self.best_weights = checkpoint.values(self.job.network.variables)
        if settings.schedule == "plateau":
            if state.plateau >= settings.decay_epochs:
                trainer.learning_rate = trainer.learning_rate * settings.decay_rate
                state.plateau = 0
            state.rate = trainer.learning_rate
        state.advance(settings)
        interval = min(SHORT_EPOCHS_SECONDS, settings.checkpoint_seconds)
        if state.done or time.monotonic() - self.saved >= interval:
            self._save(trainer.optimizer, 0, 0.0, [])
        if self.output is not None:
            write_csv(self.output / HISTORY, state.history)

    # checkpoints

    def _key(self) -> str:
        """Identifies the training that a checkpoint belongs to, by everything that its result depends on."""
        settings = dataclasses.asdict(self.job.settings)
        for name in FIELDS_WITHOUT_EFFECT:
            del settings[name]
        batches = self.job.batches
        shapes = [(v.path.split("/", 1)[-1], tuple(v.shape)) for v in self.job.network.variables]
        text = json.dumps([settings, len(batches), list(batches.classes), shapes], default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _load(self) -> Checkpoint | None:
        """Read the folder's checkpoint, if any, and continue from its state."""
        if self.folder is None:
            return None
        loaded = checkpoint.load(self.folder / CHECKPOINT)
        if loaded is None:
            return None
        if loaded.state.pop("key", None) != self._key():
            raise InputError(
                f"{self.folder} must be empty or contain a checkpoint of this training. Received: a checkpoint with "
                "other settings, data or model; choose another folder, or delete it to start over"
            )
        self.state = TrainingState(**loaded.state)
        self.best_weights = loaded.arrays.pop("best", [])
        return loaded

    def _save(self, optimizer: Any, step: int, seconds: float, metrics: list[np.ndarray]) -> None:
        if self.output is None:
            return
        self.state.step, self.state.seconds = step, seconds
        arrays = {
            "network": checkpoint.values(self.job.network.variables),
            "best": self.best_weights,
            "metrics": metrics,
        }
        arrays |= self.job.callback_states()
        if not (step == 0 and self.state.epoch == 0):  # a phase starts with a new optimizer
            arrays["optimizer"] = checkpoint.values(optimizer.variables)
        checkpoint.save(self.output / CHECKPOINT, arrays, {"key": self._key(), **dataclasses.asdict(self.state)})
        self.saved = time.monotonic()

    def _restore_best(self) -> None:
        where = "the best epoch" if self.folder is None else f"{self.folder}/{CHECKPOINT}"
        checkpoint.restore(self.job.network.variables, self.best_weights, where)
        if self.output is not None:
            checkpoint.save_weights(self.output / BEST, self.job.network)

    @contextlib.contextmanager
    def _tensorboard(self) -> Iterator[TensorBoard | None]:
        if self.output is None:
            yield None
            return
        with contextlib.closing(TensorBoard(self.output / BOARD, self.state.history)) as board:
            yield board


def _check(
    model: keras.Model,
    batches: Batches,
    settings: Fit,
    teacher: keras.Model | None,
    class_counts: Sequence[int] | None,
) -> None:
    classes = len(batches.classes)
    if not fits(model.output_shape[-1], classes, batches.multi_label):
        raise InputError(
            f"the data must have as many classes as the model, {class_count(model.output_shape[-1])}. "
            f"Received: {classes}"
        )
    if (settings.teacher is None) != (teacher is None):
        missing = "settings without a model" if teacher is None else "a model without settings"
        raise InputError(f"distillation needs both Fit.teacher and a teacher model. Received: {missing}")
    channels = 1 if len(model.input_shape) == 3 else model.input_shape[-1]
    if teacher is not None and (
        (teacher.input_shape[-1] != channels and (channels, teacher.input_shape[-1]) != (1, 3))
        or not fits(teacher.output_shape[-1], classes, batches.multi_label)
    ):
        raise InputError(
            f"the teacher must have the student's {channels} channels and {classes} logits. "
            f"Received: {teacher.input_shape[-1]} channels and {teacher.output_shape[-1]} logits"
        )
    if not is_labelled(batches) and (settings.teacher is None or settings.teacher.share < 1):
        raise InputError(
            "images without labels need a teacher with share=1: nothing else says what they show. "
            f"Received: {'no teacher' if settings.teacher is None else f'share={settings.teacher.share}'}"
        )
    if settings.balance == "loss":
        if class_counts is None or batches.multi_label:
            received = "several labels per image" if batches.multi_label else "class_counts=None"
            raise InputError(
                f"balance='loss' needs the number of images per class and one label per image. Received: {received}"
            )
        if min(class_counts) < 1:
            raise InputError("balance='loss' needs at least one image per class. Received: a class with 0 images")


def _class_weights(class_counts: Sequence[int] | None) -> tuple[float, ...] | None:
    """The inverse of each class's share of the images, with mean 1 over the images."""
    if class_counts is None:
        return None
    total, classes = sum(class_counts), len(class_counts)
    return tuple(total / (classes * count) for count in class_counts)


def _copy(model: keras.Model) -> keras.Model:
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _is_out_of_memory(error: Exception) -> bool:
    message = f"{type(error).__name__} {error}"[:2000]
    return isinstance(error, MemoryError) or "ResourceExhausted" in message or "RESOURCE_EXHAUSTED" in message


def _memory_exhausted(model: keras.Model, settings: Fit) -> InputError:
    height, width = model.input_shape[1:3]
    return InputError(
        f"a batch of {settings.batch_size} images of {height}x{width} does not fit into memory: "
        f"try fit.batch_size={max(1, settings.batch_size // 2)} with fit.accumulate={2 * settings.accumulate}, "
        "or fit.precision=bfloat16"
    )
