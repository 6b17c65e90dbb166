"""The parts of a recipe that compress a trained model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from converters.errors import InputError, unknown
from edge_cv.recipe.fields import Part, renamed_fields

INT8_VALUES = 255  # of a weight, -127..127

# The stages in their order, by their field of Recipe; the value is the stage of an Output.
STAGES = {"channel_prune": "channel_pruned", "prune": "pruned", "cluster": "clustered", "qat": "qat"}


@dataclass(frozen=True)
class FineTuning(Part):
    """How a model is trained during or after a stage of compression.

    Attributes:
        epochs: passes over the training images.
        learning_rate: initial learning rate of Adam; it falls to 0 along a cosine.
        distillation: weight in the loss, 0..1, of the distance from the logits of the model before the stage. The rest
            is the loss on the labels.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    distillation: float = 0.5

    def check(self) -> None:
        self.check_at_least(1, "epochs")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"FineTuning.learning_rate must be above 0 and under 1. Received: {self.learning_rate}")
        if not 0 <= self.distillation <= 1:
            raise InputError(f"FineTuning.distillation must be a share in 0..1. Received: {self.distillation}")

    def quick(self) -> FineTuning:
        """The same with one epoch."""
        return dataclasses.replace(self, epochs=1)


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class ChannelPrune(Part):
    """Remove whole channels: a smaller and faster model on every device.

    Attributes:
        keep: the share of `target` to keep, above 0 and under 1.
        target: `macs`, or `latency`, measured with LiteRT with one thread on this machine.
        importance: how channels are ranked: `l1`, the L1 norm of a channel's weights, or `batch_norm`, the absolute
            scale of its batch normalization (`l1` for layers without one).
        exclude: patterns of names of layers whose output channels are all kept.
        fine_tuning: the training after the removal.
    """

    keep: float = 0.5
    target: str = "macs"
    importance: str = "batch_norm"
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = FineTuning()

    def quick(self) -> ChannelPrune:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick())

    def check(self) -> None:
        _check_share(self, "keep")
        if self.target not in ("macs", "latency"):
            raise unknown("target of ChannelPrune", self.target, ("macs", "latency"))
        if self.importance not in ("batch_norm", "l1"):
            raise unknown("importance of ChannelPrune", self.importance, ("batch_norm", "l1"))


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class Prune(Part):
    """Set single weights to zero: the file compresses better, the latency stays the same.

    Attributes:
        sparsity: the share of weights to set to zero, above 0 and under 1.
        schedule: `polynomial`, from 0 to the sparsity, or `constant`, the full sparsity from the beginning.
        begin_epoch, end_epoch: when the schedule begins and ends, in epochs, fractions allowed. None ends it after two
            thirds of the training.
        pattern: `any` weight, or `2:4`, two of every four neighbours along a layer's input channels.
        exclude: patterns of names of layers that stay dense, such as `logits` or `block1*`.
        fine_tuning: the training during and after pruning.
    """

    sparsity: float = 0.75
    schedule: str = "polynomial"
    begin_epoch: float = 0.0
    end_epoch: float | None = None
    pattern: str = "any"
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = FineTuning()

    def end(self) -> float:
        """When the schedule ends, in epochs."""
        two_thirds = max(self.begin_epoch, self.fine_tuning.epochs * 2 / 3)
        return two_thirds if self.end_epoch is None else self.end_epoch

    def quick(self) -> Prune:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick(), begin_epoch=0.0, end_epoch=None)

    def check(self) -> None:
        _check_share(self, "sparsity")
        self.check_at_least(0, "begin_epoch")
        if self.schedule not in ("polynomial", "constant"):
            raise unknown("schedule of Prune", self.schedule, ("polynomial", "constant"))
        if self.pattern not in ("any", "2:4"):
            raise unknown("pattern of Prune", self.pattern, ("any", "2:4"))
        if self.pattern == "2:4" and (self.sparsity, self.schedule) != (0.5, "constant"):
            raise InputError(
                "Prune with pattern='2:4' must have sparsity=0.5 and schedule='constant'. "
                f"Received: sparsity={self.sparsity}, schedule={self.schedule!r}"
            )
        epochs = self.fine_tuning.epochs
        if self.end() < self.begin_epoch or self.end() > epochs or self.begin_epoch >= epochs:
            raise InputError(
                f"Prune's schedule must lie within its training, 0..{epochs} epochs. "
                f"Received: {self.begin_epoch:g}..{self.end():g}"
            )


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class WeightClustering(Part):
    """Share few weight values within each layer: the file compresses better, the latency stays the same.

    Attributes:
        clusters: number of different weights in a layer, at least 3 (one of them is 0 in a pruned model).
        exclude: patterns of names of layers that keep their weights.
        fine_tuning: the training during clustering.
    """

    clusters: int = 16
    exclude: tuple[str, ...] = ()
    fine_tuning: FineTuning = FineTuning(epochs=2, learning_rate=1e-4)

    def quick(self) -> WeightClustering:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick())

    def check(self) -> None:
        self.check_at_least(3, "clusters")


@renamed_fields(tuning="fine_tuning")
@dataclass(frozen=True)
class Qat(Part):
    """Quantization-aware training: train with int8 rounding. Zeros and weight clusters are preserved.

    Attributes:
        freeze_epoch: epoch from which batch-norm statistics and activation ranges are frozen. None means after two
            thirds of the training.
        weight_values: largest number of different weights in a channel of a convolution, or in a dense layer: odd,
            3..255. A smaller number gives a file that compresses better, with the same latency.
        fine_tuning: the training.
    """

    freeze_epoch: int | None = None
    weight_values: int = INT8_VALUES
    fine_tuning: FineTuning = FineTuning(epochs=3, learning_rate=1e-4)

    def freeze(self) -> int:
        """The epoch from which statistics and ranges are frozen."""
        return -(-self.fine_tuning.epochs * 2 // 3) if self.freeze_epoch is None else self.freeze_epoch

    def quick(self) -> Qat:
        """The same with one epoch of training."""
        return dataclasses.replace(self, fine_tuning=self.fine_tuning.quick(), freeze_epoch=None)

    def check(self) -> None:
        self.check_at_least(0, "freeze_epoch")
        if not 3 <= self.weight_values <= INT8_VALUES or self.weight_values % 2 == 0:
            raise InputError(
                f"Qat.weight_values must be an odd number in 3..{INT8_VALUES}. Received: {self.weight_values}"
            )
        epochs = self.fine_tuning.epochs
        if self.freeze_epoch is not None and self.freeze_epoch > epochs:
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


def _check_share(part: Part, name: str) -> None:
    value = getattr(part, name)
    if not 0 < value < 1:
        raise InputError(f"{type(part).__name__}.{name} must be a share above 0 and under 1. Received: {value}")
