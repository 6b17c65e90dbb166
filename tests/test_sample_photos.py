from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import names_and_labels
from PIL import Image

from converters.errors import InputError
from converters.images.decoding import ImageError
from edge_cv import data
from edge_cv.data import Preprocessing, open_samples
from edge_cv.data.places import CroppedPhoto

SMALL = Preprocessing(4, rule="stretch", interpolation="nearest")


def test_the_sample_is_the_twenty_photos_of_foolbox():
    source = open_samples("sample")
    assert len(source) == 20
    assert names_and_labels(source)[:3] == [
        ("imagenet_00_243.jpg", 243),
        ("imagenet_01_559.jpg", 559),
        ("imagenet_02_438.jpg", 438),
    ]
    assert source.classes[243] == "bull mastiff"


def test_calibration_crops_are_distinct_and_share_no_photo_with_the_sample():
    source = data.sample_calibration()
    assert len(source) >= 64
    assert len(set(source.paths())) == len(source)
    assert (source.labels == -1).all()
    files = [source.place(index).path for index in range(len(source))]
    assert len(set(files[:7])) == 7
    hashes = {hashlib.sha256(Path(file).read_bytes()).digest() for file in files}
    assert not hashes & {hashlib.sha256(path.read_bytes()).digest() for path in data.sample().paths()}
    seen = [pixels.tobytes() for pixels, _ in source.pixels(Preprocessing(32))]
    assert len(set(seen)) == len(source)
    assert len(open_samples("sample_calibration")) == len(source)
    with pytest.raises(InputError, match="sample_calibration has none"):
        open_samples("sample_calibration", "train")


def test_the_error_for_a_missing_package_names_the_extra():
    program = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('foolbox', 'skimage') else find(name, *a)\n"
        "from edge_cv import data\n"
        "for source in (data.sample, data.sample_calibration):\n"
        "    try: source()\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "foolbox" in first
    assert "scikit-image" in second
    assert all(line.endswith("pip install 'edge-cv[demo]'") for line in (first, second))


def test_importing_and_opening_load_no_framework_and_no_package_of_samples():
    program = (
        "import sys; from edge_cv import data; data.sample(); data.sample_calibration()\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'rich', 'matplotlib', 'foolbox', 'skimage', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cropped_photo_is_cropped_flipped_and_resized(tmp_path):
    rows, columns = np.mgrid[:40, :80]
    Image.fromarray(np.stack([rows, columns, rows * 0], -1).astype(np.uint8)).save(tmp_path / "a.png")
    place = CroppedPhoto(str(tmp_path / "a.png"), (0.5, 0.25, 0.55, 0.35))
    expected = np.stack([*np.mgrid[10:14, 40:44], np.zeros((4, 4))], -1)
    np.testing.assert_array_equal(data.load_pixels(place, SMALL), expected)
    flipped = CroppedPhoto(place.path, place.box, flip=True)
    np.testing.assert_array_equal(data.load_pixels(flipped, SMALL), expected[:, ::-1])
    assert pickle.loads(pickle.dumps((data.load_pixels, flipped))) == (data.load_pixels, flipped)  # noqa: S301
    assert str(flipped) == f"{tmp_path}/a.png [0.5,0.25,0.55,0.35 flipped]"
    missing = CroppedPhoto("none.png", place.box)
    with pytest.raises(ImageError, match=re.escape("none.png [0.5,0.25,0.55,0.35] cannot be read")):
        missing.read()


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_a_box_outside_the_photo_is_refused(box):
    with pytest.raises(InputError, match="box must be"):
        CroppedPhoto("a.png", box)
