from __future__ import annotations

import pickle

import numpy as np
import pytest

from converters.errors import InputError
from converters.images.decoding import ImageError, decode
from edge_cv.data import open_samples
from edge_cv.data.places import FilePart, Files, Packed
from edge_cv.data.samples import Samples, check_trainable, shard


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
    import os

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
def test_what_nothing_can_be_learned_from_is_refused(tmp_path, labels, classes, message):
    samples = files(tmp_path, [b"", b""], labels, classes)
    with pytest.raises(InputError, match=message):
        check_trainable(samples)
