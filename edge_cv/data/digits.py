"""scikit-learn's 1,797 handwritten digits: real labelled images that come in a package, 8 x 8 pixels each."""

from __future__ import annotations

import io

import numpy as np

from converters.errors import InputError, unknown
from edge_cv.data.samples import MemorySamples, Packed

SPLITS = ("train", "test")
TEST_IMAGES = 360  # a fifth
_BRIGHTEST = 16  # the package's pixels are 0..16


def digits(split: str | None = None) -> MemorySamples:
    """The digits as grey PNG files in memory; whoever decodes them makes them as large as a model wants.

    Args:
        split: `train` (1,437 images) or `test` (360), the same ones each time and each class in the same share; None
            is all.

    Raises:
        InputError: an unknown split, or scikit-learn is not installed.
    """
    if split is not None and split not in SPLITS:
        raise unknown("split of digits", split, SPLITS)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise InputError("the digits need scikit-learn, which is not installed: pip install 'edge-cv[demo]'") from None
    from PIL import Image

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / _BRIGHTEST)).astype(np.uint8)

    def png(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    samples = MemorySamples(
        "digits",
        tuple(map(str, bunch.target_names)),
        bunch.target.astype(np.int32),
        Packed(map(png, grey)),
        np.arange(len(grey), dtype=np.int32),
    )
    if split is None:
        return samples
    train, test = train_test_split(
        np.arange(len(grey)), test_size=TEST_IMAGES, stratify=bunch.target, random_state=0, shuffle=True
    )
    return samples.select(np.sort(train if split == "train" else test))
