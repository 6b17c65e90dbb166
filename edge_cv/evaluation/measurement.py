"""A measurement: what one machine, this one or another, told of one artifact; as a value and as a JSON file.

The file may come from a device or a phone that nobody vouches for, so every field is checked when it is read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.files import write_atomic
from edge_cv.evaluation.latency import Latency, percentiles
from edge_cv.strict_json import MAX_NUMBERS, fields_of, integer, items, number, samples, sha256, text

SCHEMA = 1
MAX_BYTES = 1 << 28  # of a measurement file: a thousand images' outputs of a thousand classes are a tenth of it
MAX_IMAGES = 100_000


@dataclass(frozen=True)
class Golden:
    """What a machine answered to inputs that every machine gets.

    Attributes:
        sha256: of the inputs, raw tensors one after the other.
        outputs: the numbers as the artifact gives them, `(images, classes)`: int64 for integers, else float64.
    """

    sha256: str
    outputs: np.ndarray

    @property
    def images(self) -> int:
        return len(self.outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Golden) and self.sha256 == other.sha256 and np.array_equal(self.outputs, other.outputs)

    __hash__ = None


@dataclass(frozen=True)
class OutputMatch:
    """How a device's outputs for the golden inputs compare with those of the machine that sent them.

    Attributes:
        runtime: what ran the artifact on that machine.
        images: golden inputs.
        top1_equal: on how many of them the largest output is the same one.
        max_steps: the largest difference of an output, in steps of its integer type; None for float outputs.
        max_abs_error: the largest difference of a float output; None for integers.
    """

    runtime: str
    images: int
    top1_equal: int
    max_steps: int | None
    max_abs_error: float | None

    def sentence(self) -> str:
        """The same in words."""
        if self.max_steps is not None:
            apart = f"outputs at most {self.max_steps} step{'' if self.max_steps == 1 else 's'} apart"
        else:
            apart = f"outputs at most {self.max_abs_error:.3g} apart"
        return f"the same top-1 on {self.top1_equal} of {self.images} golden inputs, {apart} (here: {self.runtime})"


@dataclass(frozen=True)
class Measurement:
    """What was measured of one artifact on one machine.

    Attributes:
        file, sha256: the artifact's name, and the hash of the file that ran.
        device: what the machine says of itself, as text; `host` is its name in every report.
        latency: one value for each thread count; the last has fewer runs when the device vanished meanwhile.
        peak_memory_bytes: by how much the model made memory grow; None where the system does not tell.
        temperature_c, clock_mhz: before and after the timed inferences; None where the system does not tell.
        golden: the outputs for the golden inputs.
        likeness: how they compare with the outputs of the machine that sent the inputs.
        error: why there is no more, where the device failed or vanished before the end.
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
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON has it."""
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
            "latency": [entry.to_dict() for entry in self.latency],
            "peak_memory_bytes": self.peak_memory_bytes,
            "temperature_c": self.temperature_c and list(self.temperature_c),
            "clock_mhz": self.clock_mhz and list(self.clock_mhz),
            "golden": golden,
            "likeness": self.likeness and asdict(self.likeness),
        }
        return fields if self.error is None else {**fields, "error": self.error}

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the measurement file; into a folder as `measurement_<artifact's stem>.json`."""
        path = Path(path)
        if path.is_dir():
            path = path / f"measurement_{Path(self.file).stem}.json"
        return write_atomic(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def from_dict(cls, fields: Any) -> Measurement:
        """The measurement that JSON holds, each field checked; keys that it does not know are left out.

        Raises:
            InputError: a field is missing or is something else, or the machine says only why it could not measure.
        """
        fields = fields_of(fields, "a measurement")
        if fields.get("kind") != "measurement" or fields.get("schema") != SCHEMA:
            received = f"{fields.get('kind')!r:.40}, {fields.get('schema')!r:.40}"
            raise InputError(
                f"a measurement must have the kind 'measurement' and the schema {SCHEMA}. Received: {received}"
            )
        error = None if fields.get("error") is None else text(fields["error"], "a measurement's error")
        if error is not None and "artifact" not in fields:
            raise InputError(f"the device could not measure: {error}")
        artifact = fields_of(fields.get("artifact"), "a measurement's artifact")
        device = fields_of(fields.get("device"), "a measurement's device")
        device = {
            text(name, "a name"): text(str(value), f"the device's {name!r:.40}") for name, value in device.items()
        }
        if not device.get("host"):
            raise InputError("a measurement's device must have host, the machine that measured. Received: none")
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
            error=error,
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Measurement:
        """Reads a measurement file.

        Raises:
            InputError: it cannot be read, or is no measurement.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            return parse(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def parse(content: bytes) -> Measurement:
    """The measurement in the bytes of a file; InputError for anything else."""
    if len(content) > MAX_BYTES:
        raise InputError(f"a measurement must have at most {MAX_BYTES:,} bytes. Received: more")
    try:
        fields = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a measurement must be a JSON file. Received: {' '.join(str(error).split()):.120}") from error
    return Measurement.from_dict(fields)


def compare(ours: np.ndarray, theirs: np.ndarray, runtime: str) -> OutputMatch:
    """How outputs `(images, classes)` of a device compare with ours for the same inputs; integers are taken as steps.

    Raises:
        InputError: there are not as many.
    """
    if ours.shape != theirs.shape:
        raise InputError(
            f"the device must give outputs of {ours.shape} for the golden inputs. Received: {theirs.shape}"
        )
    equal = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    largest = np.abs(ours.astype(np.float64) - theirs).max()
    integers = ours.dtype.kind in "iu"
    return OutputMatch(
        runtime, len(ours), equal, int(largest) if integers else None, None if integers else float(largest)
    )


def outputs_of(values: Any, what: str) -> np.ndarray:
    """Rows of finite numbers, `(images, classes)`, int64 where all are integers, else float64.

    Raises:
        InputError: they are something else, or rows of different lengths.
    """
    rows = items(values, what, MAX_IMAGES)
    if not rows:
        raise InputError(f"{what} must have an image. Received: none")
    length = len(items(rows[0], f"an image of {what}", MAX_NUMBERS))
    for row in rows:
        row = items(row, f"an image of {what}", MAX_NUMBERS)
        if len(row) != length or not length:
            raise InputError(f"{what} must have as many numbers for every image. Received: {length} and {len(row)}")
        for value in row:
            number(value, f"a value of {what}")
    whole = all(isinstance(value, int) and abs(value) < 1 << 53 for row in rows for value in row)
    return np.array(rows, np.int64 if whole else np.float64)


def _latency(fields: Any) -> Latency:
    """A latency whose percentiles are those of its samples, where it has them."""
    fields = fields_of(fields, "a latency")
    threads = integer(fields.get("threads"), "a latency's threads", 0, 4096)
    values = samples(fields.get("samples_ms") or [], "a latency's samples_ms")
    given = tuple(
        float(number(fields.get(name), f"a latency's {name}", 0, 3.6e6)) for name in ("p50_ms", "p90_ms", "p99_ms")
    )
    runs = integer(fields.get("runs"), "a latency's runs", 1, MAX_NUMBERS)
    if values and runs != len(values):
        raise InputError(f"a latency must have as many runs as samples. Received: {runs} and {len(values)}")
    p50, p90, p99 = percentiles(values) if values else given
    return Latency(
        host=text(fields.get("host"), "a latency's host") or "unknown host",
        runtime=text(fields.get("runtime"), "a latency's runtime") or "unknown runtime",
        threads=threads,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=runs,
        samples_ms=tuple(values),
        cpu_share=float(number(fields.get("cpu_share", 1.0), "a latency's cpu_share", 0, 1)),
    )


def _golden(fields: Any) -> Golden | None:
    if fields is None:
        return None
    fields = fields_of(fields, "golden")
    golden = Golden(
        sha256(fields.get("sha256"), "golden's sha256"), outputs_of(fields.get("outputs"), "golden's outputs")
    )
    if integer(fields.get("images"), "golden's images", 1, MAX_IMAGES) != golden.images:
        raise InputError(
            f"golden's images must be as many as its outputs, {golden.images}. Received: {fields['images']}"
        )
    return golden


def _likeness(fields: Any) -> OutputMatch | None:
    if fields is None:
        return None
    fields = fields_of(fields, "likeness")
    images = integer(fields.get("images"), "likeness's images", 1, MAX_IMAGES)
    steps, error = fields.get("max_steps"), fields.get("max_abs_error")
    if (steps is None) == (error is None):
        raise InputError("likeness must have one of max_steps and max_abs_error. Received: both or none")
    return OutputMatch(
        runtime=text(fields.get("runtime"), "likeness's runtime"),
        images=images,
        top1_equal=integer(fields.get("top1_equal"), "likeness's top1_equal", 0, images),
        max_steps=None if steps is None else integer(steps, "likeness's max_steps", 0, 1 << 53),
        max_abs_error=None if error is None else float(number(error, "likeness's max_abs_error", 0)),
    )


def _pair(values: Any, what: str, least: float, most: float) -> tuple[float, float] | None:
    if values is None:
        return None
    if len(items(values, what, 2)) != 2:
        raise InputError(f"{what} must be two numbers, before and after. Received: {values!r:.80}")
    before, after = (float(number(value, what, least, most)) for value in values)
    return before, after


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
