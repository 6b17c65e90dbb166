"""Files of class names and the ways in which class names meet folders."""

from __future__ import annotations

import json
import sys

import pytest

from converters.errors import InputError
from edge_cv.data.label_files import read_label_file
from edge_cv.data.labels import positions_of, sorted_names

FRUIT = ["apple", "green lime", "plum"]


@pytest.mark.parametrize(
    "content",
    [
        b"apple\ngreen lime\nplum\n",
        "\ufeffapple\ngreen lime\nplum".encode(),
        b"apple\r\ngreen lime\r\nplum\r\n\r\n",
        "apple\ngreen lime\nplum\n".encode("utf-16"),
        b"0 apple\n1 green lime\n2 plum\n",
        b"0: apple\n1: green lime\n2: plum\n",
        b'"apple"\n"green lime"\n"plum"\n',
        b"apple, green lime, plum\n",
        b"n07739125 apple\nn07749582 green lime\nn07751004 plum\n",
        b"2\tplum\n0\tapple\n1\tgreen lime\n",
        b"0,apple\n1,green lime\n2,plum\n",
        b"apple;0\ngreen lime;1\nplum;2\n",
        b"id,name\n0,apple\n2,plum\n1,green lime\n",
        b"index;display_name;color\r\n0;apple;red\r\n1;green lime;green\r\n2;plum;blue\r\n",
        b"name\tmid\napple\t/m/1\ngreen lime\t/m/2\nplum\t/m/3\n",
    ],
)
def test_the_names_of_any_usual_label_file_are_read(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_label_file(tmp_path / "labels.txt") == FRUIT


@pytest.mark.parametrize(
    "values",
    [
        FRUIT,
        {"0": "apple", "1": "green lime", "2": "plum"},
        {"apple": 0, "plum": 2, "green lime": 1},
        {"0": ["n1", "apple"], "1": ["n2", "green lime"], "2": ["n3", "plum"]},
        {"id2label": {"0": "apple", "1": "green lime", "2": "plum"}, "architectures": ["x"]},
    ],
)
def test_the_names_of_a_json_file_are_read(tmp_path, values):
    (tmp_path / "labels.json").write_text(json.dumps(values))
    assert read_label_file(tmp_path / "labels.json") == FRUIT


@pytest.mark.parametrize(
    "content",
    [
        "- apple\n- green lime\n- plum\n",
        "[apple, 'green lime', plum]",
        "0: apple\n2: plum\n1: green lime\n",
        "apple: 0\nplum: 2\ngreen lime: 1\n",
        "path: ../fruit  # of a detector\ntrain: images\nnc: 3\nnames:\n  0: apple\n  1: green lime\n  2: plum\n",
        "nc: 3\nnames: [apple, green lime, plum]\n",
    ],
)
@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_the_names_of_a_yaml_file_are_read(tmp_path, content, suffix):
    (tmp_path / f"data{suffix}").write_text(content)
    assert read_label_file(tmp_path / f"data{suffix}") == FRUIT


def test_words_of_yaml_are_names(tmp_path):
    (tmp_path / "names.yaml").write_text("names:\n  0: yes\n  1: no\n  2: null\n  3: 1e3\n  4: 0x1F\n")
    assert read_label_file(tmp_path / "names.yaml") == ["yes", "no", "null", "1e3", "0x1F"]


def test_yaml_without_its_package_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "names.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match=r"pip install pyyaml, or write the names one a line into labels\.txt"):
        read_label_file(tmp_path / "names.yaml")


@pytest.mark.parametrize(
    "content",
    [
        "item {\n  id: 1\n  name: 'apple'\n}\nitem {\n  id: 2\n  name: 'green lime'\n}\nitem { id: 3 name: 'plum' }",
        'item: < name: "plum" id: 2 >  # the last\nitem{name:"apple",id:0}item{id: 1; name: "green\\040lime"}',
        "".join(f'item {{ name: "/m/{n}" id: {n + 1} display_name: "{name}" }}\n' for n, name in enumerate(FRUIT)),
    ],
)
def test_the_names_of_a_label_map_are_read(tmp_path, content):
    (tmp_path / "label_map.pbtxt").write_text(content)
    assert read_label_file(tmp_path / "label_map.pbtxt") == FRUIT


def test_escapes_of_a_label_map_are_bytes_of_utf_8(tmp_path):
    (tmp_path / "label_map.pbtxt").write_text(r"item { id: 1 name: 'it\'s \303\244' } item { id: 2 name: '\x61\tb' }")
    assert read_label_file(tmp_path / "label_map.pbtxt") == ["it's ä", "a b"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"1 euro\n2 euro\n", ["1 euro", "2 euro"]),  # coins, not numbers of classes
        (b"0\n1\n2\n", ["0", "1", "2"]),
        (b"tench, Tinca tinca\ngoldfish, Carassius auratus\n", ["tench, Tinca tinca", "goldfish, Carassius auratus"]),
        ("Äpfel\nBirne\n".encode("cp1252"), ["Äpfel", "Birne"]),
    ],
)
def test_names_that_look_like_numbers_or_tables_stay(tmp_path, content, names):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_label_file(tmp_path / "labels.txt") == names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", b"\n \n", "must hold class names, one a line"),
        ("labels.txt", b"a\0b\x00\x01", "bytes that are no text"),
        ("labels.json", b"{", "must be JSON"),
        ("labels.json", b'{"0": "a", "2": "b"}', "a list of names, or an object from 0, 1"),
        ("labels.yaml", b"a: [1\n", r"must be YAML.*into labels\.txt"),
        ("labels.yaml", b"!!python/object:os.system {}\n", r"must hold class names"),
        ("labels.yaml", b"&a [*a]\n", "must be YAML"),
        ("labels.yaml", b"[" * 3000, "must be a short one"),
        ("data.yaml", b"train: images\nnames: {0: a, 2: b}\n", "an object from 0, 1"),
        ("map.pbtxt", b"item { id: 1 name: 'a' ", "without its end"),
        ("map.pbtxt", b"item { id: 1 }", "without its end, id or name"),
        ("map.pbtxt", b"item { id: 1 name: 'a' } item { id: 3 name: 'b' }", "in a row"),
        ("map.pbtxt", b"item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "in a row"),
        ("map.pbtxt", b"item { id: 1 keypoints { id: 2 } }", r"'keypoints.*into labels\.txt"),
        ("map.pbtxt", b"node { name: 'x' op: 'Conv2D' }", "must hold items such as item"),
        ("map.pbtxt", b"# none\n", "must hold class names"),
        ("none.txt", None, "must be a readable text file. Received: No such file"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_label_file(tmp_path / name)


def test_names_match_classes_apart_from_case_underscores_and_hyphens():
    classes = ["Granny_Smith", "red apple", "t-shirt", "Ab", "aB"]
    assert positions_of(["granny smith", "RED_APPLE", "T shirt", "Ab"], classes) == {
        "granny smith": 0,
        "RED_APPLE": 1,
        "T shirt": 2,
        "Ab": 3,
    }
    assert positions_of(["ab", "pear"], classes) == {}  # of two classes, or of none
    assert positions_of(["0", "2"], ["a", "b", "c"]) == {"0": 0, "2": 2}
    assert positions_of(["0", "9"], ["a", "b", "c"]) == {}
    assert sorted_names(["10", "9", "1"]) == ["1", "9", "10"]
    assert sorted_names(["b10", "b9"]) == ["b10", "b9"]
