"""What to do next: for each finding that has a remedy, an action, its reason and the commands.

The commands are for the run's folder. What the report does not know is a word in capitals: `PHOTOS`, `RECIPE`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.printable import printable
from edge_cv.evaluation.latency import BUSY_SHARE
from edge_cv.report import formats
from edge_cv.report.comparison import main_rows, settings, speed_up
from edge_cv.report.sections import conformance
from edge_cv.report.sentences import SAME, SIGN_TEST_PHOTOS, beside_probe, decidable
from edge_cv.report.values import Report, Row

ENOUGH_PHOTOS = 300  # they show a difference of 2 points
NAMED_PHOTOS = ("digits", "sample")  # of `edge_cv.data.open_samples`: the same in every folder
_MEANINGS = {
    "PHOTOS": "a folder of labelled photos",
    "RECIPE": "the recipe of this run",
    "MODEL": "your Keras model file",
}


@dataclass(frozen=True)
class NextStep:
    """One thing to do: the action and its reason, a sentence each, and the commands that do it."""

    action: str
    reason: str
    commands: tuple[str, ...] = ()


def next_steps(report: Report) -> list[NextStep]:
    """The steps that the findings of a report of one run suggest, the most important one first.

    A report of several runs has none: each run's own report has them.
    """
    reference, row = main_rows(report.rows)
    if reference is None or row is None or len({one.run for one in report.rows}) > 1:
        return []
    found = [rule(report, row, reference) for rule in RULES]
    return [step for step in found if step is not None]


def meanings(report: Report, steps: list[NextStep]) -> str:
    """Where to run the commands, and what their words in capitals stand for; empty if there is nothing to say."""
    words = {word for step in steps for command in step.commands for word in command.split()}
    parts = ["the commands are for the run's folder, which has these files"] if words and not _paths(report) else []
    parts += [f"{word} is {meaning}" for word, meaning in _MEANINGS.items() if word in words]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _paths(report: Report) -> Mapping[str, Any]:
    """The paths of the files by their rows' names, if they lie elsewhere; empty for the files of a run."""
    paths = report.recipe.get("artifacts")
    return paths if isinstance(paths, Mapping) else {}


def _file(report: Report, row: Row) -> str:
    """A row's file as an argument: its path where the report is of files that lie elsewhere."""
    path = _paths(report).get(row.scheme)
    return _argument(os.path.abspath(path) if isinstance(path, str) and path else row.file)


def _argument(text: str) -> str:
    """Text of others as one argument of a shell's command, without control characters."""
    plain = printable(text)
    return shlex.quote(f"./{plain}" if plain.startswith("-") else plain)


def _field(report: Report, part: str, name: str) -> Any:
    fields = report.recipe.get(part)
    return fields.get(name) if isinstance(fields, Mapping) else None


def _photos(report: Report) -> str:
    """The measured photos as an argument, if they can be named in any folder."""
    name = _field(report, "data", "measure")
    if isinstance(name, str) and (name in NAMED_PHOTOS or os.path.isabs(name)):
        return _argument(name)
    return "PHOTOS"


def _model(report: Report) -> str:
    """The model of the run as an argument."""
    name = _field(report, "model", "name")
    return "model.keras" if isinstance(name, str) and "." not in name else "MODEL"


def _debug(report: Report, row: Row, reference: Row) -> NextStep | None:
    if row.agreement is None or not row.images or row.is_onnx or reference.is_onnx:
        return None
    different = round((1 - row.agreement) * row.images)
    if different < SIGN_TEST_PHOTOS:
        return None
    return NextStep(
        "Find the layers that cause the error.",
        f"{row.short_name} and {reference.short_name} predict different classes for {different:,} of "
        f"{formats.photos(row.images)}.",
        (f"edge-cv debug {_file(report, reference)} {_file(report, row)} --data {_photos(report)}",),
    )


def _effort(report: Report, row: Row, reference: Row) -> NextStep | None:
    found = _debug(report, row, reference)
    if found is None or (row.output.stage, row.output.scheme) != ("", "int8"):
        return None
    if report.recipe.get("effort") == "high" or _paths(report):
        return None
    return NextStep(
        "Convert with high effort.",
        f"{found.reason} High effort takes minutes and can reduce int8's error; size and latency stay.",
        ("edge-cv run RECIPE --set effort=high",),
    )


def _train_for_int8(report: Report, row: Row, reference: Row) -> NextStep | None:
    if row.top1 is None or reference.top1 is None or any(one.output.stage == "qat" for one in report.rows):
        return None
    if row.top1 > reference.top1 or not decidable([row.top1, reference.top1], row.images):
        return None
    points = formats.points(100 * (reference.top1 - row.top1))
    return NextStep(
        "Train the model for int8.",
        f"{row.short_name} loses {points} points of top-1; quantization-aware training can recover most of them.",
        (f"edge-cv compress {_model(report)} --data {_photos(report)} --qat --out trained_for_int8",),
    )


def _smaller(report: Report, row: Row, reference: Row) -> NextStep | None:
    """A smaller architecture, where a file is larger or slower than a limit of the recipe."""
    limits = report.recipe.get("limits")
    for part in limits if isinstance(limits, list | tuple) else ():
        fields = part if isinstance(part, Mapping) else {}
        one = next((one for one in report.rows if one.scheme == fields.get("scheme")), None)
        if one is None:
            continue
        p50_ms = next((entry.p50_ms for entry in one.latency if entry.threads == 1), None)
        size, time = fields.get("max_size_bytes") or 0, fields.get("max_p50_ms") or 0
        options = [f"--max-latency {time:g}ms"] if _exceeds(p50_ms, time) else []
        options += [f"--max-size {size / 1e6:g}MB"] if _exceeds(one.size_bytes, size) else []
        if options:
            return NextStep(
                "Choose an architecture within the limits.",
                f"{one.short_name} has {formats.size(one.size_bytes)} and a median latency of "
                f"{formats.milliseconds(p50_ms)} with 1 thread.",
                (f"edge-cv choose {' '.join(options)}",),
            )
    return None


def _exceeds(value: float | None, limit: Any) -> bool:
    return value is not None and isinstance(limit, int | float) and value > limit > 0


def _rules(report: Report, row: Row, reference: Row) -> NextStep | None:
    package = report.delivery
    if package is None or not package.findings or package.target is None:
        return None
    file = next((_file(report, one) for one in report.rows if one.scheme == package.scheme), "MODEL")
    return NextStep(
        f"Change the layers that {package.name} does not run well.",
        f"{package.findings[0].what}: {package.findings[0].remedy}.".replace("..", "."),
        (f"edge-cv check {file} --target {_argument(package.target)}",),
    )


def _idle(report: Report, row: Row, reference: Row) -> NextStep | None:
    shares = [entry.cpu_share for one in report.rows for entry in one.latency if entry.threads == 1]
    if min(shares, default=1.0) >= BUSY_SHARE:
        return None
    return NextStep(
        "Measure the latency again when the machine is idle.",
        "Other programs used the processor during the measurement, so the latencies are too high.",
        ("rm stages/measure.json", "edge-cv run RECIPE --out ."),
    )


def _other_scheme(report: Report, row: Row, reference: Row) -> NextStep | None:
    """A scheme that saves time in the place of one that does not."""
    for scheme, better in (("dynamic_int8", "int8"), ("int16x8", "mixed")):
        slow = next((one for one in report.rows if one.output.scheme == scheme and not one.output.stage), None)
        times = None if slow is None else _times(slow, reference)
        if slow is None or times is None or times > 1 / SAME:
            continue
        other = next((one for one in report.rows if one.output.scheme == better and not one.output.stage), None)
        reason = f"{slow.short_name} is {formats.ratio(1 / times)} slower than {reference.short_name}"
        faster = None if other is None else _times(other, slow)
        if other is not None and faster is not None and faster > SAME:
            return NextStep(
                f"Use {other.short_name} instead of {slow.short_name}.",
                f"{reason}; {other.short_name} is {formats.ratio(faster)} faster than {slow.short_name}.",
            )
        command = f"edge-cv convert {_model(report)} --scheme {better} --calibration PHOTOS"
        return NextStep(f"Convert to {better}.", f"{reason}.", (command,)) if other is None else None
    return None


def _times(row: Row, reference: Row) -> float | None:
    found = (speed_up(row, reference, host, threads) for host, threads in settings([row, reference]))
    return next((times for times in found if times is not None), None)


def _runtimes(report: Report, row: Row, reference: Row) -> NextStep | None:
    for one in report.rows:
        found = one.conformance
        if found is not None and any(result.flipped for result in found.results):
            return NextStep(
                "Compare the runtimes on more photos.",
                conformance.summary(one.name, found),
                (f"edge-cv conform {_file(report, one)} --data {_photos(report)} --limit {10 * found.images}",),
            )
    return None


def _more_photos(report: Report, row: Row, reference: Row) -> NextStep | None:
    if not row.images or (row.images >= ENOUGH_PHOTOS and row.top1 is not None) or row.multi_label is not None:
        return None
    command = f"edge-cv evaluate {_file(report, reference)} {_file(report, row)} --data PHOTOS --out on_more_photos"
    if row.top1 is None:
        reason = "Without labels there is no accuracy. Put the photos into one folder for each class."
        return NextStep("Measure on labelled photos.", reason, (command,))
    few, more = (formats.points(100 * SIGN_TEST_PHOTOS / number) for number in (row.images, ENOUGH_PHOTOS))
    reason = (
        f"{formats.photos(row.images)} can only show differences of {few} points or more; with {ENOUGH_PHOTOS} "
        f"photos, it is {more} points."
        if row.images >= SIGN_TEST_PHOTOS
        else f"{formats.photos(row.images)} cannot show a difference; {ENOUGH_PHOTOS} photos show one of {more} points."
    )
    return NextStep("Measure on more photos.", reason, (command,))


def _device(report: Report, row: Row, reference: Row) -> NextStep | None:
    hosts = {host for host, _ in settings(report.rows)}
    if len(hosts) != 1 or "devices" in report.environment or row.is_onnx:
        return None
    phone = _field(report, "device", "package") == "android"
    address, name = ("adb", "phone") if phone else ("ssh://user@board", "board")
    (host,) = hosts
    times = _times(row, reference)
    slow = times is not None and times < SAME and row.output.scheme == "int8"
    reason = f"On {host}, int8 is not faster than float" if slow else f"Latency was measured only on {host}"
    if slow and report.environment.get("int8_dot_product") is False:
        reason = f"{host} has no fast int8 arithmetic (no int8 dot product)"
    return NextStep(
        "Measure on the device that will run the model.",
        f"{reason}; another processor may rank the files differently.",
        (
            f"edge-cv benchmark {_file(report, row)} --device {address} --out {name}.json",
            f"edge-cv report . {name}.json --out with_{name}",
        ),
    )


def _temperature(report: Report, row: Row, reference: Row) -> NextStep | None:
    confidence = row.confidence
    if confidence is None or confidence.temperature is None or confidence.ece <= confidence.ece_by_chance_95:
        return None
    if confidence.temperature.ece >= confidence.ece:
        return None
    return NextStep(
        f"Divide the logits by {confidence.temperature.value:.2f} before the softmax.",
        f"The confidence of {row.short_name} is not calibrated; this lowers its calibration error from "
        f"{confidence.ece:.3f} to {confidence.temperature.ece:.3f} and changes no predicted class.",
    )


def _channels(report: Report, row: Row, reference: Row) -> NextStep | None:
    stages = {one.output.stage for one in report.rows}
    if not stages & {"pruned", "clustered"} or "channel_pruned" in stages:
        return None
    return NextStep(
        "Remove channels to save time as well.",
        "Zeros and shared weights make the download smaller, but the runtime computes as long as before.",
        (f"edge-cv compress {_model(report)} --data {_photos(report)} --channels 0.5 --out fewer_channels",),
    )


def _longer(report: Report, row: Row, reference: Row) -> NextStep | None:
    epochs = report.training
    if len(epochs) < 2 or epochs[-1].phase > 1:
        return None
    *earlier, last = (epoch.validation_score or 0.0 for epoch in epochs)
    if last <= max(earlier):
        return None
    return NextStep(
        "Train longer.",
        "The last epoch has the highest validation score, so it may still rise.",
        (f"edge-cv run RECIPE --set fit.epochs={2 * len(epochs)}",),
    )


def _probe(report: Report, row: Row, reference: Row) -> NextStep | None:
    sentences = beside_probe(report.probe)
    if len(sentences) < 2:
        return None
    return NextStep("Use the linear probe.", sentences[0], ("edge-cv run RECIPE --probe",))


Rule = Callable[[Report, Row, Row], NextStep | None]
RULES: tuple[Rule, ...] = (
    _smaller,
    _debug,
    _effort,
    _train_for_int8,
    _rules,
    _idle,
    _other_scheme,
    _runtimes,
    _device,
    _more_photos,
    _longer,
    _probe,
    _channels,
    _temperature,
)
"""Each takes the report and the two rows of its headline, the one compared and its float reference."""
