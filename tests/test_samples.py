from __future__ import annotations

import logging
import os
import pickle
import threading

import numpy as np
import pytest
from pictures import save

from converters.errors import InputError
from converters.images.decoding import ImageError, decode
from edge_cv.data import Preprocessing, Samples, check_trainable, open_samples, shard, with_content
from edge_cv.data.places import FilePart, Files, Packed
from edge_cv.parallel.threads import THREAD_NAME

SMALL = Preprocessing(4, rule="stretch", interpolation="nearest")


def files(folder, contents, labels, classes):
    for index, content in enumerate(contents):
        (folder / f"{index}").write_bytes(content)
    count = len(contents)
    paths = Packed(f"{index}".encode() for index in range(count))
    return Samples("mine", classes, np.array(labels, np.int32), Files(str(folder), paths))


def test_the_digits_are_scikit_learns_with_a_fixed_stratified_split():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    every, train, test = open_samples("digits"), open_samples("digits", "train"), open_samples("digits", "test")
    assert (len(every), len(train), len(test)) == (1797, 1437, 360)
    assert every.classes == train.classes == tuple("0123456789")
    np.testing.assert_array_equal(every.labels, bunch.target)
    for index in (0, 900, 1796):
        pixels = decode(every.encoded(index))
        assert pixels.shape == (8, 8, 3)
        np.testing.assert_allclose(pixels[..., 0] * (16 / 255), bunch.images[index], atol=0.04)
    shares = np.bincount(test.labels) / np.bincount(bunch.target)
    assert np.abs(shares - 360 / 1797).max() < 0.01
    assert not set(train.rows) & set(test.rows)
    np.testing.assert_array_equal(open_samples("digits", "test").rows, test.rows)
    with pytest.raises(InputError, match=r"split of digits.*train, test"):
        open_samples("digits", "validation")


def test_packed_strings_are_read_back():
    strings = [b"", b"a", b"", b"\xff/b c", b""]
    packed = Packed(strings)
    assert [packed[i] for i in range(len(packed))] == strings
    with pytest.raises(IndexError):
        packed[5]


def test_shards_share_no_sample_and_together_are_all(tmp_path):
    samples = files(tmp_path, [bytes([i]) for i in range(11)], [i % 2 for i in range(11)], ("a", "b"))
    parts = [shard(samples, i, 3) for i in range(3)]
    seen = [part.encoded(i)[0] for part in parts for i in range(len(part))]
    assert sorted(seen) == list(range(11))
    assert [len(part) for part in parts] == [4, 4, 3]
    with pytest.raises(InputError, match=r"0\.\.2. Received: 3"):
        shard(samples, 3, 3)
    with pytest.raises(InputError, match="Received: 11"):
        shard(samples, 0, 12)


def test_samples_are_the_same_in_another_process(tmp_path):
    samples = files(tmp_path, [b"one", b"two"], [0, 1], ("a", "b"))
    copy = pickle.loads(pickle.dumps(samples))  # noqa: S301
    assert [copy.encoded(i) for i in range(2)] == [b"one", b"two"]
    assert copy.place(1) == FilePart(str(tmp_path / "1"))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    samples = files(tmp_path, [b"one", b"two"], [0, 1], ("a", "b"))
    (tmp_path / "0").unlink()
    with pytest.raises(ImageError, match="0 cannot be read as an image: no such file"):
        samples.encoded(0)
    os.mkfifo(tmp_path / "0")
    with pytest.raises(ImageError, match="not a regular file"):
        samples.encoded(0)
    with (tmp_path / "1").open("wb") as huge:
        huge.truncate(2**40)
    with pytest.raises(ImageError, match="1099511627776 bytes are more"):
        samples.encoded(1)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 0], ("a",), "at least two classes. Received: 1 in mine"),
        ([0, 2], ("a", "b", "c", "d"), "each of the 4 classes must have an image to train on. Received: none for b, d"),
        ([0, -1], ("a", "b"), "must have a label. Received: .*/1 without one"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_refused(tmp_path, labels, classes, message):
    samples = files(tmp_path, [b"", b""], labels, classes)
    with pytest.raises(InputError, match=message):
        check_trainable(samples)


def test_labels_outside_the_classes_are_refused():
    for label in (-2, 2):
        with pytest.raises(InputError, match=rf"must be in 0\.\.1, for 2 classes. Received: {label} for .*a.png"):
            Samples.from_files("mine", ["a.png"], [label], ("cat", "dog"))
    with pytest.raises(InputError, match="at least one photo"):
        Samples.from_files("mine", [])


def test_pixels_come_in_order_with_their_labels(tmp_path):
    # every third photo is large, so that its neighbours are decoded before it
    files = [save(tmp_path / f"{i:03d}.png", (i, 0, 0), (600, 600) if i % 3 == 0 else (8, 8)) for i in range(60)]
    source = Samples.from_files("mine", files, range(60), tuple(map(str, range(60))))
    seen = [(int(pixels[0, 0, 0]), label) for pixels, label in source.pixels(SMALL)]
    assert seen == [(i, i) for i in range(60)]


def test_broken_photos_are_reported_skipped_and_counted(tmp_path, caplog):
    files = [save(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(6)]
    files[2].write_bytes(files[2].read_bytes()[:50])
    files[4].unlink()
    source = Samples.from_files("mine", files)
    skipped = []
    seen = [int(p[0, 0, 0]) for p, _ in source.pixels(SMALL, on_skip=lambda file, why: skipped.append((file, why)))]
    assert seen == [0, 1, 3, 5]
    assert [file for file, _ in skipped] == [files[2], files[4]]
    assert all(skipped[i][1] for i in range(2))
    assert "2 of the 6 photos of mine were skipped" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(list(source.pixels(SMALL))) == 4
    assert "2.png" in caplog.text
    assert "4.png" in caplog.text


def test_samples_without_a_readable_photo_are_refused(tmp_path):
    source = Samples.from_files("mine", [tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(InputError, match="none of the 2 photos of mine can be read"):
        list(source.pixels(SMALL, on_skip=lambda file, why: None))


def test_a_limit_takes_evenly_spaced_photos(tmp_path):
    files = [save(tmp_path / f"{i}.png") for i in range(40)]
    source = Samples.from_files("mine", files, [i // 10 for i in range(40)], tuple("abcd"))
    assert [label for _, label in source.pixels(SMALL, limit=4)] == [0, 1, 2, 3]
    assert source.take(99) is source.take(None) is source
    assert len(source.take(7)) == 7
    with pytest.raises(InputError, match=r"at least 1. Received: 0"):
        source.take(0)


def test_decoding_runs_a_bounded_distance_ahead(tmp_path):
    paths = [save(tmp_path / f"{i}.png") for i in range(400)]
    pixels = Samples.from_files("mine", paths).pixels(SMALL, on_skip=lambda file, why: None)
    next(pixels)
    ahead = 4 * len(os.sched_getaffinity(0)) + 1
    for path in paths[ahead:]:  # not read yet, and missing when they are
        path.unlink()
    assert 1 + sum(1 for _ in pixels) == ahead


def test_closing_an_iteration_ends_its_threads(tmp_path):
    source = Samples.from_files("mine", [save(tmp_path / f"{i}.png") for i in range(100)])
    pixels = source.pixels(SMALL)
    next(pixels)
    assert [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
    pixels.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def test_samples_are_sent_with_their_content(tmp_path):
    files = [save(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(3)]
    samples = Samples.from_files("mine", files, [0, None, 1], ("a", "b"))
    files[2].unlink()
    sent = with_content(samples.chunk(0, 9))
    assert [sample.place.read() for sample in sent[:2]] == [file.read_bytes() for file in files[:2]]
    assert [(sample.path, sample.label) for sample in sent] == list(zip(files, (0, None, 1), strict=True))
    with pytest.raises(ImageError, match="no such file"):  # when it is decoded
        sent[2].place.read()
