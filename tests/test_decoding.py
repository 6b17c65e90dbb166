from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.images.decoding import MAX_PIXELS, ImageError, decode, decode_image

# pytest replaces the filters that decoding sets
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """A PNG put together byte by byte, as the PNG specification writes it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    extra = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_rgb_comes_back_as_it_was(format):
    pixels = noise(5, 7)
    decoded = decode(encoded(Image.fromarray(pixels), format))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_lossless_webp_comes_back_as_it_was():
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(noise(5, 7)), "WEBP", lossless=True)), noise(5, 7))


def test_a_jpeg_of_one_colour_keeps_it(tmp_path):
    Image.new("RGB", (20, 10), (200, 100, 50)).save(tmp_path / "a.jpg", quality=95)
    decoded = decode(tmp_path / "a.jpg")
    assert decoded.shape == (10, 20, 3)
    assert np.abs(decoded.astype(int) - (200, 100, 50)).max() <= 2
    np.testing.assert_array_equal(decode((tmp_path / "a.jpg").read_bytes()), decoded)
    assert decode_image(tmp_path / "a.jpg").mode == "RGB"


# What must be done to the stored array so that it is upright, from the table of row 0 and column 0 in the Exif
# standard: 6 means that row 0 is the right-hand side and column 0 the top, so a clockwise quarter turn.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation, format):
    stored = np.kron(np.array([[RED, GREEN, BLUE], [WHITE, BLACK, RED]], np.uint8), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    content = encoded(Image.fromarray(stored), format, exif=exif, **options)
    decoded, expected = decode(content).astype(int), UPRIGHT[orientation](stored)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected)[4::8, 4::8].max() <= 6


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 99])
def test_broken_exif_does_not_cost_the_photo(exif):
    assert decode(encoded(Image.fromarray(noise(8, 8)), "JPEG", exif=exif)).shape == (8, 8, 3)


def test_remarks_on_broken_metadata_do_not_reach_the_terminal(tmp_path):
    broken = encoded(Image.fromarray(noise(8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "broken.jpg").write_bytes(broken)
    program = f"from converters.images.decoding import decode; print(decode({str(tmp_path / 'broken.jpg')!r}).shape)"
    # in a process of its own: pytest has its own way with warnings
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(8, 8, 3)\n", "")


def test_an_orientation_outside_1_to_8_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(noise(4, 6)), "PNG", exif=exif)), noise(4, 6))


def test_grey_becomes_three_equal_channels():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey), "PNG")), np.stack([grey] * 3, -1))


def test_one_bit_is_black_and_white():
    decoded = decode(png(8, 1, 1, 0, [bytes([0b10110000])]))
    assert decoded[0, :, 0].tolist() == [255, 0, 255, 255, 0, 0, 0, 0]


def test_a_palette_is_looked_up_and_its_transparent_entries_are_white():
    palette = b"PLTE" + bytes([*RED, *GREEN, *BLUE, *BLACK])
    opaque = decode(png(4, 1, 8, 3, [bytes([3, 2, 1, 0])], palette))
    assert opaque[0].tolist() == [[*BLACK], [*BLUE], [*GREEN], [*RED]]
    # entry 0 is transparent, entry 1 is half transparent over white, the rest is opaque
    clear = decode(png(4, 1, 8, 3, [bytes([3, 2, 1, 0])], palette, b"tRNS" + bytes([0, 128])))
    assert clear[0].tolist() == [[*BLACK], [*BLUE], [127, 255, 127], [*WHITE]]


def test_alpha_is_laid_on_white():
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    expected = colour * alpha + 255 * (1 - alpha)
    assert np.abs(decode(encoded(Image.fromarray(rgba), "PNG")) - expected).max() <= 0.51
    grey_alpha = rgba[..., :2]
    expected = grey_alpha[..., :1] * (grey_alpha[..., 1:] / 255) + 255 * (1 - grey_alpha[..., 1:] / 255)
    decoded = decode(encoded(Image.fromarray(grey_alpha, "LA"), "PNG"))
    assert np.abs(decoded - np.repeat(expected, 3, -1)).max() <= 0.51


def test_a_transparent_colour_is_white():
    rgb = decode(png(2, 1, 8, 2, [bytes([*RED, *BLUE])], b"tRNS" + struct.pack(">HHH", *RED)))
    assert rgb[0].tolist() == [[*WHITE], [*BLUE]]
    grey = decode(png(2, 1, 16, 0, [struct.pack(">HH", 1000, 1001)], b"tRNS" + struct.pack(">H", 1000)))
    assert grey[0].tolist() == [[*WHITE], [3, 3, 3]]
    deep = decode(png(1, 1, 16, 2, [struct.pack(">HHH", 1000, 0, 0)], b"tRNS" + struct.pack(">HHH", 1000, 0, 0)))
    assert deep.shape == (1, 1, 3)


def test_cmyk_becomes_rgb_in_both_conventions():
    cmyk = np.zeros((16, 32, 4), np.uint8)
    cmyk[:, :16] = (0, 255, 255, 0)  # no cyan: red
    cmyk[:, 16:] = (0, 0, 0, 255)  # key: black
    image = Image.fromarray(cmyk, "CMYK")
    tiff = decode(encoded(image, "TIFF"))  # as it is
    assert tiff[0, 0].tolist() == [*RED]
    assert tiff[0, 20].tolist() == [*BLACK]
    content = encoded(image, "JPEG", quality=100)  # as Adobe writes it: inverted, and marked as Adobe's
    assert b"Adobe" in content[:200]
    jpeg = decode(content).astype(int)
    assert np.abs(jpeg[4, 4] - RED).max() <= 3
    assert np.abs(jpeg[4, 28] - BLACK).max() <= 3


def test_ycbcr_tiff_becomes_rgb():
    image = Image.new("RGB", (4, 4), (200, 100, 50)).convert("YCbCr")
    assert np.abs(decode(encoded(image, "TIFF", compression="tiff_lzw")).astype(int) - (200, 100, 50)).max() <= 2


def test_sixteen_bits_keep_the_high_eight():
    values = np.array([[0, 255, 256, 257, 32767, 32768, 65279, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 127, 128, 254, 255]
    grey_png = decode(png(8, 1, 16, 0, [values.astype(">u2").tobytes()]))
    assert grey_png[0].T.tolist() == [expected] * 3
    rgb_png = decode(png(8, 1, 16, 2, [np.repeat(values, 3).astype(">u2").tobytes()]))
    np.testing.assert_array_equal(rgb_png, grey_png)
    tiff = decode(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(tiff, grey_png)
    pgm = decode(b"P5 8 1 65535\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(pgm, grey_png)


@pytest.mark.parametrize(("brightest", "white"), [(1.0, 1.0), (0.5, 1.0), (200.0, 255.0), (60000.0, 65535.0)])
def test_float_is_scaled_by_the_least_white_that_holds_it(brightest, white):
    values = np.array([[0.0, brightest / 2, brightest, -1.0, np.nan]], np.float32)
    decoded = decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0]
    expected = np.array([0, brightest / 2, brightest, 0, 0]) / white * 255
    assert np.abs(decoded - expected).max() <= 1


def test_float_of_unknown_range_is_rejected():
    with pytest.raises(ImageError, match="white is not known"):
        decode(encoded(Image.fromarray(np.array([[1e9]], np.float32)), "TIFF"))


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    for format in ("GIF", "WEBP", "TIFF"):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert np.abs(decode(content)[0, 0].astype(int) - RED).max() <= 3, format


def test_a_truncated_file_is_rejected_and_named(tmp_path):
    image = Image.fromarray(noise(64, 64))
    for format in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        path = tmp_path / f"half.{format.lower()}"
        content = encoded(image, format)
        for share in (0.02, 0.5, 0.9):
            path.write_bytes(content[: int(len(content) * share)])
            with pytest.raises(ImageError, match="half") as caught:
                decode(path)
            assert caught.value.file == str(path)
            assert "\n" not in str(caught.value)


def test_what_is_not_an_image_is_rejected(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "postscript.eps").write_bytes(encoded(Image.new("RGB", (4, 4)), "EPS"))
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    reasons = {"empty.jpg": "empty", "text.jpg": "not JPEG", "postscript.eps": "not JPEG", "pipe.jpg": "not a regular"}
    reasons |= {"none.jpg": "no such", "loop.jpg": "no such", ".": "not a regular", "a\0b.jpg": r"no such|null"}
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            decode(tmp_path / name)
    with pytest.raises(ImageError, match=r"<bytes>.*empty"):
        decode(b"")


def test_bombs_are_rejected_from_their_headers():
    side = int(MAX_PIXELS**0.5) + 2
    for width, height in ((side, side), (1, MAX_PIXELS + 1), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ImageError, match=f"more than the {MAX_PIXELS}"):
            decode(png(width, height, 8, 2, [b""]))
    with pytest.raises(ImageError):
        decode(b"P6 100000 100000 255\n")
    text = b"zTXt" + b"k\0\0" + zlib.compress(bytes(200_000_000), 9)
    with pytest.raises(ImageError, match="too large"):
        decode(png(1, 1, 8, 2, [bytes(3)], text))


def test_the_error_is_the_users_and_crosses_processes():
    with pytest.raises(InputError) as caught:
        decode(b"GIF89a")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(copy), copy.file, copy.why) == (str(caught.value), "<bytes>", caught.value.why)


def test_bytes_changed_at_random_give_pixels_or_an_image_error():
    rng = np.random.default_rng(3)
    image = Image.fromarray(noise(24, 24))
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        good = np.frombuffer(encoded(image, format), np.uint8)
        for _ in range(40):
            bad = good.copy()
            places = rng.integers(0, min(len(bad), 200), 4)
            bad[places] = rng.integers(0, 256, 4)
            try:
                decoded = decode(bad.tobytes())
            except ImageError:
                continue
            assert decoded.dtype == np.uint8
            assert decoded.ndim == 3
            assert decoded.shape[2] == 3


def test_avif_is_read_and_heic_needs_its_plug_in():
    from converters.images.decoding import is_image_name, readable_formats

    image = Image.new("RGB", (64, 48), (200, 40, 40))
    stream = io.BytesIO()
    image.save(stream, "AVIF", quality=95)
    pixels = decode(stream.getvalue())
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - (200, 40, 40)).max() < 8
    if "HEIF" not in readable_formats():
        with pytest.raises(ImageError, match="HEIC is read through a plug-in of Pillow: pip install pillow-heif"):
            decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    names = ["a/b.HEIC", "b.avif", ".b.jpg", "a/.ipynb_checkpoints/b.png", "__MACOSX/b.png", "./a.png", "a.txt"]
    assert [is_image_name(name) for name in names] == [True, True, False, False, False, True, False]
