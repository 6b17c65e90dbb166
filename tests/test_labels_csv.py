from __future__ import annotations

from pathlib import Path

import pytest
from pictures import names_and_labels, save

from converters.errors import InputError
from edge_cv.data import open_samples

TABLE = "file,wnid,index,split\na.png,n01440764,0,calibration\nb.png,n02099601,207,test\nsub/c.png,,1,test\n"


def write_table(path: Path, table: str = TABLE) -> Path:
    save(path / "images" / "a.png")
    save(path / "b.png")
    save(path / "images" / "sub" / "c.png")
    (path / "labels.csv").write_text(table)
    return path


def test_a_table_gives_labels_and_splits(tmp_path):
    write_table(tmp_path)
    assert names_and_labels(open_samples(tmp_path)) == [("a.png", 0), ("b.png", 207), ("c.png", 1)]
    test = open_samples(tmp_path, split="test")
    assert names_and_labels(test) == [("b.png", 207), ("c.png", 1)]
    assert "test" in test.name
    assert all(path.is_file() for path in test.paths())


def test_a_table_of_wnids_alone_is_enough(tmp_path):
    write_table(tmp_path, "wnid,file\nn02099601,a.png\n")
    assert names_and_labels(open_samples(tmp_path)) == [("a.png", 207)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,index\na.png,1000\n", r"line 2: index must be a whole number in 0\.\.999. Received: '1000'"),
        ("file,index\na.png,-1\n", "Received: '-1'"),
        ("file,index\na.png," + "9" * 6000, "whole number"),
        ("file,index\na.png\n", "whole number"),
        ("file,wnid\na.png,n00000000\n", "wnid must be one of ImageNet's 1000"),
        ("file,wnid,index\na.png,n01440764,5\n", "wnid n01440764 has index 0. Received: 5"),
        ("file,index\na.png,1\nnone.png,2\n", "files that do not exist: none.png$"),
        ("file,index\n" + "".join(f"{i}.png,1\n" for i in range(9)), r"0\.png, 1\.png, 2\.png and 6 more"),
        ("file,index\n../a.png,1\n", "inside the folder"),
        ("file,index\n/etc/passwd,1\n", "inside the folder"),
        ("file,index\n,1\n", "inside the folder"),
        ("file,index\na.png,1\na.png,1\n", "lines 2 and 3 name the same file"),
        ("name,index\na.png,1\n", r"must have the columns file \(or image, .* index or wnid\)\. Received: name, index"),
        ("", "must have the columns"),
        ("file,index\n", "at least one photo"),
    ],
)
def test_broken_tables_are_refused(tmp_path, table, message):
    write_table(tmp_path, table)
    with pytest.raises(InputError, match=message):
        open_samples(tmp_path)


def test_an_unreadable_table_is_refused(tmp_path):
    write_table(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"file,index\n\x81\x8d,1\n")
    with pytest.raises(InputError, match=r"labels.csv must be a readable CSV file"):
        open_samples(tmp_path)


def test_an_unknown_split_is_refused(tmp_path):
    write_table(tmp_path)
    with pytest.raises(InputError, match=r"Did you mean 'test'.*calibration, test"):
        open_samples(tmp_path, split="tset")
    with pytest.raises(InputError, match=r"a split must be named in a labels.csv"):
        open_samples(tmp_path / "images", split="test")
    with pytest.raises(InputError, match="a split must"):
        open_samples("sample", split="test")


@pytest.mark.parametrize(
    "table",
    [
        b"file;label\na.png;cat\nb.png;dog\n",
        "\ufefffilename\tclass\na.png\tcat\nb.png\tdog\n".encode(),
        "Image Path,Category\r\na.png,cat\r\nb.png,dog\r\n".encode("utf-16"),
        b"File Name;class\ra.png;cat\rb.png;dog\r",
        b"sep=;\npath;label\na.png;cat\nb.png;dog\n",
        b",image,class_name\n0,a.png,cat\n1,.\\b.png,dog\n",
    ],
)
def test_separators_encodings_and_column_names_vary(tmp_path, table):
    write_table(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes(table)
    samples = open_samples(tmp_path)
    assert names_and_labels(samples) == [("a.png", 0), ("b.png", 1)]
    assert samples.classes == ("cat", "dog")


def test_numbers_as_labels_are_ordered_by_value_or_index_the_given_classes(tmp_path):
    write_table(tmp_path, "file,label\na.png,10\nb.png,9\n")
    assert open_samples(tmp_path).classes == ("9", "10")
    write_table(tmp_path, "file,label\na.png,1\nb.png,0\n")
    assert names_and_labels(open_samples(tmp_path, classes=["cat", "dog"])) == [("a.png", 1), ("b.png", 0)]
    write_table(tmp_path, "file,label\na.png,DOG\nb.png,cat\n")
    assert names_and_labels(open_samples(tmp_path, classes=["Cat", "dog"])) == [("a.png", 1), ("b.png", 0)]


@pytest.mark.parametrize(
    "table",
    [
        "image_id,target\na,cat\nb,dog\n",
        "id,breed\na,cat\nb,dog\n",
        "id_code,diagnosis\na,cat\nb,dog\n",
        "lesion_id,image_id,dx,age\nL1,a,cat,40\nL1,b,dog,50\n",
        "Id,Species\na.png,cat\nb.png,dog\n",
        "image_name,target,label\na,0,cat\nb,0,dog\n",
        "id,image_id,species\n5,a,cat\n6,b,dog\n",
    ],
)
def test_names_without_suffix_and_columns_of_kaggle_are_read(tmp_path, table):
    write_table(tmp_path, table)
    samples = open_samples(tmp_path)
    assert names_and_labels(samples) == [("a.png", 0), ("b.png", 1)]
    assert samples.classes == ("cat", "dog")


@pytest.mark.parametrize("folder", ["train", "train_images", "images"])
def test_the_images_of_a_table_may_be_in_a_folder_of_its_name(tmp_path, folder):
    for name in ("a.JPG", "b.jpeg"):
        save(tmp_path / folder / name)
    (tmp_path / "train.csv").write_text("image_id,label\na,cat\nb,dog\n")
    samples = open_samples(tmp_path / "train.csv")
    assert [path.relative_to(tmp_path).as_posix() for path in samples.paths()] == [
        f"{folder}/a.JPG",
        f"{folder}/b.jpeg",
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "image_id,diagnosis,target\na,x,0\n",
            "; rename the one of diagnosis, target that is the class to label. Received: image_id, diagnosis, target",
        ),
        ("image_id,healthy,rust\na,0,1\n", r"index or wnid\)\. Received: image_id, healthy, rust"),
        ("id,label\nd,cat\n", "names d without its suffix, which must be one file. Received: d.jpg, d.png in "),
        ("id,label\na,cat\na.png,cat\n", "must name each file once"),
        ("id,label\nnotes,cat\n", "files that do not exist: notes"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_are_refused(tmp_path, table, message):
    write_table(tmp_path, table)
    save(tmp_path / "images" / "d.png")
    save(tmp_path / "images" / "d.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=message):
        open_samples(tmp_path)
