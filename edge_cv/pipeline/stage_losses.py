"""What the stages of compression cost in accuracy, and a warning for each one that costs more than it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_cv.recipe import Output
from edge_cv.recipe.compression import STAGES
from edge_cv.report import formats

if TYPE_CHECKING:
    from edge_cv.evaluation.paired import PairedAccuracy
    from edge_cv.evaluation.predictions import Predictions

DENSE = "dense"  # the stage of the dense model's rows where a file is compressed; of a run's it is ""

# The largest drop of top-1 against the dense model that fine-tuning with the default settings should leave.
EXPECTED_DROP = {"channel_pruned": 0.08, "pruned": 0.05, "clustered": 0.02, "qat": 0.015}
LEAST_DROP = 0.01  # a smaller one is no reason to warn, however certain it is
SIGNIFICANT = 0.05  # p-value
LEAST_PHOTOS = 50  # with fewer, only a significant drop is worth a warning
REMEDY = "Fine-tune with more steps or more photos, or compress less."


def warnings_of_stages(outputs: Sequence[Output], predictions: Predictions) -> dict[str, tuple[str, ...]]:
    """Sentences for each stage whose file is clearly less accurate than the file that it is compared with.

    Every stage is compared with the dense model; quantization-aware training also with the int8 file of the stage
    before it, which needed no such training.

    Args:
        outputs: the rows of the report.
        predictions: of these outputs, by their names.

    Returns:
        The sentences by the name of the stage's output; only outputs with a warning.
    """
    order = list(STAGES.values())
    made = [stage for stage in order if any(output.stage == stage for output in outputs)]
    warnings = {}
    for place, stage in enumerate(made):
        output = _compared(outputs, stage)
        dense = next(
            (o for o in outputs if _is_dense(o) and (o.format, o.scheme) == (output.format, output.scheme)), None
        )
        before = _compared(outputs, made[place - 1]) if place else None
        sentences: list[str] = []
        if dense is not None and not (stage == "qat" and place == 0):
            expected = max(EXPECTED_DROP[one] for one in made[: place + 1])
            sentences += _warning(output, dense, predictions, expected, REMEDY)
        if stage == "qat":
            plain = dense if before is None else before
            if plain is not None and plain.scheme == output.scheme:
                remedy = f"Use {plain.name}, or train for int8 with more steps or a lower learning rate."
                sentences += _warning(output, plain, predictions, EXPECTED_DROP[stage], remedy)
        if sentences:
            warnings[output.name] = tuple(sentences)
    return warnings


def _is_dense(output: Output) -> bool:
    return output.stage in ("", DENSE)


def _compared(outputs: Sequence[Output], stage: str) -> Output:
    """The file of a stage that is compared: int8 if there is one."""
    return min((o for o in outputs if o.stage == stage), key=lambda o: (o.format != "tflite", o.scheme != "int8"))


def _warning(output: Output, reference: Output, predictions: Predictions, expected: float, remedy: str) -> list[str]:
    from edge_cv.evaluation.paired import paired_accuracy

    found = paired_accuracy(predictions, output.name, reference.name)
    if found is None or not _is_clear(found, expected):
        return []
    certainty = "" if found.p < SIGNIFICANT else ", which may be chance"
    shares = [formats.percent(hits / found.images, found.images) for hits in (found.hits, found.reference_hits)]
    return [
        f"{output.name} has {100 * found.drop:.1f} points less top-1 than {reference.name}: {shares[0]} against "
        f"{shares[1]} on {formats.photos(found.images)} ({found.lost} lost, {found.gained} gained; exact sign test: "
        f"p = {found.p:.2g}{certainty}). {remedy}"
    ]


def _is_clear(found: PairedAccuracy, expected: float) -> bool:
    if found.p < SIGNIFICANT and found.drop >= LEAST_DROP:
        return True
    return found.drop > expected and found.images >= LEAST_PHOTOS
