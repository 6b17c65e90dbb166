"""Files of class names, as the usual tools write them."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.printable import encodable
from edge_cv.data.formats.tables import LABEL_COLUMNS, SEPARATORS, read_text_file

MAX_BYTES = 16 * 2**20
_NUMBERED = re.compile(r"(\d{1,7})\s*[:\s]\s*(\S.*)")
_QUOTED = re.compile(r"[\"'](.+)[\"'],?")
_SYNSET = re.compile(r"n\d{8}\s+(\S.*)")  # ImageNet's synset_words.txt
_NAME_COLUMNS = ("name", *LABEL_COLUMNS, "labels", "classes", "display_name")
_INDEX_COLUMNS = ("index", "id", "number", "class_id", "label_id", "class_index", "idx")
_NAMES_KEYS = ("id2label", "names", "class_names", "classes", "labels")  # of Hugging Face, Ultralytics and others
_YAML_BYTES, _YAML_DEPTH = 2**20, 32
_REMEDY = "or write the names one a line into labels.txt, in the order of the model's outputs"
_PBTXT = re.compile(
    r"[\s,;]+|\#[^\n]*|(?P<open>item\s*:?\s*[{<])|(?P<close>[}>])"
    r"|(?P<field>[a-z_]\w*)\s*:\s*(?P<value>-?[\w.]+|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
)


def read_label_file(file: Path) -> list[str]:
    """The class names of a file in the order of the model's outputs.

    A line a name, also in quotes, after a wnid or numbered from 0 (`0 apple`, as Teachable Machine writes it); one line
    of all names with a separator; a CSV table of numbers and names; JSON or YAML: a list, an object from numbers to
    names or from names to numbers, or one whose `names` are that; or a `label_map.pbtxt` of TensorFlow's detectors.

    Raises:
        InputError: the file cannot be read, or holds no names.
    """
    text = read_text_file(file, MAX_BYTES)
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    lines = [line for line in lines if line]
    read = _READERS.get(file.suffix.lower())
    names = read(text) if read is not None else _of_table(lines) or _of_lines(lines)
    if not names:
        raise InputError(f"{file} must hold class names, one a line. Received: none")
    wrong = next((name for name in names if not name.strip() or "\n" in name), None)
    if wrong is not None:
        raise InputError(f"{file} must hold class names of one line each. Received: {wrong!r:.80}")
    return list(map(encodable, names))


def _of_lines(lines: Sequence[str]) -> list[str]:
    if len(lines) == 1:  # one class alone is no classifier
        cells = max((lines[0].split(separator) for separator in SEPARATORS), key=len)
        lines = [cell.strip() for cell in cells if cell.strip()]
    for pattern in (_QUOTED, _SYNSET):
        found = [pattern.fullmatch(line) for line in lines]
        if all(found):
            lines = [match[1].strip() for match in found if match]
    matched = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = _in_order([(match[1], match[2]) for match in matched if match])
    return numbered if numbered is not None and len(numbered) == len(lines) else list(lines)


def _of_table(lines: Sequence[str]) -> list[str] | None:
    """The names of a table of numbers and names, or with a header that says which column holds the names."""
    for separator in SEPARATORS:
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
        except csv.Error:  # a line that is too long, or with a null byte
            continue
        if not rows or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
            continue
        header = [cell.lower().replace(" ", "_") for cell in rows[0]]
        name = next((header.index(column) for column in _NAME_COLUMNS if column in header), None)
        if name is not None:
            index = next((header.index(column) for column in _INDEX_COLUMNS if column in header), None)
            cells = [row[name] for row in rows[1:]]
            ordered = None if index is None else _in_order([(row[index], row[name]) for row in rows[1:]])
            return cells if ordered is None else ordered
        if len(header) == 2:
            for number, text in ((0, 1), (1, 0)):
                ordered = _in_order([(row[number], row[text]) for row in rows])
                if ordered is not None:
                    return ordered
    return None


def _of_json(text: str) -> list[str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a .json file of class names must be JSON. Received: {str(error)[:100]}") from error
    return _of_values(values, text)


def _of_yaml(text: str) -> list[str]:
    """The names of a YAML file, such as the `names` of a data set of Ultralytics. Nothing but text is read from it."""
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            "a .yaml file of class names needs the package PyYAML: pip install pyyaml, or write the names one a line "
            "into labels.txt. Received: a file to read without it"
        ) from error
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    depth = max(itertools.accumulate(steps), default=0)
    if depth > _YAML_DEPTH or len(text) > _YAML_BYTES:  # the parser takes minutes for them
        raise InputError(f"a .yaml file of class names must be a short one. Received: a long or deep one; {_REMEDY}")
    try:
        values = yaml.load(text, Loader=yaml.BaseLoader)  # text, lists and mappings: `no` is a name, not False
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"a .yaml file of class names must be YAML. Received: {reason}; {_REMEDY}") from error
    return _of_values(values, text)


def _of_values(values: Any, text: str) -> list[str]:
    """The names in the values of a JSON or YAML file."""
    for key in _NAMES_KEYS:
        if isinstance(values, dict) and isinstance(values.get(key), dict | list):
            values = values[key]
            break
    if isinstance(values, dict):
        pairs = [(str(key), _last_text(value)) for key, value in values.items()]
        numbered = None if all(isinstance(value, int) for value in values.values()) else _in_order(pairs)
        turned = [(str(value), str(key)) for key, value in values.items()]  # `class_indices` of Keras
        values = _in_order(turned) if numbered is None else numbered
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(
            "a file of class names must hold a list of names, or an object from 0, 1, ... to names or from names "
            f"to numbers. Received: {text[:60]!r}; {_REMEDY}"
        )
    return values


def _of_label_map(text: str) -> list[str]:
    """The names of a label map: `item { id: 1 name: 'cat' }`, of ids from 0 or 1; `display_name` where all have one."""
    refused = "a .pbtxt file of class names must hold items such as item { id: 1 name: 'cat' }. Received: "
    items: list[dict[str, str]] = []
    at, inside = 0, False
    while at < len(text):
        token = _PBTXT.match(text, at)
        if token is None:
            raise InputError(f"{refused}{text[at : at + 40]!r}; {_REMEDY}")
        at = token.end()
        if token["open"] and not inside:
            items.append({})
        elif token["field"] and inside:
            items[-1].setdefault(token["field"], _unquoted(token["value"]))
        elif not (token["close"] and inside) and (token["open"] or token["field"] or token["close"]):
            raise InputError(f"{refused}{token[0].strip()[:40]!r} in the wrong place; {_REMEDY}")
        inside = bool(token["open"]) or (inside and not token["close"])
    key = "display_name" if all("display_name" in item for item in items) else "name"
    if inside or not all("id" in item and key in item for item in items):
        raise InputError(f"{refused}an item without its end, id or name; {_REMEDY}")
    pairs = [(item["id"], item[key]) for item in items]
    names = _in_order(pairs) or _in_order([(str(int(n) - 1), name) for n, name in pairs if n.isdecimal() and int(n)])
    if names is None or len(names) != len(items):
        raise InputError(f"{refused}ids that are not 0, 1, ... or 1, 2, ... in a row; {_REMEDY}")
    return names


def _unquoted(value: str) -> str:
    """The text of a protocol buffer's value; its escapes are bytes of UTF-8."""
    if value[0] not in "\"'":
        return value
    content = re.sub(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", _unescaped, value[1:-1].encode(), flags=re.DOTALL)
    return content.decode(errors="replace").strip()


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, other = match.groups()
    if other is not None:
        return {b"n": b" ", b"t": b" ", b"r": b" "}.get(other, other)
    return bytes([(int(octal, 8) if octal else int(hexadecimal, 16)) & 255])


def _last_text(value: Any) -> Any:
    """The name, also where it follows a wnid: `["n01440764", "tench"]`."""
    return value[-1] if isinstance(value, list) and value else value


def _in_order(pairs: Sequence[tuple[str, Any]]) -> list[Any] | None:
    """The second of each pair in the order of the first, if these are the numbers from 0."""
    if not all(number.isascii() and number.isdigit() and len(number) < 8 for number, _ in pairs):
        return None
    ordered = sorted(((int(number), name) for number, name in pairs), key=lambda pair: pair[0])
    return [name for _, name in ordered] if [n for n, _ in ordered] == list(range(len(pairs))) else None


_READERS = {".json": _of_json, ".yaml": _of_yaml, ".yml": _of_yaml, ".pbtxt": _of_label_map}
