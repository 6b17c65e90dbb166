"""The format, mode and size of an encoded image, and whether all decoders read it alike."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from converters.images.decoding import decode_image, readable_formats

_ORIENTATION_TAG = 0x0112
_PLAIN_MODES = {"JPEG": ("L", "RGB"), "PNG": ("L", "RGB")}


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an encoded image.

    Attributes:
        format: JPEG, PNG, ...
        mode: Pillow's mode, such as RGB, L or CMYK.
        width, height: in pixels, upright.
        frames: the number of frames; more than one in an animation.
        plain: whether TensorFlow's and Pillow's decoders read it alike: an upright JPEG or PNG of 8-bit RGB or grey.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    plain: bool


def inspect(content: bytes) -> tuple[ImageFacts, Image.Image]:
    """Decode an image and find its properties.

    Returns:
        The properties, and the upright RGB image.

    Raises:
        ImageError: the image cannot be decoded completely.
    """
    rgb = decode_image(content)  # first, because it rejects malicious files
    with Image.open(io.BytesIO(content), formats=readable_formats()) as stored:
        # MPO is a JPEG followed by others, of a second lens or a preview
        format, mode = "JPEG" if stored.format == "MPO" else stored.format or "", stored.mode
        try:
            turned = stored.getexif().get(_ORIENTATION_TAG, 1) not in (0, 1)
            frames = 1 if stored.format == "MPO" else getattr(stored, "n_frames", 1)
        except Exception:  # broken EXIF or a broken second frame; the image itself is readable
            turned, frames = False, 1
        plain = (
            mode in _PLAIN_MODES.get(format, ()) and not turned and frames == 1 and "transparency" not in stored.info
        )
    return ImageFacts(format, mode, *rgb.size, frames, plain), rgb
