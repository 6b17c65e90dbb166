"""What an encoded image is, found by decoding it whole: its format and mode, and whether any decoder reads it alike."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from converters.images.decoding import FORMATS, decode_image

_ORIENTATION_TAG = 0x0112
_PLAIN_MODES = {"JPEG": ("L", "RGB"), "PNG": ("L", "RGB")}


@dataclass(frozen=True)
class ImageFacts:
    """What an encoded image is.

    Attributes:
        format: JPEG, PNG, ...
        mode: Pillow's name for its kind of pixels, such as RGB, L or CMYK.
        width, height: in pixels, upright.
        frames: more than one in an animation.
        plain: whether it is a JPEG or PNG of 8-bit RGB or grey that is stored upright: what TensorFlow's and Pillow's
            decoders read alike.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    plain: bool


def look(content: bytes) -> tuple[ImageFacts, Image.Image]:
    """The facts about an encoded image, and the image, upright and RGB.

    Raises:
        ImageError: it cannot be read to its end.
    """
    rgb = decode_image(content)  # first, for it refuses what is hostile
    with Image.open(io.BytesIO(content), formats=FORMATS) as stored:
        format, mode = stored.format or "", stored.mode
        try:
            turned = stored.getexif().get(_ORIENTATION_TAG, 1) not in (0, 1)
            frames = getattr(stored, "n_frames", 1)
        except Exception:  # broken EXIF, or a second frame that is broken: the image itself is whole
            turned, frames = False, 1
        plain = (
            mode in _PLAIN_MODES.get(format, ()) and not turned and frames == 1 and "transparency" not in stored.info
        )
    return ImageFacts(format, mode, *rgb.size, frames, plain), rgb
