"""Resizing and cropping of photos: one definition for calibration, evaluation, files and apps.

Decoding and EXIF orientation come before (`converters.images.decoding`); normalization comes after and belongs to the
model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError, unknown

if TYPE_CHECKING:
    from PIL import Image

RULES = ("crop_then_resize", "resize_then_crop", "stretch")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

# `resize_then_crop` first crops a longer photo to this multiple of its short side: the result never uses the rest, and
# a strip of 1 x 80,000,000 pixels would otherwise be resized to hundreds of times its size.
_LONGEST_ASPECT = 16


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded photo of any size becomes the input of a model.

    Attributes:
        image_size: height and width of the result, in pixels.
        resize_to: the length of the photo's short side, in pixels, from which the central `image_size` square is
            cropped; None is `image_size`: the largest central square. Not used by `stretch`.
        rule: `crop_then_resize` crops the central square of `image_size / resize_to` of the short side and resizes it;
            `resize_then_crop` resizes the short side to `resize_to` and crops the central square;
            `stretch` resizes the whole photo without keeping its aspect ratio.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, with Pillow's antialiasing.
        mean, std: the model's input is `(pixel - mean) / std` for each channel, with pixels 0..255. The defaults leave
            pixels unchanged, as every model of edge_cv takes them; other values are for third-party models.
    """

    image_size: int
    resize_to: int | None = None
    rule: str = "crop_then_resize"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not _is_whole(self.image_size) or self.image_size < 1:
            raise InputError(f"image_size must be a positive whole number of pixels. Received: {self.image_size!r}")
        if self.resize_to is not None and (not _is_whole(self.resize_to) or self.resize_to < self.image_size):
            raise InputError(
                f"resize_to must be a whole number not under image_size ({self.image_size}). "
                f"Received: {self.resize_to!r}"
            )
        if self.rule not in RULES:
            raise unknown("preprocessing rule", self.rule, RULES)
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        for name in ("mean", "std"):
            given = getattr(self, name)
            try:
                values = tuple(float(v) for v in np.broadcast_to(given, (3,)))
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} must be one number, or three for R, G and B. Received: {given!r}") from error
            object.__setattr__(self, name, values)
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or min(self.std) <= 0:
            raise InputError(f"mean must be finite and std positive. Received: mean={self.mean}, std={self.std}")

    @property
    def takes_pixels(self) -> bool:
        """Whether the model's input is RGB pixels 0..255."""
        return self.mean == (0.0, 0.0, 0.0) and self.std == (1.0, 1.0, 1.0)

    def crop_and_resize(self, photo: np.ndarray | Image.Image) -> np.ndarray:
        """Crop and resize a photo to the model's input size.

        Args:
            photo: upright, RGB: a uint8 array `(height, width, 3)`, or a Pillow image, which saves a copy.

        Returns:
            uint8 array `(image_size, image_size, 3)`, read-only.

        Raises:
            InputError: the photo is of another type or shape, or has no pixels.
        """
        from PIL import Image

        if isinstance(photo, Image.Image):
            if photo.mode != "RGB":
                raise InputError(f"a photo must be of mode RGB. Received: {photo.mode}")
            image = photo
        else:
            if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
                received = f"{photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
                raise InputError(f"a photo must be a uint8 array (height, width, 3). Received: {received}")
            if photo.size == 0:
                raise InputError(f"a photo must have pixels. Received: {photo.shape}")
            image = Image.fromarray(photo)
        size = self.image_size
        resample = Image.Resampling[self.interpolation.upper()]
        width, height = image.size
        short = min(width, height)
        if self.rule == "crop_then_resize":
            side = max(1, short * size // (self.resize_to or size))
            left, top = (width - side + 1) // 2, (height - side + 1) // 2
            image = image.crop((left, top, left + side, top + side)).resize((size, size), resample)
        elif self.rule == "resize_then_crop":
            to = self.resize_to or size
            if max(width, height) > _LONGEST_ASPECT * short:
                new_width, new_height = min(width, _LONGEST_ASPECT * short), min(height, _LONGEST_ASPECT * short)
                left, top = (width - new_width) // 2, (height - new_height) // 2
                width, height = new_width, new_height
                image = image.crop((left, top, left + width, top + height))
            width, height = max(size, width * to // short), max(size, height * to // short)
            image = image.resize((width, height), resample)
            left, top = round((width - size) / 2), round((height - size) / 2)
            image = image.crop((left, top, left + size, top + size))
        else:
            image = image.resize((size, size), resample)
        return np.asarray(image)

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Normalize pixels 0..255 `(..., height, width, 3)` to the model's input, float32."""
        values = np.asarray(pixels, np.float32)
        if self.takes_pixels:
            return values
        return (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The value that `to_dict` wrote; InputError for other fields."""
        values: dict[str, Any]
        try:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise InputError(f"a preprocessing must have the fields of Preprocessing. Received: {fields!r}") from error


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
