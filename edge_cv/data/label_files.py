"""Files of class names, as the usual tools write them."""

from __future__ import annotations

import csv
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


def read_label_file(file: Path) -> list[str]:
    """The class names of a file in the order of the model's outputs.

    A line a name, also in quotes, after a wnid or numbered from 0 (`0 apple`, as Teachable Machine writes it); one line
    of all names with a separator; a CSV table of numbers and names; or JSON: a list, or an object from numbers to names
    or from names to numbers.

    Raises:
        InputError: the file cannot be read, or holds no names.
    """
    text = read_text_file(file, MAX_BYTES)
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    lines = [line for line in lines if line]
    names = _of_json(text) if file.suffix.lower() == ".json" else _of_table(lines) or _of_lines(lines)
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
    if isinstance(values, dict) and isinstance(values.get("id2label"), dict):  # config.json of Hugging Face
        values = values["id2label"]
    if isinstance(values, dict):
        pairs = [(str(key), _last_text(value)) for key, value in values.items()]
        if all(isinstance(value, int) for value in values.values()):  # `class_indices` of Keras
            pairs = [(str(value), key) for key, value in values.items()]
        values = _in_order(pairs)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(
            "a .json file of class names must hold a list of names, or an object from 0, 1, ... to names or from names "
            f"to numbers. Received: {text[:60]!r}"
        )
    return values


def _last_text(value: Any) -> Any:
    """The name, also where it follows a wnid: `["n01440764", "tench"]`."""
    return value[-1] if isinstance(value, list) and value else value


def _in_order(pairs: Sequence[tuple[str, Any]]) -> list[Any] | None:
    """The second of each pair in the order of the first, if these are the numbers from 0."""
    if not all(number.isascii() and number.isdigit() and len(number) < 8 for number, _ in pairs):
        return None
    ordered = sorted((int(number), name) for number, name in pairs)
    return [name for _, name in ordered] if [n for n, _ in ordered] == list(range(len(pairs))) else None
