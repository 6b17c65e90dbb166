"""Accuracy on corrupted images, compared with a plain loop over the interpreter."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.data import Samples, load_pixels
from edge_cv.data.corruptions import NAMES, corrupt
from edge_cv.evaluation import robustness as robustness_module
from edge_cv.evaluation.robustness import Robustness, robustness

PREPROCESSING = Preprocessing(32)
IMAGES = 2  # each takes some seconds


@pytest.fixture(scope="module")
def artifact(small_files) -> Path:
    return small_files["float32"]


@pytest.fixture(scope="module")
def source(pixels, artifact, tmp_path_factory) -> Samples:
    """Images labelled with the model's own predictions, one image without a label and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    files = [folder / f"{n}.png" for n in range(IMAGES)]
    for n, file in enumerate(files):
        Image.fromarray(pixels[n]).save(file)
    unlabelled = Samples.from_files("unlabelled", files)
    labels = [int(_logits(artifact, seen).argmax()) for seen, _ in unlabelled.pixels(PREPROCESSING)]
    (folder / "broken.png").write_bytes(b"no photo")
    files += [files[0], folder / "broken.png"]
    return Samples.from_files("small", files, [*labels, None, 0], tuple(f"class {n}" for n in range(10)))


def _logits(file: Path, pixels: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None].astype(np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


@pytest.mark.slow
def test_the_figures_equal_those_of_a_plain_loop(artifact, source):
    progress = []
    found = robustness({"float32": artifact}, source, workers=2, on_progress=lambda *n: progress.append(n))["float32"]
    expected = np.zeros((len(NAMES), 5))
    for photo in source.chunk(0, IMAGES):
        seen = load_pixels(photo.place, PREPROCESSING)
        seed = zlib.crc32(photo.path.name.encode())
        for row, name in enumerate(NAMES):
            for severity in range(1, 6):
                predicted = _logits(artifact, corrupt(seen, name, severity, seed=seed)).argmax()
                expected[row, severity - 1] += (predicted == photo.label) / IMAGES
    assert found.images == IMAGES
    assert found.clean == 1.0
    assert found.corruptions == NAMES
    np.testing.assert_allclose(found.accuracy, expected)
    assert found.mean_corruption_error == pytest.approx(1 - expected.mean())
    assert found.relative_corruption_error == found.mean_corruption_error  # nothing is wrong on clean photos
    assert [found.at_severity(n) for n in (0, 5)] == [1.0, pytest.approx(expected[:, 4].mean())]
    assert 0 < expected.mean() < 1
    assert progress[-1] == (IMAGES + 1, IMAGES + 1)


def test_the_mean_and_relative_errors_are_those_of_the_hits():
    hits = np.ones((4, 1 + 15 * 5), bool)
    hits[0, 0] = False  # one clean image of four is wrong
    hits[:, 1:6] = False  # every image with the first corruption
    figures = robustness_module._robustness_of(hits)
    assert (figures.images, figures.clean, figures.corruptions) == (4, 0.75, NAMES)
    assert figures.accuracy == ((0.0,) * 5, *((1.0,) * 5,) * 14)
    assert figures.mean_corruption_error == pytest.approx(1 / 15)
    assert figures.relative_corruption_error == pytest.approx(1 / 15 - 0.25)
    assert figures.at_severity(3) == pytest.approx(14 / 15)
    assert figures.at_severity(0) == 0.75


def test_unlabelled_images_and_inconsistent_figures_are_refused(artifact, source):
    unlabelled = Samples.from_files("unlabelled", [source.path(0)])
    with pytest.raises(InputError, match="must have one label each"):
        robustness({"float32": artifact}, unlabelled)
    with pytest.raises(InputError, match="each of 5 severities"):
        Robustness(1, 1.0, (0.0, 1.0), ("fog",), ((1.0, 0.5),), 0.5, 0.5)
