"""Shards of `edge-cv data prepare`: read by TensorFlow, Grain and `open_samples`, and resumed after interruptions."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, encoded, picture, write
from PIL import Image

from converters.errors import InputError
from converters.images.decoding import decode
from edge_cv import data
from edge_cv.data import open_samples, splits_of
from edge_cv.data.formats.prepared import verify
from edge_cv.data.prepare import ShardingOptions, prepare

CLASSES = ("ant nest", "bee hive", "cow shed")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "photos"
    class_folders(folder, CLASSES, 12)
    return folder


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def shards(request, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / request.param
    prepare(photos, out, ShardingOptions(request.param, shards=2))
    return out


def by_name(samples) -> dict[str, tuple[bytes, int]]:
    keys = [Path(str(samples.place(i))).name for i in range(len(samples))]
    return {key: (samples.encoded(i), int(samples.labels[i])) for i, key in enumerate(keys)}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


def test_every_image_comes_back_byte_for_byte_with_its_label(photos, shards):
    assert set(splits_of(shards)) == {"train", "validation"}
    for split in ("train", "validation"):
        before, after = open_samples(photos, split), open_samples(shards, split)
        assert after.classes == CLASSES
        pairs = [sorted((s.encoded(i), int(s.labels[i])) for i in range(len(s))) for s in (before, after)]
        assert pairs[0] == pairs[1]
    assert not list(shards.glob(".*"))


def test_a_shard_is_shuffled(shards):
    assert (np.diff(open_samples(shards, "train").labels[:12]) != 0).sum() > 3


def test_tensorflow_reads_the_shards(photos, tmp_path):
    import tensorflow as tf

    prepare(photos, tmp_path, ShardingOptions(shards=2), split="train")
    samples = open_samples(photos, "train")
    expected = {
        os.fsdecode(samples.places.key(r)): (samples.encoded(i), samples.labels[i]) for i, r in enumerate(samples.rows)
    }
    found = {}
    for record in tf.data.TFRecordDataset(sorted(map(str, tmp_path.glob("train-*.tfrecord")))):
        parsed = tf.io.parse_single_example(
            record,
            {
                "image/encoded": tf.io.FixedLenFeature([], tf.string),
                "image/class/label": tf.io.FixedLenFeature([], tf.int64),
                "image/class/text": tf.io.FixedLenFeature([], tf.string),
                "image/filename": tf.io.FixedLenFeature([], tf.string),
                "image/height": tf.io.FixedLenFeature([], tf.int64),
                "image/width": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        label = int(parsed["image/class/label"])
        assert parsed["image/class/text"].numpy().decode() == CLASSES[label]
        pixels = tf.io.decode_jpeg(parsed["image/encoded"])
        assert pixels.shape[:2] == (int(parsed["image/height"]), int(parsed["image/width"]))
        found[parsed["image/filename"].numpy().decode()] = parsed["image/encoded"].numpy(), label
    assert found == expected


def test_grain_reads_the_array_record_shards(photos, tmp_path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from edge_cv.data.formats.array_record import encoded_image
    from edge_cv.data.formats.example import Features

    prepare(photos, tmp_path, ShardingOptions("array_record", shards=2), split="train")
    source = ArrayRecordDataSource(sorted(map(str, tmp_path.glob("train-*.array_record"))))
    samples = open_samples(tmp_path, "train")
    assert len(source) == len(samples)
    for index in range(len(samples)):
        offset, length = encoded_image(source[index], Features())
        assert source[index][offset : offset + length] == samples.encoded(index)


def test_the_bytes_do_not_depend_on_the_processes(photos, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_cv.data.shard_writing._SMALL", 0)
    prepare(photos, tmp_path / "photos", ShardingOptions(shards.name, shards=2))
    assert hashes(tmp_path / "photos") == hashes(shards)


def test_a_finished_data_set_is_kept_and_another_is_refused(photos, shards):
    before = {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    prepare(photos, shards, ShardingOptions(shards.name, shards=2))
    assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == before
    with pytest.raises(InputError, match="with other images or options"):
        prepare(photos, shards, ShardingOptions(shards.name, shards=3))
    other = "array_record" if shards.name == "tfrecord" else "tfrecord"
    with pytest.raises(InputError, match="must have one format"):
        prepare(photos, shards, ShardingOptions(other, shards=2))


def test_records_that_a_killed_process_left_of_a_finished_split_are_removed(photos, shards, tmp_path):
    shutil.copytree(shards, tmp_path / "out")
    write(tmp_path / "out" / ".unfinished" / "train" / "key", b"of the finished split")
    prepare(photos, tmp_path / "out", ShardingOptions(shards.name, shards=2))
    assert hashes(tmp_path / "out") == hashes(shards)
    assert not (tmp_path / "out" / ".unfinished").exists()


def turned(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(seed, exif=exif.tobytes())


def test_what_decoders_read_differently_is_stored_as_upright_rgb(tmp_path):
    stream = io.BytesIO()
    picture(2).convert("CMYK").save(stream, "JPEG")
    odd = {
        "cmyk.jpg": stream.getvalue(),
        "turned.jpg": turned(3),
        "b.webp": encoded(4, "WEBP"),
        "c.bmp": encoded(5, "BMP"),
    }
    plain = {"a.jpg": encoded(6), "p.png": encoded(7, "PNG")}
    for name, content in {**odd, **plain}.items():
        write(tmp_path / "in" / "ant nest" / name, content)
    write(tmp_path / "in" / "bee hive" / "x.jpg", encoded(8))
    prepare(tmp_path / "in", tmp_path / "out", split=None, classes=None)
    stored = {}
    for split in ("train", "validation"):
        samples = open_samples(tmp_path / "out", split)
        for i in range(len(samples)):
            stored[os.fsdecode(samples.places.key(samples.rows[i])).split("/")[1]] = samples.encoded(i)
    assert {name: stored[name] for name in plain} == plain
    for name, content in odd.items():
        with Image.open(io.BytesIO(stored[name])) as image:
            assert (image.format, image.mode, image.getexif().get(0x0112, 1)) == ("JPEG", "RGB", 1)
        assert np.abs(decode(stored[name]).astype(int) - decode(content)).mean() < 6


def test_large_images_are_resized(tmp_path):
    class_folders(tmp_path / "in", ("ant nest", "bee hive"), 3)
    write(tmp_path / "in" / "ant nest" / "large.jpg", encoded(9, size=(800, 400)))
    prepare(tmp_path / "in", tmp_path / "out", ShardingOptions(max_side=100))
    sizes = set()
    for split in ("train", "validation"):
        samples = open_samples(tmp_path / "out", split)
        sizes |= {decode(samples.encoded(i)).shape for i in range(len(samples))}
    assert sizes == {(24, 32, 3), (50, 100, 3)}


def test_broken_images_are_reported_and_skipped_or_refused(photos, tmp_path):
    folder = tmp_path / "in"
    class_folders(folder, CLASSES, 3)
    write(folder / "ant nest" / "cut.jpg", encoded(1)[:300])
    manifest = prepare(folder, tmp_path / "out")
    ((name, why),) = [pair for part in manifest.splits.values() for pair in part.skipped]
    assert name.endswith("ant nest/cut.jpg")
    assert why
    assert sum(part.images for part in manifest.splits.values()) == 9
    with pytest.raises(InputError, match=r"every image must be readable. Received: .*cut.jpg"):
        prepare(folder, tmp_path / "other", ShardingOptions(broken="refuse"))
    assert not list((tmp_path / "other").glob("*.part"))
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the .* images of .* can be read"):
        prepare(folder, tmp_path / "third")


def test_several_labels_an_image_and_none(tmp_path):
    for seed, name in enumerate("abcdef"):
        write(tmp_path / "in" / f"{name}.jpg", encoded(seed))
    rows = "a.jpg,red|round\nb.jpg,\nc.jpg,green\nd.jpg,red\ne.jpg,green|round\nf.jpg,\n"
    (tmp_path / "in" / "labels.csv").write_text("file,labels\n" + rows)
    prepare(tmp_path / "in", tmp_path / "out")
    found = {}
    for split in ("train", "validation"):
        samples = open_samples(tmp_path / "out", split)
        assert samples.multi_label
        for i in range(len(samples)):
            names = [samples.classes[j] for j in np.flatnonzero(samples.labels[i])]
            found[samples.places.key(samples.rows[i]).decode()] = "|".join(sorted(names))
    assert found == {
        "a.jpg": "red|round",
        "b.jpg": "",
        "c.jpg": "green",
        "d.jpg": "red",
        "e.jpg": "green|round",
        "f.jpg": "",
    }


def test_the_packages_digits_are_prepared(tmp_path):
    manifest = prepare("digits", tmp_path, split="test")
    assert manifest.splits["test"].images == 360
    before, after = open_samples("digits", "test"), open_samples(tmp_path, "test")
    assert sorted(after.encoded(i) for i in range(360)) == sorted(before.encoded(i) for i in range(360))


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda out: change_byte(next(out.glob("train-00001*"))),
            "train-00001.* does not match the manifest",
        ),
        (lambda out: next(out.glob("train-00001*")).unlink(), "train-00001.*(must be a file|must have)"),
        (lambda out: change_byte(out / "train-index.npz"), "train-index.npz does not match the manifest"),
        (lambda out: (out / "manifest.json").write_text("{}"), "must be a manifest of"),
        (lambda out: (out / "manifest.json").unlink(), "must hold a manifest.json"),
    ],
)
def test_verifying_finds_what_changed(photos, tmp_path, damage, message):
    out = tmp_path / "out"
    prepare(photos, out, ShardingOptions(shards=2), split="train")
    assert verify(out).splits["train"].images == len(open_samples(photos, "train"))
    damage(out)
    with pytest.raises(InputError, match=message):
        verify(out)


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "", "."])
def test_a_manifest_cannot_refer_to_another_folder(photos, tmp_path, file):
    prepare(photos, tmp_path, ShardingOptions(shards=1), split="train")
    fields = json.loads((tmp_path / "manifest.json").read_text())
    fields["splits"]["train"]["shards"][0]["file"] = file
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="must be a manifest of"):
        open_samples(tmp_path, "train")


def test_an_index_that_points_outside_is_refused(photos, tmp_path):
    prepare(photos, tmp_path, ShardingOptions(shards=1), split="train")
    index = tmp_path / "train-index.npz"
    with np.load(index) as found:
        columns = dict(found)
    columns["length"][0] = 2**40
    np.savez(index, **columns)
    with pytest.raises(InputError, match="must point into the 1 shards"):
        open_samples(tmp_path, "train")
    index.write_bytes(b"PK")
    with pytest.raises(InputError, match="must be an index of"):
        open_samples(tmp_path, "train")


def test_a_folder_with_other_files_is_not_written_to(photos, tmp_path):
    write(tmp_path / "diary.txt", b"dear diary")
    with pytest.raises(InputError, match="must be empty, or hold shards"):
        prepare(photos, tmp_path)
    with pytest.raises(InputError, match="must be a folder"):
        prepare(photos, tmp_path / "diary.txt")
    with pytest.raises(InputError, match="at most one shard an image"):
        prepare(photos, tmp_path / "a", ShardingOptions(shards=1000))
    both = {"max_side": 9, "short_side": 9}
    for wrong in ({"format": "zip"}, {"broken": "mend"}, {"shards": 0}, {"max_side": 0}, {"short_side": 0}, both):
        with pytest.raises(InputError):
            ShardingOptions(**wrong)


def test_a_test_part_without_labels_keeps_them_unknown(tmp_path):
    class_folders(tmp_path / "in" / "train", CLASSES, 2)
    class_folders(tmp_path / "in" / "val", CLASSES[1:], 1, first=50)
    write(tmp_path / "in" / "test" / "x.jpg", encoded(99))
    manifest = prepare(tmp_path / "in", tmp_path / "out")
    assert list(manifest.splits) == ["train", "test", "validation"]
    test = open_samples(tmp_path / "out", "test")
    assert (test.classes, test.labels.tolist(), test.encoded(0)) == (CLASSES, [-1], encoded(99))
    assert open_samples(tmp_path / "out", "validation").classes == CLASSES


def test_a_shard_that_is_damaged_before_verification_is_rewritten(photos, tmp_path, monkeypatch):
    def damaged(out, update, name, manifest):
        if not (tmp_path / "damaged").exists():
            (tmp_path / "damaged").touch()
            change_byte(next(out.glob("train-00001*")))
        return verify(out, update, name, manifest)

    monkeypatch.setattr("edge_cv.data.prepare.verify", damaged)
    with pytest.raises(InputError, match=r"train-00001.* does not match the manifest"):
        prepare(photos, tmp_path / "out", ShardingOptions(shards=3), split="train")
    first = (tmp_path / "out" / "train-00000-of-00003.tfrecord").stat().st_mtime_ns
    prepare(photos, tmp_path / "out", ShardingOptions(shards=3), split="train")
    assert verify(tmp_path / "out").splits["train"].images == len(open_samples(photos, "train"))
    assert (tmp_path / "out" / "train-00000-of-00003.tfrecord").stat().st_mtime_ns == first


def test_a_split_name_that_refers_to_another_folder_is_refused(tmp_path):
    for seed in range(2):
        write(tmp_path / "in" / f"{seed}.jpg", encoded(seed))
    (tmp_path / "in" / "labels.csv").write_text("file,label,split\n0.jpg,a b,../../x\n1.jpg,c d,../../x\n")
    with pytest.raises(InputError, match="a name that files can have"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_of_imagenet_gets_its_own_classes(tmp_path):
    for wnid in ("n01440764", "n02099601"):
        for i in range(2):
            write(tmp_path / "in" / wnid / f"{i}.JPEG", encoded(i))
    assert prepare(tmp_path / "in", tmp_path / "out").classes == ("n01440764", "n02099601")


def test_a_full_disk_is_reported_in_one_line(photos, tmp_path):
    """A limit on the file size simulates the full disk."""
    program = (
        "import resource, signal, sys; from edge_cv.cli import app as cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "sys.argv[0] = 'edge-cv'; cli.main()"
    )
    command = [sys.executable, "-c", program, "data", "prepare", str(photos), str(tmp_path / "out"), "--shards", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").glob(".*.part"))


def test_evaluation_and_calibration_take_prepared_shards(shards):
    from edge_cv.data.split import split_for_evaluation

    splits = split_for_evaluation(str(shards), None, 5)
    assert len(splits.calibration) == 5
    assert "validation" in splits.test.name
    assert [label for _, label in splits.test.pixels(data.Preprocessing(8))] == open_samples(
        shards, "validation"
    ).labels.tolist()
