"""Reading untrusted JSON: what each check takes and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from converters import strict_json
from converters.errors import InputError
from edge_cv.evaluation.latency import Latency


@dataclass(frozen=True)
class Part:
    name: str
    share: float | None = None
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    ends: tuple[str, float]
    by_name: dict[str, float]
    latency: Latency | None = None
    picture: bytes = b""


def test_numbers_keep_their_value_and_become_pythons():
    assert strict_json.number(3, "n") == 3
    assert type(strict_json.number(np.int64(3), "n")) is int
    assert type(strict_json.number(np.float32(0.5), "n")) is float
    assert strict_json.integer(3.0, "n", 0, 5) == 3
    assert strict_json.optional_number(math.nan, "n") is None
    assert strict_json.optional_number(np.float64(math.inf), "n") is None
    assert strict_json.optional_number(None, "n") is None


@pytest.mark.parametrize("value", [True, "1", None, [], math.nan, math.inf, 1 << 64, 10**400, np.bool_(True)])
def test_what_is_no_finite_number_is_refused_with_its_name(value):
    with pytest.raises(InputError, match="the size must be a"):
        strict_json.number(value, "the size")


def test_numbers_out_of_range_and_fractions_are_refused():
    with pytest.raises(InputError, match=r"n must be a number from 0 to 1\. Received: 2"):
        strict_json.number(2, "n", 0, 1)
    with pytest.raises(InputError, match=r"n must be a whole number\. Received: 1\.5"):
        strict_json.integer(1.5, "n", 0, 5)


def test_text_is_one_line_without_control_characters():
    assert strict_json.text("a\n b\x1b[2J", "t") == "a b\N{REPLACEMENT CHARACTER}[2J"
    with pytest.raises(InputError, match="at most 300 characters"):
        strict_json.text("x" * 301, "t")
    assert len(strict_json.message("x" * 1000)) == 300
    assert strict_json.message(None) == "no message"


def test_null_takes_the_default_of_a_field_that_has_one():
    assert strict_json.typed(Part, {"name": "a", "counts": None}, "a part") == Part("a")
    with pytest.raises(InputError, match=r"a part\.name must be str"):
        strict_json.typed(Part, {"name": None}, "a part")
    with pytest.raises(InputError, match="at most 100,000 characters"):
        strict_json.typed(Part, {"name": "x" * 100_001}, "a part")


def test_a_dataclass_is_built_from_json():
    fields = {
        "parts": [{"name": "a", "share": None, "other": 1}, {"name": "b", "share": 1, "counts": [1, 2]}],
        "ends": ["left", 2],
        "by_name": {"x": 1},
        "latency": {"host": "h", "runtime": "r", "p50_ms": 2},
        "picture": "/9g=",
    }
    whole = strict_json.typed(Whole, fields, "a whole")
    assert whole.parts == (Part("a"), Part("b", 1.0, (1, 2)))
    assert whole.ends == ("left", 2.0)
    assert whole.by_name == {"x": 1.0}
    assert whole.latency == Latency("h", "r", 1, 2.0)
    assert whole.picture == b"\xff\xd8"
    assert strict_json.typed(Whole, whole, "a whole") is whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {}}, "a whole.parts must be a list"),
        ({"parts": [{}]}, "a whole.parts must have name"),
        ({"parts": [{"name": 3}]}, "a whole.parts.name must be str"),
        ({"parts": [{"name": "a", "counts": [1.5]}]}, "a whole.parts.counts must be a whole number"),
        ({"ends": ["left"]}, "a whole.ends must be 2 values"),
        ({"ends": [1, 2]}, "a whole.ends must be str"),
        ({"by_name": {"x": "1"}}, "a whole.by_name.x must be a number"),
        ({"latency": {}}, "a whole.latency must have a p50_ms"),
        ({"picture": "///"}, "a whole.picture must be bytes"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    fields = {"parts": [], "ends": ["left", 2], "by_name": {}, **change}
    with pytest.raises(InputError, match=message):
        strict_json.typed(Whole, fields, "a whole")


NO_JSON = (
    *(b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000, b"1e999", b"[-1e999]", b"1" * 21, b"'a'"),
    *(b'{"a": 1, "a": 2}', b'{"b": [{"a": 1, "a\x1b": 1, "a": 2}]}', '"a"'.encode("utf-16"), b"\xff\xfe"),
    *(b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[1, " * 65 + b"1" + b"]" * 65),
)


@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(InputError, match=r"f\.json: a file must be JSON\. Received: ") as caught:
        strict_json.read(tmp_path / "f.json", "a file")
    assert "\n" not in str(caught.value)
    assert strict_json.parse("[1]", "a file") == [1]
    assert strict_json.parse(b'\xef\xbb\xbf{"a": -1.5e3}', "a file") == {"a": -1500.0}
    assert strict_json.parse("[" * 64 + "]" * 64, "a file")
    assert strict_json.parse(str(2**64), "a file") == 2**64
    with pytest.raises(InputError, match="at most 2 bytes"):
        strict_json.parse("[1]", "a file", max_bytes=2)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        strict_json.read(tmp_path / "none.json", "a file")
