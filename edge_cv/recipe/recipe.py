"""A recipe: which model, on which photos, in which schemes, measured how, and what the result must keep.

A recipe file is a page of Python that ends in `RECIPE = Recipe(...)`. Everything here is a frozen dataclass that
checks itself; the values are plain numbers and text, so that a recipe goes into `report.json` as it is.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import runpy
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import InputError, unknown
from edge_cv.recipe.output import Output

MODEL_SUFFIXES = (".keras", ".h5", ".tflite")


class _Part:
    """A part of a recipe; refuses a field whose value is not of the type that is written beside it."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for fields in dataclasses.fields(self):
            value = getattr(self, fields.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, fields.name, value)
            if not _is(value, hints[fields.name]):
                wanted = str(hints[fields.name]).replace("<class '", "").replace("'>", "")
                raise InputError(f"{type(self).__name__}.{fields.name} must be {wanted}. Received: {value!r}")
        self.check()

    def check(self) -> None:
        """Raise InputError for values that cannot be, each alone or together."""

    def at_least(self, least: float, *names: str) -> None:
        """Raise InputError when one of these numbers, or of these tuples of numbers, is less."""
        for name in names:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < least:
                    raise InputError(f"{type(self).__name__}.{name} must be at least {least:g}. Received: {value!r}")


def _is(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


@dataclass(frozen=True)
class Model(_Part):
    """Which network, as `edge_cv.models.build` takes it.

    Attributes:
        name: an architecture of `edge-cv models`, or the path of a model file: a `.keras` or `.h5` file, a float
            `.tflite` file, or a SavedModel folder. A file has its own weights, size and options.
        weights: `imagenet`, the path of our own `.keras` or `.weights.h5` file, or None for a random start.
        classes: number of logits; None is as many as the photos that it is trained on have, else ImageNet's 1000.
        image_size: height and width of the input in pixels; None is the architecture's own.
        alpha: width multiplier.
        options: the architecture family's own options.
        preprocessing: fields of `converters.Preprocessing` that differ from the architecture's own, such as
            `{"resize_to": None}`: the whole square of a photo, not its middle.
    """

    name: str
    weights: str | None = None
    classes: int | None = None
    image_size: int | None = None
    alpha: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """Whether `name` is a file's path, not an architecture's name."""
        path = Path(self.name)
        is_path = "/" in self.name or os.sep in self.name or path.suffix in MODEL_SUFFIXES
        return is_path or path.is_file() or (path / "saved_model.pb").is_file()

    @property
    def short_name(self) -> str:
        """The architecture's name, or the file's name without folder and suffix; the artifacts' names begin with it."""
        return (Path(self.name).stem or "model") if self.is_file else self.name

    def check(self) -> None:
        self.at_least(1, "classes", "image_size")
        for name in ("weights", "classes", "image_size", "alpha", "options") if self.is_file else ():
            value = getattr(self, name)
            if value not in (None, 1.0, {}):
                raise InputError(f"Model.{name} is for an architecture, not for a model file. Received: {value!r}")
        for name in self.preprocessing:
            if name not in ("resize_to", "rule", "interpolation"):
                raise unknown("field of Model.preprocessing", name, ("resize_to", "rule", "interpolation"))


@dataclass(frozen=True)
class Data(_Part):
    """Which photos. None is ever used both for calibration and for measuring.

    Attributes:
        measure: the photos to measure on: `sample`, or a folder (class folders, ImageNet's flat validation folder, or
            one with a labels.csv).
        calibrate: the photos to calibrate on: `sample_calibration`, or a folder. None takes them out of `measure`: its
            `calibration` split when its labels.csv has one, else photos spread evenly over it, which are then not
            measured.
        calibration_images: at most so many of them.
        images: measure on at most so many, spread evenly; None is all.
    """

    measure: str = "sample"
    calibrate: str | None = "sample_calibration"
    calibration_images: int = 100
    images: int | None = None

    def check(self) -> None:
        self.at_least(1, "calibration_images", "images")


@dataclass(frozen=True)
class Augment(_Part):
    """How training images are changed; the order of the operations is in `edge_cv.data.input_pipeline.augmentation`.

    Attributes:
        crop_scale: share of the photo's area that a random crop keeps, least and most; None is the largest central
            square.
        crop_ratio: width over height of the crop, least and most.
        flip: probability that left and right are exchanged.
        randaugment: operations of RandAugment an image; 0 is none.
        magnitude: of these operations, 0..30.
        brightness, contrast, saturation: colour jitter by a factor in 1 - x..1 + x.
        hue: jitter by at most so large a part of a turn, 0..0.5.
        lighting: standard deviation of AlexNet's PCA lighting; AlexNet has 0.1.
        erasing: probability that a rectangle is erased.
        label_smoothing: share of the target that all classes get alike.
        mixup: alpha of Mixup's Beta distribution; 0 is none.
        cutmix: alpha of CutMix's; with both each image gets one of them.
    """

    crop_scale: tuple[float, ...] | None = (0.08, 1.0)
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    flip: float = 0.5
    randaugment: int = 0
    magnitude: float = 9.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0
    erasing: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def check(self) -> None:
        for name in ("crop_scale", "crop_ratio"):
            value = getattr(self, name)
            if value is not None and not (len(value) == 2 and 0 < value[0] <= value[1] < float("inf")):
                raise InputError(f"Augment.{name} must be two positive numbers, least and most. Received: {value!r}")
        most = {"flip": 1, "magnitude": 30, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5, "erasing": 1}
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise InputError(f"Augment.crop_scale must be shares up to 1. Received: {self.crop_scale!r}")
        for name, limit in most.items():
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(f"Augment.{name} must be in 0..{limit}. Received: {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"Augment.label_smoothing must be in 0..1, less than 1. Received: {self.label_smoothing}")
        for name in ("randaugment", "lighting", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"Augment.{name} must be at least 0. Received: {getattr(self, name)!r}")


OPTIMIZERS = ("sgd", "rmsprop", "adamw")
SCHEDULES = ("cosine", "step", "plateau", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Phase(_Part):
    """A part of a training: what learns, for how long, how fast.

    Attributes:
        epochs: passes over the training images.
        learning_rate: its highest value; the schedule and the warm-up run anew in each phase.
        train: which layers learn: `all`, `head` (those that shape the logits, and nothing else), or the beginning of a
            layer's name, such as `block12`: the first layer of that name and all that come after it.
        freeze_batch_norm: keep the statistics, scales and shifts of batch normalization as they are.
    """

    epochs: int
    learning_rate: float
    train: str = "all"
    freeze_batch_norm: bool = False

    def check(self) -> None:
        self.at_least(1, "epochs")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"{type(self).__name__}.learning_rate must be above 0. Received: {self.learning_rate}")
        if not self.train.strip():
            raise InputError(f"{type(self).__name__}.train must be all, head, or a layer's name. Received: none")


@dataclass(frozen=True)
class Teacher(_Part):
    """A trained model whose answers are learnt from too.

    Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531

    Attributes:
        model: which; it sees the pixels that the student sees.
        share: of the loss that is the distance from the teacher, 0..1; the rest is the distance from the labels.
        temperature: both models' logits are divided by it before they are compared.
    """

    model: Model
    share: float = 0.5
    temperature: float = 2.0

    def check(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"Teacher.share must be above 0 and at most 1. Received: {self.share}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"Teacher.temperature must be above 0. Received: {self.temperature}")


@dataclass(frozen=True)
class Fit(Phase):
    """How the model is trained, or fine-tuned when it has weights already.

    Attributes:
        epochs, learning_rate, train, freeze_batch_norm: of the last or only phase, as `Phase` has them.
        phases: what comes before it, in order: fine-tuning often trains the head alone first.
        batch_size: images a step, over all devices and hosts together.
        optimizer: `sgd` (with momentum), `rmsprop` as the MobileNet and EfficientNet papers have it, or `adamw`.
        momentum: of sgd and rmsprop.
        weight_decay: of kernels, never of biases and batch normalization. For sgd and rmsprop the L2 penalty in the
            loss that the papers mean (gradient + weight_decay * weight), for adamw decoupled.
        schedule: of the learning rate: `cosine` down to 0; `step`, times `decay_rate` every `decay_epochs`; `plateau`,
            times `decay_rate` when `decay_epochs` epochs brought nothing better; or `constant`.
        warmup_epochs: the rate grows linearly over so many first epochs of a phase.
        decay_rate, decay_epochs: see `schedule`.
        ema: decay a step of an average of the weights, which is what is validated and kept; None is none.
        precision: of the arithmetic: `float32`, `bfloat16` or `float16` (with a scaled loss); weights stay float32.
        accumulate: add up the gradients of so many steps before the weights move.
        clip_norm: largest norm of all gradients together; None does not clip.
        early_stopping: end when so many epochs brought nothing better; None goes on to the end.
        balance: what to do about classes of different size: `loss` weighs each class by the inverse of its size,
            `sampling` takes all equally often; None does nothing.
        augment: how the images are changed.
        teacher: a model to learn from too.
        data: the labelled photos to train on, by name or folder; None trains on those of `Data.measure`'s source.
        validation: photos that choose the best epoch; None takes the source's own, or some of the training photos.
        images: train on at most so many, spread evenly; None is all.
        seed: of the weights, the order and the augmentation.
        batch_norm_momentum: of batch normalization's statistics; None keeps the layers' own, which is 0.99 here: too
            slow for trainings of a few hundred steps.
        checkpoint_seconds: how much work is lost at most when the process is killed.
    """

    epochs: int = 30
    learning_rate: float = 0.05
    phases: tuple[Phase, ...] = ()
    batch_size: int = 64
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    decay_rate: float = 0.1
    decay_epochs: float = 10.0
    ema: float | None = None
    precision: str = "float32"
    accumulate: int = 1
    clip_norm: float | None = None
    early_stopping: int | None = None
    balance: str | None = None
    batch_norm_momentum: float | None = None
    augment: Augment = Augment()
    teacher: Teacher | None = None
    data: str | None = None
    validation: str | None = None
    images: int | None = None
    seed: int = 0
    checkpoint_seconds: float = 300.0

    def check(self) -> None:
        super().check()
        self.at_least(1, "batch_size", "accumulate", "early_stopping", "images")
        self.at_least(0, "weight_decay", "warmup_epochs", "seed", "checkpoint_seconds")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise unknown(f"Fit.{name}", getattr(self, name), allowed)
        if self.balance not in (None, "loss", "sampling"):
            raise unknown("Fit.balance", self.balance, ("loss", "sampling"))
        for name in ("momentum", "ema", "batch_norm_momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"Fit.{name} must be at least 0 and under 1. Received: {value}")
        if not 0 < self.decay_rate < 1:
            raise InputError(f"Fit.decay_rate must be between 0 and 1. Received: {self.decay_rate}")
        for name in ("decay_epochs", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"Fit.{name} must be above 0. Received: {value}")
        if self.schedule == "plateau" and self.warmup_epochs:
            raise InputError(
                f"Fit.warmup_epochs must be 0 with the schedule plateau, whose rate changes between epochs only. "
                f"Received: {self.warmup_epochs}"
            )

    def quick(self) -> Fit:
        """The same phases of one epoch each, on few images."""
        phases = tuple(dataclasses.replace(phase, epochs=1) for phase in self.phases)
        images = min(256, self.images or 256)
        return dataclasses.replace(self, phases=phases, epochs=1, images=images, batch_size=min(32, self.batch_size))

    def all_phases(self) -> tuple[Phase, ...]:
        """Every phase in order; this part itself is the last."""
        return (*self.phases, self)


def fine_tuning(**fields: Any) -> Fit:
    """How a pretrained model is adapted to other photos: its head first, then all of it, slowly.

    The head of random weights would otherwise send gradients into the backbone that undo what it knows. Batch
    normalization learns too, at a momentum for few steps, for photos may be unlike those that it was trained on.

    Args:
        fields: of `Fit`, in the place of the defaults here.
    """
    defaults = {
        "phases": (Phase(epochs=5, learning_rate=1e-2, train="head"),),
        "epochs": 15,
        "learning_rate": 3e-4,
        "batch_norm_momentum": 0.9,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "batch_size": 32,
        "augment": Augment(crop_scale=(0.35, 1.0), label_smoothing=0.1),
    }
    return Fit(**defaults | fields)


@dataclass(frozen=True)
class Measure(_Part):
    """How latency is measured on this host.

    Attributes:
        threads: thread counts of the runtime, each measured.
        runs: timed single inferences for each.
        warmup: inferences before them that are not timed.
    """

    threads: tuple[int, ...] = (1, 2)
    runs: int = 100
    warmup: int = 10

    def check(self) -> None:
        self.at_least(1, "threads", "runs")
        self.at_least(0, "warmup")
        if not self.threads:
            raise InputError("Measure.threads must name at least one thread count. Received: none")


DELIVERIES = ("c_array", "web", "android")


@dataclass(frozen=True)
class TargetDevice(_Part):
    """What a recipe's artifacts are for.

    Attributes:
        name: as people call it, such as `Raspberry Pi 5`.
        processor: what computes there.
        runtime: what runs the file there, and through which kernels.
        scheme: the row that is meant for it.
        target: the rules of `edge-cv check --target` that this row's file is made by; None where there are none.
        delivery: what else is made of that file: `c_array`, C source; `web`, a page for the browser; or `android`, a
            copy among the models of this checkout's Android app. None is nothing.
    """

    name: str
    processor: str
    runtime: str
    scheme: str = "int8"
    target: str | None = None
    delivery: str | None = None

    def check(self) -> None:
        if self.delivery is not None and self.delivery not in DELIVERIES:
            raise unknown("Device.delivery", self.delivery, DELIVERIES)
        if self.delivery is not None and "onnx_" in self.scheme:
            raise InputError(f"Device.delivery {self.delivery} must be of a TFLite row. Received: {self.scheme}")


@dataclass(frozen=True)
class Analysis(_Part):
    """What the report tells of the answers beyond how many are right.

    Attributes:
        by: columns of `metadata`; accuracy is told for each of their values.
        metadata: a CSV with a column `file` that names the photos; None is the measured folder's labels.csv.
        corruptions: measure so many photos under the 15 common corruptions at five severities too; 0 is none.
        attention: show where the model looks (Grad-CAM) on so many photos, confident misses first; 0 is none.
    """

    by: tuple[str, ...] = ()
    metadata: str | None = None
    corruptions: int = 0
    attention: int = 9

    def check(self) -> None:
        self.at_least(0, "corruptions", "attention")


@dataclass(frozen=True)
class Limits(_Part):
    """What one scheme's artifact must keep; a run that breaks one ends with exit code 1 and says which.

    Attributes:
        scheme: the row that is checked.
        max_size_bytes: of the file.
        max_size_ratio: of the file against float32's.
        max_p50_ms: median latency at one thread, on the machine that measured.
        max_latency_ratio: the same against float32's on the same machine.
        min_agreement: share of photos, 0..1, with float32's top-1.
        max_top1_drop: top-1 of float32 minus top-1, as a share 0..1.
        min_sqnr_db: of the logits.
        max_arena_bytes: of the memory that a microcontroller needs beside the file (`converters.devices.micro`).
    """

    scheme: str = "int8"
    max_size_bytes: int | None = None
    max_size_ratio: float | None = None
    max_p50_ms: float | None = None
    max_latency_ratio: float | None = None
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    min_sqnr_db: float | None = None
    max_arena_bytes: int | None = None

    def check(self) -> None:
        self.at_least(0, "max_size_bytes", "max_arena_bytes", "max_size_ratio", "max_p50_ms", "max_latency_ratio")
        self.at_least(0, "min_agreement")
        if self.min_agreement is not None and self.min_agreement > 1:
            raise InputError(f"Limits.min_agreement must be a share in 0..1. Received: {self.min_agreement}")


INT8_VALUES = 255  # of a weight, -127..127
IO_TYPES = ("int8", "uint8", "float32")  # as converters.schemes has them


@dataclass(frozen=True)
class FineTuning(_Part):
    """How a model is trained after, or while, it is compressed.

    Attributes:
        epochs: over the training images.
        learning_rate: of Adam at the beginning; it falls to 0 along a cosine.
        distillation: the share of the loss, 0..1, that is learned from the model as it was before; the rest is
            learned from the labels.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    distillation: float = 0.5

    def check(self) -> None:
        self.at_least(1, "epochs")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"Tuning.learning_rate must be above 0 and under 1. Received: {self.learning_rate}")
        if not 0 <= self.distillation <= 1:
            raise InputError(f"Tuning.distillation must be a share in 0..1. Received: {self.distillation}")


@dataclass(frozen=True)
class ChannelPrune(_Part):
    """Removing whole channels, which makes a network smaller and faster everywhere.

    Attributes:
        keep: the share, above 0 and under 1, of `target` that may remain.
        target: `macs`, or `latency`, measured with LiteRT at one thread on this machine.
        importance: what says how much a channel matters: `l1`, the size of the weights that make it, or `batch_norm`,
            the scale of its batch normalization (l1 where there is none).
        exclude: patterns of the names of layers whose outputs keep all channels.
        tuning: the training afterwards.
    """

    keep: float = 0.5
    target: str = "macs"
    importance: str = "batch_norm"
    exclude: tuple[str, ...] = ()
    tuning: FineTuning = FineTuning()

    def quick(self) -> ChannelPrune:
        """The same with a training of one epoch."""
        return dataclasses.replace(self, tuning=dataclasses.replace(self.tuning, epochs=1))

    def check(self) -> None:
        _share(self, "keep")
        if self.target not in ("macs", "latency"):
            raise unknown("target of ChannelPrune", self.target, ("macs", "latency"))
        if self.importance not in ("batch_norm", "l1"):
            raise unknown("importance of ChannelPrune", self.importance, ("batch_norm", "l1"))


@dataclass(frozen=True)
class Prune(_Part):
    """Single weights to zero: a smaller file once it is compressed, not a faster network.

    Attributes:
        sparsity: the share of the weights, above 0 and under 1, that become zero.
        schedule: `polynomial`, from 0 to the sparsity, or `constant`, at once.
        begin_epoch, end_epoch: when the schedule begins and ends, in epochs and fractions of them; the end is
            two thirds of the tuning when it is None.
        pattern: `any` weight, or `2:4`, two of each four neighbours along a layer's input channels.
        exclude: patterns of the names of layers that stay dense, such as `logits` or `block1*`.
        tuning: the training meanwhile and afterwards.
    """

    sparsity: float = 0.75
    schedule: str = "polynomial"
    begin_epoch: float = 0.0
    end_epoch: float | None = None
    pattern: str = "any"
    exclude: tuple[str, ...] = ()
    tuning: FineTuning = FineTuning()

    def end(self) -> float:
        """When the schedule ends, in epochs."""
        last = max(self.begin_epoch, self.tuning.epochs * 2 / 3)
        return last if self.end_epoch is None else self.end_epoch

    def quick(self) -> Prune:
        """The same with a training of one epoch."""
        return dataclasses.replace(
            self, tuning=dataclasses.replace(self.tuning, epochs=1), begin_epoch=0.0, end_epoch=None
        )

    def check(self) -> None:
        _share(self, "sparsity")
        self.at_least(0, "begin_epoch")
        if self.schedule not in ("polynomial", "constant"):
            raise unknown("schedule of Prune", self.schedule, ("polynomial", "constant"))
        if self.pattern not in ("any", "2:4"):
            raise unknown("pattern of Prune", self.pattern, ("any", "2:4"))
        if self.pattern == "2:4" and (self.sparsity, self.schedule) != (0.5, "constant"):
            raise InputError(
                "Prune with the pattern 2:4 must have sparsity=0.5 and schedule='constant': two of four are half, from "
                f"the beginning. Received: sparsity={self.sparsity}, schedule={self.schedule!r}"
            )
        if self.end() < self.begin_epoch or self.end() > self.tuning.epochs or self.begin_epoch >= self.tuning.epochs:
            raise InputError(
                f"Prune's schedule must lie within its training, 0..{self.tuning.epochs} epochs. "
                f"Received: {self.begin_epoch:g}..{self.end():g}"
            )


@dataclass(frozen=True)
class WeightClustering(_Part):
    """Few different weights a layer: a smaller file once it is compressed, not a faster network.

    Attributes:
        clusters: different values a layer, at least 3 (one of them is 0 in a pruned model).
        exclude: patterns of the names of layers that keep their weights.
        tuning: the training meanwhile.
    """

    clusters: int = 16
    exclude: tuple[str, ...] = ()
    tuning: FineTuning = FineTuning(epochs=2, learning_rate=1e-4)

    def quick(self) -> WeightClustering:
        """The same with a training of one epoch."""
        return dataclasses.replace(self, tuning=dataclasses.replace(self.tuning, epochs=1))

    def check(self) -> None:
        self.at_least(3, "clusters")


@dataclass(frozen=True)
class Qat(_Part):
    """Quantization-aware training: the model learns with the rounding of int8. Zeros and clusters are kept.

    Attributes:
        freeze_epoch: from when on, in whole epochs, batch normalization and the activations' ranges stay as they are;
            None is after two thirds of the tuning.
        weight_values: different weights a channel of a convolution, or a dense layer, at most: odd, up to the 255 that
            int8 has. Fewer make a file that compresses better, at the same latency.
        tuning: the training.
    """

    freeze_epoch: int | None = None
    weight_values: int = INT8_VALUES
    tuning: FineTuning = FineTuning(epochs=3, learning_rate=1e-4)

    def freeze(self) -> int:
        """From which epoch on statistics and ranges are frozen."""
        return -(-self.tuning.epochs * 2 // 3) if self.freeze_epoch is None else self.freeze_epoch

    def quick(self) -> Qat:
        """The same with a training of one epoch."""
        return dataclasses.replace(self, tuning=dataclasses.replace(self.tuning, epochs=1), freeze_epoch=None)

    def check(self) -> None:
        self.at_least(0, "freeze_epoch")
        if not 3 <= self.weight_values <= INT8_VALUES or self.weight_values % 2 == 0:
            raise InputError(
                f"Qat.weight_values must be an odd number in 3..{INT8_VALUES}. Received: {self.weight_values}"
            )
        if self.freeze_epoch is not None and self.freeze_epoch > self.tuning.epochs:
            raise InputError(
                f"Qat.freeze_epoch must lie within its training, 0..{self.tuning.epochs} epochs. "
                f"Received: {self.freeze_epoch}"
            )


def check_together(
    *, prune: Prune | None = None, cluster: WeightClustering | None = None, qat: Qat | None = None
) -> None:
    """Raise InputError for parts of compression that undo one another."""
    if cluster is not None and qat is not None and cluster.clusters > INT8_VALUES:
        raise InputError(
            f"Cluster.clusters must be at most {INT8_VALUES} together with qat: int8 weights have no more values. "
            f"Received: {cluster.clusters}"
        )
    if prune is not None and cluster is not None and prune.sparsity <= 0.1:
        raise InputError(
            "Prune.sparsity must be above 0.1 together with cluster, which keeps zeros only where there are many. "
            f"Received: {prune.sparsity}"
        )


def _share(part: _Part, name: str) -> None:
    value = getattr(part, name)
    if not 0 < value < 1:
        raise InputError(f"{type(part).__name__}.{name} must be a share above 0 and under 1. Received: {value}")


# What the model of a stage is called, in the report and in the names of its files.
STAGE_NAMES = {"channel_prune": "channel_pruned", "prune": "pruned", "cluster": "clustered", "qat": "qat"}


@dataclass(frozen=True)
class Recipe(_Part):
    """One run, from a model to a report.

    Attributes:
        name: of the run, in the report.
        model: the network and its weights.
        data: the photos.
        fit: how the model is trained; None takes it as it is.
        channel_prune, prune, cluster, qat: how it is compressed then, in this order; each stage goes on from the one
            before it, learns on the training photos, and has rows of its own in the report.
        schemes: TFLite files to make; the first is the reference when it is `float32`, which it should be.
        io: input and output of the integer TFLite files: `int8`, `uint8` or `float32`, where the device wants those.
        onnx: ONNX files to make: `float32`, `int8`; their rows are called `onnx_float32`, `onnx_int8`.
        measure: how latency is measured.
        explain: what the report tells of the answers.
        limits: what the artifacts must keep.
        notes: sentences for the report's reader.
        device: what the artifacts are for.
    """

    name: str
    model: Model
    data: Data = Data()
    fit: Fit | None = None
    channel_prune: ChannelPrune | None = None
    prune: Prune | None = None
    cluster: WeightClustering | None = None
    qat: Qat | None = None
    schemes: tuple[str, ...] = ("float32", "float16", "dynamic_int8", "int8")
    io: str = "int8"
    onnx: tuple[str, ...] = ()
    measure: Measure = Measure()
    explain: Analysis = Analysis()
    limits: tuple[Limits, ...] = ()
    notes: tuple[str, ...] = ()
    device: TargetDevice | None = None

    def check(self) -> None:
        if not self.name.strip() or "/" in self.name or self.name.startswith("."):
            raise InputError(f"Recipe.name must be usable as a folder's name. Received: {self.name!r}")
        if not self.schemes:
            raise InputError("Recipe.schemes must name at least one scheme. Received: none")
        for names in (self.schemes, self.onnx):
            if len(set(names)) < len(names):
                raise InputError(f"a recipe must name each scheme once. Received: {', '.join(names)}")
        check_together(prune=self.prune, cluster=self.cluster, qat=self.qat)
        names = [output.name for output in self.outputs()]
        for part in (*self.limits, *([self.device] if self.device else [])):
            if part.scheme not in names:
                raise unknown(f"scheme in {type(part).__name__}", part.scheme, names)
        if self.io not in IO_TYPES:
            raise unknown("Recipe.io", self.io, IO_TYPES)

    def compression(self) -> dict[str, Any]:
        """The stages of compression that are wanted, by the names of their fields, in their order."""
        parts = {name: getattr(self, name) for name in ("channel_prune", "prune", "cluster", "qat")}
        return {name: part for name, part in parts.items() if part is not None}

    def outputs(self) -> tuple[Output, ...]:
        """The files to make, each a row of the report: of the model itself, then of each stage of compression."""
        dense = [Output("", "tflite", scheme) for scheme in self.schemes]
        dense += [Output("", "onnx", scheme) for scheme in self.onnx]
        return (*dense, *(output for field_name in self.compression() for output in self._stage_outputs(field_name)))

    def _stage_outputs(self, field_name: str) -> list[Output]:
        """int8, and float32 unless the stage trains for int8."""
        stage, is_float = STAGE_NAMES[field_name], field_name != "qat"
        outputs = [Output(stage, "tflite", "float32")] if is_float and "float32" in self.schemes else []
        outputs += [Output(stage, "tflite", "int8")] if "int8" in self.schemes else []
        return outputs + ([Output(stage, "onnx", "float32")] if is_float and "float32" in self.onnx else [])

    def quick(self) -> Recipe:
        """The same chain on few photos and few timed runs: whether it works, not what it is worth."""
        data = dataclasses.replace(self.data, images=min(8, self.data.images or 8), calibration_images=8)
        measure = dataclasses.replace(self.measure, runs=5, warmup=1, threads=self.measure.threads[:1])
        explain = dataclasses.replace(self.explain, corruptions=min(2, self.explain.corruptions))
        fit = None if self.fit is None else self.fit.quick()
        stages = {name: part.quick() for name, part in self.compression().items()}
        device = self.device
        if device is not None and device.delivery == "android":  # which is outside of the run's folder
            device = dataclasses.replace(device, delivery=None)
        return dataclasses.replace(
            self, data=data, fit=fit, measure=measure, explain=explain, limits=(), device=device, **stages
        )

    def with_data(self, folder: str) -> Recipe:
        """The recipe on the photos of one folder: each for training, for calibration or for measuring."""
        data = dataclasses.replace(self.data, measure=str(folder), calibrate=None)
        fit = self.fit and dataclasses.replace(self.fit, data=None, validation=None)
        return dataclasses.replace(self, data=data, fit=fit)

    def with_settings(self, settings: typing.Iterable[str]) -> Recipe:
        """The recipe with fields replaced: `measure.runs=20`, `schemes=('float32','int8')`, `model.weights=None`.

        Raises:
            InputError: no such field, or a value that the field refuses.
        """
        return with_settings(self, settings)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def with_settings(part: Any, settings: typing.Iterable[str]) -> Any:
    """A part of a recipe, or a whole one, with fields replaced, as `Recipe.with_settings`."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"a setting must be FIELD=VALUE, such as measure.runs=20. Received: {setting!r}")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            value = text.strip()  # plain words need no quotes
        part = _replaced(part, path.strip().split("."), value, setting)
    return part


def _replaced(part: Any, path: list[str], value: Any, setting: str) -> Any:
    if not dataclasses.is_dataclass(part):
        raise InputError(f"a setting must lead to a field of the recipe. Received: {setting!r}")
    names = [fields.name for fields in dataclasses.fields(part)]
    if path[0] not in names:
        raise unknown(f"field of {type(part).__name__}", path[0], names)
    if path[1:]:
        value = _replaced(getattr(part, path[0]), path[1:], value, setting)
    elif isinstance(getattr(part, path[0]), tuple) and not isinstance(value, tuple | list):
        value = (value,)
    return dataclasses.replace(part, **{path[0]: value})


def device_recipes() -> list[tuple[Path, Recipe]]:
    """The recipes of the project that are for a device, by the names of their files."""
    paths = sorted((Path(__file__).parents[2] / "recipes").glob("[!_]*.py"))
    return [(path, recipe) for path in paths if (recipe := load(path)).device is not None]


def load(path: str | Path) -> Recipe:
    """The `RECIPE` of a recipe file, which is run as the Python that it is.

    Raises:
        InputError: no such file, an error in it, or no Recipe called RECIPE.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the recipe must be a file that exists. Received: {path}")
    if path.suffix != ".py":
        raise InputError(f"the recipe must be a Python file that ends in RECIPE = Recipe(...). Received: {path}")
    before = list(sys.path)
    try:
        found = runpy.run_path(str(path), run_name="edge_cv_recipe").get("RECIPE")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = before
    if not isinstance(found, Recipe):
        raise InputError(f"{path} must define RECIPE, a Recipe. Received: {type(found).__name__}")
    return found
