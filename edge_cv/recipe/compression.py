"""The parts of a recipe that compress a trained model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from converters.errors import InputError, unknown
from edge_cv.recipe.fields import Part, renamed_fields
from edge_cv.recipe.training import PRECISIONS

INT8_VALUES = 255  # of a weight, -127..127
ENGINES = ("keras", "tfmot")  # that prune, cluster and simulate int8
SCHEDULES = ("one_shot", "polynomial", "constant")  # of zeros while a model is pruned
ALLOCATIONS = ("uniform", "lamp")  # of zeros to layers
RANGES = ("ema", "lsq")  # of activations in quantization-aware training
IMPORTANCE = ("sensitivity", "batch_norm", "l1")  # of channels

# The length of fine-tuning where the recipe does not say it. A small set takes the steps, a large one the epochs.
SPARSITY_STEPS = 400  # times the sparsity, where the zeros come during the training
STEPS = 100  # of the other stages
EPOCHS = 3  # at least
RECOVERY_EPOCHS = 5  # at least, after channels or weights are removed
MOST_EPOCHS = 100
SCHEDULE_STEPS = 1000  # of an epoch, to check a schedule in epochs before the images are known

# The stages in their order, by their field of Recipe; the value is the stage of an Output.
STAGES = {"channel_prune": "channel_pruned", "prune": "pruned", "cluster": "clustered", "qat": "qat"}


@dataclass(frozen=True)
class FineTuning(Part):
    """How a model is trained during or after a stage of compression.

    The length is counted in steps, because an epoch of a small set has only a few. Without `epochs` and `steps` a stage
    takes the steps that it needs for what is asked of it, at least 3 epochs (5 where weights or channels are removed),
    and at most 100 epochs.

    Attributes:
        epochs: passes over the training images. None: `steps`.
        learning_rate: peak learning rate of Adam, after a short warm-up; it falls to 0 along a cosine.
        distillation: weight in the loss, 0..1, of the distance from the logits of the model before the stage. The rest
            is the loss on the labels.
        steps: batches to train on, instead of `epochs`. None: the stage's own rule.
        freeze_statistics: keep the means and variances of batch normalization; its scales and offsets are trained.
            False trains them too, which needs thousands of images.
        ema: decay per step of an exponential moving average of the weights, which is then the result; None disables it.
        precision: of computation, as in `Fit`; the rounding of QAT is computed in float32.
        features: weight in the loss of the distance between the inputs of the last layers of both models, as in
            `Teacher`.
        mixup: alpha of Mixup's Beta distribution, as in `Augment`; 0 disables it. Few photos, mixed, show more of where
            both models differ.
    """

    epochs: int | None = None
    learning_rate: float = 1e-3
    distillation: float = 0.5
    steps: int | None = None
    freeze_statistics: bool = True
    ema: float | None = None
    precision: str = "float32"
    features: float = 0.0
    mixup: float = 0.0

    def check(self) -> None:
        self.check_at_least(1, "epochs", "steps")
        if self.epochs is not None and self.steps is not None:
            raise InputError(
                f"FineTuning takes epochs or steps, not both. Received: epochs={self.epochs} and steps={self.steps}"
            )
        if not 0 < self.learning_rate < 1:
            raise InputError(f"FineTuning.learning_rate must be above 0 and under 1. Received: {self.learning_rate}")
        if not 0 <= self.distillation <= 1:
            raise InputError(f"FineTuning.distillation must be a share in 0..1. Received: {self.distillation}")
        for name in ("features", "mixup"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"FineTuning.{name} must be at least 0. Received: {getattr(self, name)}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError(f"FineTuning.ema must be at least 0 and under 1. Received: {self.ema}")
        if self.precision not in PRECISIONS:
            raise unknown("FineTuning.precision", self.precision, PRECISIONS)

    def total_steps(self, steps_per_epoch: int, needed: int = STEPS, epochs: int = EPOCHS) -> int:
        """The length of the training in steps.

        Args:
            steps_per_epoch: batches of a pass over the training images.
            needed: steps that the stage needs on a small set.
            epochs: passes over a large set.
        """
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        if self.steps is not None:
            return self.steps
        return min(max(needed, epochs * steps_per_epoch), MOST_EPOCHS * steps_per_epoch)

    def quick(self) -> FineTuning:
        """The same with one epoch."""
        return dataclasses.replace(self, epochs=1, steps=None)


# After a reconstruction; zeros that come during the training need a learning rate of about 1e-3.
RECONSTRUCTED = FineTuning(learning_rate=3e-4, features=1.0, mixup=1.0)


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class ChannelPrune(Part):
    """Remove whole channels: a smaller and faster model on every device.

    Attributes:
        keep: the share of `target` to keep, above 0 and under 1.
        target: `macs`, or `latency`, measured with LiteRT with one thread on this machine.
        importance: how channels are ranked: `sensitivity`, the change of the outputs on training images when the
            channel becomes zero, which keeps far more of a pretrained network; `l1`, the L1 norm of a channel's
            weights; or `batch_norm`, the absolute scale of its batch normalization (`l1` for layers without one).
        exclude: patterns of names of layers whose output channels are all kept.
        fine_tuning: the training after the removal.
    """

    keep: float = 0.5
    target: str = "macs"
    importance: str = "sensitivity"
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = RECONSTRUCTED

    def steps(self, steps_per_epoch: int) -> int:
        """The length of the training in steps."""
        return self.fine_tuning.total_steps(steps_per_epoch, STEPS, RECOVERY_EPOCHS)

    def quick(self) -> ChannelPrune:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick())

    def check(self) -> None:
        _check_share(self, "keep")
        if self.target not in ("macs", "latency"):
            raise unknown("target of ChannelPrune", self.target, ("macs", "latency"))
        if self.importance not in IMPORTANCE:
            raise unknown("importance of ChannelPrune", self.importance, IMPORTANCE)


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class Prune(Part):
    """Set single weights to zero: the file compresses better, the latency stays the same.

    Attributes:
        sparsity: the share of weights to set to zero, above 0 and under 1.
        schedule: `one_shot`, all zeros before the training, and the other weights solved by least squares for the
            outputs of the dense layers, which keeps far more of a network where photos are few; `polynomial`, from 0
            to the sparsity during the training; or `constant`, the full sparsity from `begin_epoch` on. None is
            `one_shot`, and `polynomial` with tfmot, with `begin_epoch` or `end_epoch`, and in a training of your own.
        begin_epoch, end_epoch: when the schedule begins and ends, in epochs, fractions allowed. None ends it after two
            thirds of the training.
        pattern: `any` weight, or `2:4`, two of every four neighbours along a layer's input channels.
        exclude: patterns of names of layers that stay dense, such as `logits` or `block1*`.
        fine_tuning: the training during and after pruning; zeros that come during it need a learning rate of 1e-3.
        engine: `keras`, this project's own, on any backend of Keras; or `tfmot`, tensorflow-model-optimization on a
            tf_keras copy of the model.
        allocation: how the zeros are divided between the layers: `uniform`, the same share in each, as always with the
            pattern 2:4 and with tfmot; or `lamp`, fewer in layers that depend on each of their weights more
            (https://arxiv.org/abs/2010.07611), with `one_shot` none in a small last layer.
    """

    sparsity: float = 0.75
    schedule: str | None = None
    begin_epoch: float = 0.0
    end_epoch: float | None = None
    pattern: str = "any"
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = RECONSTRUCTED
    engine: str = "keras"
    allocation: str = "lamp"

    @property
    def at_once(self) -> bool:
        """Whether all zeros are set before the training, and the other weights are reconstructed."""
        return self.schedule == "one_shot" or (self.schedule is None and self.engine == "keras" and not self._timed)

    @property
    def _timed(self) -> bool:
        return (self.begin_epoch, self.end_epoch) != (0.0, None)

    def steps(self, steps_per_epoch: int) -> int:
        """The length of the training in steps: where weights are removed during it, the more, the longer."""
        needed = STEPS if self.at_once else round(SPARSITY_STEPS * self.sparsity)
        return self.fine_tuning.total_steps(steps_per_epoch, needed, RECOVERY_EPOCHS)

    def schedule_steps(self, steps_per_epoch: int) -> tuple[int, int]:
        """The steps at which the schedule begins and ends in a training of `steps`.

        Raises:
            InputError: if they do not lie within the training.
        """
        return self.schedule_within(self.steps(steps_per_epoch), steps_per_epoch)

    def schedule_within(self, total: int, steps_per_epoch: int) -> tuple[int, int]:
        """The steps at which the schedule begins and ends in a training of `total` steps.

        Raises:
            InputError: if they do not lie within the training.
        """
        begin = round(self.begin_epoch * steps_per_epoch)
        end = max(begin, round(total * 2 / 3)) if self.end_epoch is None else round(self.end_epoch * steps_per_epoch)
        if not begin <= end <= total or begin >= total:
            raise InputError(
                f"Prune's schedule must lie within its training, 0..{total / steps_per_epoch:g} epochs. "
                f"Received: {self.begin_epoch:g}..{end / steps_per_epoch:g}"
            )
        return begin, end

    def quick(self) -> Prune:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick(), begin_epoch=0.0, end_epoch=None)

    def check(self) -> None:
        _check_share(self, "sparsity")
        self.check_at_least(0, "begin_epoch")
        _check_engine(self)
        if self.schedule not in (None, *SCHEDULES):
            raise unknown("schedule of Prune", self.schedule, SCHEDULES)
        if self.schedule == "one_shot" and (self.engine != "keras" or self._timed):
            raise InputError(
                "Prune with schedule='one_shot' must have engine='keras' and neither begin_epoch nor end_epoch. "
                f"Received: engine={self.engine!r}, begin_epoch={self.begin_epoch}, end_epoch={self.end_epoch}"
            )
        if self.pattern not in ("any", "2:4"):
            raise unknown("pattern of Prune", self.pattern, ("any", "2:4"))
        if self.allocation not in ALLOCATIONS:
            raise unknown("allocation of Prune", self.allocation, ALLOCATIONS)
        if self.pattern == "2:4" and (self.sparsity != 0.5 or self.schedule == "polynomial"):
            raise InputError(
                "Prune with pattern='2:4' must have sparsity=0.5 and no polynomial schedule. "
                f"Received: sparsity={self.sparsity}, schedule={self.schedule!r}"
            )
        if self.fine_tuning.epochs is not None:  # else it depends on the number of images
            self.schedule_steps(SCHEDULE_STEPS)


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class WeightClustering(Part):
    """Share few weight values within each layer: the file compresses better, the latency stays the same.

    Attributes:
        clusters: number of different weights in a layer, at least 3 (one of them is 0 in a pruned model).
        exclude: patterns of names of layers that keep their weights.
        fine_tuning: the training during clustering.
        engine: `keras`, or `tfmot` as in `Prune`.
    """

    clusters: int = 16
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = FineTuning(learning_rate=1e-4)
    engine: str = "keras"

    def steps(self, steps_per_epoch: int) -> int:
        """The length of the training in steps."""
        return self.fine_tuning.total_steps(steps_per_epoch)

    def quick(self) -> WeightClustering:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick())

    def check(self) -> None:
        self.check_at_least(3, "clusters")
        _check_engine(self)


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class Qat(Part):
    """Quantization-aware training: train with int8 rounding. Zeros and weight clusters are preserved.

    Attributes:
        freeze_epoch: epoch from which activation ranges are frozen, and batch-norm statistics if they are trained.
            None means from the beginning, or after two thirds of the training if statistics or ranges are trained.
        weight_values: largest number of different weights in a channel of a convolution, or in a dense layer: odd,
            3..255. A smaller number gives a file that compresses better, with the same latency.
        ranges: of activations, until they are frozen: `ema`, an exponential moving average of the smallest and the
            largest values; or `lsq`, trained with the weights (https://arxiv.org/abs/1902.08153).
        engine: `keras`, or `tfmot` as in `Prune`.
        fine_tuning: the training.
    """

    freeze_epoch: int | None = None
    weight_values: int = INT8_VALUES
    fine_tuning: FineTuning = FineTuning(learning_rate=1e-4)
    ranges: str = "ema"
    engine: str = "keras"

    def steps(self, steps_per_epoch: int) -> int:
        """The length of the training in steps."""
        return self.fine_tuning.total_steps(steps_per_epoch)

    def freeze(self, steps_per_epoch: int) -> int:
        """The epoch from which ranges are frozen, and statistics if they are trained."""
        if self.freeze_epoch is not None:
            return self.freeze_epoch
        if self.fine_tuning.freeze_statistics and self.ranges == "ema":
            return 0
        return -(-self.steps(steps_per_epoch) * 2 // (3 * steps_per_epoch))

    def quick(self) -> Qat:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick(), freeze_epoch=None)

    def check(self) -> None:
        self.check_at_least(0, "freeze_epoch")
        _check_engine(self)
        if self.ranges not in RANGES:
            raise unknown("ranges of Qat", self.ranges, RANGES)
        if not 3 <= self.weight_values <= INT8_VALUES or self.weight_values % 2 == 0:
            raise InputError(
                f"Qat.weight_values must be an odd number in 3..{INT8_VALUES}. Received: {self.weight_values}"
            )
        epochs = self.fine_tuning.epochs
        if self.freeze_epoch is not None and epochs is not None and self.freeze_epoch > epochs:
            raise InputError(
                f"Qat.freeze_epoch must lie within its training, 0..{epochs} epochs. Received: {self.freeze_epoch}"
            )


def check_together(
    *, prune: Prune | None = None, cluster: WeightClustering | None = None, qat: Qat | None = None
) -> None:
    """Raise InputError for stages of compression that undo one another."""
    if cluster is not None and qat is not None and cluster.clusters > INT8_VALUES:
        raise InputError(
            f"WeightClustering.clusters must be at most {INT8_VALUES} together with qat: int8 weights have no more "
            f"values. Received: {cluster.clusters}"
        )
    if prune is not None and cluster is not None and prune.sparsity <= 0.1:
        raise InputError(
            "Prune.sparsity must be above 0.1 together with cluster, which preserves zeros only above that share. "
            f"Received: {prune.sparsity}"
        )


def _check_engine(part: Any) -> None:
    if part.engine not in ENGINES:
        raise unknown(f"engine of {type(part).__name__}", part.engine, ENGINES)


def _check_share(part: Part, name: str) -> None:
    value = getattr(part, name)
    if not 0 < value < 1:
        raise InputError(f"{type(part).__name__}.{name} must be a share above 0 and under 1. Received: {value}")
