"""From the place of an encoded image to the pixels that a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.images.decoding import ImageError, decode_image
from edge_cv.data.places import Place

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from converters.images.preprocessing import Preprocessing


def load_image(place: Place) -> Image.Image:
    """Decode the image at a place.

    Returns:
        An upright Pillow image of mode RGB.

    Raises:
        ImageError: it cannot be read as an image.
    """
    try:
        return decode_image(place.read())
    except ImageError as error:
        raise ImageError(str(place), error.why) from error


def load_pixels(place: Place, preprocessing: Preprocessing) -> np.ndarray:
    """Decode, crop and resize the image at a place.

    Args:
        place: where the image is.
        preprocessing: the crop and the size that the model takes.

    Returns:
        uint8 array `(height, width, channels)`.

    Raises:
        ImageError: it cannot be read as an image.
    """
    return preprocessing.crop_and_resize(load_image(place))
