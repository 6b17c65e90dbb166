"""The photos of a report: first those with different predictions, then others spread evenly over the source."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_cv.report.values import PhotoResult

if TYPE_CHECKING:
    from PIL import Image

    from edge_cv.data import Samples
    from edge_cv.evaluation.predictions import Prediction, Predictions

SHOWN_PHOTOS = 24
THUMBNAIL_PIXELS = 160


def photo_results(predictions: Predictions, names: Sequence[str], source: Samples) -> tuple[PhotoResult, ...]:
    """The photos worth showing, with their predictions and thumbnails.

    Args:
        predictions: of an evaluation.
        names: of the classes, each different.
        source: the photos that were evaluated.
    """
    from edge_cv.data import load_image, places_by_path

    shown = worth_showing(predictions)
    photos = places_by_path(source, (prediction.file for prediction in shown))
    return tuple(
        PhotoResult(
            name=prediction.file.name,
            label_name=_label(prediction, names),
            thumbnail_jpeg=_thumbnail(load_image(photos[prediction.file])),
            top5={
                scheme: tuple((names[index], probability) for index, probability in top5)
                for scheme, top5 in prediction.top5.items()
            },
            labels=None if prediction.labels is None else tuple(names[label] for label in prediction.labels),
        )
        for prediction in shown
    )


def _label(prediction: Prediction, names: Sequence[str]) -> str | None:
    return None if prediction.label is None else names[prediction.label]


def worth_showing(predictions: Predictions) -> list[Prediction]:
    """Up to 24 photos: first those on which the models disagree, then others, spread evenly."""
    import numpy as np

    firsts = predictions.indices[:, :, 0]
    disagree = (firsts != firsts[:, :1]).any(axis=1)
    different = np.flatnonzero(disagree)[:SHOWN_PHOTOS]
    room = SHOWN_PHOTOS - len(different)
    same = np.flatnonzero(~disagree)
    step = max(1, len(same) // room) if room else 1
    return [predictions[int(place)] for place in (*different, *same[::step][:room])]


def _thumbnail(image: Image.Image) -> bytes:
    image = image.copy()
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
