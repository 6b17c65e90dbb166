from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edge_cv.data.input_pipeline.jpeg import Header, read_header, read_header_of_file


def stored(mode: str = "RGB", size: tuple[int, int] = (37, 21), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(Image.new(mode, (1, 1)).getbands())))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8).squeeze(), mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"comment": b"x" * 999}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_is_read(mode, options):
    assert read_header(stored(mode, **options)) == Header(21, 37, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_header(stored(exif=exif)) == Header(21, 37, orientation)


def test_headers_that_tensorflow_decodes_differently_are_refused():
    png = io.BytesIO()
    Image.new("RGB", (3, 3)).save(png, "PNG")
    photo = stored()
    for content in (png.getvalue(), stored("CMYK"), stored(keep_rgb=True), b"", photo[:-2], photo + b"\0"):
        assert read_header(content) is None


def test_the_header_of_a_decompression_bomb_is_refused():
    photo = bytearray(stored())
    at = photo.index(b"\xff\xc0") + 5
    photo[at : at + 4] = b"\xff\xff\xff\xff"
    assert read_header(bytes(photo)) is None


def test_changed_bytes_do_not_raise_or_hang():
    photo, rng = stored(size=(8, 8)), np.random.default_rng(1)
    for _ in range(3000):
        broken = bytearray(photo)
        broken[rng.integers(2, len(photo) - 2)] = rng.integers(256)
        header = read_header(bytes(broken))
        assert header is None or header.height * header.width > 0


def test_the_beginning_of_a_file_is_enough(tmp_path):
    path = tmp_path / "a.jpg"
    for content, header in (
        (stored(), Header(21, 37, 1)),
        (stored(size=(400, 300), quality=100), Header(300, 400, 1)),
        (stored(icc_profile=b"x" * 40000), None),
        (stored()[:-2], None),
        (b"", None),
    ):
        path.write_bytes(content)
        assert read_header_of_file(str(path)) == header
    assert read_header_of_file(str(tmp_path)) is None
    assert read_header_of_file(str(tmp_path / "absent")) is None
