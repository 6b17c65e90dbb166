"""A client of our files: MediaPipe's ImageClassifier, in a separate virtual environment.

It pins other versions of what TensorFlow needs, so it cannot live in the same environment. Its library is linked
against OpenGL ES, which a bare Debian lacks: `apt-get install libegl1 libgles2`.
"""

from __future__ import annotations

import json
import subprocess
import venv
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.tflite.runtime import predict

pytestmark = pytest.mark.slow

MEDIAPIPE = "mediapipe==1.2.2"
LIBRARIES = ("EGL", "GLESv2")
ENVIRONMENT = Path(__file__).parents[1] / ".venv-mediapipe"
CLIENT = """
import json, sys
import mediapipe as mp
import numpy as np
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision

options = vision.ImageClassifierOptions(base_options=tasks.BaseOptions(model_asset_path=sys.argv[1]), max_results=5)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(sys.argv[2]):
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
        found = classifier.classify(image).classifications[0].categories
        print(json.dumps([(c.index, c.category_name, c.score) for c in found]))
"""


@pytest.fixture(scope="module")
def mediapipe_python() -> Path:
    if not all(map(find_library, LIBRARIES)):
        pytest.skip("OpenGL ES is not installed (apt-get install libegl1 libgles2)")
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / "ready"
    if not ready.is_file() or ready.read_text() != MEDIAPIPE:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        installed = subprocess.run([python, "-m", "pip", "install", "--quiet", MEDIAPIPE], stderr=subprocess.PIPE)
        if installed.returncode:
            pytest.skip(f"{MEDIAPIPE} cannot be installed: {installed.stderr.decode()[-300:]}")
        ready.write_text(MEDIAPIPE)
    return python


@pytest.fixture(scope="module")
def network():
    from edge_cv import data, models

    preprocessing = models.preprocessing("efficientnet_lite0")
    photos = np.stack([p for p, _ in data.open_samples("sample").pixels(preprocessing)])
    calibration = np.stack([p for p, _ in data.open_samples("sample_calibration").pixels(preprocessing)])
    return models.build("efficientnet_lite0", weights="imagenet"), preprocessing, photos, calibration


@pytest.mark.parametrize("scheme", ["float32", Int8(io="uint8")], ids=["float32", "uint8"])
def test_mediapipe_opens_the_file_and_sees_what_we_see(network, mediapipe_python, scheme, tmp_path):
    from edge_cv import data

    model, preprocessing, photos, calibration = network
    names = [label.name for label in data.imagenet_labels()]
    conversion = to_tflite(model, scheme, calibration=calibration, labels=names, preprocessing=preprocessing)
    path = conversion.save(tmp_path / "model.tflite")
    np.save(tmp_path / "photos.npy", photos)
    done = subprocess.run(
        [mediapipe_python, "-c", CLIENT, path, tmp_path / "photos.npy"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    logits = predict(conversion.content, photos, pixel_offset=conversion.pixel_offset)
    assert len(answers) == len(photos) == 20
    step = conversion.metadata["output"]["scale"] or 0.0  # its kernels may round another way than ours
    for answer, row in zip(answers, logits, strict=True):
        assert row[answer[0][0]] >= row.max() - 8 * step, "its top-1 is ours, or as good within rounding"
        for index, name, score in answer:
            assert name == names[index]
            assert score == pytest.approx(row[index], abs=1e-3 + 8 * step), "its scores are the logits"
