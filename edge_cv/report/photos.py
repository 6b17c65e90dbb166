"""The photos that a page shows: those on which the artifacts differ first, then others from all over the source."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_cv.report.values import PhotoResult

if TYPE_CHECKING:
    from PIL import Image

    from edge_cv.data import ImageSource
    from edge_cv.evaluation.accuracy import Prediction, Predictions

SHOWN_PHOTOS = 24
THUMBNAIL_PIXELS = 160


def photo_results(predictions: Predictions, names: Sequence[str], source: ImageSource) -> tuple[PhotoResult, ...]:
    """Those worth showing, with their thumbnails.

    Args:
        predictions: of an evaluation.
        names: of the classes, each once.
        source: the photos that were evaluated.
    """
    shown = worth_showing(predictions)
    photos = source.by_file(prediction.file for prediction in shown)
    return tuple(
        PhotoResult(
            name=prediction.file.name,
            label_name=_label(prediction, names),
            thumbnail_jpeg=_thumbnail(photos[prediction.file].image()),
            top5={
                scheme: tuple((names[index], probability) for index, probability in top5)
                for scheme, top5 in prediction.top5.items()
            },
        )
        for prediction in shown
    )


def _label(prediction: Prediction, names: Sequence[str]) -> str | None:
    if prediction.labels is not None:
        return ", ".join(names[label] for label in prediction.labels) or "none of the classes"
    return None if prediction.label is None else names[prediction.label]


def worth_showing(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The photos on which the artifacts disagree, then others, spread evenly, up to what a page shows."""

    def disagree(prediction: Prediction) -> bool:
        return len({top5[0][0] for top5 in prediction.top5.values()}) > 1

    different = [p for p in predictions if disagree(p)][:SHOWN_PHOTOS]
    room = SHOWN_PHOTOS - len(different)
    same = [p for p in predictions if not disagree(p)]
    step = max(1, len(same) // room) if room else 1
    return different + same[::step][:room]


def _thumbnail(image: Image.Image) -> bytes:
    image = image.copy()
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
