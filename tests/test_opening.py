"""Each layout of labelled images, opened from a tiny real instance."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import class_folders, encoded, write

from converters.errors import InputError
from converters.images.decoding import decode
from edge_cv import data
from edge_cv.data import check_disjoint, open_samples, splits_of
from edge_cv.data.samples import Samples

CLASSES = ("ant nest", "bee hive", "cow shed")


def contents(samples: Samples) -> list[tuple[bytes, str]]:
    return [(samples.encoded(i), samples.classes[samples.labels[i]]) for i in range(len(samples))]


def by_class(written: dict[str, list[bytes]]) -> list[tuple[bytes, str]]:
    return [(content, name) for name in sorted(written) for content in written[name]]


def test_class_folders_are_opened_whole(tmp_path):
    written = class_folders(tmp_path, CLASSES, 4)
    samples = open_samples(tmp_path)
    assert contents(samples) == by_class(written)
    assert splits_of(tmp_path) == ()


def test_a_drawn_split_is_disjoint_complete_and_about_the_share(tmp_path):
    for name in CLASSES:
        for number in range(200):
            write(tmp_path / name / f"{number}.jpg", b"")
    train, validation = (open_samples(tmp_path, split) for split in ("train", "validation"))
    names = [{str(part.place(i)) for i in range(len(part))} for part in (train, validation)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 600
    # binomial: 40 +- 5.7 of each class's 200
    assert (np.abs(data.class_counts(validation) - 40) < 20).all()
    check_disjoint(train, validation)
    other = open_samples(tmp_path, "validation", seed=1)
    assert {str(other.place(i)) for i in range(len(other))} != names[1]
    half = open_samples(tmp_path, "validation", validation_share=0.5)
    assert 250 < len(half) < 350


def test_a_drawn_split_does_not_move_when_images_or_the_folder_change(tmp_path):
    def split(folder):
        samples = open_samples(folder, "validation")
        return {samples.places.key(row) for row in samples.rows}

    for name in CLASSES:
        for number in range(50):
            write(tmp_path / "a" / name / f"{number}.jpg", b"")
    before = split(tmp_path / "a")
    for name in (*CLASSES, "new class"):
        for number in range(100, 150):
            write(tmp_path / "a" / name / f"{number}.jpg", b"")
    after = split(tmp_path / "a")
    assert {key for key in after if int(key.split(b"/")[1][:-4]) < 50 and not key.startswith(b"new")} == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert split(tmp_path / "b") == after


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_class_of_two_or_more_is_in_both_parts(tmp_path, share):
    for name, count in (("a", 2), ("b", 5), ("c", 1)):
        for number in range(count):
            write(tmp_path / name / f"{number}.jpg", b"")
    parts = [open_samples(tmp_path, split, (), validation_share=share) for split in ("train", "validation")]
    counts = [data.class_counts(part) for part in parts]
    assert (np.minimum(*counts)[:2] >= 1).all()
    assert sum(map(sum, counts)) == 8


def test_folders_of_splits_share_the_classes_of_the_training_part(tmp_path):
    train = class_folders(tmp_path / "train", CLASSES, 2)
    validation = class_folders(tmp_path / "val", CLASSES[1:], 1, first=50)
    write(tmp_path / "test" / "x.jpg", encoded(99))
    assert set(splits_of(tmp_path)) == {"train", "validation", "test"}
    assert contents(open_samples(tmp_path, "train")) == by_class(train)
    opened = open_samples(tmp_path, "val")
    assert opened.classes == CLASSES
    assert contents(opened) == by_class(validation)
    assert (open_samples(tmp_path, "test").labels == -1).all()
    with pytest.raises(InputError, match="must be named: test, train, validation"):
        open_samples(tmp_path)
    with pytest.raises(InputError, match=r"unknown split.*Did you mean 'validation'"):
        open_samples(tmp_path, "validatio")
    write(tmp_path / "val" / "dog house" / "a.jpg", encoded(1))
    with pytest.raises(InputError, match="dog house"):
        open_samples(tmp_path, "validation")


def test_a_name_means_the_packages_images_though_a_folder_has_it_too(tmp_path, monkeypatch, caplog):
    class_folders(tmp_path / "digits", CLASSES, 1)
    monkeypatch.chdir(tmp_path)
    assert open_samples("digits", "test").classes == tuple("0123456789")
    assert open_samples("./digits").classes == CLASSES
    assert "write ./digits for the folder" in caplog.text


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, ("car park", "train"), 2)
    assert open_samples(tmp_path).classes == ("car park", "train")


def test_imagenet_as_downloaded(tmp_path):
    from edge_cv.data.labels import imagenet_labels

    for wnid in ("n01440764", "n02099601"):
        write(tmp_path / "train" / wnid / f"{wnid}_1.JPEG", encoded(int(wnid[1:])))
    for number in (1, 2, 3):
        write(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", encoded(number))
    train, validation = open_samples(tmp_path, "train"), open_samples(tmp_path, "validation")
    assert train.labels.tolist() == [0, 207]
    assert validation.labels.tolist() == [65, 970, 230]
    assert train.classes == validation.classes == tuple(label.name for label in imagenet_labels())
    # the folder's classes, which no validation photo has
    own = open_samples(tmp_path, "train", classes=())
    assert (own.classes, own.labels.tolist()) == (("n01440764", "n02099601"), [0, 1])
    with pytest.raises(InputError, match="at least one photo"):
        open_samples(tmp_path, "validation", classes=())
    with pytest.raises(InputError, match=r"each of the 1000 classes must have an image.*classes_to_train"):
        data.check_trainable(train)
    assert data.classes_to_train(tmp_path) == ()
    data.check_trainable(own)


def test_given_classes_select_their_imagenet_validation_photos(tmp_path):
    from edge_cv.data.labels import imagenet_labels

    wnids = [imagenet_labels()[index].wnid for index in (230, 65)]
    for wnid in wnids:
        write(tmp_path / "train" / wnid / "a.JPEG", encoded(1))
    for number in (1, 2, 3):
        write(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", encoded(number))
    validation = open_samples(tmp_path, "validation", classes=())
    assert validation.classes == tuple(sorted(wnids))
    assert [validation.classes[label] for label in validation.labels] == [wnids[1], wnids[0]]
    assert validation.encoded(1) == encoded(3)


def test_tiny_imagenet(tmp_path):
    wnids = ("n02124075", "n01443537")
    for number, wnid in enumerate(wnids):
        for i in range(2):
            write(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", encoded(10 * number + i))
    for i in range(2):
        write(tmp_path / "val" / "images" / f"val_{i}.JPEG", encoded(100 + i))
    write(tmp_path / "test" / "images" / "test_0.JPEG", encoded(200))
    (tmp_path / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (tmp_path / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn1\tx\n")
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("val_1.JPEG\tn01443537\t0\t32\t44\t62\nval_0.JPEG\tn02124075\t52\t55\t57\t59\n")
    train, validation = open_samples(tmp_path, "train"), open_samples(tmp_path, "validation")
    assert train.classes == validation.classes == ("Egyptian cat", "goldfish")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [train.encoded(i) for i in range(4)] == [encoded(seed) for seed in (0, 1, 10, 11)]
    assert contents(validation) == [(encoded(101), "goldfish"), (encoded(100), "Egyptian cat")]
    assert open_samples(tmp_path, "train", ("goldfish", "Egyptian cat")).labels.tolist() == [1, 1, 0, 0]
    assert open_samples(tmp_path, "test").labels.tolist() == [-1]
    annotations.write_text("val_7.JPEG\tn01443537\t0\t32\t44\t62\n")
    with pytest.raises(InputError, match=r"line 1: must name a file of val/images. Received: 'val_7.JPEG'"):
        open_samples(tmp_path, "validation")
    annotations.write_text("val_0.JPEG\tn00000000\n")
    with pytest.raises(InputError, match=r"line 1: must name a wnid"):
        open_samples(tmp_path, "validation")
    (tmp_path / "wnids.txt").write_text("../../etc\n")
    with pytest.raises(InputError, match=r"wnids.txt must hold one wnid a line"):
        open_samples(tmp_path, "train")


def test_a_validation_set_that_is_the_training_set_is_refused(tmp_path):
    class_folders(tmp_path / "photos", CLASSES, 3)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    train = open_samples(tmp_path / "photos")
    with pytest.raises(InputError, match="must not be the training set"):
        check_disjoint(train, open_samples(tmp_path / "link"))
    with pytest.raises(InputError, match=r"in both the training and the validation set\. Received: 1 of 6"):
        check_disjoint(train.select(np.arange(4)), train.select(np.arange(3, 9)))


def test_splits_of_sources_that_cannot_be_split_are_refused(tmp_path):
    write(tmp_path / "a.jpg", encoded(1))
    with pytest.raises(InputError, match=r"be drawn from images with labels"):
        open_samples(tmp_path, "train")
    write(tmp_path / "b" / "one" / "a.jpg", encoded(1))
    with pytest.raises(InputError, match="a split needs at least two images"):
        open_samples(tmp_path / "b", "train")
    write(tmp_path / "b" / "two" / "a.jpg", encoded(1))
    for share in (0, 1, -1):
        with pytest.raises(InputError, match="between 0 and 1"):
            open_samples(tmp_path / "b", "train", validation_share=share)
    with pytest.raises(InputError, match="be a folder that can be read"):
        open_samples(write(tmp_path / "data.bin", b"123"))


def test_evaluation_sees_the_same_photos_as_training(tmp_path):
    class_folders(tmp_path, CLASSES, 3)
    samples = open_samples(tmp_path)
    for index, photo in enumerate(samples.chunk(0, len(samples))):
        assert photo.label == samples.labels[index]
        np.testing.assert_array_equal(np.asarray(data.load_image(photo.place)), decode(samples.encoded(index)))
    pixels = [image for image, _ in data.open_samples("digits", split="test").take(5).pixels(data.Preprocessing(16))]
    assert np.stack(pixels).shape == (5, 16, 16, 3)


def test_a_million_names_stay_flat():
    """A pickled sample is its path, an offset and two numbers."""
    import pickle

    from edge_cv.data.places import Files, Packed

    paths = Packed(b"n01440764/n01440764_%08d.JPEG" % i for i in range(100_000))
    samples = Samples("flat", ("a", "b"), np.zeros(100_000, np.int32), Files("/data", paths))
    assert len(pickle.dumps(samples)) < 100_000 * (33 + 8 + 4 + 4) + 1000


TABLE = "file,label,split\na.jpg,cat hill,train\nb.jpg,dog hill,train\nsub/c.jpg,cat hill,val\n"


def table(folder, text):
    for seed, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg")):
        write(folder / name, encoded(seed))
    (folder / "labels.csv").write_text(text)
    return folder


def test_a_table_of_class_names(tmp_path):
    table(tmp_path, TABLE)
    samples = open_samples(tmp_path)
    assert contents(samples) == [(encoded(0), "cat hill"), (encoded(1), "dog hill"), (encoded(2), "cat hill")]
    validation = open_samples(tmp_path, "validation")
    assert (validation.classes, validation.labels.tolist()) == (("cat hill", "dog hill"), [0])
    assert open_samples(tmp_path / "labels.csv", "train", ["dog hill", "x", "cat hill"]).labels.tolist() == [2, 0]
    with pytest.raises(InputError, match=r"unknown split.*train, validation"):
        open_samples(tmp_path, "test")


def test_a_table_of_several_labels_an_image(tmp_path):
    table(tmp_path, "file,labels\na.jpg,red|round\nb.jpg,\nsub/c.jpg,round | green\n")
    samples = open_samples(tmp_path)
    assert samples.multi_label
    assert samples.classes == ("green", "red", "round")
    assert samples.labels.tolist() == [[False, True, True], [False] * 3, [True, False, True]]
    assert data.class_counts(samples).tolist() == [1, 1, 2]
    chosen = open_samples(tmp_path, classes=("round", "red", "green"))
    assert chosen.labels.tolist() == [[True, True, False], [False] * 3, [True, False, True]]
    assert [samples.label(index) for index in range(3)] == [None] * 3
    assert [samples.label_set(index) for index in range(3)] == [(1, 2), (), (0, 2)]
    data.check_trainable(samples)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.jpg,\n", "line 2: label must be a class name"),
        ("file,label\ngone.jpg,a\n", "names files that do not exist: gone.jpg"),
        ("file,label\n../a.jpg,a\n", "inside the folder"),
        ("file,label\na.jpg,a\n./a.jpg,b\n", "lines 2 and 3 name the same file"),
        (
            "file,what\na.jpg,a\n",
            r"must have the columns file \(or .*\) and label \(or .*labels, index or wnid\)\. Received: file, what",
        ),
    ],
)
def test_broken_tables_of_names_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        open_samples(table(tmp_path, text))


def test_indices_refer_to_the_given_classes(tmp_path):
    table(tmp_path, "file,index\na.jpg,1\nb.jpg,0\n")
    samples = open_samples(tmp_path, classes=("x", "y"))
    assert (samples.classes, samples.labels.tolist()) == (("x", "y"), [1, 0])
    table(tmp_path, "file,index\na.jpg,2\n")
    with pytest.raises(InputError, match=r"index must be a whole number in 0\.\.1"):
        open_samples(tmp_path, classes=("x", "y"))


def test_the_old_name_of_open_samples_still_works():
    with pytest.warns(DeprecationWarning, match="use edge_cv.data.open_samples"):
        assert data.open is open_samples
