"""Archives, shards, tables and manifests with bytes changed at random: read, or refused with an InputError."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from pictures import class_folders, encoded, write

from converters.errors import InputError
from edge_cv.data import open_samples, splits_of
from edge_cv.data.formats import example, tfrecord
from edge_cv.data.prepare import ShardingOptions, prepare

TRIES = 250


def tar(folder: Path) -> Path:
    with tarfile.open(folder / "photos.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        for seed, name in enumerate(("ant nest/a.jpg", "bee hive/" + "b" * 120 + ".jpg", "bee hive/ü.jpg")):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(seed))
            opened.addfile(member, io.BytesIO(encoded(seed)))
    return folder / "photos.tar"


def shard(folder: Path) -> Path:
    features = [{"image/encoded": encoded(i), "image/class/label": i, "image/filename": f"{i}.jpg"} for i in range(3)]
    return write(folder / "a.tfrecord", b"".join(tfrecord.frame(example.encode(f)) for f in features))


def table(folder: Path) -> Path:
    for seed in range(3):
        write(folder / f"{seed}.jpg", encoded(seed))
    return write(folder / "labels.csv", b"file,labels,split\n0.jpg,a b|c d,train\n1.jpg,,val\n2.jpg,c d,train\n")


def manifest(folder: Path) -> Path:
    class_folders(folder / "in", ("ant nest", "bee hive"), 3)
    prepare(folder / "in", folder / "out", ShardingOptions(shards=1), split="train")
    return folder / "out" / "manifest.json"


def index(folder: Path) -> Path:
    return manifest(folder).with_name("train-index.npz")


def changed(content: bytes, rng: random.Random) -> bytes:
    mutable = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind, place = rng.random(), rng.randrange(len(mutable) + 1)
        if kind < 0.5 and place < len(mutable):
            mutable[place] = rng.choice((0, 0x7F, 0x80, 0xFF, mutable[place] ^ (1 << rng.randrange(8))))
        elif kind < 0.7:
            del mutable[place : place + rng.choice((1, 8, 512))]
        elif kind < 0.9:
            mutable[place:place] = rng.randbytes(rng.choice((1, 8, 512)))
        else:
            del mutable[place:]
    return bytes(mutable)


@pytest.mark.parametrize("make", [tar, shard, table, manifest, index])
def test_changed_bytes_are_read_or_refused(tmp_path, make):
    rng = random.Random(make.__name__)
    path = make(tmp_path)
    whole, place = path.read_bytes(), path if make in (tar, shard) else path.parent
    read, refused = 0, []
    for attempt in range(TRIES):
        path.write_bytes(changed(whole, rng))
        os.utime(path, ns=(attempt, attempt))  # changes are faster than the file system's clock
        try:
            for split in splits_of(place) or (None,):
                samples = open_samples(place, split)
                for i in range(len(samples)):
                    samples.encoded(i)
            read += 1
        except InputError as error:
            refused.append(str(error))
    assert read + len(refused) == TRIES
    assert len(refused) > TRIES / 10
    assert not [text for text in refused if "\n" in text]
