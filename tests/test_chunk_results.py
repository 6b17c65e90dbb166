"""The encoding of pixels as a model's input, and the figures of a chunk of images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.decisions import OutputMeaning
from converters.images.preprocessing import Preprocessing
from edge_cv.data import Sample
from edge_cv.data.places import FilePart
from edge_cv.evaluation import chunk_results, open_model
from edge_cv.evaluation.confidence import TEMPERATURES

SIZE, CLASSES = 32, 10
PREPROCESSING = Preprocessing(image_size=SIZE)


def test_an_encoder_uses_the_models_own_range():
    """Pixels are encoded as (pixel - 100) / 50, and quantized by the tensor's scale and zero point."""
    normalized = Preprocessing(image_size=SIZE, mean=(100,) * 3, std=(50,) * 3)
    encoder = open_model.InputEncoder("float32", None, None, None, normalized)
    pixels = np.arange(2 * SIZE * SIZE * 3).reshape(2, SIZE, SIZE, 3).astype(np.uint8)
    np.testing.assert_allclose(encoder(pixels), (pixels.astype(np.float64) - 100) / 50, rtol=1e-6)
    int8 = open_model.InputEncoder("int8", 0.02, -28, None, normalized)
    np.testing.assert_array_equal(int8(pixels), pixels.astype(int) - 128)


def test_a_pixel_offset_precedes_the_tensors_scale():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for dtype, offset in (("int8", -128), ("uint8", 0)):
        encoder = open_model.InputEncoder(dtype, 1 / 128, -1, offset, PREPROCESSING)
        np.testing.assert_array_equal(encoder(pixels), pixels.astype(int) + offset)
        assert encoder(pixels).dtype == dtype


def test_losses_and_confidences_at_each_temperature_equal_the_scaled_softmax():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (6, CLASSES)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    photos = [Sample(FilePart(f"{n}.jpg"), label) for n, label in enumerate((3, 0, None, 9, 9, 1))]
    meanings = [OutputMeaning(probabilities) for probabilities in (False, True)]
    losses, confidences = chunk_results.at_temperatures(meanings, [logits, chances], photos)
    for row, photo in enumerate(photos):
        for place, temperature in enumerate(TEMPERATURES):
            powers = np.exp(logits[row].astype(np.float64) / temperature)
            shares = powers / powers.sum()
            for column in range(2):  # from logits and from probabilities alike
                if photo.label is None:
                    assert losses[row, column, place] == confidences[row, column, place] == 0
                    continue
                assert losses[row, column, place] == pytest.approx(-math.log(shares[photo.label]), rel=1e-4, abs=1e-5)
                assert confidences[row, column, place] == pytest.approx(shares.max(), rel=1e-4)
