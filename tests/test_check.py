from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, encoded, picture, write
from PIL import Image

from converters.errors import InputError
from edge_cv.data.check import Check, check
from edge_cv.data.prepare import ShardingOptions, prepare

CLASSES = ("ant nest", "bee hive")
SIZE = (96, 72)


def photos(folder: Path, first: int = 0, each: int = 6) -> Path:
    for number, name in enumerate(CLASSES):
        for i in range(each):
            write(folder / name / f"{i}.jpg", encoded(first + number * each + i, size=SIZE))
    return folder


def said(found: Check, what: str) -> list[tuple[str, int, bool]]:
    return [(finding.part, finding.count, finding.harms) for finding in found.findings if what in finding.what]


def test_a_clean_data_set_has_no_findings(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "val", 100)
    found = check(tmp_path)
    assert found.findings == ()
    assert not found.harms
    assert [part["images"] for part in found.parts] == [12, 12]
    assert (found.parts[0]["median_width"], found.parts[0]["median_height"]) == SIZE


def cmyk(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed, SIZE).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [picture(seed, SIZE) for seed in (1, 2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def plain(colour: str, size: tuple[int, int] = SIZE) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what", "harms"),
    [
        ("x.jpg", encoded(50, size=SIZE)[:-200], "cannot be read", True),
        ("x.jpg", b"", "cannot be read", True),
        ("x.jpg", b"<html>not found</html>", "cannot be read", True),
        ("x.jpg", cmyk(51), "are read differently", False),
        ("x.gif", animation(), "are animated", False),
        ("x.jpg", encoded(52, "PNG", SIZE), "have a suffix of another format", False),
        ("x.png", plain("red"), "are of one colour", False),
        ("x.jpg", encoded(53, size=(20, 20)), "are tiny", False),
        ("x.jpg", encoded(54, size=(400, 40)), "are longer than 4 : 1", False),
    ],
)
def test_an_odd_image_is_reported(tmp_path, name, content, what, harms):
    photos(tmp_path)
    write(tmp_path / "ant nest" / name, content)
    found = check(tmp_path)
    (finding,) = found.findings
    assert what in finding.what
    assert (finding.count, finding.harms, found.harms) == (1, harms, harms)
    assert str(tmp_path / "ant nest" / name) in finding.examples[0]


def resized(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed, SIZE).resize((200, 150), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=70)
    return stream.getvalue()


def test_duplicates_within_and_across_splits(tmp_path):
    train, validation = photos(tmp_path / "train"), photos(tmp_path / "val", 100)
    write(train / "ant nest" / "copy.jpg", encoded(0, size=SIZE))
    write(validation / "ant nest" / "leak.jpg", encoded(1, size=SIZE))
    write(validation / "bee hive" / "small leak.jpg", resized(7))
    write(train / "bee hive" / "again.jpg", resized(10))
    found = check(tmp_path)
    assert said(found, "occur twice") == [("train", 1, False)]
    assert said(found, "are in both") == [("train, validation", 1, True)]
    assert said(found, "look like another") == [("train", 1, False)]
    assert said(found, "look like an image in the other") == [("train, validation", 1, True)]
    assert len(found.findings) == 4
    example = next(finding for finding in found.findings if finding.what == "are in both").examples[0]
    assert example == f"{validation / 'ant nest' / 'leak.jpg'} = {train / 'ant nest' / '1.jpg'}"


def test_another_source_is_compared(tmp_path):
    photos(tmp_path / "a")
    photos(tmp_path / "b", 6)  # half of them are a's
    found = check(tmp_path / "a", tmp_path / "b")
    assert said(found, "are in both") == [("a, b", 6, True)]


def test_a_validation_set_that_is_the_training_set_is_reported(tmp_path):
    photos(tmp_path / "a")
    photos(tmp_path / "b")
    found = check(tmp_path / "a", tmp_path / "b")
    assert said(found, "are the same images") == [("a, b", 12, True)]
    assert said(check(tmp_path / "a", tmp_path / "a"), "are the same images")


def test_one_image_with_two_labels_is_found(tmp_path):
    photos(tmp_path)
    write(tmp_path / "bee hive" / "x.jpg", encoded(0, size=SIZE))
    assert said(check(tmp_path), "with another label") == [(tmp_path.name, 1, True)]


def test_classes_with_few_or_no_images(tmp_path):
    photos(tmp_path / "train")
    (tmp_path / "train" / "cow shed").mkdir()
    assert said(check(tmp_path), "classes have no image") == [("train", 1, True)]
    for i in range(70):
        write(tmp_path / "train" / "cow shed" / f"{i}.jpg", encoded(1000 + i, size=SIZE))
    found = check(tmp_path)
    assert said(found, "of the largest one's images") == [("train", 2, False)]
    assert ("ant nest: 6", "bee hive: 6", "cow shed: 70") in [finding.examples for finding in found.findings]
    one = tmp_path / "one"
    class_folders(one, ("ant nest",), 3)
    assert said(check(one), "one class only") == [("one", 1, True)]


def test_what_training_refuses_is_named_and_what_it_takes_passes(tmp_path):
    """The oracle is the split that a training itself makes."""
    from edge_cv.data.opening import classes_to_train
    from edge_cv.data.split import split_for_training

    def refused(folder: Path) -> bool:
        try:
            split_for_training(str(folder), None, 1, classes=classes_to_train(folder))
        except InputError:
            return True
        return False

    fine, empty, single = (photos(tmp_path / name) for name in ("fine", "empty", "single"))
    (empty / "cow shed").mkdir()
    for number in range(12):  # of one photo each: a hash of the name decides which are drawn for the test
        write(single / f"class {number}" / "0.jpg", encoded(200 + number, size=SIZE))
    for folder, harms in ((fine, False), (empty, True), (single, True)):
        assert refused(folder) == check(folder).harms == harms, folder
    assert "cow shed" in said_examples(check(empty), "cannot be trained on")
    write(fine / CLASSES[0] / "photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0")
    (fine / CLASSES[0] / ".ipynb_checkpoints").mkdir()
    write(fine / CLASSES[0] / ".ipynb_checkpoints" / "0-checkpoint.jpg", encoded(0, size=SIZE))
    found = check(fine)
    assert found.parts[0]["images"] == 13
    assert said(found, "cannot be read") == [("fine", 1, True)]


def said_examples(found: Check, what: str) -> str:
    return " ".join(" ".join(finding.examples) for finding in found.findings if what in finding.what)


def test_broken_shards_are_found(tmp_path):
    prepare(photos(tmp_path / "in"), tmp_path / "out", ShardingOptions(shards=1), split="train")
    assert not check(tmp_path / "out").harms
    (shard,) = (tmp_path / "out").glob("*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert said(check(tmp_path / "out"), "shards are broken") == [("train", 1, True)]


@pytest.mark.slow
def test_tiny_images_are_compared_by_their_bytes_only():
    found = check("digits")
    assert [finding.what for finding in found.findings] == ["are tiny (a side under 32 pixels)"] * 2


def test_several_labels_an_image(tmp_path):
    for i in range(6):
        write(tmp_path / f"{i}.jpg", encoded(i, size=SIZE))
    rows = "".join(f"{i}.jpg,{'red|round' if i % 2 else 'red'}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text("file,labels\n" + rows)
    found = check(tmp_path)
    assert (found.findings, found.parts[0]["largest_class"]) == ((), 6)


def test_groups_of_look_alikes_equal_those_of_a_full_comparison():
    from edge_cv.data.check import NEAR_BITS, _look_alikes

    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 40, np.uint64)
    hashes = np.concatenate([base, base[:20] ^ np.uint64(0b11), base[:10] ^ np.uint64(0b11011), base[:5]])
    rows = np.arange(3, len(hashes))
    groups = _look_alikes(hashes, rows)
    assert (groups[:3] == -1).all()
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR_BITS
    near[:3] = near[:, :3] = False
    for _ in range(6):  # the closure, by squaring
        near = near.astype(int) @ near.astype(int) > 0
    expected = near[3:, 3:]
    assert ((groups[3:, None] == groups[3:]) == expected).all()


def test_the_command_prints_a_table_or_json_and_sets_the_exit_code(edge_cv, tmp_path):
    photos(tmp_path / "a")
    code, out, _ = edge_cv("data", "check", tmp_path / "a")
    assert (code, out.splitlines()[-1]) == (0, "nothing found")
    write(tmp_path / "a" / "ant nest" / "x.jpg", b"")
    code, out, _ = edge_cv("data", "check", tmp_path / "a", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["findings"][0]["what"] == "cannot be read"
    assert found["parts"][0]["images"] == 13
    code, _, err = edge_cv("data", "check", tmp_path / "absent")
    assert code == 2
    assert err.startswith("edge-cv: data must be a folder or file of images")
    with pytest.raises(InputError):
        check(tmp_path / "a", tmp_path / "absent")
