"""A recipe: which model, on which photos, in which schemes, measured how, and what the result must keep.

A recipe file is a page of Python that ends in `RECIPE = Recipe(...)`. Everything here is a frozen dataclass that
checks itself; the values are plain numbers and text, so that a recipe goes into `report.json` as it is.
"""

from __future__ import annotations

import ast
import dataclasses
import runpy
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import InputError, unknown


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
        name: an architecture of `edge-cv models`.
        weights: `imagenet`, the path of our own `.keras` or `.weights.h5` file, or None for a random start.
        classes: number of logits.
        image_size: height and width of the input in pixels; None is the architecture's own.
        alpha: width multiplier.
        options: the architecture family's own options.
    """

    name: str
    weights: str | None = None
    classes: int = 1000
    image_size: int | None = None
    alpha: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        self.at_least(1, "classes", "image_size")


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
    """

    scheme: str = "int8"
    max_size_bytes: int | None = None
    max_size_ratio: float | None = None
    max_p50_ms: float | None = None
    max_latency_ratio: float | None = None
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    min_sqnr_db: float | None = None

    def check(self) -> None:
        self.at_least(0, "max_size_bytes", "max_size_ratio", "max_p50_ms", "max_latency_ratio", "min_agreement")
        if self.min_agreement is not None and self.min_agreement > 1:
            raise InputError(f"Limits.min_agreement must be a share in 0..1. Received: {self.min_agreement}")


INT8_VALUES = 255  # of a weight, -127..127


@dataclass(frozen=True)
class Tuning(_Part):
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
    tuning: Tuning = Tuning()

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
    tuning: Tuning = Tuning()

    def end(self) -> float:
        """When the schedule ends, in epochs."""
        last = max(self.begin_epoch, self.tuning.epochs * 2 / 3)
        return last if self.end_epoch is None else self.end_epoch

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
class Cluster(_Part):
    """Few different weights a layer: a smaller file once it is compressed, not a faster network.

    Attributes:
        clusters: different values a layer, at least 3 (one of them is 0 in a pruned model).
        exclude: patterns of the names of layers that keep their weights.
        tuning: the training meanwhile.
    """

    clusters: int = 16
    exclude: tuple[str, ...] = ()
    tuning: Tuning = Tuning(epochs=2, learning_rate=1e-4)

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
    tuning: Tuning = Tuning(epochs=3, learning_rate=1e-4)

    def freeze(self) -> int:
        """From which epoch on statistics and ranges are frozen."""
        return -(-self.tuning.epochs * 2 // 3) if self.freeze_epoch is None else self.freeze_epoch

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


def check_together(*, prune: Prune | None = None, cluster: Cluster | None = None, qat: Qat | None = None) -> None:
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


@dataclass(frozen=True)
class Recipe(_Part):
    """One run, from a model to a report.

    Attributes:
        name: of the run, in the report.
        model: the network and its weights.
        data: the photos.
        schemes: TFLite files to make; the first is the reference when it is `float32`, which it should be.
        onnx: ONNX files to make: `float32`.
        measure: how latency is measured.
        limits: what the artifacts must keep.
        notes: sentences for the report's reader.
    """

    name: str
    model: Model
    data: Data = Data()
    schemes: tuple[str, ...] = ("float32", "float16", "dynamic_int8", "int8")
    onnx: tuple[str, ...] = ()
    measure: Measure = Measure()
    limits: tuple[Limits, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        if not self.name.strip() or "/" in self.name or self.name.startswith("."):
            raise InputError(f"Recipe.name must be usable as a folder's name. Received: {self.name!r}")
        if not self.schemes:
            raise InputError("Recipe.schemes must name at least one scheme. Received: none")
        for names in (self.schemes, self.onnx):
            if len(set(names)) < len(names):
                raise InputError(f"a recipe must name each scheme once. Received: {', '.join(names)}")
        rows = (*self.schemes, *(f"onnx_{scheme}" for scheme in self.onnx))
        for limits in self.limits:
            if limits.scheme not in rows:
                raise unknown("scheme in Limits", limits.scheme, rows)

    def quick(self) -> Recipe:
        """The same chain on few photos and few timed runs: whether it works, not what it is worth."""
        data = dataclasses.replace(self.data, images=min(8, self.data.images or 8), calibration_images=8)
        measure = dataclasses.replace(self.measure, runs=5, warmup=1, threads=self.measure.threads[:1])
        return dataclasses.replace(self, data=data, measure=measure, limits=())

    def with_data(self, folder: str) -> Recipe:
        """The recipe on the photos of one folder, for measuring and, others of them, for calibration."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, measure=str(folder), calibrate=None))

    def with_settings(self, settings: typing.Iterable[str]) -> Recipe:
        """The recipe with fields replaced: `measure.runs=20`, `schemes=('float32','int8')`, `model.weights=None`.

        Raises:
            InputError: no such field, or a value that the field refuses.
        """
        recipe: Any = self
        for setting in settings:
            path, equals, text = setting.partition("=")
            if not equals:
                raise InputError(f"a setting must be FIELD=VALUE, such as measure.runs=20. Received: {setting!r}")
            try:
                value = ast.literal_eval(text.strip())
            except (ValueError, SyntaxError):
                value = text.strip()  # plain words need no quotes
            recipe = _replaced(recipe, path.strip().split("."), value, setting)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


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
