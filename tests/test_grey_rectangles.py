"""A grey rectangle from a recipe, and a grey model without channels from the command line, to every result."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from converters import read_record
from edge_cv import pipeline
from edge_cv.compression.channels import remove_channels
from edge_cv.evaluation.predictions import Predictions
from edge_cv.pipeline.steps import PREDICTIONS
from edge_cv.recipe import Analysis, Data, Fit, Measure, Model, Recipe, TargetDevice

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(16):
            pixels = rng.integers(0, 90, (50, 70 + number, 3)) + 160 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_grey_rectangle_reaches_a_report_and_a_microcontrollers_arena(photos, tmp_path):
    recipe = Recipe(
        name="grey",
        model=Model("mobilenet_v1", image_size=(32, 48), channels=1, alpha=0.25),
        data=Data(measure=str(photos), calibrate=None, calibration_images=8),
        fit=Fit(epochs=1, batch_size=8),
        schemes=("float32", "int8"),
        measure=Measure(threads=(1,), runs=2, warmup=0),
        analysis=Analysis(grad_cam=1),
        device=TargetDevice("board", "Cortex-M7", "TFLM", target="micro", scheme="int8", package="c_array"),
    )
    report = pipeline.run(recipe, tmp_path)
    rows = {row.scheme: row for row in report.rows}
    assert set(rows) == {"float32", "int8"}
    assert rows["int8"].agreement is not None
    assert report.explained
    assert 32 * 48 < rows["int8"].arena_bytes < 200_000
    assert (tmp_path / "mobilenet_v1_int8.cc").is_file()
    assert (tmp_path / "report.html").is_file()
    record = read_record(tmp_path / "mobilenet_v1_int8.tflite")
    assert record.input.shape == (1, 32, 48, 1)
    assert record.preprocessing.shape == (32, 48, 1)
    assert len(Predictions.load(tmp_path / PREDICTIONS)) == rows["int8"].images


def test_channels_of_a_model_without_an_axis_of_channels_are_removed():
    import keras
    from keras import layers

    image = keras.Input((16, 24))
    x = layers.Reshape((16, 24, 1))(layers.Rescaling(1 / 255)(image))
    x = layers.ReLU()(layers.Conv2D(32, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3)(x))
    smaller = remove_channels(keras.Model(image, layers.Dense(2)(x)), 0.5, importance="l1")
    assert smaller.input_shape == (None, 16, 24)
    assert smaller.count_params() < 0.7 * (32 * 10 + 32 * 9 * 32)
    assert smaller(np.zeros((2, 16, 24), np.float32)).shape == (2, 2)
