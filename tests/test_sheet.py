from __future__ import annotations

import numpy as np
from PIL import Image

from edge_cv.data.input_pipeline.sheet import caption, draw_sheet


def test_a_sheet_shows_every_image_in_its_place(tmp_path):
    images = np.zeros((5, 200, 200, 3), np.uint8) + np.arange(50, 100, 10, dtype=np.uint8)[:, None, None, None]
    path = draw_sheet(images, np.eye(5, dtype=np.float32), "abcde", tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(path))
    assert [sheet[100 + 246 * (n // 3), 100 + 204 * (n % 3), 0] for n in range(6)] == [50, 60, 70, 80, 90, 255]
    assert (sheet[204:244] < 128).any()  # captions


def test_a_caption_names_the_largest_shares():
    assert caption(np.array([0.25, 0.001, 0.62, 0.129]), ("ape", "bat", "cat", "dog")) == [
        "62 % cat",
        "25 % ape",
        "13 % dog",
    ]
