"""The picture of the architectures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.models.measured import load
from edge_cv.report.zoo_plot import Box, draw, place


def test_crowded_labels_cover_neither_each_other_nor_the_points():
    random = np.random.default_rng(0)
    spots = [tuple(spot) for spot in random.uniform(0, 300, (25, 2))]
    boxes = place(spots, [(width, 12) for width in random.uniform(15, 80, 25)], taken=[Box(0, 0, 50, 50)])

    assert not any(a.overlaps(b) for a, b in itertools.combinations([*boxes, Box(0, 0, 50, 50)], 2))
    assert not any(box.left < x < box.right and box.bottom < y < box.top for box in boxes for x, y in spots)


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_path_ending_selects_the_format(kind: str, start: bytes, tmp_path):
    path = tmp_path / f"models.{kind}"
    draw(load(), path)
    assert path.read_bytes().startswith(start)


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"models\.doc"):
        draw(load(), tmp_path / "models.doc")
