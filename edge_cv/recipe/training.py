"""The parts of a recipe that train the model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from converters.errors import InputError, unknown
from edge_cv.recipe.fields import Part
from edge_cv.recipe.model import Model

OPTIMIZERS = ("sgd", "rmsprop", "adamw")
SCHEDULES = ("cosine", "step", "plateau", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
FIELDS_WITHOUT_EFFECT = ("checkpoint_seconds", "steps_per_execution")  # on the result of a training
PROBES = ("compare", "start", "only")


@dataclass(frozen=True)
class Augment(Part):
    """Augmentation of training images, in the order of `edge_cv.data.input_pipeline.augmentation`.

    Attributes:
        crop_scale: smallest and largest share of the image's area in a random crop, 0..1. None crops the largest
            central square.
        crop_ratio: smallest and largest ratio of the crop's width to its height.
        flip: probability of a horizontal flip.
        randaugment: number of RandAugment operations per image; 0 disables it.
        magnitude: magnitude of these operations, 0..30.
        brightness, contrast, saturation: colour jitter x, 0..1: a random factor in 1 - x..1 + x.
        hue: largest shift of the hue, as a fraction of the colour circle, 0..0.5.
        lighting: standard deviation of AlexNet's PCA lighting noise; the paper uses 0.1.
        erasing: probability of erasing a random rectangle.
        label_smoothing: share of the target that is spread evenly over all classes, 0..1.
        mixup: alpha of Mixup's Beta distribution; 0 disables it.
        cutmix: alpha of CutMix's Beta distribution; 0 disables it. With both, each image gets one of the two.
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
                raise InputError(
                    f"Augment.{name} must be two positive numbers, smallest and largest. Received: {value!r}"
                )
        largest = {
            "flip": 1,
            "magnitude": 30,
            "brightness": 1,
            "contrast": 1,
            "saturation": 1,
            "hue": 0.5,
            "erasing": 1,
        }
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise InputError(f"Augment.crop_scale must be shares of at most 1. Received: {self.crop_scale!r}")
        for name, limit in largest.items():
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(f"Augment.{name} must be in 0..{limit}. Received: {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"Augment.label_smoothing must be at least 0 and under 1. Received: {self.label_smoothing}"
            )
        for name in ("randaugment", "lighting", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"Augment.{name} must be at least 0. Received: {getattr(self, name)!r}")


@dataclass(frozen=True)
class Phase(Part):
    """A phase of training: which layers are trained, for how long, and how fast.

    Attributes:
        epochs: passes over the training images.
        learning_rate: the peak learning rate. Each phase starts its warm-up and its schedule from the beginning.
        train: the layers to train: `all`; `head`, the layers after the backbone only; or the beginning of a layer's
            name, such as `block12`, for the first layer whose name begins so and all layers after it.
        freeze_batch_norm: keep the statistics, scales and offsets of batch normalization.
        views: number of augmented views of each image, where `train` is `head`. The features of the frozen
            layers are computed once for each view, and the epochs take the views in turn. None augments, and computes
            the features, in every epoch.
        least_steps: where `epochs` have fewer steps, because there are few images, as many more epochs are trained. A
            setting of `epochs` by `with_settings` disables it.
    """

    epochs: int
    learning_rate: float
    train: str = "all"
    freeze_batch_norm: bool = False
    views: int | None = None
    least_steps: int = 0

    def with_field(self, name: str, value: Any) -> Phase:
        changed = super().with_field(name, value)
        return dataclasses.replace(changed, least_steps=0) if name == "epochs" else changed

    def epochs_of(self, steps: int) -> int:
        """The number of epochs of `steps` steps each."""
        return max(self.epochs, -(-self.least_steps // steps))

    def check(self) -> None:
        self.check_at_least(1, "epochs", "views")
        self.check_at_least(0, "least_steps")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"{type(self).__name__}.learning_rate must be above 0. Received: {self.learning_rate}")
        if not self.train.strip():
            raise InputError(
                f"{type(self).__name__}.train must be all, head, or a layer's name. Received: {self.train!r}"
            )


@dataclass(frozen=True)
class Teacher(Part):
    """Knowledge distillation from a trained model.

    Distilling the Knowledge in a Neural Network, Hinton et al. 2015, https://arxiv.org/abs/1503.02531

    Attributes:
        model: the teacher. It sees the student's crops, with the same augmentation, resized to its own input.
        share: weight in the loss of the distance from the teacher, above 0 and at most 1. The rest is the loss on the
            labels; with 1 the images need none.
        temperature: divisor of both models' logits before they are compared, above 0.
        features: weight in the loss, beside the share, of the squared distance between the inputs of both models' last
            layers, as a part of the teacher's squares; for a student of the teacher's architecture.
    """

    model: Model
    share: float = 0.5
    temperature: float = 2.0
    features: float = 0.0

    def check(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"Teacher.share must be above 0 and at most 1. Received: {self.share}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"Teacher.temperature must be above 0. Received: {self.temperature}")
        if not 0 <= self.features < float("inf"):
            raise InputError(f"Teacher.features must be at least 0. Received: {self.features}")


@dataclass(frozen=True)
class Fit(Phase):
    """How the model is trained, or fine-tuned if it has weights.

    Attributes:
        epochs, learning_rate, train, freeze_batch_norm, least_steps: of the last or only phase, as in `Phase`.
        phases: phases before it, in order, such as one that trains only the head.
        batch_size: images per step, over all devices and hosts together.
        optimizer: `sgd` (with momentum), `rmsprop` as in the MobileNet and EfficientNet papers, or `adamw`.
        momentum: of sgd and rmsprop.
        weight_decay: of kernels; biases and batch normalization have none. For sgd and rmsprop it is an L2 penalty, as
            in the papers (gradient + weight_decay * weight); for adamw it is decoupled.
        schedule: of the learning rate: `cosine`, down to 0; `step`, times `decay_rate` every `decay_epochs` epochs;
            `plateau`, times `decay_rate` after `decay_epochs` epochs without improvement; or `constant`.
        warmup_epochs: length of the linear warm-up at the beginning of each phase, in epochs.
        decay_rate, decay_epochs: see `schedule`.
        ema: decay per step of an exponential moving average of the weights; the average is validated and saved. None
            disables it.
        precision: of computation: `float32`, `bfloat16`, `float16` with loss scaling, or `auto`: `bfloat16` on a TPU
            and on NVIDIA's GPUs since Ampere, else `float32`. Weights stay float32.
        accumulate: steps whose gradients are accumulated before the weights are updated.
        clip_norm: largest global norm of the gradients. None does not clip.
        early_stopping: stop after this many epochs without improvement. None never stops early.
        balance: handling of unbalanced classes: `loss` weights each class by the inverse of its size, `sampling` draws
            all classes equally often. None does nothing.
        augment: augmentation of the training images.
        teacher: a model to distill from.
        probe: use of a linear probe, a logistic regression on the features of the untrained backbone: `compare` reports
            it beside the result, `start` also begins the training from its weights, and `only` makes it the model,
            without any training. It needs scikit-learn. None does without.
        folds: train this many more models, each on all but one fold of the training images, and report the accuracy on
            the images left out: a score with a usable interval where the validation images are few. At least 2; None
            does without.
        data: the labelled images to train on, by name or folder. None means those of `Data.measure`'s source.
        validation: images that choose the epoch. None means the source's own, or a part of the training images.
        images: largest number of training images, spread evenly. None means all.
        seed: of the weights, the order of images and the augmentation.
        batch_norm_momentum: of the statistics of batch normalization. None keeps the layers' own, which is 0.99 here
            and too slow for a training of a few hundred steps.
        steps_per_execution: steps that one call of TensorFlow's runtime executes; progress and checkpoints come between
            calls. None means 8 on a GPU, else 1. JAX needs no such calls.
        checkpoint_seconds: longest time between checkpoints within an epoch, in seconds: about this much work is lost
            if the process is killed. An epoch also ends with one, unless the last is less than 30 s old.
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
    probe: str | None = None
    folds: int | None = None
    data: str | None = None
    validation: str | None = None
    images: int | None = None
    seed: int = 0
    steps_per_execution: int | None = None
    checkpoint_seconds: float = 300.0

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "batch_size", "accumulate", "early_stopping", "images", "steps_per_execution")
        self.check_at_least(2, "folds")
        self.check_at_most(100_000, "batch_size", "accumulate")
        self.check_at_most(100, "folds")
        self.check_at_least(0, "weight_decay", "warmup_epochs", "seed", "checkpoint_seconds")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise unknown(f"Fit.{name}", getattr(self, name), allowed)
        if self.probe not in (None, *PROBES):
            raise unknown("Fit.probe", self.probe, PROBES)
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
                "Fit.warmup_epochs must be 0 with the schedule plateau, which changes the rate only between epochs. "
                f"Received: {self.warmup_epochs}"
            )

    def quick(self) -> Fit:
        """The same phases with one epoch each, on at most 256 images: too few steps for an average of the weights."""
        phases = tuple(dataclasses.replace(phase, epochs=1, least_steps=0) for phase in self.phases)
        images, batch_size = min(256, self.images or 256), min(32, self.batch_size)
        return dataclasses.replace(
            self, phases=phases, epochs=1, least_steps=0, images=images, batch_size=batch_size, ema=None
        )

    def for_steps(self, steps: int) -> Fit:
        """The same settings with the `epochs` that `least_steps` makes of them.

        Args:
            steps: steps of an epoch, at least 1.
        """
        phases = tuple(dataclasses.replace(phase, epochs=phase.epochs_of(steps)) for phase in self.phases)
        return dataclasses.replace(self, phases=phases, epochs=self.epochs_of(steps))

    def all_phases(self) -> tuple[Phase, ...]:
        """All phases in order; this part is the last one."""
        return (*self.phases, self)


def fine_tuning(**fields: Any) -> Fit:
    """Fine-tuning of a pretrained model on other images: first its new head, then all layers with a low learning rate.

    Batch normalization keeps its statistics, scales and offsets: a few hundred images estimate them worse than the
    millions of the pretraining. A hundred steps of 16 images were no worse than a hundred of 32 on five small sets, in
    less time. The average of the weights over the last steps keeps more of the pretraining than the last weights: it
    is better where the images are like those of ImageNet, and little worse where they are not (docs/results.md).

    Args:
        fields: fields of `Fit` that replace the defaults of this function.

    Returns:
        The part for `Recipe.fit`.
    """
    defaults: dict[str, Any] = {
        "phases": (
            Phase(epochs=10, learning_rate=1e-3, train="head", freeze_batch_norm=True, views=2, least_steps=100),
        ),
        "epochs": 10,
        "least_steps": 0 if "epochs" in fields else 100,
        "learning_rate": 3e-4,
        "freeze_batch_norm": True,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "batch_size": 16,
        "ema": 0.985,
        "augment": Augment(crop_scale=(0.35, 1.0)),
        "probe": "compare",
    }
    return Fit(**defaults | fields)
