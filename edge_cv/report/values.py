"""The values of a report, and their form in `report.json`."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from converters.errors import InputError
from converters.files import write_atomic
from edge_cv.deploy.package import Delivery
from edge_cv.evaluation.confidence import Confidence
from edge_cv.evaluation.grad_cam import Explained
from edge_cv.evaluation.groups import Grouping
from edge_cv.evaluation.mistakes import Mistakes
from edge_cv.evaluation.multilabel import MultiLabel
from edge_cv.evaluation.per_class import ClassScores
from edge_cv.evaluation.robustness import Robustness

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
"""Version of `report.json`; a reader refuses a later one."""

_COUNTS = ("size_bytes", "gzip_bytes", "parameters", "macs", "images", "peak_memory_bytes", "arena_bytes")
_SHARES = ("top1", "top5", "agreement", "total_sparsity")
_INTERVALS = ("top1_ci95", "agreement_ci95")
_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms")


@dataclass(frozen=True)
class Row:
    """One artifact and what was measured of it. None is a figure that was not measured.

    Attributes:
        scheme: `float32`, `int8`, ...: how the numbers of the artifact are stored.
        file: the artifact's file name.
        size_bytes, gzip_bytes: the file, and the file after gzip.
        parameters, macs: weights, and multiply-accumulates of one inference.
        images: how many photos accuracy and agreement were measured on.
        top1, top5: share 0..1 of the photos whose label is the first, or among the first five.
        top1_ci95, agreement_ci95: (low, high), the 95 % interval of the share.
        agreement: share 0..1 of the photos with the same first class as the float model's.
        sqnr_db: signal to quantization noise of the logits, in dB; None too where there is no noise.
        latency: dicts with `host`, `runtime`, `threads`, `p50_ms`, `p90_ms`, `p99_ms`, `runs` and, when kept,
            `samples_ms`: every single inference.
        peak_memory_bytes: peak resident memory of the process that ran the artifact.
        layers: dicts with `layer` and `sqnr_db`, in the network's order.
        run: the run that the row comes from, when a report compares several.
        sha256: of the artifact's file, by which a measurement on a device finds its row; empty where it is not known.
        classes, confidence, mistakes, groups, robustness, multi_label: what the answers tell class by class, of the
            confidence, of how far off wrong ones are, by the columns of a table, under corruptions, and with several
            labels a photo; each as `edge_cv.evaluation` has it.
        arena_bytes: memory that a microcontroller needs beside the file.
        sparsity: of a compressed model: the share 0..1 of zeros in each layer's weights, by the layer's name.
        total_sparsity: the same of all these weights together.
    """

    scheme: str
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
    latency: tuple[dict[str, Any], ...] = ()
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

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("scheme", "file", "run", "sha256"):
            value = getattr(self, name)
            if not isinstance(value, str) or (not value and name == "scheme"):
                raise InputError(f"a row's {name} must be text. Received: {value!r:.80}")
        for name in _COUNTS:
            value = _number(getattr(self, name), f"a row's {name}", least=0)
            put(name, None if value is None else round(value))
        for name in _SHARES:
            put(name, _number(getattr(self, name), f"a row's {name}", least=0, most=1))
        put("sqnr_db", _number(self.sqnr_db, "a row's sqnr_db"))
        for name in _INTERVALS:
            pair = getattr(self, name)
            if pair is not None:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise InputError(f"a row's {name} must be two numbers, low and high. Received: {pair!r:.80}")
                low, high = (_number(v, f"a row's {name}", least=0, most=1) for v in pair)
                put(name, None if low is None or high is None else (low, high))
        put("latency", tuple(_latency(entry) for entry in _items(self.latency, "a row's latency")))
        put("layers", tuple(_layer(entry) for entry in _items(self.layers, "a row's layers")))
        hints = typing.get_type_hints(Row)
        for name in ("classes", "confidence", "mistakes", "groups", "robustness", "multi_label", "sparsity"):
            put(name, typed(hints[name], getattr(self, name), f"a row's {name}"))

    @property
    def name(self) -> str:
        """How tables and plots call the row: its run, if any, its scheme, and the format unless that is TFLite."""
        onnx = self.file.lower().endswith(".onnx") and "onnx" not in self.scheme.lower()
        return (f"{self.run}: " if self.run else "") + self.scheme + (" (ONNX)" if onnx else "")

    def to_dict(self) -> dict[str, Any]:
        """The row as `report.json` has it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PhotoResult:
    """One photo and what each artifact sees in it.

    Attributes:
        name: the photo's file name.
        label_name: the true class's name, or None for a photo without one.
        thumbnail_jpeg: a small JPEG of it, about 160 pixels wide, or None.
        top5: for each scheme the five likeliest classes, `((class name, probability 0..1), ...)`, likeliest first.
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
        if not isinstance(self.top5, Mapping):
            raise InputError(f"a photo's top5 must map schemes to classes. Received: {self.top5!r:.80}")
        top5 = {}
        for scheme, classes in self.top5.items():
            top5[str(scheme)] = tuple(
                (str(name), _number(probability, "a probability", least=0, most=1.001) or 0.0)
                for name, probability in (_pair(c) for c in _items(classes, "a photo's top5"))
            )
        object.__setattr__(self, "top5", top5)
        object.__setattr__(self, "labels", typed(tuple[str, ...] | None, self.labels, "a photo's labels"))

    def to_dict(self) -> dict[str, Any]:
        """The photo as `report.json` has it, its thumbnail in base64."""
        return plain_json(vars(self))


@dataclass(frozen=True)
class Epoch:
    """One epoch of the model's training.

    Attributes:
        epoch, phase: counted from 1.
        learning_rate: at its end.
        loss, validation_loss: cross-entropy; None where it was not measured, or was no number.
        score, validation_score: top-1 as a share 0..1, or mean average precision with several labels an image.
        images_per_second, seconds: of training, without validation.
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


@dataclass(frozen=True)
class Report:
    """Everything that a run measured, and on what.

    Attributes:
        recipe: the recipe's fields; `name` names the run.
        environment: the machine and the versions of the tools; nested dicts are shown with dotted names.
        violations: one sentence for each of the run's own limits that was broken.
        rows: one for each artifact; the first `float32` one is the reference that the others are compared with.
        photos: what each artifact saw in each photo. Thumbnails belong only to those few that are worth showing.
        notes: sentences that a reader must know, such as where the photos come from.
        explained: some photos and where the model looked in them.
        training: the model's training, epoch by epoch; empty where there was none.
        delivery: what was made for the recipe's device; None where it names none.
    """

    recipe: dict[str, Any]
    environment: dict[str, Any]
    violations: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    photos: tuple[PhotoResult, ...] = ()
    notes: tuple[str, ...] = ()
    explained: tuple[Explained, ...] = ()
    training: tuple[Epoch, ...] = ()
    delivery: Delivery | None = None

    def __post_init__(self) -> None:
        for name in ("recipe", "environment"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise InputError(f"a report's {name} must be an object. Received: {value!r:.80}")
            object.__setattr__(self, name, dict(value))
        for name in ("violations", "notes"):
            object.__setattr__(self, name, tuple(str(v) for v in _items(getattr(self, name), f"a report's {name}")))
        for name, kind in (("rows", Row), ("photos", PhotoResult)):
            values = tuple(getattr(self, name))
            if any(not isinstance(value, kind) for value in values):
                raise InputError(f"a report's {name} must be {kind.__name__} values. Received: {values!r:.80}")
            object.__setattr__(self, name, values)
        explained = typed(tuple[Explained, ...], self.explained, "a report's explained photos")
        object.__setattr__(self, "explained", explained)
        object.__setattr__(self, "training", typed(tuple[Epoch, ...], self.training, "a report's training"))
        object.__setattr__(self, "delivery", typed(Delivery | None, self.delivery, "a report's delivery"))

    @property
    def name(self) -> str:
        """The recipe's name, by which a comparison names the run."""
        return str(self.recipe.get("name") or "run")

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        from edge_cv.report.sentences import headline

        return headline(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as `report.json` has it: what cannot be told in JSON (infinities, paths) is null or text."""
        from edge_cv.report.pareto import fronts

        return plain_json(
            {
                "schema": SCHEMA,
                "recipe": self.recipe,
                "environment": self.environment,
                "violations": self.violations,
                "rows": [row.to_dict() for row in self.rows],
                "fronts": [
                    {"cost": one.cost, "host": one.host, "threads": one.threads, "rows": one.names(self.rows)}
                    for one in fronts(self.rows)
                ],
                "photos": [photo.to_dict() for photo in self.photos],
                "notes": self.notes,
                "explained": [dataclasses.asdict(photo) for photo in self.explained],
                "training": [dataclasses.asdict(epoch) for epoch in self.training],
                "delivery": self.delivery and dataclasses.asdict(self.delivery),
            }
        )

    @classmethod
    def from_dict(cls, fields: Any) -> Report:
        """The report that `to_dict` wrote; keys that it does not know are left out.

        Raises:
            InputError: for anything else.
        """
        if not isinstance(fields, dict) or not isinstance(fields.get("rows"), list):
            raise InputError("a report must be a JSON object with a list of rows")
        schema = fields.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise InputError(
                f"a report's schema must be {SCHEMA}, the one this version reads. Received: {schema!r:.40}"
            )
        return cls(
            recipe=fields.get("recipe", {}),
            environment=fields.get("environment", {}),
            violations=fields.get("violations", ()),
            rows=tuple(_from_fields(Row, row, ("scheme", "file")) for row in fields["rows"]),
            photos=tuple(_photo(photo) for photo in _items(fields.get("photos", ()), "a report's photos")),
            notes=fields.get("notes", ()),
            explained=fields.get("explained", ()),
            training=fields.get("training", ()),
            delivery=fields.get("delivery"),
        )

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `report.json` and `report.html` into `folder`, and return the path of the page.

        Raises:
            InputError: when the folder cannot be written; what was there stays.
        """
        folder = Path(folder)
        page = self.to_html()
        write_atomic(folder / "report.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=True, allow_nan=False))
        return write_atomic(folder / "report.html", page)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Report:
        """Read the report of a run's folder, or a `report.json` itself.

        Raises:
            InputError: when there is none, or when it is not one of ours.
        """
        path = Path(folder)
        if path.is_dir():
            path = path / "report.json"
        try:
            text = path.read_bytes().decode("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{folder} must be a run's folder with a report.json. There is none") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(f"{path} cannot be read: {reason}") from error
        try:
            fields = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} must be a run's report.json. It is not JSON: {error}") from error
        try:
            return cls.from_dict(fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def to_html(self) -> str:
        """The whole page: styles, plots and thumbnails are in it, and it loads nothing."""
        from edge_cv.report.page import render

        return render(self)

    def table(self, *, transposed: bool = False) -> Table:
        """The figures as a rich table, a row for each artifact, or a column for each when `transposed`."""
        from edge_cv.report.terminal import table

        return table(self, transposed=transposed)

    def show(self, file: IO[str] | None = None) -> None:
        """Print the verdict, broken limits and the table, to stdout unless `file` is given."""
        from edge_cv.report.terminal import show

        show(self, file)


def _number(value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float | int | None:
    """`value` if it is a finite number between the bounds, None if it is None or not finite."""
    if value is None:
        return None
    try:
        number = float("nan") if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool | str):
        raise InputError(f"{what} must be a number. Received: {value!r:.80}")
    if not math.isfinite(number):
        return None
    if not least <= number <= most:
        raise InputError(f"{what} must be a number from {least:g} to {most:g}. Received: {number:g}")
    return int(value) if isinstance(value, int) else number


def typed(hint: Any, value: Any, what: str) -> Any:
    """`value` as the type `hint` has it: dicts become its dataclasses, lists tuples, base64 text bytes.

    Raises InputError where it is something else, or a number is not finite.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else typed(arguments[0], value, what)
    if origin is tuple:
        items = _items(value, what)
        if arguments[-1] is not Ellipsis and len(items) != len(arguments):
            raise InputError(f"{what} must be {len(arguments)} values. Received: {value!r:.80}")
        return tuple(typed(arguments[0], item, what) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{what} must be an object. Received: {value!r:.80}")
        return {str(name): typed(arguments[1], item, f"{what}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"{what} must be an object. Received: {value!r:.80}")
        hints = typing.get_type_hints(hint)
        for field in dataclasses.fields(hint):
            if field.name not in value and field.default is dataclasses.MISSING:
                raise InputError(f"{what} must have {field.name}. Received: {', '.join(map(str, value))!r:.80}")
        return hint(
            **{name: typed(kind, value[name], f"{what}.{name}") for name, kind in hints.items() if name in value}
        )
    if hint is bytes and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return base64.b64decode(value, validate=True)
    if hint in (int, float):
        number = _number(value, what)
        if number is None or (hint is int and number != int(number)):
            raise InputError(f"{what} must be a number. Received: {value!r:.80}")
        return hint(number)
    if not isinstance(value, hint):
        raise InputError(f"{what} must be {hint.__name__}. Received: {value!r:.80}")
    return value


def _items(values: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise InputError(f"{what} must be a list. Received: {values!r:.80}")
    return tuple(values)


def _pair(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"a class of a photo's top5 must be a name and a probability. Received: {value!r:.80}")
    return value[0], value[1]


def _latency(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise InputError(f"a latency must be an object with host, threads and p50_ms. Received: {entry!r:.80}")
    entry = dict(entry)
    if entry.get("p50_ms") is None:
        raise InputError(f"a latency must have a p50_ms. Received: {', '.join(map(str, entry))!r:.80}")
    known = {
        "host": str(entry.get("host") or "unknown host"),
        "runtime": str(entry.get("runtime") or "unknown runtime"),
        "threads": round(_number(entry.get("threads", 1), "a latency's threads", least=0) or 0),
        **{name: _number(entry.get(name), f"a latency's {name}", least=0) for name in _PERCENTILES},
        "runs": _number(entry.get("runs"), "a latency's runs", least=0),
    }
    if entry.get("samples_ms") is not None:
        samples = _items(entry["samples_ms"], "a latency's samples_ms")
        numbers = (_number(v, "a latency's sample", least=0) for v in samples)
        known["samples_ms"] = tuple(v for v in numbers if v is not None)
    return {**known, **{k: v for k, v in entry.items() if k not in known and k != "samples_ms"}}


def _layer(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or "layer" not in entry:
        raise InputError(f"a layer must be an object with layer and sqnr_db. Received: {entry!r:.80}")
    return {**entry, "layer": str(entry["layer"]), "sqnr_db": _number(entry.get("sqnr_db"), "a layer's sqnr_db")}


def _from_fields(kind: Callable[..., Any], fields: Any, required: tuple[str, ...]) -> Any:
    if not isinstance(fields, dict):
        raise InputError(f"a row must be an object. Received: {fields!r:.80}")
    missing = [name for name in required if name not in fields]
    if missing:
        raise InputError(f"a row must have {' and '.join(missing)}. Received: {', '.join(fields)!r:.80}")
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in known})


def _photo(fields: Any) -> PhotoResult:
    if not isinstance(fields, dict):
        raise InputError(f"a photo must be an object. Received: {fields!r:.80}")
    thumbnail = fields.get("thumbnail_jpeg")
    if thumbnail is not None:
        try:
            thumbnail = base64.b64decode(thumbnail, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InputError("a photo's thumbnail must be base64 text") from None
    return PhotoResult(
        fields.get("name", ""), fields.get("label_name"), thumbnail, fields.get("top5", {}), fields.get("labels")
    )


def plain_json(value: Any) -> Any:
    """`value` made of what JSON has: tuples become lists, numbers of numpy become numbers, infinities null."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(v) for v in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain_json(value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain_json(vars(value))
    return str(value)
