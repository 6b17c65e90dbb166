"""Accuracy by group: Fisher's exact test, Holm's correction computed by hand, and wrong tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv.evaluation.groups import group_scores, holm, read_columns
from edge_cv.intervals import wilson_interval

FILES = [Path(f"/photos/{folder}/{n}.jpg") for folder in ("cat", "dog") for n in range(4)]


@pytest.fixture
def table(tmp_path):
    def write(text: str | bytes, name: str = "people.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def fisher_exact(hits, trials, other_hits, others):
    """The two-sided p-value by its definition: all tables with the same sums that are no likelier than the observed."""
    from math import comb

    total = hits + other_hits
    ways = {k: comb(trials, k) * comb(others, total - k) for k in range(max(0, total - others), min(total, trials) + 1)}
    return sum(way for way in ways.values() if way <= ways[hits]) / comb(trials + others, total)


@pytest.mark.parametrize("counts", [(3, 10, 9, 12), (0, 5, 0, 5), (5, 5, 0, 7), (70, 100, 820, 900), (1, 1, 0, 1)])
def test_the_p_value_of_a_group_is_fishers_exact_test(counts):
    hits, trials, other_hits, others = counts
    right = [n < hits for n in range(trials)] + [n < other_hits for n in range(others)]
    group = group_scores({"column": ["a"] * trials + ["b"] * others}, right)[0].groups[0]
    assert group.p == pytest.approx(fisher_exact(*counts), rel=1e-9)


def test_holm_equals_the_step_down_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, which may not fall: 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_groups_have_their_accuracy_interval_and_rest():
    sex = ["f"] * 50 + ["m"] * 100 + [None] * 3 + ["f"]
    right = [True] * 30 + [False] * 20 + [True] * 90 + [False] * 10 + [True] * 3 + [None]
    (grouping,) = group_scores({"sex": sex}, right)
    women, men = grouping.groups
    assert (women.name, women.images, women.accuracy, women.others) == ("f", 50, 0.6, 0.9)
    assert women.accuracy_ci95 == wilson_interval(30, 50)
    assert grouping.without == 3
    # of two groups each is the other's rest: one test, nothing to correct
    assert women.p == men.p == pytest.approx(fisher_exact(30, 50, 90, 100))


def test_all_columns_are_corrected_together():
    right = [True] * 30 + [False] * 20 + [True] * 46 + [False] * 4
    two, three = ["a"] * 50 + ["b"] * 50, (["x"] * 20 + ["y"] * 15 + ["z"] * 15) * 2
    one, many = group_scores({"two": two, "three": three}, right)
    alone = group_scores({"two": two}, right)[0]
    assert alone.groups[0].p < one.groups[0].p <= 4 * alone.groups[0].p * (1 + 1e-9)
    assert len({group.p for group in one.groups}) == 1
    raw = [alone.groups[0].p, *(fisher_exact(*_counts(three, right, name)) for name in "xyz")]
    assert [one.groups[0].p, *(group.p for group in many.groups)] == pytest.approx(holm(raw))


def _counts(values, right, name):
    inside = [r for v, r in zip(values, right, strict=True) if v == name]
    outside = [r for v, r in zip(values, right, strict=True) if v != name]
    return sum(inside), len(inside), sum(outside), len(outside)


def test_a_single_group_has_no_others_and_no_p_value():
    (grouping,) = group_scores({"light": ["day"] * 5}, [True, False, True, True, None])
    (group,) = grouping.groups
    assert (group.images, group.others, group.p) == (4, None, None)
    assert group_scores({"light": [None, None]}, [True, None])[0].groups == ()


def test_rows_match_images_by_the_given_part_of_the_path(table):
    path = table(
        "file,light\ncat/0.jpg,day\n./dog/0.jpg,night\ndog\\1.jpg,dusk\n/photos/cat/3.jpg,day\nother.jpg,dawn\n"
    )
    assert read_columns(path, ["light"], FILES)["light"] == ["day", None, None, "day", "night", "dusk", None, None]
    names = table("path,light\n0.jpg,day\n2.jpg,\n")
    assert read_columns(names, ["light"], FILES[:4])["light"] == ["day", None, None, None]
    ids = table("image_id,light\n0,day\n2,\n3,night\n")
    assert read_columns(ids, ["light"], FILES[:4])["light"] == ["day", None, None, "night"]


def test_many_distinct_numbers_are_divided_into_quarters(table):
    files = [Path(f"{n}.jpg") for n in range(40)]
    ages = list(range(20, 60))
    path = table("file,age\n" + "".join(f"{n}.jpg,{age}\n" for n, age in enumerate(ages)))
    values = read_columns(path, ["age"], files)["age"]
    assert values == [f"{low} to {low + 9}" for low in (20, 30, 40, 50) for _ in range(10)]
    right = [age < 45 for age in ages]
    names = [group.name for group in group_scores({"age": values}, right)[0].groups]
    assert names == ["20 to 29", "30 to 39", "40 to 49", "50 to 59"]
    few = table("file,age\n" + "".join(f"{n}.jpg,{n % 3}\n" for n in range(40)))
    assert set(read_columns(few, ["age"], files)["age"]) == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("file,sex\ncat/0.jpg,f\n", ["sexx"], "unknown column of .*'sexx'. Did you mean 'sex'"),
        ("file,sex\ncat/0.jpg,f\n", ["file"], "unknown column"),
        ("pixels,sex\ncat/0.jpg,f\n", ["sex"], "must have a column file.*pixels, sex"),
        ("", ["sex"], "must have a column file.*no header"),
        ("file,sex\n", ["sex"], "must name the evaluated images, such as 0.jpg.*0 rows"),
        ("file,sex\nnowhere.jpg,f\n", ["sex"], "none of them in its 1 rows"),
        (
            "file,sex\ncat/0.jpg,f\ncat/0.jpg,m\n",
            ["sex"],
            "one row for each image.*cat/0.jpg again in line 3",
        ),
        ("file,sex\n,f\n", ["sex"], "line 2 must name an image"),
        ("file,sex\n0.jpg,f\n", ["sex"], "to distinguish them.*0.jpg for both"),
        ("file,sex\ncat/0.jpg,f\n", [], "by must name at least one column"),
        (b"file,sex\ncat/0.jpg,\x81\x8d\n", ["sex"], "must be a readable CSV"),
        (b'file,sex\n"cat/0.jpg,f\n' + b"x" * 200_000, ["sex"], "must be a readable CSV"),
    ],
)
def test_an_error_of_a_table_is_one_line(table, text, columns, message):
    with pytest.raises(InputError, match=message) as caught:
        read_columns(table(text), columns, FILES)
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_free_text_are_refused(table, tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_columns(tmp_path / "none.csv", ["sex"], FILES)
    files = [Path(f"{n}.jpg") for n in range(60)]
    notes = table("file,note\n" + "".join(f"{n}.jpg,note {n}\n" for n in range(60)))
    with pytest.raises(InputError, match="at most 50 distinct values, or only numbers"):
        read_columns(notes, ["note"], files)
