"""Shards with a largest short side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pictures import class_folders, encoded, write
from PIL import Image

from edge_cv.data import open_samples
from edge_cv.data.prepare import ShardingOptions, prepare


def test_images_are_stored_at_a_short_side_and_never_enlarged(tmp_path):
    class_folders(tmp_path / "in", ("ant nest", "bee hive"), 3)  # 32 x 24 pixels
    write(tmp_path / "in" / "ant nest" / "wide.jpg", encoded(9, size=(801, 400)))
    write(tmp_path / "in" / "ant nest" / "tall.jpg", encoded(8, size=(200, 300)))
    prepare(tmp_path / "in", tmp_path / "out", ShardingOptions(short_side=100))
    stored = {}
    for split in ("train", "validation"):
        samples = open_samples(tmp_path / "out", split)
        for index in range(len(samples)):
            image = Image.open(io.BytesIO(samples.encoded(index)))
            stored[Path(str(samples.place(index))).stem] = image
    sizes = {image.size for image in stored.values()}
    assert sizes == {(32, 24), (200, 100), (100, 150)}
    wide = next(image for image in stored.values() if image.size == (200, 100))
    expected = Image.open(io.BytesIO(encoded(9, size=(801, 400)))).resize((200, 100), Image.Resampling.BOX)
    assert np.abs(np.asarray(wide, float) - np.asarray(expected)).mean() < 6
