from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.images.decoding import ImageError
from edge_cv import data
from edge_cv.data import Preprocessing, Samples
from edge_cv.data.formats.folders import imagenet_validation
from edge_cv.data.places import CroppedPhoto
from edge_cv.parallel.threads import THREAD_NAME

SMALL = Preprocessing(4, rule="stretch", interpolation="nearest")


def save(path: Path, colour: tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names_and_labels(source: Samples) -> list[tuple[str, int | None]]:
    return [(sample.path.name, sample.label) for sample in source.chunk(0, len(source))]


def test_folders_of_wnids_get_imagenets_indices(tmp_path):
    save(tmp_path / "n02099601" / "b.png")
    save(tmp_path / "n02099601" / "a.JPG")
    save(tmp_path / "n01440764" / "c.png")
    (tmp_path / "n01440764" / "readme.txt").write_text("no photo")
    source = data.open_samples(tmp_path)
    assert names_and_labels(source) == [("c.png", 0), ("a.JPG", 207), ("b.png", 207)]
    assert len(source.classes) == 1000
    assert source.classes[207] == "golden retriever"


def test_folders_of_imagenet_names_get_imagenets_indices(tmp_path):
    save(tmp_path / "Golden_Retriever" / "a.png")
    save(tmp_path / "banana" / "b.png")
    assert names_and_labels(data.open_samples(tmp_path)) == [("a.png", 207), ("b.png", 954)]


def test_other_folders_count_in_sorted_order_with_the_empty_ones(tmp_path):
    save(tmp_path / "zebra fish" / "z.png")
    (tmp_path / "middle").mkdir()
    save(tmp_path / "aardvark house" / "a.png")
    source = data.open_samples(tmp_path)
    assert names_and_labels(source) == [("a.png", 0), ("z.png", 2)]
    assert source.classes == ("aardvark house", "middle", "zebra fish")


def test_given_classes_decide_the_indices(tmp_path):
    save(tmp_path / "banana" / "b.png")
    save(tmp_path / "orange" / "o.png")
    source = data.open_samples(tmp_path, classes=["orange", "apple", "banana"])
    assert names_and_labels(source) == [("b.png", 2), ("o.png", 0)]
    with pytest.raises(InputError, match="Did you mean 'bananas'"):
        data.open_samples(tmp_path, classes=["orange", "bananas"])


def test_a_name_of_two_imagenet_classes_is_refused(tmp_path):
    save(tmp_path / "crane" / "a.png")
    with pytest.raises(InputError, match="n02012849 or n03126707"):
        data.open_samples(tmp_path)


def test_a_stranger_among_wnids_is_refused(tmp_path):
    save(tmp_path / "n02099601" / "a.png")
    save(tmp_path / "n99999999" / "a.png")
    with pytest.raises(InputError, match="n99999999"):
        data.open_samples(tmp_path)


def test_a_folder_of_photos_alone_has_no_labels(tmp_path):
    save(tmp_path / "b.png")
    save(tmp_path / "a.webp")
    save(tmp_path / ".hidden.png")
    source = data.open_samples(str(tmp_path))
    assert names_and_labels(source) == [("a.webp", None), ("b.png", None)]
    assert source.classes == ()


def test_photos_beside_class_folders_are_mentioned(tmp_path, caplog):
    save(tmp_path / "own" / "a.png")
    save(tmp_path / "loose.png")
    assert len(data.open_samples(tmp_path)) == 1
    assert "1 images beside the class folders" in caplog.text


def test_links_back_are_not_followed(tmp_path):
    save(tmp_path / "photos" / "own class" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    photos = tmp_path / "photos"
    (photos / "up").symlink_to("..")
    (photos / "here").symlink_to(".")
    (photos / "itself").symlink_to("itself")
    (photos / "own class" / "again.png").symlink_to("again.png")
    (photos / "other class").symlink_to(tmp_path / "elsewhere")
    source = data.open_samples(photos)
    assert source.classes == ("other class", "own class")
    assert {path.name for path in source.paths()} <= {"a.png", "b.png", "again.png"}


def test_folders_without_photos_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must hold images.*there is none"):
        data.open_samples(tmp_path)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "notes.txt").touch()
    with pytest.raises(InputError, match="1 class folders hold none"):
        data.open_samples(tmp_path)
    with pytest.raises(InputError, match=r"one of digits, sample, sample_calibration\. Received: .*absent"):
        data.open_samples(tmp_path / "absent")
    with pytest.raises(InputError, match="must be a folder that"):
        data.open_samples(tmp_path / "class" / "notes.txt")


def test_imagenets_validation_folder_is_labelled_by_its_names(tmp_path):
    for number in (3, 1):
        save(tmp_path / f"ILSVRC2012_val_{number:08d}.png").rename(tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG")
    source = data.open_samples(tmp_path)
    assert source.labels.tolist() == [65, 230]
    (tmp_path / "ILSVRC2012_val_00050001.JPEG").touch()
    with pytest.raises(InputError, match="ILSVRC2012_val_00050001"):
        imagenet_validation(tmp_path)
    with pytest.raises(InputError, match="Received: none"):
        imagenet_validation(tmp_path.parent)


TABLE = "file,wnid,index,split\na.png,n01440764,0,calibration\nb.png,n02099601,207,test\nsub/c.png,,1,test\n"


def write_table(path: Path, table: str = TABLE) -> Path:
    save(path / "images" / "a.png")
    save(path / "b.png")
    save(path / "images" / "sub" / "c.png")
    (path / "labels.csv").write_text(table)
    return path


def test_a_table_says_labels_and_splits(tmp_path):
    write_table(tmp_path)
    assert names_and_labels(data.open_samples(tmp_path)) == [("a.png", 0), ("b.png", 207), ("c.png", 1)]
    test = data.open_samples(tmp_path, split="test")
    assert names_and_labels(test) == [("b.png", 207), ("c.png", 1)]
    assert "test" in test.name
    assert all(path.is_file() for path in test.paths())


def test_a_table_of_wnids_alone_is_enough(tmp_path):
    write_table(tmp_path, "wnid,file\nn02099601,a.png\n")
    assert names_and_labels(data.open_samples(tmp_path)) == [("a.png", 207)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,index\na.png,1000\n", r"line 2: index must be a whole number in 0\.\.999. Received: '1000'"),
        ("file,index\na.png,-1\n", "Received: '-1'"),
        ("file,index\na.png," + "9" * 6000, "whole number"),
        ("file,index\na.png\n", "whole number"),
        ("file,wnid\na.png,n00000000\n", "wnid must be one of ImageNet's 1000"),
        ("file,wnid,index\na.png,n01440764,5\n", "wnid n01440764 has index 0. Received: 5"),
        ("file,index\na.png,1\nnone.png,2\n", "files that are not there: none.png$"),
        ("file,index\n" + "".join(f"{i}.png,1\n" for i in range(9)), r"0\.png, 1\.png, 2\.png and 6 more"),
        ("file,index\n../a.png,1\n", "inside the folder"),
        ("file,index\n/etc/passwd,1\n", "inside the folder"),
        ("file,index\n,1\n", "inside the folder"),
        ("file,index\na.png,1\na.png,1\n", "lines 2 and 3 name the same file"),
        ("name,index\na.png,1\n", "must have the columns file and index or wnid"),
        ("", "must have the columns"),
        ("file,index\n", "at least one photo"),
    ],
)
def test_broken_tables_are_refused(tmp_path, table, message):
    write_table(tmp_path, table)
    with pytest.raises(InputError, match=message):
        data.open_samples(tmp_path)


def test_an_unreadable_table_is_refused(tmp_path):
    write_table(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"file,index\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"labels.csv cannot be read"):
        data.open_samples(tmp_path)


def test_an_unknown_split_is_refused(tmp_path):
    write_table(tmp_path)
    with pytest.raises(InputError, match=r"Did you mean 'test'.*calibration, test"):
        data.open_samples(tmp_path, split="tset")
    with pytest.raises(InputError, match=r"a split must be named in a labels.csv"):
        data.open_samples(tmp_path / "images", split="test")
    with pytest.raises(InputError, match="a split must"):
        data.open_samples("sample", split="test")


def test_the_sample_is_foolboxs_twenty_photos():
    source = data.open_samples("sample")
    assert len(source) == 20
    assert names_and_labels(source)[:3] == [
        ("imagenet_00_243.jpg", 243),
        ("imagenet_01_559.jpg", 559),
        ("imagenet_02_438.jpg", 438),
    ]
    assert source.classes[243] == "bull mastiff"


def test_calibration_crops_are_many_and_none_is_measured_on():
    source = data.sample_calibration()
    assert len(source) >= 64
    assert len(set(source.paths())) == len(source)
    assert (source.labels == -1).all()
    files = [source.place(index).path for index in range(len(source))]
    assert len(set(files[:7])) == 7
    hashes = {hashlib.sha256(Path(file).read_bytes()).digest() for file in files}
    assert not hashes & {hashlib.sha256(path.read_bytes()).digest() for path in data.sample().paths()}
    seen = [pixels.tobytes() for pixels, _ in source.pixels(Preprocessing(32))]
    assert len(set(seen)) == len(source)
    assert len(data.open_samples("sample_calibration")) == len(source)
    with pytest.raises(InputError, match="sample_calibration has none"):
        data.open_samples("sample_calibration", "train")


def test_a_missing_package_is_named_with_the_extra():
    program = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('foolbox', 'skimage') else find(name, *a)\n"
        "from edge_cv import data\n"
        "for source in (data.sample, data.sample_calibration):\n"
        "    try: source()\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "foolbox" in first
    assert "scikit-image" in second
    assert all(line.endswith("pip install 'edge-cv[demo]'") for line in (first, second))


def test_importing_and_opening_load_no_framework_and_no_package_of_samples():
    program = (
        "import sys; from edge_cv import data; data.sample(); data.sample_calibration()\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'rich', 'matplotlib', 'foolbox', 'skimage', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cropped_photo_is_cut_flipped_and_resized(tmp_path):
    rows, columns = np.mgrid[:40, :80]
    Image.fromarray(np.stack([rows, columns, rows * 0], -1).astype(np.uint8)).save(tmp_path / "a.png")
    place = CroppedPhoto(str(tmp_path / "a.png"), (0.5, 0.25, 0.55, 0.35))
    expected = np.stack([*np.mgrid[10:14, 40:44], np.zeros((4, 4))], -1)
    np.testing.assert_array_equal(data.load_pixels(place, SMALL), expected)
    flipped = CroppedPhoto(place.path, place.box, flip=True)
    np.testing.assert_array_equal(data.load_pixels(flipped, SMALL), expected[:, ::-1])
    assert pickle.loads(pickle.dumps((data.load_pixels, flipped))) == (data.load_pixels, flipped)  # noqa: S301
    assert str(flipped) == f"{tmp_path}/a.png [0.5,0.25,0.55,0.35 flipped]"
    missing = CroppedPhoto("none.png", place.box)
    with pytest.raises(ImageError, match=re.escape("none.png [0.5,0.25,0.55,0.35] cannot be read")):
        missing.read()


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_a_box_outside_the_photo_is_refused(box):
    with pytest.raises(InputError, match="box must be"):
        CroppedPhoto("a.png", box)


def test_labels_outside_the_classes_are_refused():
    for label in (-2, 2):
        with pytest.raises(InputError, match=rf"must be in 0\.\.1, for 2 classes. Received: {label} for .*a.png"):
            Samples.from_files("mine", ["a.png"], [label], ("cat", "dog"))
    with pytest.raises(InputError, match="at least one photo"):
        Samples.from_files("mine", [])


def test_pixels_come_in_order_with_their_labels(tmp_path):
    # every third is large, so that it is decoded last of its neighbours
    files = [save(tmp_path / f"{i:03d}.png", (i, 0, 0), (600, 600) if i % 3 == 0 else (8, 8)) for i in range(60)]
    source = Samples.from_files("mine", files, range(60), tuple(map(str, range(60))))
    seen = [(int(pixels[0, 0, 0]), label) for pixels, label in source.pixels(SMALL)]
    assert seen == [(i, i) for i in range(60)]


def test_broken_photos_are_named_left_out_and_counted(tmp_path, caplog):
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


def test_a_source_of_which_nothing_can_be_read_is_refused(tmp_path):
    source = Samples.from_files("mine", [tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(InputError, match="none of the 2 photos of mine can be read"):
        list(source.pixels(SMALL, on_skip=lambda file, why: None))


def test_a_limit_takes_photos_spread_over_all_classes(tmp_path):
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
    for path in paths[ahead:]:  # nothing has looked at these, so that they are missed when their turn comes
        path.unlink()
    assert 1 + sum(1 for _ in pixels) == ahead


def test_a_loop_that_is_left_leaves_no_threads(tmp_path):
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
    sent = data.with_content(samples.chunk(0, 9))
    assert [sample.place.read() for sample in sent[:2]] == [file.read_bytes() for file in files[:2]]
    assert [(sample.path, sample.label) for sample in sent] == list(zip(files, (0, None, 1), strict=True))
    with pytest.raises(ImageError, match="no such file"):  # when it is decoded
        sent[2].place.read()
