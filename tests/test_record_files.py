"""Record files, written by TensorFlow and array_record and read without TensorFlow."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, write

from converters.errors import InputError
from converters.images.decoding import ImageError
from edge_cv import data
from edge_cv.data import open_samples, splits_of
from edge_cv.data.formats import example, tfrecord


def tensorflow_example(features: dict) -> bytes:
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, float):
            feature.float_list.value.append(value)
        elif isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.extend([value] if isinstance(value, int) else value)
    return made.SerializeToString()


def tensorflow_file(path: Path, examples: list[dict], options: str | None = None) -> Path:
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for features in examples:
            writer.write(tensorflow_example(features))
    return path


def slim(seed: int, label: int | list[int], **more) -> dict:
    """An Example with the features of tf/slim."""
    return {
        "image/encoded": encoded(seed),
        "image/class/label": label,
        "image/format": b"JPEG",
        "image/height": 24,
        "image/object/bbox/xmin": 0.25,
        "image/filename": b"%d.jpg" % seed,
        **more,
    }


def contents(samples) -> list[tuple[bytes, int]]:
    return [(samples.encoded(i), int(samples.labels[i])) for i in range(len(samples))]


def test_tensorflow_reads_the_records_that_we_write(tmp_path):
    import tensorflow as tf

    features = {"name": "Zürich", "image": encoded(3), "one": 7, "many": [0, -1, 2**40, 127, 128], "none": []}
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(tfrecord.frame(content) for content in (b"", b"x" * 300, example.encode(features))))
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert read[:2] == [b"", b"x" * 300]
    found = tf.train.Example.FromString(read[2]).features.feature
    assert found["name"].bytes_list.value[0].decode() == "Zürich"
    assert found["image"].bytes_list.value[0] == encoded(3)
    assert list(found["one"].int64_list.value) == [7]
    assert list(found["many"].int64_list.value) == features["many"]
    assert list(found["none"].int64_list.value) == []
    assert tfrecord.check_data(path) == 3


def test_features_that_tensorflow_serializes_are_found():
    rng = random.Random(0)
    for _ in range(100):
        features = {}
        for number in range(rng.randint(0, 6)):
            kind = rng.choice(["bytes", "ints", "float"])
            name = f"{kind}{number}"
            features[name] = {
                "bytes": rng.randbytes(rng.choice([0, 1, 127, 128, 5000])),
                "ints": [rng.randint(-(2**63), 2**63 - 1) for _ in range(rng.randint(0, 5))],
                "float": 0.5,
            }[kind]
        content = tensorflow_example(features)
        window = example.BytesWindow(content)
        found = example.find(window, 0, len(content), {name.encode() for name in features})
        assert set(found) == {name.encode() for name in features}
        for name, value in features.items():
            span = found[name.encode()]
            if isinstance(value, bytes):
                ((offset, length),) = example.byte_strings(window, span)
                assert content[offset : offset + length] == value
            elif isinstance(value, list):
                assert example.integers(window, span) == value
            else:
                assert example.integers(window, span) == example.byte_strings(window, span) == []


def test_broken_examples_are_read_or_malformed():
    whole = tensorflow_example(slim(1, [5]))
    rng = random.Random(1)
    names = {b"image/encoded", b"image/class/label"}
    malformed = 0
    for _ in range(2000):
        content = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.5 else whole)
        for _ in range(rng.randint(1, 4)):
            if content:
                content[rng.randrange(min(len(content), 80))] = rng.randrange(256)
        window = example.BytesWindow(bytes(content))
        try:
            for span in example.find(window, 0, len(content), names).values():
                for offset, length in example.byte_strings(window, span):
                    assert 0 <= offset <= offset + length <= len(content)
                example.integers(window, span)
        except example.Malformed:
            malformed += 1
    assert malformed > 500


def test_shards_of_tf_slim(tmp_path):
    for shard in range(3):
        tensorflow_file(
            tmp_path / f"flowers_train_{shard:05d}-of-00003.tfrecord", [slim(10 * shard + i, i) for i in range(2)]
        )
    tensorflow_file(tmp_path / "flowers_validation_00000-of-00001.tfrecord", [slim(99, 1)])
    (tmp_path / "labels.txt").write_text("0:daisy\n1:tulip\n")
    assert set(splits_of(tmp_path)) == {"train", "validation"}
    train, validation = open_samples(tmp_path, "train"), open_samples(tmp_path, "validation")
    assert train.classes == validation.classes == ("daisy", "tulip")
    assert contents(train) == [(encoded(10 * shard + i), i) for shard in range(3) for i in range(2)]
    assert contents(validation) == [(encoded(99), 1)]
    assert str(train.place(2)).endswith("train_00001-of-00003.tfrecord:10.jpg")
    place = train.place(3)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        assert file.read(place.length) == encoded(11)
    assert [label for _, label in data.open_samples(tmp_path, split="train").pixels(data.Preprocessing(8))] == [
        0,
        1,
    ] * 3
    (tmp_path / "flowers_train_00001-of-00003.tfrecord").unlink()
    with pytest.raises(
        InputError, match=r"all of its 3 shards. Missing: flowers_train_-00001|Missing: .*00001-of-00003"
    ):
        open_samples(tmp_path, "train")


def test_imagenet_shards_count_from_one_and_have_wnids(tmp_path):
    examples = [
        slim(i, label, **{"image/class/synset": wnid})
        for i, (label, wnid) in enumerate([(1, b"n01440764"), (208, b"n02099601"), (1, b"n01440764")])
    ]
    tensorflow_file(tmp_path / "train-00000-of-00001", examples)
    samples = open_samples(tmp_path, "train")
    assert samples.labels.tolist() == [0, 207, 0]
    assert samples.classes[207] == "golden retriever"


def test_labels_from_one_are_recognized_by_the_number_of_class_names(tmp_path):
    path = tensorflow_file(tmp_path / "data.tfrecords", [slim(i, i + 1) for i in range(3)])
    assert open_samples(path, classes=("a", "b", "c")).labels.tolist() == [0, 1, 2]
    assert open_samples(path).classes == ("0", "1", "2", "3")
    with pytest.raises(InputError, match=r"a label must be in 0\.\.1"):
        open_samples(path, classes=("a", "b"))


def test_several_labels_an_image(tmp_path):
    path = tensorflow_file(tmp_path / "data.tfrecord", [slim(0, [0, 2]), slim(1, []), slim(2, [1])])
    samples = open_samples(path)
    assert samples.labels.tolist() == [[True, False, True], [False] * 3, [False, True, False]]


TFDS_FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "file_name": {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}},
            "image": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"},
            },
            "label": {
                "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                "classLabel": {"numClasses": "1000"},
            },
        }
    },
}


def tfds_folder(folder: Path, lengths: dict[str, list[int]], wnids: list[str]) -> Path:
    version = folder / "imagenet2012" / "5.1.0"
    for split, shards in lengths.items():
        for shard, count in enumerate(shards):
            examples = [
                {
                    "image": encoded(100 * shard + i),
                    "label": (shard + i) % 1000,
                    "file_name": b"%d_%d.JPEG" % (shard, i),
                }
                for i in range(count)
            ]
            tensorflow_file(version / f"imagenet2012-{split}.tfrecord-{shard:05d}-of-{len(shards):05d}", examples)
    (version / "features.json").write_text(json.dumps(TFDS_FEATURES))
    splits = [{"name": name, "shardLengths": [str(n) for n in counts]} for name, counts in lengths.items()]
    info = {"name": "imagenet2012", "version": "5.1.0", "fileFormat": "tfrecord", "splits": splits}
    (version / "dataset_info.json").write_text(json.dumps(info))
    (version / "label.labels.txt").write_text("\n".join(wnids) + "\n")
    return version


def test_tensorflow_datasets_imagenet2012(tmp_path):
    wnids = [label.wnid for label in data.imagenet_labels()]
    version = tfds_folder(tmp_path, {"train": [3, 2], "validation": [1]}, wnids)
    for path in (version, tmp_path / "imagenet2012"):
        train = open_samples(path, "train")
        assert train.labels.tolist() == [0, 1, 2, 1, 2]
        assert [train.encoded(i) for i in (0, 4)] == [encoded(0), encoded(101)]
        assert train.classes[0] == "tench"
    assert open_samples(version, "train", classes=()).classes == tuple(wnids)
    assert len(open_samples(version, "val")) == 1
    shard = version / "imagenet2012-train.tfrecord-00001-of-00002"
    tensorflow_file(shard, [{"image": encoded(1), "label": 0, "file_name": b"x"}])
    with pytest.raises(InputError, match=r"00001-of-00002 must hold 2 records. Received: 1"):
        open_samples(version, "train")
    shard.unlink()
    with pytest.raises(InputError, match="the shard is missing"):
        open_samples(version, "train")
    info = json.loads((version / "dataset_info.json").read_text())
    (version / "dataset_info.json").write_text(json.dumps({**info, "name": "../../x"}))
    with pytest.raises(InputError, match="names that files can have"):
        open_samples(version, "train")
    (version / "features.json").write_text('{"featuresDict": {"features": {}}}')
    with pytest.raises(InputError, match="one image and one class label"):
        open_samples(version, "train")


def test_array_record_shards(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(2):
        writer = ArrayRecordWriter(str(tmp_path / f"train.array_record-{shard:05d}-of-00002"), "group_size:1")
        for i in range(70):
            writer.write(tensorflow_example(slim(i, [i % 2])))
        writer.close()
    samples = open_samples(tmp_path, "train")
    assert len(samples) == 140
    assert [samples.encoded(i) for i in (0, 69, 70, 139)] == [encoded(0), encoded(69), encoded(0), encoded(69)]
    assert samples.labels[:4].tolist() == [0, 1, 0, 1]
    program = "import pickle, sys; print(len(pickle.load(sys.stdin.buffer).encoded(139)))"
    with ThreadPoolExecutor(8) as threads:
        order = np.random.default_rng(0).integers(0, 140, 2000)
        assert all(threads.map(lambda i: samples.encoded(i) == encoded(i % 70), order))
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(samples), capture_output=True, check=True)
    assert int(done.stdout) == len(encoded(69))
    source = data.open_samples(tmp_path, split="train").take(6)
    assert [label for _, label in source.pixels(data.Preprocessing(8))] == [0, 1, 0, 0, 1, 0]
    path = tmp_path / "train.array_record-00000-of-00002"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="must be a complete ArrayRecord file"):
        open_samples(tmp_path, "train")


def small_file(path: Path, count: int = 3) -> bytes:
    return tensorflow_file(path, [slim(i, i) for i in range(count)]).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole[:-1], "the file ends within the record"),
        (lambda whole: whole[: len(whole) // 2], "the file ends within the record"),
        (lambda whole: whole + b"abc", "the file ends within the record"),
        (lambda whole: b"\x01" + whole[1:], "the length must match its checksum"),
        (lambda whole: huge(2**62), "a record must have at most"),
        (lambda whole: huge(2**20), "the file ends within the record"),
        (lambda whole: tfrecord.frame(b"no example"), "record 0: must be a tf.train.Example with an image"),
        (lambda whole: tfrecord.frame(example.encode({"image/class/label": 1})), "it has no image/encoded"),
        (lambda whole: tfrecord.frame(b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 50), "longer than its message"),
        (lambda whole: b"", "at least one record"),
        (lambda whole: os.urandom(100), "another format"),
    ],
)
def test_broken_files_are_refused_with_one_line(tmp_path, change, message):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(change(small_file(path)))
    with pytest.raises(InputError, match=message) as caught:
        open_samples(path)
    assert "\n" not in str(caught.value)


def huge(length: int) -> bytes:
    header = struct.pack("<Q", length)
    return header + tfrecord._masked_crc(header) + b"x" * 100


def test_data_that_does_not_match_its_checksum_is_found(tmp_path):
    path = tmp_path / "a.tfrecord"
    whole = bytearray(small_file(path))
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    open_samples(path)  # the index does not read images
    with pytest.raises(InputError, match="the data must match the checksum"):
        tfrecord.check_data(path)


def test_compressed_files_are_refused(tmp_path):
    path = tensorflow_file(tmp_path / "a.tfrecord", [slim(1, 1)], "GZIP")
    with pytest.raises(InputError, match="a gzip file"):
        open_samples(path)


def test_a_file_that_shrinks_after_it_was_opened_is_an_image_error(tmp_path):
    path = tmp_path / "a.tfrecord"
    whole = small_file(path)
    samples = open_samples(path)
    path.write_bytes(whole[:20])
    with pytest.raises(ImageError, match="the file ends after"):
        samples.encoded(1)


def test_files_of_two_formats_are_refused(tmp_path):
    write(tmp_path / "a.tfrecord", b"")
    write(tmp_path / "a.array_record", b"")
    with pytest.raises(InputError, match="record files of one format"):
        open_samples(tmp_path)


def test_opening_reads_headers_and_no_images(tmp_path):
    """A shard of 3 MB images is opened by reading less than a hundredth of it."""
    big = np.random.default_rng(0).bytes(3_000_000)
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        for i in range(10):
            file.write(tfrecord.frame(example.encode({"image/encoded": big, "image/class/label": i % 2, "z": "end"})))
    before = read_bytes()
    samples = open_samples(path)
    assert read_bytes() - before < 300_000
    assert len(samples.encoded(9)) == len(big)


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
