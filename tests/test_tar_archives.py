from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, write

from converters.errors import InputError
from edge_cv import data
from edge_cv.data import open_samples


def archive(path: Path, members: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def with_member(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w") as opened:
        photo = tarfile.TarInfo("a class/a.jpg")
        photo.size = len(encoded(1))
        opened.addfile(photo, io.BytesIO(encoded(1)))
        opened.addfile(member, io.BytesIO(content))
    return path


def member(name: str, size: int = 0, **fields) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_the_imagenet_archive_of_class_archives_is_read_in_place(tmp_path):
    inner = {}
    for wnid in ("n02099601", "n01440764"):
        photos = {f"{wnid}_{i}.JPEG": encoded(int(wnid[1:]) + i) for i in range(3)}
        inner[f"{wnid}.tar"] = archive(tmp_path / f"{wnid}.tar", photos).read_bytes()
        (tmp_path / f"{wnid}.tar").unlink()
    archive(tmp_path / "ILSVRC2012_img_train.tar", inner)
    archive(tmp_path / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{i:08d}.JPEG": encoded(i) for i in (1, 2)})
    train, validation = open_samples(tmp_path, "train"), open_samples(tmp_path, "validation")
    assert train.labels.tolist() == [207] * 3 + [0] * 3
    assert [train.encoded(i) for i in (0, 5)] == [encoded(2099601), encoded(1440766)]
    assert str(train.place(5)) == f"{tmp_path / 'ILSVRC2012_img_train.tar'}:n01440764_2.JPEG"
    assert validation.labels.tolist() == [65, 970]
    assert validation.encoded(1) == encoded(2)
    place = train.place(3)
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        assert file.read(place.length) == train.encoded(3)
    assert open_samples(tmp_path / "ILSVRC2012_img_train.tar", classes=()).classes == ("n01440764", "n02099601")
    measured = data.open_samples(tmp_path, split="validation")
    assert [label for _, label in measured.pixels(data.Preprocessing(8))] == [65, 970]


def test_shared_images_of_an_archive_are_recognized(tmp_path):
    photos = {f"{name}/{i}.jpg": encoded(i) for name in ("a b", "c d") for i in range(3)}
    samples = open_samples(archive(tmp_path / "photos.tar", photos))
    (tmp_path / "again.tar").symlink_to("photos.tar")
    again = open_samples(tmp_path / "again.tar")
    data.check_disjoint(samples.select(np.arange(3)), again.select(np.arange(3, 6)))
    with pytest.raises(InputError, match=r"Received: 1 of 4, such as .*again.tar:a b/2.jpg"):
        data.check_disjoint(samples.select(np.arange(3)), again.select(np.arange(2, 6)))


def test_a_folder_of_class_archives(tmp_path):
    for wnid in ("n02099601", "n01440764"):
        archive(tmp_path / f"{wnid}.tar", {f"{wnid}_1.JPEG": encoded(int(wnid[1:]))})
    samples = open_samples(tmp_path)
    assert samples.labels.tolist() == [0, 207]
    assert samples.encoded(0) == encoded(1440764)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_class_folders_in_each_format(tmp_path, format):
    long = "photo of something " * (4 if format == tarfile.USTAR_FORMAT else 12)
    photos = {
        "./ant nest/a.jpg": encoded(1),
        f"./bee hive/{long}.jpg": encoded(2),
        "./bee hive/._b.jpg": b"x",
        "n": b"y",
    }
    samples = open_samples(archive(tmp_path / "photos.tar", photos, format))
    assert samples.classes == ("ant nest", "bee hive")
    assert [(samples.encoded(i), int(samples.labels[i])) for i in range(len(samples))] == [
        (encoded(1), 0),
        (encoded(2), 1),
    ]


def test_archives_of_gnu_tar_are_read(tmp_path):
    for name in ("ant nest", "bee hive"):
        write(tmp_path / "in" / name / "a.jpg", encoded(len(name)))
    subprocess.run(["tar", "-cf", tmp_path / "photos.tar", "-C", tmp_path / "in", "."], check=True)
    samples = open_samples(tmp_path / "photos.tar")
    assert sorted(samples.encoded(i) for i in range(2)) == sorted([encoded(8), encoded(8)])


def test_links_and_special_files_are_not_used(tmp_path, caplog):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as opened:
        for name in ("a b/1.jpg", "c d/2.jpg"):
            opened.addfile(member(name, len(encoded(1))), io.BytesIO(encoded(1)))
        opened.addfile(member("a b/link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
        opened.addfile(member("a b/hard.jpg", type=tarfile.LNKTYPE, linkname="a b/1.jpg"))
        opened.addfile(member("a b/pipe.jpg", type=tarfile.FIFOTYPE))
    assert len(open_samples(path)) == 2
    assert "3 links and special files" in caplog.text


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../../etc/a.jpg"), "names must stay within the archive"),
        (member("/etc/a.jpg"), "names must stay within the archive"),
        (member("b c/huge.jpg", 2**50), "the archive ends within"),
        (member("b c/sparse.jpg", 100, type=tarfile.GNUTYPE_SPARSE), "sparse|must be a tar archive"),
    ],
)
def test_hostile_members_are_refused(tmp_path, hostile, message):
    path = with_member(tmp_path / "photos.tar", member("b c/b.jpg"))
    with path.open("r+b") as file:  # by hand: tarfile writes no such thing
        file.seek(512 + 512 * -(-len(encoded(1)) // 512))
        file.write(hostile.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(InputError, match=message):
        open_samples(path)


@pytest.mark.parametrize("size", [-512, -1024, -(2**40)])
def test_negative_sizes_do_not_loop(tmp_path, size):
    hostile = bytearray(member("b c/b.jpg").tobuf(tarfile.GNU_FORMAT))
    hostile[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    hostile[148:156] = b" " * 8
    hostile[148:156] = b"%06o\0 " % sum(hostile[:512])
    path = with_member(tmp_path / "photos.tar", member("b c/b.jpg"))
    with path.open("r+b") as file:
        file.seek(512 + 512 * -(-len(encoded(1)) // 512))
        file.write(hostile)
    with pytest.raises(InputError):
        open_samples(path)


def test_a_long_name_of_a_terabyte_is_not_read(tmp_path):
    header = member("././@LongLink", 2**40, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    path = write(tmp_path / "photos.tar", header)
    os.truncate(path, 2**41)
    with pytest.raises(InputError, match="must have short headers"):
        open_samples(path)


def test_truncated_and_broken_archives_are_refused(tmp_path):
    photos = {f"a b/{i}.jpg": encoded(i) for i in range(3)}
    whole = archive(tmp_path / "photos.tar", photos).read_bytes()
    path = tmp_path / "broken.tar"
    third = 2 * (512 + 512 * -(-len(encoded(0)) // 512))
    for content in (whole[: third + 700], whole[:third] + b"\xff" * 512 + whole[third + 512 :], b"x" * 2000, b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.tar"):
            open_samples(path)


def test_compressed_archives_and_those_of_several_splits_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be an uncompressed \.tar"):
        open_samples(write(tmp_path / "photos.tar.gz", b""))
    path = archive(tmp_path / "a.tar", {"set/train/a b/1.jpg": encoded(1), "set/val/a b/2.jpg": encoded(2)})
    with pytest.raises(InputError, match=r"must hold one split. Received: train, validation"):
        open_samples(path)
