"""Accuracy by group: top-1 for each value of a column of a table about the photos."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.evaluation.groups import Group, Grouping
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report, Row

SIGNIFICANT = 0.05

NOTE = (
    "A gap is significant if Fisher's exact test of the group against all other photos gives p < 0.05 after Holm's "
    "correction for the number of groups and columns tested. A gap that is not significant may still be real: the "
    "photos may be too few to show it. A significant gap may have another cause, such as other classes in the group."
)


def section(report: Report) -> Section | None:
    """A table for each column, and sentences on the significant gaps."""
    grouped = [(row, row.groups) for row in report.rows if row.groups]
    if not grouped:
        return None
    shown = main_pairs(grouped)
    first = shown[0][1]
    tables, sentences = [], []
    for grouping in first:
        same = [next((g for g in groups if g.column == grouping.column), None) for _, groups in shown]
        by_name = [{group.name: group for group in of.groups} if of else {} for of in same]
        tables.append(
            Table(
                f"By {grouping.column}",
                ((grouping.column, ""), ("Photos", ""), *((row.name, "top-1, 95 % interval") for row, _ in shown)),
                tuple(
                    (group.name, f"{group.images:,}", *(_share(of.get(group.name)) for of in by_name))
                    for group in grouping.groups
                ),
            )
        )
        sentences += [gaps(row.name, of) for (row, _), of in zip(shown, same, strict=True) if of]
    left_out = (
        f"{formats.photos(grouping.without)} without a value in “{grouping.column}” are left out."
        for grouping in first
        if grouping.without
    )
    return Section("Accuracy by group", _finding(shown), tuple(sentences), tuple(tables), notes=(NOTE, *left_out))


def _finding(shown: Sequence[tuple[Row, Sequence[Grouping]]]) -> str:
    """The group with the lowest accuracy of those that differ significantly, for the last model."""
    row, groupings = shown[-1]
    found = [(group.accuracy, group, one) for one in groupings for group in significant(one)]
    if not found:
        columns = formats.joined([f"“{one.column}”" for one in groupings])
        return f"The accuracy of {row.name} does not differ significantly between the groups of {columns}."
    _, worst, grouping = min(found, key=lambda entry: entry[0])
    change = "less" if worst.accuracy < (worst.others or 0) else "more"
    return (
        f"{row.name} is {change} accurate where “{grouping.column}” is “{worst.name}”: "
        f"{formats.percent(worst.accuracy, worst.images)} against {formats.percent(worst.others, worst.images)} on all "
        "other photos."
    )


def significant(grouping: Grouping) -> list[Group]:
    """The groups whose accuracy differs significantly from that of the other photos."""
    return [group for group in grouping.groups if group.p is not None and group.p < SIGNIFICANT]


def gaps(name: str, grouping: Grouping) -> str:
    """The groups whose accuracy differs significantly from the other photos', in one sentence."""
    groups, by = grouping.groups, f"{name} by {grouping.column}"
    if len(groups) < 2:
        only = f"all {formats.photos(groups[0].images)} are “{groups[0].name}”" if groups else "no photo has a value"
        return f"{by}: {only}, so there is nothing to compare."
    found = significant(grouping)
    if not found:
        shares = [group.accuracy for group in groups]
        gap = formats.points(100 * (max(shares) - min(shares)))
        return f"{by}: no significant gap; the largest, {gap} points, may be due to chance."
    parts = [
        f"“{group.name}” {formats.percent(group.accuracy, group.images)} against "
        f"{formats.percent(group.others, group.images)} on all other photos (p {_p_value(group.p or 0)})"
        for group in (found[:1] if len(groups) == 2 else found)
    ]
    return f"{by}: significant gap{'s' if len(parts) > 1 else ''} for {'; '.join(parts)}."


def _share(group: Group | None) -> str:
    if group is None:
        return formats.MISSING
    share = formats.percent(group.accuracy, group.images)
    return f"{share}\n{formats.interval(group.accuracy_ci95, group.images)}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
