"""The common corruptions of photos, at five severities: noise, blur, weather and digital damage.

Source: Hendrycks and Dietterich (2019), Benchmarking neural network robustness to common corruptions and perturbations,
https://arxiv.org/abs/1903.12261. The package imagecorruptions-imaug implements them with the paper's parameters. Its
motion blur and snow do not use ImageMagick and therefore differ slightly from the published ImageNet-C files.
"""

from __future__ import annotations

import zlib
from types import MappingProxyType

import numpy as np

from converters.errors import InputError, unknown
from converters.images.preprocessing import as_rgb, to_channels

FAMILIES = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    }
)
NAMES = tuple(name for names in FAMILIES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_IMAGE_SIZE = 32  # pixels a side; the package's lower limit

_TAKE_A_SEED = ("impulse_noise", "glass_blur")  # the others draw from numpy's global generator


def check_installed() -> None:
    """Raise InputError where the package is missing or cannot be imported."""
    try:
        import imagecorruptions  # noqa: F401
    except ImportError as error:
        raise InputError(
            "corruptions need the package imagecorruptions-imaug, and OpenCV with its system libraries "
            f"(Debian: libgl1, libglib2.0-0): pip install 'edge-cv[corruptions]'. Received: {error}"
        ) from error


def corrupt(pixels: np.ndarray, name: str, severity: int, *, seed: int = 0) -> np.ndarray:
    """A corrupted copy of a photo, determined by the seed.

    As in the paper, corruptions are applied to the resized and cropped photo that the model sees.

    Args:
        pixels: uint8 `(height, width, channels)`, each side at least 32. A grey photo is corrupted as an RGB one, whose
            luma is returned.
        name: one of `NAMES`.
        severity: 1 to 5.
        seed: 0 or more.

    Returns:
        uint8 array of the same shape.

    Raises:
        InputError: the corruption or severity is unknown, the photo is too small, or the package is not installed.
    """
    if name not in NAMES:
        raise unknown("corruption", name, NAMES)
    if severity not in SEVERITIES:
        raise InputError(f"severity must be a whole number from 1 to 5. Received: {severity!r}")
    if min(pixels.shape[:2]) < MIN_IMAGE_SIZE:
        raise InputError(
            f"a photo to corrupt must be at least {MIN_IMAGE_SIZE} pixels a side. Received: {pixels.shape}"
        )
    check_installed()
    import imagecorruptions

    seed = zlib.crc32(f"{name} {severity} {seed}".encode())  # another noise for each corruption
    extra = {"seed": seed} if name in _TAKE_A_SEED else {}
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        corrupted = imagecorruptions.corrupt(as_rgb(pixels), severity=severity, corruption_name=name, **extra)
        return to_channels(np.asarray(corrupted, np.uint8), pixels.shape[-1])
    finally:
        np.random.set_state(state)
