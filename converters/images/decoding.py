"""Decoding image files to upright RGB pixels, with an error that names the file and the reason.

HEIC is read where the plug-in pillow-heif is installed, AVIF where it is or Pillow has it built in.

Images are untrusted: only raster formats that Pillow decodes itself are opened (never EPS, which starts Ghostscript),
and an image of more than `MAX_PIXELS` is rejected by its header, before memory is allocated. ICC profiles are ignored:
the stored numbers are read as sRGB, as TensorFlow's and Android's decoders do. Of several frames the first is read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import warnings

import numpy as np
from PIL import Image, features

from converters.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (  # of image files in folders, in lower case
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
)
_ISO_BRANDS = {  # of ISO media files whose images need more than Pillow alone
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
}
MAX_PIXELS = 89_478_485  # width x height, where Pillow begins to warn: 256 MiB of 8-bit RGB

# The transposition for each value of the EXIF tag Orientation (Exif 3.0, 4.6.5.1.6).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_ORIENTATION_CARRIERS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339


class ImageError(InputError):
    """A file cannot be read as an image.

    Attributes:
        file: the name of the file, or `<bytes>`.
        why: the reason in one line.
    """

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file} cannot be read as an image: {why}")
        self.file = file
        self.why = why

    def __reduce__(self) -> tuple:  # required to send an exception with two arguments to another process
        return ImageError, (self.file, self.why)


def decode(file: str | os.PathLike | bytes) -> np.ndarray:
    """Decode an image file to upright RGB pixels.

    The EXIF orientation is applied; CMYK, grey and palettes become RGB; transparent parts are composited on white; of
    16 bits the high 8 are kept.

    Args:
        file: a path, or the content of an image file.

    Returns:
        uint8 array `(height, width, 3)`, read-only.

    Raises:
        ImageError: the file is missing, not an image, truncated, of an unknown format, or larger than `MAX_PIXELS`.
    """
    return np.asarray(decode_image(file))


def decode_image(file: str | os.PathLike | bytes, *, reduce: int = 1) -> Image.Image:
    """Decode as `decode` does, to a Pillow image of mode RGB; `crop_and_resize` accepts it without a copy.

    Args:
        file: a path, or the content of an image file.
        reduce: 2, 4 or 8 decodes a JPEG at 1/2, 1/4 or 1/8 of its size, rounded up, in a fraction of the time.

    Raises:
        ImageError: as `decode`.
    """
    name: str = "<bytes>"
    if isinstance(file, (bytes, bytearray, memoryview)):
        opened: io.BytesIO | str = io.BytesIO(file)
        size = len(file)
    else:
        opened = name = str(os.fspath(file))
        _check_regular_file(name)
        size = os.path.getsize(name)
    try:
        with Image.open(opened, formats=readable_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(name, f"its {width} x {height} pixels are more than the {MAX_PIXELS} allowed")
            if width < 1 or height < 1:
                raise ImageError(name, f"it has no pixels ({width} x {height})")
            if reduce > 1:
                image.draft(None, (max(1, width // reduce), max(1, height // reduce)))
            image.load()
            rgb = image if image.mode == "RGB" and "transparency" not in image.info else _to_rgb(image)
            turn = _UPRIGHT.get(_orientation(image))
            return rgb.transpose(turn) if turn is not None else rgb
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(name, f"its pixels are more than the {MAX_PIXELS} allowed") from None
    except Image.UnidentifiedImageError:
        raise ImageError(name, _why_unidentified(file, size)) from None
    except Exception as error:  # Pillow raises exceptions of many kinds for broken files
        raise ImageError(name, " ".join(str(error).split()) or type(error).__name__) from error


def is_image_name(path: str) -> bool:
    """Whether a relative path has the suffix of an image, and neither it nor a folder of it is hidden."""
    hidden = any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in path.split("/"))
    return path.lower().endswith(SUFFIXES) and not hidden


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """The formats that are read here, by Pillow's names.

    Their readers alone are registered, and Pillow's warnings about unusual but readable metadata are ignored.
    """
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    # Not warnings.catch_warnings around each call, which is not thread-safe.
    warnings.filterwarnings("ignore", module=r"PIL\.(\w+ImagePlugin|Image)$")
    more = []
    if features.check("avif"):
        from PIL import AvifImagePlugin  # noqa: F401

        more.append("AVIF")
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
        more.append("HEIF")
    return (*FORMATS, *more)


def _why_unidentified(file: str | os.PathLike | bytes, size: int) -> str:
    """Why Pillow does not recognize a file of a size in bytes."""
    if not size:
        return "it is empty"
    if isinstance(file, (bytes, bytearray, memoryview)):
        head = bytes(file[:12])
    else:
        with open(file, "rb") as opened:
            head = opened.read(12)
    kind = _ISO_BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None
    if kind is not None and {"HEIC": "HEIF"}.get(kind, kind) not in readable_formats():
        return f"{kind} is read through a plug-in of Pillow: pip install pillow-heif"
    return f"it is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or its header is broken"


def _check_regular_file(name: str) -> None:
    """Raise ImageError where opening would fail, or block forever (a pipe, a device)."""
    try:
        regular = os.path.isfile(name)
        exists = regular or os.path.exists(name)
    except (OSError, ValueError) as error:
        raise ImageError(name, str(error)) from error
    if not regular:
        raise ImageError(name, "it is not a regular file" if exists else "no such file")


def _orientation(image: Image.Image) -> int:
    """The orientation 1..8 of a loaded image; 1 where it is missing or unreadable."""
    if not any(carrier in image.info for carrier in _ORIENTATION_CARRIERS) or image.format == "TIFF":
        return 1  # the common case costs four look-ups; Pillow's TIFF reader applies the orientation itself
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF data does not make the photo unreadable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of another mode, or of RGB with a transparent colour, to RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey_to_rgb(image)
    if image.mode == "La":  # premultiplied; Pillow converts it to LA only
        image = image.convert("LA")
    if image.mode == "RGB" and max(image.info["transparency"]) > 255:
        return image  # the transparent colour has 16 bits, the pixels 8: it cannot be matched
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of one band of more than 8 bits to RGB; Pillow's conversion would clip at 255."""
    values = np.asarray(image)
    key = image.info.get("transparency")
    transparent = values == key if isinstance(key, int) else None
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0).astype(np.float64)
        white = _white(values, (1.0, 255.0, 65535.0))
    elif image.mode.startswith("I;16") or image.format != "TIFF":  # a PPM of any depth comes as 0..65535
        bits = tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
        white = float((1 << bits) - 1)
    elif tags.get(_TIFF_BITS_PER_SAMPLE, (32,))[0] == 16:  # signed
        white = 32767.0
    else:
        if tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == 1:
            values = values.view(np.uint32)
        white = _white(values, (255.0, 65535.0, 4294967295.0))
    values = np.clip(values, 0, white)
    # The high 8 bits, as in Pillow's and libpng's 16-bit RGB: white becomes 255, and 257 * v becomes v.
    grey = np.floor(values * (256 / (white + 1))) if white > 255 else np.round(values * (255 / white))
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts only up to 8 bits
        grey = 255 - grey
    if transparent is not None:
        grey = np.where(transparent, 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _white(values: np.ndarray, candidates: tuple[float, ...]) -> float:
    """The value of white where the file does not define it: the least candidate that no pixel exceeds."""
    brightest = values.max()
    for white in candidates:
        if brightest <= white:
            return white
    raise ValueError(f"its brightest value is {brightest:g}, and the value of white is not known")
