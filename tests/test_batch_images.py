"""The images of batches: cropped and decoded as the evaluation does, and replaced if they are broken."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from image_batches import PLAIN, Memory, by_pillow, make, same, scene, stored, taken
from PIL import Image, ImageOps

from converters.errors import InputError
from edge_cv import data
from edge_cv.data import Samples
from edge_cv.data.input_pipeline.loading import BrokenImages, reduction
from edge_cv.data.places import FilePart
from edge_cv.recipe import Augment


@pytest.mark.parametrize("size", [(80, 60), pytest.param((60, 80), marks=pytest.mark.slow), (700, 500), (20, 15)])
def test_tensorflow_and_pillow_crop_alike(size):
    samples = Memory(tuple(stored(scene(n, *size)) for n in range(8)), np.zeros(8, np.int32))
    batches = make(samples, Augment())
    for (ours, _), (pillows, _) in zip(taken(batches), by_pillow(batches), strict=True):
        difference = np.abs(ours.astype(int) - pillows)
        assert difference.mean() < 3.5
        assert np.abs(ours[:, :, ::-1].astype(int) - pillows).mean() > 5  # a flip makes a difference


def test_without_random_crop_and_flip_the_central_square_is_taken():
    photos = [scene(n, 64, 48) for n in range(4)]
    batches = make(Memory(tuple(map(stored, photos)), np.zeros(4, np.int32)), PLAIN)
    ((images, _),) = taken(batches)
    for index, image in zip(batches.plan.sampler.indices(0, 0), images, strict=True):
        expected = photos[index].crop((8, 0, 56, 48)).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(image.astype(int) - np.asarray(expected)).mean() < 3


@pytest.mark.parametrize("augment", [PLAIN, Augment()])
def test_exif_orientation_is_applied(augment):
    photo, contents = scene(1, 90, 60), []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        contents.append(stored(photo, exif=exif))
    upright = tuple(stored(ImageOps.exif_transpose(Image.open(io.BytesIO(c))), "PNG") for c in contents)
    labels = np.zeros(8, np.int32)
    turned, expected = (taken(make(Memory(c, labels), augment, batch_size=8)) for c in (tuple(contents), upright))
    assert np.abs(turned[0][0].astype(int) - expected[0][0]).mean((1, 2, 3)).max() < 3


def test_every_kind_of_image_is_decoded_as_the_evaluation_does(memory):
    photo = scene(2)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    contents = (
        *(stored(photo), stored(photo, progressive=True), stored(photo.convert("L")), stored(photo.convert("CMYK"))),
        *(stored(photo, "PNG"), stored(deep, "PNG"), stored(clear, "PNG"), stored(photo.quantize(64), "GIF")),
        *(stored(photo, "WEBP"), stored(photo, "BMP"), stored(photo) + b"\0trailing", stored(photo, keep_rgb=True)),
    )
    samples = Memory(contents, np.zeros(len(contents), np.int32))
    batches = make(samples, PLAIN, batch_size=len(contents))
    ((images, _),) = taken(batches)
    for index, image in zip(batches.plan.sampler.indices(0, 0), images, strict=True):
        upright = Image.fromarray(data.decode(contents[index])).crop((10, 0, 70, 60))
        expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(image - expected).mean() < 3, index


def hostile(photo: bytes) -> dict[str, bytes]:
    table = photo.index(b"\xff\xc4") + 5
    return {
        "empty": b"",
        "text": b"no image",
        "cut": photo[: len(photo) // 2],
        "header alone": photo[:300] + b"\xff\xd9",
        "Huffman table": photo[:table] + b"\xff" * 16 + photo[table + 16 :],
    }


@pytest.mark.parametrize("run", [taken, by_pillow])
def test_a_broken_image_is_reported_and_replaced_by_the_next_one(memory, run, caplog):
    contents = list(memory.contents)
    broken = dict(zip((2, 3, 7, 11, 21), hostile(contents[0]).values(), strict=True))
    for index, content in broken.items():
        contents[index] = content
    batches = make(Memory(tuple(contents), memory.labels), Augment())
    with caplog.at_level(logging.WARNING):
        given = run(batches)
    assert set(batches.broken) == set(broken)
    assert sum("is replaced by another image" in record.message for record in caplog.records) == len(broken)
    whole = run(make(memory, Augment()))
    order = [batches.plan.sampler.indices(0, step) for step in range(len(batches))]
    for position, index in enumerate(np.concatenate(order)):
        step, row = divmod(position, 4)
        if index not in broken:
            assert (given[step][0][row] == whole[step][0][row]).all()
        following = (batches.plan.sampler.following(0, step, row, nth) for nth in range(22))
        stand_in = next(index for index in following if index not in broken)
        assert given[step][1][row].argmax() == memory.labels[stand_in]
    assert same(run(batches), given)


@pytest.mark.parametrize("run", [taken, by_pillow])
def test_images_that_are_all_broken_are_an_error(memory, run):
    samples = Memory(tuple(hostile(memory.contents[0]).values()), np.zeros(5, np.int32))
    with pytest.raises(InputError, match="must hold images that can be read"):
        run(make(samples, Augment(), batch_size=2))


def test_large_photos_are_reduced_while_they_are_decoded():
    assert [reduction((0, 0, side, side), 224) for side in (224, 895, 896, 1792, 3584, 9999)] == [1, 1, 2, 4, 8, 8]
    samples = Memory((stored(scene(1, 1200, 1000)),) * 4, np.zeros(4, np.int32))
    batches = make(samples, Augment(crop_scale=(0.9, 1.0)))
    for (ours, _), (pillows, _) in zip(taken(batches), by_pillow(batches), strict=True):
        assert np.abs(ours.astype(int) - pillows).mean() < 3.5  # crops of the reduced photo are whole pixels


def test_files_are_read_as_images_in_memory_are(memory, tmp_path):
    class Files(Memory):
        def encoded(self, index: int) -> bytes:
            return Path(self.place(index).path).read_bytes()

        def place(self, index: int) -> FilePart:
            return FilePart(str(tmp_path / f"ä {index}.jpg"))

    for index, content in enumerate(memory.contents):
        (tmp_path / f"ä {index}.jpg").write_bytes(content)
    batches = make(Files(memory.contents, memory.labels), Augment())
    assert same(taken(batches), taken(make(memory, Augment())))
    (tmp_path / "ä 7.jpg").unlink()
    again = taken(batches, 1)
    from_files = Samples.from_files("files", [tmp_path / f"ä {n}.jpg" for n in range(8)], [0] * 8, ("a", "b"))
    assert BrokenImages(from_files).name(7) == str(tmp_path / "ä 7.jpg")
    assert "No such file" in batches.broken[7]
    contents = (*memory.contents[:7], b"", *memory.contents[8:])
    assert same(again, taken(make(Memory(contents, memory.labels), Augment()), 1))
