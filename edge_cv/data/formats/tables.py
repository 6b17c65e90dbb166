"""Tables of images as text: CSV files of any usual separator, encoding and column names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError
from converters.files import open_regular

SEPARATORS = (",", ";", "\t")
FILE_COLUMNS = (
    *("file", "filename", "file_name", "path", "filepath", "file_path"),
    *("image", "image_path", "image_file", "image_name", "img", "img_path"),
)
ID_COLUMNS = ("image_id", "img_id", "photo_id", "picture_id", "photo", "picture", "id_code", "fname", "id")
"""Of names whose suffix may be missing, as in tables of Kaggle."""
CLASS_COLUMNS = (
    *("target", "diagnosis", "dx", "breed", "species", "variety", "type", "kind", "disease", "grade", "severity"),
    *("class_label", "class_id", "label_id", "label_name", "target_name", "ground_truth", "y"),
)
"""Of classes, where no column has a name of `LABEL_COLUMNS`."""
LABEL_COLUMNS = ("label", "class", "class_name", "category", "category_name")
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        file: the file, for messages.
        columns: the names in the header.
        text: what follows the header.
        separator: between the columns.
        header_lines: the lines before `text`.
    """

    file: Path
    columns: tuple[str, ...]
    text: str
    separator: str
    header_lines: int

    def column(self, names: Sequence[str]) -> str | None:
        """The first column with one of these names, upper case, spaces and hyphens aside; None without one."""
        plain = {_plain(column): column for column in reversed(self.columns)}
        return next((plain[name] for name in names if name in plain), None)

    def every(self, names: Sequence[str]) -> list[str]:
        """All columns with one of these names, in the order of the table."""
        return [column for column in self.columns if _plain(column) in names]

    def rows(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The number of the line and the values by column of each row that is not empty."""
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.separator)
        try:
            for values in reader:
                if any(values):
                    filled = [*values, *[""] * (len(self.columns) - len(values))]
                    yield self.header_lines + reader.line_num, dict(zip(self.columns, filled, strict=False))
        except csv.Error as error:
            raise InputError(f"{self.file} must be a readable CSV file. Received: {error}") from error


def read_table(file: Path) -> Table:
    """Open a table. The separator is the one of `SEPARATORS` that divides the header into the most columns.

    Raises:
        InputError: the file is missing, too large, or no text.
    """
    text = read_text_file(file, MAX_BYTES, "CSV file")
    if "\n" not in text:  # Excel's "CSV (Macintosh)"
        text = text.replace("\r", "\n")
    header, rest, lines = "", text, 0
    while rest and not header.strip():
        header, _, rest = rest.partition("\n")
        lines += 1
        if header.lower().startswith("sep=") and len(header.strip()) == 5:  # for Excel
            header = ""
    try:
        split = [next(csv.reader([header.rstrip("\r")], delimiter=separator), []) for separator in SEPARATORS]
    except csv.Error as error:
        raise InputError(f"{file} must be a readable CSV file. Received: {error}") from error
    columns = max(split, key=len)
    return Table(file, tuple(name.strip() for name in columns), rest, SEPARATORS[split.index(columns)], lines)


def read_text_file(file: Path, max_bytes: int, what: str = "text file") -> str:
    """The text of a file: UTF-8 or UTF-16 with or without a byte order mark, else Windows-1252 as Excel writes it.

    Raises:
        InputError: the file is missing, larger than `max_bytes`, or no text.
    """
    try:
        with open_regular(file) as opened:
            content = opened.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise InputError(f"{file} must be a {what} of at most {max_bytes:,} bytes. Received: a larger one")
    except OSError as error:
        raise InputError(f"{file} must be a readable {what}. Received: {error.strerror or error}") from error
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{file} must be a readable {what}. Received: bytes that are no text")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
