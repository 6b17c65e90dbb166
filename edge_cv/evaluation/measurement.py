"""A measurement: the results of one model on one machine, as a value and as a JSON file.

The file may come from an untrusted device or phone, so every field is checked when it is read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters import strict_json
from converters.errors import InputError
from converters.files import write_atomic
from converters.strict_json import integer, items, mapping, number, sha256, text
from edge_cv.evaluation.latency import Latency
from edge_cv.intervals import wilson_interval

SCHEMA = 1
MAX_BYTES = strict_json.MAX_BYTES  # of a file; 1000 outputs for each of 1000 images take a third of it
MAX_IMAGES = 100_000
_LATENCY_FIELDS = ("threads", "p50_ms", "p90_ms", "p99_ms", "runs")  # required in a measurement


@dataclass(frozen=True)
class Golden:
    """The outputs of a machine for the golden inputs, which are the same for every machine.

    Attributes:
        sha256: of the inputs, raw tensors one after the other.
        outputs: what the model gives, not dequantized, `(images, classes)`: int64 for integers, else float64.
    """

    sha256: str
    outputs: np.ndarray

    @property
    def images(self) -> int:
        return len(self.outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Golden) and self.sha256 == other.sha256 and np.array_equal(self.outputs, other.outputs)


@dataclass(frozen=True)
class OutputMatch:
    """A device's outputs for the golden inputs, compared with those of the machine that sent the inputs.

    Attributes:
        runtime: the program that ran the model on that machine.
        images: golden inputs.
        top1_equal: inputs for which the largest output has the same index, or a single output decides alike.
        max_steps: the largest difference of two outputs in steps of their integer type; None for float outputs.
        max_abs_error: the largest difference of two float outputs; None for integers.
    """

    runtime: str
    images: int
    top1_equal: int
    max_steps: int | None
    max_abs_error: float | None

    def sentence(self) -> str:
        """The comparison in words."""
        if self.max_steps is not None:
            apart = f"outputs at most {self.max_steps} step{'' if self.max_steps == 1 else 's'} apart"
        else:
            apart = f"outputs at most {self.max_abs_error:.3g} apart"
        return f"the same top-1 on {self.top1_equal} of {self.images} golden inputs, {apart} (here: {self.runtime})"


@dataclass(frozen=True)
class DeviceAccuracy:
    """How often a device named the class of labelled photos that are stored on it.

    Attributes:
        runtime: the program that ran the model.
        images: the photos that it classified.
        top1, top5: the photos whose class is the likeliest one, and among the five likeliest.
        unread: photos that it could not decode, which are not among `images`.
    """

    runtime: str
    images: int
    top1: int
    top5: int
    unread: int

    def sentence(self) -> str:
        """The accuracy in words, with Wilson's 95 % interval."""
        low, high = (100 * end for end in wilson_interval(self.top1, self.images))
        top1, top5 = (100 * count / self.images for count in (self.top1, self.top5))
        unread = f", {self.unread} not readable" if self.unread else ""
        return (
            f"{top1:.1f} % of {self.images} labelled photos on the device are correct (95 % interval {low:.1f} to "
            f"{high:.1f} %), {top5:.1f} % among the five likeliest{unread} ({self.runtime})"
        )


@dataclass(frozen=True)
class Measurement:
    """The results of one model on one machine.

    Attributes:
        file, sha256: the model's file name, and the hash of the file that ran.
        device: what the machine reports about itself, as text; `host` is its name in every report.
        latency: one value for each thread count; the last has fewer runs if the device disconnected.
        peak_memory_bytes: growth of the memory because of the model; None where the system does not report it.
        temperature_c, clock_mhz: before and after the timed inferences; None where the system does not report them.
        golden: the outputs for the golden inputs.
        likeness: how these compare with the outputs of the machine that sent the inputs.
        accuracy: on labelled photos of the device.
        error: why the measurement is incomplete, if the device failed or disconnected.
    """

    file: str
    sha256: str
    device: dict[str, str]
    latency: tuple[Latency, ...] = ()
    peak_memory_bytes: int | None = None
    temperature_c: tuple[float, float] | None = None
    clock_mhz: tuple[float, float] | None = None
    golden: Golden | None = None
    likeness: OutputMatch | None = None
    accuracy: DeviceAccuracy | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The measurement, as JSON holds it."""
        golden = self.golden and {
            "sha256": self.golden.sha256,
            "images": self.golden.images,
            "outputs": self.golden.outputs.tolist(),
        }
        fields = {
            "schema": SCHEMA,
            "kind": "measurement",
            "artifact": {"file": self.file, "sha256": self.sha256},
            "device": self.device,
            "latency": [entry.to_json() for entry in self.latency],
            "peak_memory_bytes": self.peak_memory_bytes,
            "temperature_c": self.temperature_c and list(self.temperature_c),
            "clock_mhz": self.clock_mhz and list(self.clock_mhz),
            "golden": golden,
            "likeness": self.likeness and asdict(self.likeness),
            "accuracy": self.accuracy and asdict(self.accuracy),
        }
        return fields if self.error is None else {**fields, "error": self.error}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the measurement file; in a folder, it is named `measurement_<model's stem>.json`. Returns its path."""
        path = Path(path)
        if path.is_dir():
            path = path / f"measurement_{Path(self.file).stem}.json"
        return write_atomic(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def from_dict(cls, fields: Any) -> Measurement:
        """The measurement that `to_dict` wrote; unknown keys are ignored.

        Raises:
            InputError: a field is missing or wrong, or the file holds only the reason why a device could not measure.
        """
        fields = mapping(fields, "a measurement")
        if fields.get("kind") != "measurement" or fields.get("schema") != SCHEMA:
            received = f"{fields.get('kind')!r:.40}, {fields.get('schema')!r:.40}"
            raise InputError(
                f"a measurement must have the kind 'measurement' and the schema {SCHEMA}. Received: {received}"
            )
        error = None if fields.get("error") is None else text(fields["error"], "a measurement's error")
        if error is not None and "artifact" not in fields:
            raise InputError(f"the device could not measure: {error}")
        artifact = mapping(fields.get("artifact"), "a measurement's artifact")
        device = {
            text(name, "a name"): text(str(value), f"the device's {name!r:.40}")
            for name, value in mapping(fields.get("device"), "a measurement's device").items()
        }
        if not device.get("host"):
            raise InputError("a measurement's device must have a host, the name of the machine. Received: none")
        memory = fields.get("peak_memory_bytes")
        return cls(
            file=text(artifact.get("file"), "the artifact's file"),
            sha256=sha256(artifact.get("sha256"), "the artifact's sha256"),
            device=device,
            latency=tuple(_latency(entry) for entry in items(fields.get("latency"), "a measurement's latency", 100)),
            peak_memory_bytes=None if memory is None else integer(memory, "peak_memory_bytes", 0, 1 << 50),
            temperature_c=_pair(fields.get("temperature_c"), "temperature_c", -100, 300),
            clock_mhz=_pair(fields.get("clock_mhz"), "clock_mhz", 0, 1e6),
            golden=_golden(fields.get("golden")),
            likeness=_likeness(fields.get("likeness")),
            accuracy=_accuracy(fields.get("accuracy")),
            error=error,
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Measurement:
        """Read a measurement file.

        Raises:
            InputError: the file cannot be read or is no measurement.
        """
        fields = strict_json.read(Path(path), "a measurement", MAX_BYTES)
        try:
            return cls.from_dict(fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def compare(ours: np.ndarray, theirs: np.ndarray, runtime: str, threshold: float = 0.0) -> OutputMatch:
    """Compare the outputs of a device with those of this machine for the same inputs.

    Args:
        ours, theirs: outputs of this machine and of the device, `(images, classes)`, not dequantized.
        runtime: the program that ran the model on this machine.
        threshold: a single output decides for its class above this value.

    Raises:
        InputError: the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise InputError(
            f"the device must give outputs of {ours.shape} for the golden inputs. Received: {theirs.shape}"
        )
    if ours.dtype.kind in "iu" and theirs.dtype.kind not in "iu":
        raise InputError(f"the device must give integers for the golden inputs. Received: {theirs.dtype}")
    if ours.shape[1] == 1:
        equal = int(((ours > threshold) == (theirs > threshold)).sum())
    else:
        equal = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    if ours.dtype.kind in "iu":
        return OutputMatch(runtime, len(ours), equal, max_steps=int(largest), max_abs_error=None)
    return OutputMatch(runtime, len(ours), equal, max_steps=None, max_abs_error=largest)


def outputs_of(values: Any, what: str) -> np.ndarray:
    """Lists of finite numbers of one length as an array `(images, classes)`: int64 if all are integers, else float64.

    Raises:
        InputError: the values are something else.
    """
    rows = items(values, what, MAX_IMAGES)
    if not rows:
        raise InputError(f"{what} must have an image. Received: none")
    length = len(items(rows[0], f"an image of {what}"))
    for row in rows:
        row = items(row, f"an image of {what}")
        if len(row) != length or not length:
            raise InputError(f"{what} must have as many numbers for every image. Received: {length} and {len(row)}")
        for value in row:
            number(value, f"a value of {what}")
    whole = all(isinstance(value, int) and abs(value) < 1 << 53 for row in rows for value in row)
    return np.array(rows, np.int64 if whole else np.float64)


def _latency(fields: Any) -> Latency:
    missing = [name for name in _LATENCY_FIELDS if mapping(fields, "a latency").get(name) is None]
    if missing:
        raise InputError(f"a latency must have {', '.join(_LATENCY_FIELDS)}. Received: no {missing[0]}")
    return Latency.from_json({"host": None, "runtime": None, **fields})


def _golden(fields: Any) -> Golden | None:
    if fields is None:
        return None
    fields = mapping(fields, "golden")
    outputs = outputs_of(fields.get("outputs"), "golden's outputs")
    golden = Golden(sha256(fields.get("sha256"), "golden's sha256"), outputs)
    images = integer(fields.get("images"), "golden's images", 1, MAX_IMAGES)
    if images != golden.images:
        raise InputError(f"golden's images must be as many as its outputs, {golden.images}. Received: {images}")
    return golden


def _likeness(fields: Any) -> OutputMatch | None:
    if fields is None:
        return None
    fields = mapping(fields, "likeness")
    images = integer(fields.get("images"), "likeness's images", 1, MAX_IMAGES)
    steps, error = fields.get("max_steps"), fields.get("max_abs_error")
    if (steps is None) == (error is None):
        received = "neither" if steps is None else "both"
        raise InputError(f"likeness must have either max_steps or max_abs_error. Received: {received}")
    return OutputMatch(
        runtime=text(fields.get("runtime"), "likeness's runtime"),
        images=images,
        top1_equal=integer(fields.get("top1_equal"), "likeness's top1_equal", 0, images),
        max_steps=None if steps is None else integer(steps, "likeness's max_steps", 0, 1 << 53),
        max_abs_error=None if error is None else float(number(error, "likeness's max_abs_error", 0)),
    )


def _accuracy(fields: Any) -> DeviceAccuracy | None:
    if fields is None:
        return None
    fields = mapping(fields, "accuracy")
    images = integer(fields.get("images"), "accuracy's images", 1, MAX_IMAGES)
    top5 = integer(fields.get("top5"), "accuracy's top5", 0, images)
    return DeviceAccuracy(
        runtime=text(fields.get("runtime"), "accuracy's runtime"),
        images=images,
        top1=integer(fields.get("top1"), "accuracy's top1", 0, top5),
        top5=top5,
        unread=integer(fields.get("unread"), "accuracy's unread", 0, MAX_IMAGES),
    )


def _pair(values: Any, what: str, least: float, most: float) -> tuple[float, float] | None:
    if values is None:
        return None
    if len(items(values, what, 2)) != 2:
        raise InputError(f"{what} must be two numbers, before and after. Received: {values!r:.80}")
    before, after = (float(number(value, what, least, most)) for value in values)
    return before, after
