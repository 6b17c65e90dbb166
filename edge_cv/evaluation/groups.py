"""Accuracy by group: does the model work equally well for all values of a column of a table about the images?"""

from __future__ import annotations

import bisect
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError, unknown
from edge_cv.intervals import wilson_interval

MOST_VALUES = 12
"""A column of numbers with more distinct values than this is divided into quarters."""
MOST_GROUPS = 50


@dataclass(frozen=True)
class Group:
    """The images with one value in a column.

    Attributes:
        name: the value, or the range of numbers.
        images: labelled images.
        accuracy: share 0..1 of them whose label is the first class.
        accuracy_ci95: Wilson's 95 % interval.
        others: accuracy on the column's other images; None if there are none.
        p: p-value of the difference between this group and the others: Fisher's exact test, two-sided, with Holm's
            correction for all groups of all requested columns. None if there are no others.
    """

    name: str
    images: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    others: float | None
    p: float | None


@dataclass(frozen=True)
class Grouping:
    """The groups of one column, in the order of their names.

    Attributes:
        column: its name.
        groups: those with labelled images.
        without: labelled images that are not in the table or have no value there.
    """

    column: str
    groups: tuple[Group, ...]
    without: int = 0


def read_columns(
    table: str | os.PathLike, columns: Sequence[str], files: Sequence[Path]
) -> dict[str, list[str | None]]:
    """The values of a CSV's columns for each image.

    A row belongs to the image that its column `file` (or `path`, `image_id`) names, with or without the suffix. A file
    name is enough where it is unique, else it is preceded by as many folders as are necessary. A column of numbers with
    more than 12 distinct values is divided into quarters of equally many images.

    Args:
        table: a CSV file with a header.
        columns: names of the columns to read.
        files: the images.

    Returns:
        For each column the value of each image, in the order of `files`; None where the table has no value.

    Raises:
        InputError: the table cannot be read, lacks a column, has two rows for an image or none for all of them, or a
            column has more than 50 distinct values that are not numbers.
    """
    from edge_cv.data.formats.tables import FILE_COLUMNS, ID_COLUMNS, read_table

    table = Path(table)
    opened = read_table(table)
    header, key = opened.columns, opened.column((*FILE_COLUMNS, *ID_COLUMNS))
    if key is None:
        raise InputError(
            f"{table} must have a column file with the images' names. Received: {', '.join(header) or 'no header'}"
        )
    if not columns:
        raise InputError("by must name at least one column. Received: none")
    for column in columns:
        if column not in header or column == key:
            raise unknown(f"column of {table}", column, [name for name in header if name != key])
    by_name: dict[str, Mapping[str, str]] = {}
    for line, row in opened.rows():
        name = "/".join(part for part in (row[key] or "").replace("\\", "/").split("/") if part not in ("", "."))
        if not name:
            raise InputError(f"{table} line {line} must name an image in its column {key}. Received: an empty value")
        if by_name.setdefault(name, row) is not row:
            raise InputError(f"{table} must have one row for each image. Received: {name} again in line {line}")
    matched = _matched(files, by_name, table)
    if not any(matched):
        raise InputError(
            f"{table} must name the evaluated images, such as {files[0].name}. "
            f"Received: none of them in its {len(by_name)} rows"
        )
    return {
        column: _grouped([((row[column] or "").strip() or None) if row else None for row in matched], column, table)
        for column in columns
    }


def group_scores(values: Mapping[str, Sequence[str | None]], right: Sequence[bool | None]) -> tuple[Grouping, ...]:
    """Accuracy by group, with tests that are corrected for the number of groups.

    Args:
        values: for each column the group of each image, as `read_columns` returns them.
        right: for each image whether its label is the first class; None for an image without a label.

    Returns:
        One Grouping for each column.
    """
    groupings = [_grouping(column, groups, right) for column, groups in values.items()]

    def test(grouping: Grouping, place: int) -> tuple[str, int]:
        return grouping.column, 0 if len(grouping.groups) == 2 else place  # of two groups, each is the other's rest

    tests = {test(g, place): group.p for g in groupings for place, group in enumerate(g.groups) if group.p is not None}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return tuple(
        dataclasses.replace(
            grouping,
            groups=tuple(
                dataclasses.replace(group, p=corrected.get(test(grouping, place)))
                for place, group in enumerate(grouping.groups)
            ),
        )
        for grouping in groupings
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values with Holm's step-down correction, which bounds the probability of any false positive.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _grouping(column: str, values: Sequence[str | None], right: Sequence[bool | None]) -> Grouping:
    counts: dict[str, list[int]] = {}  # hits and images of each group
    without = 0
    for value, is_right in zip(values, right, strict=True):
        if is_right is None:
            continue
        if value is None:
            without += 1
            continue
        count = counts.setdefault(value, [0, 0])
        count[0] += bool(is_right)
        count[1] += 1
    hits, images = (sum(count[i] for count in counts.values()) for i in (0, 1))
    groups = tuple(
        _group(name, group_hits, group_images, hits - group_hits, images - group_images)
        for name, (group_hits, group_images) in sorted(counts.items(), key=lambda item: _order(item[0]))
    )
    return Grouping(column, groups, without)


def _group(name: str, hits: int, images: int, other_hits: int, others: int) -> Group:
    accuracy, interval = hits / images, wilson_interval(hits, images)
    if not others:
        return Group(name, images, accuracy, interval, None, None)
    from scipy.stats import fisher_exact

    p = float(fisher_exact([[hits, images - hits], [other_hits, others - other_hits]]).pvalue)
    return Group(name, images, accuracy, interval, other_hits / others, p)


def _matched(
    files: Sequence[Path], by_name: Mapping[str, Mapping[str, str]], table: Path
) -> list[Mapping[str, str] | None]:
    """The row of each image: the one that names most of its path; None if there is none."""
    depth = max((name.count("/") + 1 for name in by_name), default=0)
    rows: list[Mapping[str, str] | None] = []
    owners: dict[str, Path] = {}
    for file in files:
        parts = file.as_posix().strip("/").split("/")
        paths = ("/".join(parts[-count:]) for count in range(min(depth, len(parts)), 0, -1))
        names = (name for path in paths for name in (path, os.path.splitext(path)[0]))
        name = next((name for name in names if name in by_name), None)
        rows.append(None if name is None else by_name[name])
        if name is not None and owners.setdefault(name, file) != file:
            raise InputError(
                f"{table} must name images with enough of their folders to distinguish them. "
                f"Received: {name} for both {owners[name]} and {file}"
            )
    return rows


def _grouped(values: list[str | None], column: str, table: Path) -> list[str | None]:
    """The values; numbers with many distinct values are replaced by the range of their quarter."""
    distinct = {value for value in values if value is not None}
    if len(distinct) <= MOST_VALUES:
        return values
    numbers = [None if value is None else _number(value) for value in values]
    if any(number is None and value is not None for number, value in zip(numbers, values, strict=True)):
        if len(distinct) > MOST_GROUPS:
            raise InputError(
                f"column {column} of {table} must have at most {MOST_GROUPS} distinct values, or only numbers. "
                f"Received: {len(distinct)}"
            )
        return values
    ordered = sorted(number for number in numbers if number is not None)
    ends = sorted({ordered[math.ceil(len(ordered) * part / 4) - 1] for part in (1, 2, 3, 4)})
    quarters: list[list[float]] = [[] for _ in ends]
    for number in ordered:
        quarters[bisect.bisect_left(ends, number)].append(number)
    return [None if number is None else _range(quarters[bisect.bisect_left(ends, number)]) for number in numbers]


def _range(numbers: Iterable[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _order(name: str) -> tuple[float, str]:
    """A sort key: numbers by their size, then text."""
    number = _number(name.split(" to ")[0])
    return (math.inf if number is None else number, name)
