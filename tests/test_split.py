from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from edge_cv.data.split import measure_and_calibrate


def photos(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def test_one_folder_gives_two_sets_that_share_no_photo(tmp_path):
    for name in ("ant", "bee"):
        photos(tmp_path / "pictures" / name, [f"{i}.png" for i in range(10)])
    measured, calibration = measure_and_calibrate(str(tmp_path / "pictures"), None, 100, classes=())
    assert (len(measured), len(calibration)) == (16, 4)
    assert not {p.file for p in measured.photos} & {p.file for p in calibration.photos}
    assert {p.file.parent.name for p in calibration.photos} == {"ant", "bee"}
    assert measured.classes == ("ant", "bee")


def test_the_splits_of_a_table_are_kept(tmp_path):
    photos(tmp_path, [f"{i}.png" for i in range(6)])
    lines = [f"{i}.png,{i},{'calibration' if i < 2 else 'test'}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("file,index,split\n" + "\n".join(lines))
    measured, calibration = measure_and_calibrate(str(tmp_path), None, 100)
    assert [p.file.name for p in calibration.photos] == ["0.png", "1.png"]
    assert [p.label for p in measured.photos] == [2, 3, 4, 5]


def test_the_samples_of_packages_share_no_photo():
    measured, calibration = measure_and_calibrate("sample", "sample_calibration", 64)
    assert (len(measured), len(calibration)) == (20, 64)
    assert not {p.file for p in measured.photos} & {p.file for p in calibration.photos}


def test_too_few_photos_to_share_are_refused(tmp_path):
    photos(tmp_path / "few", ["0.png", "1.png"])
    with pytest.raises(InputError, match="at least 5 photos"):
        measure_and_calibrate(str(tmp_path / "few"), None, 100)
