"""Accuracy by the columns of a table about the photos: whether a model serves every group equally well."""

from __future__ import annotations

import bisect
import csv
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError, unknown
from edge_cv.evaluation.scores import wilson_interval

FILE_COLUMNS = ("file", "path")
MOST_VALUES = 12
"""A column of numbers with more different values than this is cut into quarters."""
MOST_GROUPS = 50
_TIE = 1 + 1e-7  # probabilities that differ by less are equal, as in R's fisher.test


@dataclass(frozen=True)
class Group:
    """The photos with one value in a column.

    Attributes:
        name: the value, or the range of a column of numbers.
        images: labelled photos.
        accuracy: share of them whose label came first.
        accuracy_ci95: Wilson's 95 % interval.
        others: accuracy on the rest of the column's photos; None where there is no rest.
        p: how likely chance alone makes a difference between this group and the rest at least as large: Fisher's exact
            test, two-sided, corrected after Holm for all the groups of all the columns asked for. None without a rest.
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
        groups: those with labelled photos.
        without: labelled photos that the table does not have, or has no value for.
    """

    column: str
    groups: tuple[Group, ...]
    without: int = 0


def read_columns(
    table: str | os.PathLike, columns: Sequence[str], files: Sequence[Path]
) -> dict[str, list[str | None]]:
    """What a CSV says about photos.

    A row belongs to the photo that its column `file` (or `path`) names: by its name, with as many of its folders as it
    takes to tell it from others. A column of numbers with more than 12 different ones is cut into quarters of equally
    many photos.

    Args:
        table: a CSV with a header.
        columns: the names of the columns to read.
        files: the photos.

    Returns:
        For each column the value of each photo, in the photos' order; None where there is none.

    Raises:
        InputError: the table cannot be read, lacks a column, names a photo twice or none of these photos, or a column
            has more than 50 different values that are no numbers.
    """
    table = Path(table)
    header, rows = _rows(table)
    key = next((name for name in FILE_COLUMNS if name in header), None)
    if key is None:
        raise InputError(
            f"{table} must have a column file that names the photos. Received: {', '.join(header) or 'no header'}"
        )
    if not columns:
        raise InputError("by must name at least one column. Received: none")
    for column in columns:
        if column not in header or column == key:
            raise unknown(f"column of {table}", column, [name for name in header if name != key])
    by_name: dict[str, Mapping[str, str]] = {}
    for line, row in rows:
        name = "/".join(part for part in (row[key] or "").replace("\\", "/").split("/") if part not in ("", "."))
        if not name:
            raise InputError(f"{table} line {line} must name a photo in its column {key}. Received: nothing")
        if by_name.setdefault(name, row) is not row:
            raise InputError(f"{table} must name each photo once. Received: {name} again in line {line}")
    found = _matched(files, by_name, table)
    if not any(found):
        raise InputError(
            f"{table} must name the photos that are measured, such as {files[0].name}. "
            f"Received: none of them among its {len(by_name)} rows"
        )
    return {
        column: _grouped([((row[column] or "").strip() or None) if row else None for row in found], column, table)
        for column in columns
    }


def group_scores(values: Mapping[str, Sequence[str | None]], right: Sequence[bool | None]) -> tuple[Grouping, ...]:
    """Accuracy by group.

    Args:
        values: for each column the group of each photo, as `read_columns` gives them.
        right: for each photo whether its label came first; None for a photo without a label.

    Returns:
        One Grouping a column, whose tests are corrected together.
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


def fisher_exact(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """The two-sided p-value of Fisher's exact test that two shares are the same.

    The sum of the probabilities of all tables with the same sums that are no likelier than the one observed.
    Source: Fisher (1922), On the interpretation of chi-squared from contingency tables, JRSS 85.
    """
    total = hits + other_hits
    low, high = max(0, total - other_trials), min(total, trials)

    def log_ways(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    every = log_ways(trials + other_trials, total)
    chances = [math.exp(log_ways(trials, k) + log_ways(other_trials, total - k) - every) for k in range(low, high + 1)]
    observed = chances[hits - low] * _TIE
    return min(1.0, math.fsum(chance for chance in chances if chance <= observed))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: each keeps its meaning when all of them are looked at.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _grouping(column: str, values: Sequence[str | None], right: Sequence[bool | None]) -> Grouping:
    counts: dict[str, list[int]] = {}
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
    groups = []
    for name, (group_hits, group_images) in sorted(counts.items(), key=lambda item: _order(item[0])):
        rest_hits, rest = hits - group_hits, images - group_images
        groups.append(
            Group(
                name,
                group_images,
                group_hits / group_images,
                wilson_interval(group_hits, group_images),
                rest_hits / rest if rest else None,
                fisher_exact(group_hits, group_images, rest_hits, rest) if rest else None,
            )
        )
    return Grouping(column, tuple(groups), without)


def _rows(table: Path) -> tuple[list[str], list[tuple[int, Mapping[str, str]]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [str(name) for name in reader.fieldnames or ()]
            return header, [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{table} must be a CSV that can be read: {reason}") from error


def _matched(
    files: Sequence[Path], by_name: Mapping[str, Mapping[str, str]], table: Path
) -> list[Mapping[str, str] | None]:
    """The row of each photo: that with the most of its path, if any."""
    depth = max((name.count("/") + 1 for name in by_name), default=0)
    found, owners = [], {}
    for file in files:
        parts = file.as_posix().strip("/").split("/")
        names = ("/".join(parts[-count:]) for count in range(min(depth, len(parts)), 0, -1))
        name = next((name for name in names if name in by_name), None)
        found.append(None if name is None else by_name[name])
        if name is not None and owners.setdefault(name, file) != file:
            raise InputError(
                f"{table} must name photos with as much of their folders as tells them apart. "
                f"Received: {name} for both {owners[name]} and {file}"
            )
    return found


def _grouped(values: list[str | None], column: str, table: Path) -> list[str | None]:
    """The values, numbers of many different values in quarters."""
    different = {value for value in values if value is not None}
    if len(different) <= MOST_VALUES:
        return values
    numbers = [None if value is None else _number(value) for value in values]
    if any(number is None and value is not None for number, value in zip(numbers, values, strict=True)):
        if len(different) > MOST_GROUPS:
            raise InputError(
                f"column {column} of {table} must have at most {MOST_GROUPS} different values, or numbers alone. "
                f"Received: {len(different)}"
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
    """Numbers by their size, then text."""
    number = _number(name.split(" to ")[0])
    return (math.inf if number is None else number, name)
