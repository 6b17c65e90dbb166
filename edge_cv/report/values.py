"""The values of a report: what a run measured, of which files, with which photos and on which machine."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.devices.compiled import Estimate
from converters.errors import InputError
from converters.strict_json import items, mapping, optional_number, typed
from edge_cv.deploy.package import Package
from edge_cv.evaluation.confidence import Confidence
from edge_cv.evaluation.conformance import Conformance
from edge_cv.evaluation.grad_cam import Explained
from edge_cv.evaluation.groups import Grouping
from edge_cv.evaluation.latency import Latency
from edge_cv.evaluation.mistakes import Mistakes
from edge_cv.evaluation.multilabel import MultiLabel
from edge_cv.evaluation.per_class import ClassScores
from edge_cv.evaluation.robustness import Robustness
from edge_cv.evaluation.sensitivity import Sensitivity
from edge_cv.recipe import Output

_COUNTS = ("size_bytes", "gzip_bytes", "parameters", "macs", "images", "peak_memory_bytes", "arena_bytes")
_SHARES = ("top1", "top5", "agreement", "total_sparsity")
_INTERVALS = ("top1_ci95", "agreement_ci95")
_LAYER_FIGURES = ("sqnr_db", "weights_sqnr_db", "saturated", "unused")
_TYPED = (
    *("latency", "classes", "confidence", "mistakes", "groups", "robustness", "multi_label", "sparsity", "estimate"),
    *("conformance", "sensitivity"),
)
MAX_COUNT = 1 << 53
MAX_NAME = 4096  # characters: a row may be named after a path
MAX_ROWS = 1000  # the page of so many takes a minute
_MOST_OF_ROW = {"latency": 100, "layers": 10_000, "groups": 100}
MOST = {  # entries of a report
    **{"rows": MAX_ROWS, "photos": 10_000, "explained": 1000, "training": 10_000, "fine_tuning": 100},
    **{"violations": 10_000, "notes": 10_000, "warnings": 10_000},
}
_MAX_PROBABILITY = 1.001  # the sum of a softmax in float32 may exceed 1


@dataclass(frozen=True)
class Row:
    """One converted file and its measurements. None is a figure that was not measured.

    Attributes:
        output: which file of the run this is: compression stage, format and quantization scheme.
        file: the file's name.
        size_bytes, gzip_bytes: size of the file, and of the file after gzip.
        parameters, macs: weights, and multiply-accumulate operations of one inference.
        images: number of photos that accuracy and agreement were measured on.
        top1, top5: share of the photos, 0..1, whose label is the first, or among the first five, predicted classes.
        top1_ci95, agreement_ci95: 95 % interval (low, high) of the share.
        agreement: share of the photos, 0..1, with the same predicted class as the float model.
        sqnr_db: signal-to-quantization-noise ratio of the logits in dB; also None where there is no noise.
        latency: one value for each machine and number of threads.
        peak_memory_bytes: peak resident memory of the process that ran the file.
        layers: dicts with `layer` and `sqnr_db`, from input to output.
        run: the name of the run, where a report compares several.
        sha256: of the file, which measurements on a device are matched by; empty where it is not known.
        classes, confidence, mistakes, groups, robustness, multi_label: results of `edge_cv.evaluation`: for each class,
            calibration, severity of mistakes, for groups of photos, under corruptions, and for photos with several
            labels.
        arena_bytes: working memory that a microcontroller needs in addition to the file.
        sparsity: for a compressed model, the share of zeros, 0..1, in the weights of each layer.
        total_sparsity: the share of zeros in all these weights together.
        estimate: what the compiler of an NPU expects of the file there.
        conformance: the file's outputs with several runtimes.
        sensitivity: of a `mixed` file: how much each layer adds to the error, and what wide layers cost.
        label: the row's name where it is not `output.name`: for files that were not made by a recipe.
    """

    output: Output
    file: str
    size_bytes: int | None = None
    gzip_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    images: int | None = None
    top1: float | None = None
    top5: float | None = None
    top1_ci95: tuple[float, float] | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    latency: tuple[Latency, ...] = ()
    peak_memory_bytes: int | None = None
    agreement_ci95: tuple[float, float] | None = None
    layers: tuple[dict[str, Any], ...] = ()
    run: str = ""
    classes: ClassScores | None = None
    confidence: Confidence | None = None
    mistakes: Mistakes | None = None
    groups: tuple[Grouping, ...] = ()
    robustness: Robustness | None = None
    multi_label: MultiLabel | None = None
    sparsity: dict[str, float] | None = None
    total_sparsity: float | None = None
    arena_bytes: int | None = None
    sha256: str = ""
    label: str = ""
    estimate: Estimate | None = None
    conformance: Conformance | None = None
    sensitivity: Sensitivity | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if not isinstance(self.output, Output):
            raise InputError(f"a row's output must be an Output. Received: {self.output!r:.80}")
        for name in ("file", "run", "sha256", "label"):
            if len(typed(str, getattr(self, name), f"a row's {name}")) > MAX_NAME:
                raise InputError(f"a row's {name} must be text of at most {MAX_NAME:,} characters")
        for name, most in _MOST_OF_ROW.items():
            items(getattr(self, name), f"a row's {name}", most)
        if self.label == self.output.name:
            put("label", "")
        for name in _COUNTS:
            value = optional_number(getattr(self, name), f"a row's {name}", least=0, most=MAX_COUNT)
            put(name, None if value is None else round(value))
        for name in _SHARES:
            put(name, optional_number(getattr(self, name), f"a row's {name}", least=0, most=1))
        put("sqnr_db", optional_number(self.sqnr_db, "a row's sqnr_db"))
        for name in _INTERVALS:
            put(name, _interval(getattr(self, name), f"a row's {name}"))
        put("layers", tuple(_layer(entry) for entry in items(self.layers, "a row's layers")))
        hints = typing.get_type_hints(Row)
        for name in _TYPED:
            put(name, typed(hints[name], getattr(self, name), f"a row's {name}"))

    @property
    def scheme(self) -> str:
        """The row's name within its run, as `report.json` holds it: `int8`, `pruned_onnx_float32`."""
        return self.label or self.output.name

    @property
    def short_name(self) -> str:
        """`scheme`, marked where it hides that the file is an ONNX file."""
        return f"{self.scheme} (ONNX)" if self.label and self.is_onnx else self.scheme

    @property
    def name(self) -> str:
        """The row's name in tables and plots: its run, if any, and `short_name`."""
        return f"{self.run}: {self.short_name}" if self.run else self.short_name

    @property
    def is_onnx(self) -> bool:
        """Whether the file is an ONNX file."""
        return self.output.format == "onnx"


@dataclass(frozen=True)
class PhotoResult:
    """One photo and the classes that each file predicts for it.

    Attributes:
        name: the photo's file name.
        label_name: the true class's name, or None for a photo without a label.
        thumbnail_jpeg: a small JPEG of it, about 160 pixels wide, or None.
        top5: for the `scheme` of each row the five most likely classes, `((class name, probability 0..1), ...)`, most
            likely first.
        labels: the names of all its classes, where photos may show several; else None.
    """

    name: str
    label_name: str | None
    thumbnail_jpeg: bytes | None
    top5: dict[str, tuple[tuple[str, float], ...]]
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.label_name, str | None):
            raise InputError(f"a photo's name and label must be text. Received: {self.name!r:.80}")
        if not isinstance(self.thumbnail_jpeg, bytes | None):
            raise InputError(f"a photo's thumbnail must be bytes. Received: {type(self.thumbnail_jpeg).__name__}")
        top5 = {
            str(scheme): tuple(_prediction(entry) for entry in items(classes, "a photo's top5"))
            for scheme, classes in mapping(self.top5, "a photo's top5").items()
        }
        object.__setattr__(self, "top5", top5)
        object.__setattr__(self, "labels", typed(tuple[str, ...] | None, self.labels, "a photo's labels"))


@dataclass(frozen=True)
class Epoch:
    """One epoch of the model's training, or of the fine-tuning of a compressed model.

    Attributes:
        epoch, phase: counted from 1.
        learning_rate: at the end of the epoch.
        loss, validation_loss: cross-entropy; None where it was not measured, or was not finite.
        score, validation_score: top-1 as a share 0..1, or mean average precision for images with several labels.
        images_per_second, seconds: of training, without validation.
        validation_images: number of images behind a top-1 `validation_score`; None for a mean average precision.
        sparsity: share of zeros, 0..1, in the weights of a model that is being pruned.
    """

    epoch: int
    phase: int
    learning_rate: float
    loss: float | None
    score: float | None
    validation_loss: float | None
    validation_score: float | None
    images_per_second: float
    seconds: float
    validation_images: int | None = None
    sparsity: float | None = None


@dataclass(frozen=True)
class StageTraining:
    """The fine-tuning of one stage of compression.

    Attributes:
        stage: its name, see `Output`.
        epochs: of at least 20 steps each.
    """

    stage: str
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class ProbeResult:
    """A linear probe on the untrained features, beside the fine-tuned model, on the same test photos.

    Attributes:
        images: number of these photos; neither model was chosen by them.
        top1, top1_ci95: of the probe, with its 95 % interval.
        fine_tuned, fine_tuned_ci95: of the fine-tuned model; None if the probe itself is the model.
        cross_validated, cross_validated_ci95: of the probe on its training photos, in folds.
        training_images: number of photos that the probe was fitted on.
        inverse_penalty: scikit-learn's C, chosen in these folds.
        seconds: duration of the probe.
    """

    images: int
    top1: float
    top1_ci95: tuple[float, float]
    fine_tuned: float | None
    fine_tuned_ci95: tuple[float, float] | None
    cross_validated: float | None
    cross_validated_ci95: tuple[float, float] | None
    training_images: int
    inverse_penalty: float
    seconds: float


@dataclass(frozen=True)
class Report:
    """Everything that a run measured, and the conditions under which it was measured.

    Attributes:
        recipe: the recipe's fields; `name` is the name of the run.
        environment: the machine and the versions of the tools; nested dicts are shown with dotted names.
        violations: one sentence for each limit of the recipe that the run breaks.
        rows: one for each file; the first `float32` one is the reference that the others are compared with.
        photos: the predictions for the photos that are shown, with their thumbnails.
        notes: sentences about the conditions of the measurement, such as the source of the photos.
        explained: photos with Grad-CAM maps.
        training: the epochs of the model's training; empty where there was none.
        fine_tuning: the fine-tuning of each stage of compression.
        delivery: the package for the recipe's target device; None where the recipe has no device.
        probe: the linear probe beside the fine-tuned model; None where there was none.
        warnings: one sentence for each stage of compression that costs more accuracy than it should.
    """

    recipe: dict[str, Any]
    environment: dict[str, Any]
    violations: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    photos: tuple[PhotoResult, ...] = ()
    notes: tuple[str, ...] = ()
    explained: tuple[Explained, ...] = ()
    training: tuple[Epoch, ...] = ()
    delivery: Package | None = None
    probe: ProbeResult | None = None
    warnings: tuple[str, ...] = ()
    fine_tuning: tuple[StageTraining, ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, most in MOST.items():
            items(getattr(self, name), f"a report's {name}", most)
        for name in ("recipe", "environment"):
            put(name, dict(mapping(getattr(self, name), f"a report's {name}")))
        for name in ("violations", "notes", "warnings"):
            put(name, tuple(str(value) for value in items(getattr(self, name), f"a report's {name}")))
        for name, kind in (("rows", Row), ("photos", PhotoResult)):
            values = tuple(getattr(self, name))
            if any(not isinstance(value, kind) for value in values):
                raise InputError(f"a report's {name} must be {kind.__name__} values. Received: {values!r:.80}")
            put(name, values)
        put("explained", typed(tuple[Explained, ...], self.explained, "a report's explained photos"))
        put("training", typed(tuple[Epoch, ...], self.training, "a report's training"))
        put("fine_tuning", typed(tuple[StageTraining, ...], self.fine_tuning, "a report's fine_tuning"))
        put("delivery", typed(Package | None, self.delivery, "a report's delivery"))
        put("probe", typed(ProbeResult | None, self.probe, "a report's probe"))

    @property
    def name(self) -> str:
        """The name of the run, from its recipe."""
        return str(self.recipe.get("name") or "run")


def _interval(pair: Any, what: str) -> tuple[float, float] | None:
    if pair is None:
        return None
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError(f"{what} must be two numbers, low and high. Received: {pair!r:.80}")
    low, high = (optional_number(value, what, least=0, most=1) for value in pair)
    return None if low is None or high is None else (low, high)


def _layer(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or "layer" not in entry:
        raise InputError(f"a layer must be an object with layer and sqnr_db. Received: {entry!r:.80}")
    figures = {name: optional_number(entry.get(name), f"a layer's {name}") for name in _LAYER_FIGURES if name in entry}
    return {"sqnr_db": None, **entry, "layer": typed(str, entry["layer"], "a layer's name"), **figures}


def _prediction(entry: Any) -> tuple[str, float]:
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        raise InputError(f"a class of a photo's top5 must be a name and a probability. Received: {entry!r:.80}")
    name, probability = entry
    return str(name), optional_number(probability, "a probability", least=0, most=_MAX_PROBABILITY) or 0.0
