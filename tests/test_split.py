from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from edge_cv.data.split import Splits, split_for_evaluation, split_for_training


def photos(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def split_for_both(*arguments, **options):
    splits = split_for_evaluation(*arguments, **options)
    assert splits.train is splits.validation is None
    return splits.test, splits.calibration


def test_one_folder_is_split_into_disjoint_test_and_calibration_photos(tmp_path):
    for name in ("ant", "bee"):
        photos(tmp_path / "pictures" / name, [f"{i}.png" for i in range(10)])
    test, calibration = split_for_both(str(tmp_path / "pictures"), None, 100, classes=())
    assert (len(test), len(calibration)) == (16, 4)
    assert not set(test.paths()) & set(calibration.paths())
    assert {path.parent.name for path in calibration.paths()} == {"ant", "bee"}
    assert test.classes == ("ant", "bee")


def test_the_splits_of_a_table_are_kept(tmp_path):
    photos(tmp_path, [f"{i}.png" for i in range(6)])
    lines = [f"{i}.png,{i},{'calibration' if i < 2 else 'test'}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("file,index,split\n" + "\n".join(lines))
    test, calibration = split_for_both(str(tmp_path), None, 100)
    assert [path.name for path in calibration.paths()] == ["0.png", "1.png"]
    assert test.labels.tolist() == [2, 3, 4, 5]


def test_the_samples_of_packages_share_no_photo():
    test, calibration = split_for_both("sample", "sample_calibration", 64)
    assert (len(test), len(calibration)) == (20, 64)
    assert not set(test.paths()) & set(calibration.paths())


def test_too_few_photos_to_share_are_refused(tmp_path):
    photos(tmp_path / "few", ["0.png", "1.png"])
    with pytest.raises(InputError, match="at least 5 photos"):
        split_for_evaluation(str(tmp_path / "few"), None, 100)


def pictures(folder, images=20, classes=("ant", "bee")):
    """Class folders of distinct pictures."""
    for name in classes:
        photos(folder / name, [f"{i}.png" for i in range(images)])
    return str(folder)


def assert_disjoint(shares: Splits) -> None:
    """Training, validation and test photos are disjoint; calibration photos are training photos."""
    train, validation, test, calibration = (
        set(samples.paths()) for samples in (shares.train, shares.validation, shares.test, shares.calibration)
    )
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not test & (train | validation)
    assert calibration
    assert calibration <= train
    assert shares.train.classes == shares.validation.classes == shares.test.classes == ("ant", "bee")


def test_three_splits_of_a_source_are_used_unchanged(tmp_path):
    for split, images in (("train", 20), ("val", 5), ("test", 7)):
        pictures(tmp_path / split, images)
    shares = split_for_training(str(tmp_path), None, 10)
    assert_disjoint(shares)
    assert [len(part) for part in (shares.train, shares.validation, shares.test)] == [40, 10, 14]
    assert len(shares.calibration) == 10
    assert {path.parts[-3] for path in shares.test.paths()} == {"test"}


def test_where_the_validation_split_is_measured_another_one_is_drawn_from_training(tmp_path):
    for split, images in (("train", 30), ("val", 5)):
        pictures(tmp_path / split, images)
    shares = split_for_training(str(tmp_path), None, 10)
    assert_disjoint(shares)
    assert len(shares.train) + len(shares.validation) == 60
    assert 2 <= len(shares.validation) <= 15
    assert {path.parts[-3] for path in shares.test.paths()} == {"val"}
    assert set(shares.train.paths()) != set(split_for_training(str(tmp_path), None, 10, seed=1).train.paths())


def test_a_source_without_splits_is_divided_in_three(tmp_path):
    shares = split_for_training(pictures(tmp_path / "pictures", 40), None, 10)
    assert_disjoint(shares)
    assert len(shares.train) + len(shares.validation) + len(shares.test) == 80
    assert len(shares.train) > 40


def test_training_and_test_photos_may_come_from_different_sources(tmp_path):
    learned, measured, validation = (pictures(tmp_path / name) for name in ("learned", "measured", "validated"))
    shares = split_for_training(measured, None, 10, train=learned, validation=validation)
    assert_disjoint(shares)
    assert [len(part) for part in (shares.train, shares.validation, shares.test)] == [40, 40, 40]


def test_a_class_without_a_photo_to_train_on_is_refused(tmp_path):
    pictures(tmp_path / "train")
    pictures(tmp_path / "val", classes=("ant", "bee", "cat"))
    with pytest.raises(InputError, match=r"unknown class folder in .*val: 'cat'"):
        split_for_training(str(tmp_path), None, 10)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(InputError, match=r"must have an image to train on. Received: none for cat"):
        split_for_training(str(tmp_path), None, 10)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a classifier needs at least two classes. Received: 1"):
        split_for_training(pictures(tmp_path / "one", classes=("ant",)), None, 10)


def test_photos_that_are_trained_on_are_neither_validated_nor_measured_on(tmp_path):
    learned, measured = pictures(tmp_path / "learned"), pictures(tmp_path / "measured")
    with pytest.raises(InputError, match=r"validation photos: the validation set must not be the training set"):
        split_for_training(measured, None, 10, train=learned, validation=learned)
    (tmp_path / "link").symlink_to(learned)
    with pytest.raises(InputError, match=r"measured photos: no image may be in both .*link/ant/0.png"):
        split_for_training(str(tmp_path / "link"), None, 10, train=learned)


def test_the_best_epoch_is_not_chosen_by_photos_that_are_measured_on(tmp_path):
    learned, measured = pictures(tmp_path / "learned"), pictures(tmp_path / "measured")
    with pytest.raises(InputError, match=r"fit.validation must not be measured on too. Received: 40 of the 40"):
        split_for_training(measured, None, 10, train=learned, validation=measured)


def test_photos_without_labels_get_the_classes_of_their_teacher(tmp_path):
    classes, measured = ("ant", "bee"), str(tmp_path / "measured")
    for name in classes:
        photos(tmp_path / "measured" / name, ["0.png", "1.png"])
    photos(tmp_path / "pictures", [f"{i}.png" for i in range(20)])
    options = {"train": str(tmp_path / "pictures"), "classes": ()}
    splits = split_for_training(measured, None, 4, taught_classes=classes, **options)
    for samples in (splits.train, splits.validation):
        assert samples.classes == classes
        assert (samples.labels == -1).all()
    assert len(splits.train) + len(splits.validation) == 20
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="each image to train on must have a label"):
        split_for_training(measured, None, 4, **options)
    photos(tmp_path / "held_out", ["0.png", "1.png"])
    options["validation"] = str(tmp_path / "held_out")
    assert split_for_training(measured, None, 4, taught_classes=classes, **options).validation.classes == classes


def test_photos_to_validate_labels_on_must_have_some(tmp_path):
    measured = pictures(tmp_path / "measured")
    photos(tmp_path / "held_out", ["0.png", "1.png"])
    with pytest.raises(InputError, match=r"photos of fit.validation must have labels. Received: none in .*held_out"):
        split_for_training(measured, None, 4, validation=str(tmp_path / "held_out"))
