from __future__ import annotations

import pytest
from pictures import names_and_labels, save

from converters.errors import InputError
from edge_cv.data import open_samples
from edge_cv.data.formats.imagenet_validation import open_imagenet_validation


def test_folders_named_by_wnids_get_the_indices_of_imagenet(tmp_path):
    save(tmp_path / "n02099601" / "b.png")
    save(tmp_path / "n02099601" / "a.JPG")
    save(tmp_path / "n01440764" / "c.png")
    (tmp_path / "n01440764" / "readme.txt").write_text("no photo")
    source = open_samples(tmp_path)
    assert names_and_labels(source) == [("c.png", 0), ("a.JPG", 207), ("b.png", 207)]
    assert len(source.classes) == 1000
    assert source.classes[207] == "golden retriever"


def test_folders_named_by_imagenet_names_get_the_indices_of_imagenet(tmp_path):
    save(tmp_path / "Golden_Retriever" / "a.png")
    save(tmp_path / "banana" / "b.png")
    assert names_and_labels(open_samples(tmp_path)) == [("a.png", 207), ("b.png", 954)]


def test_other_folders_are_indexed_in_sorted_order_including_empty_ones(tmp_path):
    save(tmp_path / "zebra fish" / "z.png")
    (tmp_path / "middle").mkdir()
    save(tmp_path / "aardvark house" / "a.png")
    source = open_samples(tmp_path)
    assert names_and_labels(source) == [("a.png", 0), ("z.png", 2)]
    assert source.classes == ("aardvark house", "middle", "zebra fish")


def test_given_classes_decide_the_indices(tmp_path):
    save(tmp_path / "banana" / "b.png")
    save(tmp_path / "orange" / "o.png")
    source = open_samples(tmp_path, classes=["orange", "apple", "banana"])
    assert names_and_labels(source) == [("b.png", 2), ("o.png", 0)]
    with pytest.raises(InputError, match="Did you mean 'bananas'"):
        open_samples(tmp_path, classes=["orange", "bananas"])


def test_a_name_of_two_imagenet_classes_is_refused(tmp_path):
    save(tmp_path / "crane" / "a.png")
    with pytest.raises(InputError, match="n02012849 or n03126707"):
        open_samples(tmp_path)


def test_an_unknown_wnid_is_refused(tmp_path):
    save(tmp_path / "n02099601" / "a.png")
    save(tmp_path / "n99999999" / "a.png")
    with pytest.raises(InputError, match="n99999999"):
        open_samples(tmp_path)


def test_a_folder_of_photos_has_no_labels(tmp_path):
    save(tmp_path / "b.png")
    save(tmp_path / "a.webp")
    save(tmp_path / ".hidden.png")
    source = open_samples(str(tmp_path))
    assert names_and_labels(source) == [("a.webp", None), ("b.png", None)]
    assert source.classes == ()


def test_photos_beside_class_folders_are_logged(tmp_path, caplog):
    save(tmp_path / "own" / "a.png")
    save(tmp_path / "loose.png")
    assert len(open_samples(tmp_path)) == 1
    assert "1 images beside the class folders" in caplog.text


def test_photos_one_folder_too_deep_are_named(tmp_path, caplog):
    save(tmp_path / "data" / "cat" / "0.png")
    with pytest.raises(InputError, match=r"deeper ones do: take .*/data, or move the images of .*/data/cat up"):
        open_samples(tmp_path)
    assert open_samples(tmp_path / "data").classes == ("cat",)
    save(tmp_path / "data" / "dog" / "left" / "0.png")
    assert len(open_samples(tmp_path / "data")) == 1
    assert f"the images in {tmp_path}/data/dog/left are not used" in caplog.text


def test_links_to_parent_folders_are_not_followed(tmp_path):
    save(tmp_path / "photos" / "own class" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    photos = tmp_path / "photos"
    (photos / "up").symlink_to("..")
    (photos / "here").symlink_to(".")
    (photos / "itself").symlink_to("itself")
    (photos / "own class" / "again.png").symlink_to("again.png")
    (photos / "other class").symlink_to(tmp_path / "elsewhere")
    source = open_samples(photos)
    assert source.classes == ("other class", "own class")
    assert {path.name for path in source.paths()} <= {"a.png", "b.png", "again.png"}


def test_folders_without_photos_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must hold images.*there is none"):
        open_samples(tmp_path)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "notes.txt").touch()
    with pytest.raises(InputError, match="1 class folders hold none"):
        open_samples(tmp_path)
    with pytest.raises(InputError, match=r"one of digits, sample, sample_calibration\. Received: .*absent"):
        open_samples(tmp_path / "absent")
    with pytest.raises(InputError, match="must be a folder that"):
        open_samples(tmp_path / "class" / "notes.txt")


def test_imagenets_validation_folder_is_labelled_by_its_names(tmp_path):
    for number in (3, 1):
        save(tmp_path / f"ILSVRC2012_val_{number:08d}.png").rename(tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG")
    source = open_samples(tmp_path)
    assert source.labels.tolist() == [65, 230]
    (tmp_path / "ILSVRC2012_val_00050001.JPEG").touch()
    with pytest.raises(InputError, match="ILSVRC2012_val_00050001"):
        open_imagenet_validation(tmp_path)
    with pytest.raises(InputError, match="Received: none"):
        open_imagenet_validation(tmp_path.parent)
