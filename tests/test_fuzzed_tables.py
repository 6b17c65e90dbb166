"""Manifests, indexes, tables and files of class names, changed at random, are opened or refused in one line."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutations import SEEDS, damaged, document, refused_or_done
from pictures import encoded, write

from edge_cv.data.formats import example, tfrecord
from edge_cv.data.formats.labels_csv import open_labels_csv
from edge_cv.data.formats.prepared import verify
from edge_cv.data.label_files import read_label_file
from edge_cv.data.opening import open_samples, splits_of
from edge_cv.data.prepare import prepare
from edge_cv.evaluation.groups import read_columns

CASES = 60  # of each subject in the quick tests

CELLS = (
    *("", " ", "a.jpg", "b.jpg", "cat", "dog", "cat|dog", "|", "0", "1", "999", "-1", "1e9", "9" * 30, "train", "val"),
    *(
        "../a.jpg",
        "/etc/passwd",
        "a\0b",
        "n01440764",
        "nan",
        '"',
        '"a',
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\x1b[",
    ),
    *("\N{GREEK SMALL LETTER ALPHA}", "x" * 200_000, "\u2028", "\r", "sep=;"),
)
HEADERS = ("file", "label", "labels", "index", "wnid", "split", "path", "class", "name", "id", "", "FILE", "light")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("cat/a.jpg", "cat/c.jpg", "dog/b.jpg", "dog/d.jpg")):
        write(folder / name, encoded(number))
    return folder


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory) -> dict[str, bytes]:
    """The files of a prepared data set, by name."""
    out = tmp_path_factory.mktemp("shards")
    prepare(str(photos), out)
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def table(rng: random.Random, content: bytes) -> bytes:
    """Another table of strange cells, or a damaged one, in some encoding."""
    if rng.random() < 0.3:
        return damaged(content, rng)
    separator = rng.choice(",;\t")
    header = rng.sample(HEADERS, rng.randint(1, 5))
    header = ["file", *header] if rng.random() < 0.8 else header
    rows = [[rng.choice(CELLS) for _ in range(max(0, len(header) + rng.choice((0, 0, 0, -1, 2))))] for _ in range(4)]
    text = "\n".join(separator.join(row) for row in [header, *rows])
    return text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le")), errors="replace")


def use_labels_csv(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    write(folder / "a.jpg", encoded(0))
    write(folder / "b.jpg", encoded(1))
    (folder / "labels.csv").write_bytes(content)
    with refused_or_done():
        for split in splits_of(folder):
            open_samples(folder, split).encoded(0)
    with refused_or_done():
        open_labels_csv(folder / "labels.csv", ("cat", "dog")).chunk(0, 9)
    with refused_or_done():
        read_columns(folder / "labels.csv", ["light"], [folder / "a.jpg", folder / "b.jpg"])


def use_label_file(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    for name in ("labels.txt", "labels.csv", "labels.json"):
        (folder / name).write_bytes(content)
        with refused_or_done():
            names = read_label_file(folder / name)
            assert all(isinstance(each, str) and each for each in names)
            "".join(names).encode()


def use_manifest(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    _use_shards(folder, {**shards, "manifest.json": content})


def use_index(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    _use_shards(folder, {**shards, "train-index.npz": content})


def use_record_file(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    (folder / "a.tfrecord").write_bytes(content)
    with refused_or_done():
        samples = open_samples(folder / "a.tfrecord")
        for index in range(len(samples)):
            samples.encoded(index)
    with refused_or_done():
        tfrecord.check_data(folder / "a.tfrecord")


def use_tfds(folder: Path, content: bytes, shards: dict[str, bytes]) -> None:
    version = folder / "set" / "1.0.0"
    version.mkdir(parents=True, exist_ok=True)
    (version / "set-train.tfrecord-00000-of-00001").write_bytes(_records())
    for name, whole in (("dataset_info.json", TFDS_INFO), ("features.json", TFDS_FEATURES)):
        (version / "dataset_info.json").write_text(json.dumps(TFDS_INFO))
        (version / "features.json").write_text(json.dumps(TFDS_FEATURES))
        (version / name).write_bytes(content if content else json.dumps(whole).encode())
        with refused_or_done():
            open_samples(version, "train").encoded(0)


def _use_shards(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with refused_or_done():
        for split in splits_of(folder):
            samples = open_samples(folder, split)
            for index in range(len(samples)):
                samples.encoded(index)
                samples.path(index)
    with refused_or_done():
        verify(folder)


def _records() -> bytes:
    features = {"image": encoded(0), "label": 1}
    return tfrecord.frame(example.encode(features)) * 2


TFDS_INFO = {
    **{"name": "set", "version": "1.0.0", "fileFormat": "tfrecord"},
    "splits": [{"name": "train", "shardLengths": ["2"], "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}"}],
}
_CLASS = {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}
_IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"}
TFDS_FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {"features": {"image": _IMAGE, "label": {**_CLASS, "classLabel": {"numClasses": "2"}}}},
}


def changed_index(rng: random.Random, content: bytes) -> bytes:
    """An index with one column of other values, types or lengths, or damaged."""
    if rng.random() < 0.4:
        return damaged(content, rng)
    with np.load(io.BytesIO(content)) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    name = rng.choice(list(columns))
    values = columns[name]
    columns[name] = rng.choice(
        (
            *(values[:-1], values[:0], -values.astype(values.dtype), np.full_like(values, np.iinfo(values.dtype).max)),
            *(values.astype(np.float64), values.astype("U8"), values.reshape(1, -1), np.zeros((), values.dtype)),
        )
    )
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


NAMES = {
    "txt": b"cat\ndog\n",
    "json": json.dumps({"id2label": {"0": "cat", "1": "dog"}}).encode(),
    "csv": b"index,name\n0,cat\n1,dog\n",
}
Change = Callable[[random.Random, dict[str, bytes]], bytes]
SUBJECTS: dict[str, tuple[Change, Callable[[Path, bytes, dict[str, bytes]], None]]] = {
    "labels.csv": (lambda rng, _: table(rng, b"file,label\na.jpg,cat\nb.jpg,dog\n"), use_labels_csv),
    "class names": (
        lambda rng, _: rng.choice(
            (
                table(rng, NAMES["csv"]),
                damaged(NAMES["txt"], rng),
                document({"id2label": {"0": "cat", "1": "dog"}}, rng),
                document({"cat": 0, "dog": 1}, rng),
                document(["cat", "dog"], rng),
            )
        ),
        use_label_file,
    ),
    "manifest": (lambda rng, shards: document(json.loads(shards["manifest.json"]), rng), use_manifest),
    "index": (lambda rng, shards: changed_index(rng, shards["train-index.npz"]), use_index),
    "record file": (lambda rng, _: damaged(_records(), rng), use_record_file),
    "tensorflow datasets": (
        lambda rng, _: document(rng.choice((TFDS_INFO, TFDS_FEATURES)), rng),
        use_tfds,
    ),
}


def fuzz(subject: str, folder: Path, shards: dict[str, bytes], cases: int, seed: int) -> None:
    change, use = SUBJECTS[subject]
    rng = random.Random(f"{subject} {seed}")
    for case in range(cases):
        content = change(rng, shards)
        try:
            use(folder, content, shards)
        except BaseException as error:
            (folder / "case").write_bytes(content)
            raise AssertionError(f"{subject}, seed {seed}, case {case}: {folder / 'case'}") from error


@pytest.mark.parametrize("subject", SUBJECTS)
def test_changed_tables_are_opened_or_refused(subject, shards, tmp_path):
    fuzz(subject, tmp_path, shards, CASES, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_many_changed_tables_are_opened_or_refused(subject, seed, shards, tmp_path):
    fuzz(subject, tmp_path, shards, 500, seed)
