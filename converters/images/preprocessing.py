"""Resizing and cropping of photos: one definition for calibration, evaluation, files and apps.

Decoding and EXIF orientation come before (`converters.images.decoding`); normalization comes after and belongs to the
model.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError, unknown

if TYPE_CHECKING:
    from PIL import Image

RULES = ("crop_then_resize", "resize_then_crop", "stretch")
MAX_SIDE = 8192  # pixels of a result's height and width
MIN_STD, MAX_STD = 1e-9, 1e9  # beyond them, float32 has no precision left
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

# `resize_then_crop` first crops a longer photo to this multiple of its short side: the result never uses the rest, and
# a strip of 1 x 80,000,000 pixels would otherwise be resized to hundreds of times its size.
_LONGEST_ASPECT = 16


@dataclass(frozen=True, init=False)
class Preprocessing:
    """How a decoded photo of any size becomes the input of a model.

    Attributes:
        height, width: of the result, in pixels; width None is a square. `image_size` sets both.
        channels: 3 for RGB, 1 for grey: the luma of the cropped and resized RGB photo.
        resize_to: the length, in pixels, that the shorter side of the result has before a central part of it is cropped
            to `height` x `width`; None is that side itself: the largest central part of the photo with the result's
            aspect ratio. Not used by `stretch`.
        rule: `crop_then_resize` crops the central part of the photo and resizes it; `resize_then_crop` resizes the
            photo and crops the central part; `stretch` resizes the whole photo without keeping its aspect ratio.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, with Pillow's antialiasing.
        mean, std: the model's input is `(pixel - mean) / std` for each channel, with pixels 0..255. The defaults leave
            pixels unchanged, as every model of edge_cv takes them; other values are for third-party models.
    """

    height: int
    width: int
    channels: int
    resize_to: int | None
    rule: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        height: int | None = None,
        resize_to: int | None = None,
        rule: str = "crop_then_resize",
        interpolation: str = "bicubic",
        mean: Any = 0.0,
        std: Any = 1.0,
        *,
        width: int | None = None,
        channels: int = 3,
        image_size: int | None = None,
    ) -> None:
        if image_size is not None:
            _check_length("image_size", image_size)
            if height not in (None, image_size) or width not in (None, image_size):
                raise InputError(
                    f"image_size must be height and width. Received: {image_size!r}, {height!r:.20} and {width!r:.20}"
                )
            height = image_size
        elif height is None:
            raise TypeError("Preprocessing needs height, or image_size for a square")
        width = height if width is None else width
        _check_length("height", height)
        _check_length("width", width)
        if channels not in (1, 3) or isinstance(channels, bool):
            raise InputError(f"channels must be 3 (RGB) or 1 (grey). Received: {channels!r:.40}")
        if resize_to is not None and (not _is_whole(resize_to) or not min(height, width) <= resize_to <= MAX_SIDE):
            shorter = "image_size" if height == width else "the shorter of height and width"
            raise InputError(
                f"resize_to must be a whole number not under {shorter} ({min(height, width)}), at most {MAX_SIDE:,}. "
                f"Received: {resize_to!r:.40}"
            )
        if rule not in RULES:
            raise unknown("preprocessing rule", rule, RULES)
        if interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", interpolation, INTERPOLATIONS)
        mean, std = _by_channel("mean", mean, channels), _by_channel("std", std, channels)
        if not all(abs(value) <= MAX_STD for value in mean) or not all(MIN_STD <= value <= MAX_STD for value in std):
            raise InputError(
                f"mean must be finite and std positive, of pixels 0..255, both at most {MAX_STD:g}. "
                f"Received: mean={mean}, std={std}"
            )
        values = (height, width, channels, resize_to, rule, interpolation, mean, std)
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def image_size(self) -> int:
        """Deprecated: the side of a square; use `height` and `width`."""
        warnings.warn("Preprocessing.image_size is deprecated: use height and width", DeprecationWarning, stacklevel=2)
        if self.height != self.width:
            raise InputError(f"a rectangle has height and width. Received: {self.height}x{self.width}")
        return self.height

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`, the shape of one input."""
        return self.height, self.width, self.channels

    def require(self, input_shape: tuple[int, ...]) -> None:
        """Raise InputError unless `(height, width, channels)` of a model's input are the preprocessing's."""
        if tuple(input_shape[:2]) != self.shape[:2]:
            raise InputError(
                f"the preprocessing's height and width, or image_size must be the model's, {input_shape[0]}x"
                f"{input_shape[1]}. Received: {self.height}x{self.width}"
            )
        if input_shape[2] != self.channels:
            raise InputError(
                f"the preprocessing's channels must be the model's, {input_shape[2]} (1 is grey, 3 is RGB). "
                f"Received: {self.channels}"
            )

    @property
    def takes_pixels(self) -> bool:
        """Whether the model's input is pixels 0..255."""
        return not any(self.mean) and all(value == 1.0 for value in self.std)

    def crop_and_resize(self, photo: np.ndarray | Image.Image) -> np.ndarray:
        """Crop and resize a photo to the model's input size, and convert it to grey for one channel.

        Args:
            photo: upright, RGB: a uint8 array `(height, width, 3)`, or a Pillow image, which saves a copy.

        Returns:
            uint8 array `(height, width, channels)`, read-only.

        Raises:
            InputError: the photo is of another type or shape, or has no pixels.
        """
        from PIL import Image

        image = _pillow_image(photo)
        width, height = image.size
        resample = Image.Resampling[self.interpolation.upper()]
        if self.rule == "crop_then_resize":
            tall, wide = self._central_part(height, width)
            left, top = (width - wide + 1) // 2, (height - tall + 1) // 2
            image = image.crop((left, top, left + wide, top + tall)).resize((self.width, self.height), resample)
        elif self.rule == "resize_then_crop":
            longest = _LONGEST_ASPECT * min(width, height) * -(-max(self.shape[:2]) // min(self.shape[:2]))
            if max(width, height) > longest:
                new_width, new_height = min(width, longest), min(height, longest)
                left, top = (width - new_width) // 2, (height - new_height) // 2
                width, height = new_width, new_height
                image = image.crop((left, top, left + width, top + height))
            height, width = self._resized(height, width)
            image = image.resize((width, height), resample)
            left, top = round((width - self.width) / 2), round((height - self.height) / 2)
            image = image.crop((left, top, left + self.width, top + self.height))
        else:
            image = image.resize((self.width, self.height), resample)
        return to_channels(np.asarray(image), self.channels)

    def _central_part(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the part of a photo that becomes the result."""
        shorter = min(self.height, self.width)
        to = self.resize_to or shorter
        if width * self.height >= height * self.width:  # the photo is wider than the result: its height is the limit
            parts = height * shorter // to, height * self.width * shorter // (self.height * to)
        else:
            parts = width * self.height * shorter // (self.width * to), width * shorter // to
        return max(1, parts[0]), max(1, parts[1])

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a photo is resized before the result is cropped from it."""
        shorter = min(self.height, self.width)
        to = self.resize_to or shorter
        if width * self.height >= height * self.width:
            sides = self.height * to // shorter, width * self.height * to // (height * shorter)
        else:
            sides = height * self.width * to // (width * shorter), self.width * to // shorter
        return max(self.height, sides[0]), max(self.width, sides[1])

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Normalize pixels 0..255 `(..., height, width, channels)` to the model's input, float32."""
        values = np.asarray(pixels, np.float32)
        if self.takes_pixels:
            return values
        return (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; a square has `image_size` too, which older readers know."""
        square = {"image_size": self.height} if self.height == self.width else {}
        return square | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> Preprocessing:
        """The value that `to_dict` wrote, from JSON values; InputError for other fields."""
        values: dict[str, Any]
        try:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            return cls(**values)
        except (TypeError, AttributeError, OverflowError) as error:
            received = f"{fields!r:.200}"
            raise InputError(f"a preprocessing must have the fields of Preprocessing. Received: {received}") from error

    @classmethod
    def from_json(cls, fields: Any, what: str) -> Preprocessing:
        """As `from_dict`, with the value's name in the error message."""
        try:
            return cls.from_dict(fields)
        except InputError as error:
            raise InputError(f"{what}: {error}") from error


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """RGB pixels `(..., 3)` of RGB or grey ones."""
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """RGB pixels, uint8 `(height, width, 3)`, or their luma `(height, width, 1)` for one channel."""
    from PIL import Image

    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _pillow_image(photo: np.ndarray | Image.Image) -> Image.Image:
    from PIL import Image

    if isinstance(photo, Image.Image):
        if photo.mode != "RGB":
            raise InputError(f"a photo must be of mode RGB. Received: {photo.mode}")
        return photo
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        received = f"{photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise InputError(f"a photo must be a uint8 array (height, width, 3). Received: {received}")
    if photo.size == 0:
        raise InputError(f"a photo must have pixels. Received: {photo.shape}")
    return Image.fromarray(photo)


def _by_channel(name: str, given: Any, channels: int) -> tuple[float, ...]:
    """A value for each channel; equal values of R, G and B are one for grey."""
    try:
        values = np.asarray(given, np.float64)
        if channels == 1 and values.shape == (3,) and np.ptp(values) == 0:
            values = values[:1]
        return tuple(float(v) for v in np.broadcast_to(values, (channels,)))
    except (TypeError, ValueError) as error:
        wanted = "one number, or three for R, G and B" if channels == 3 else "one number for a grey image"
        raise InputError(f"{name} must be {wanted}. Received: {given!r:.80}") from error


def _check_length(name: str, value: object) -> None:
    if not isinstance(value, int) or not _is_whole(value) or value < 1:
        raise InputError(f"{name} must be a positive whole number of pixels. Received: {value!r:.40}")
    if value > MAX_SIDE:
        raise InputError(f"{name} must be at most {MAX_SIDE:,} pixels. Received: {value}")


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
