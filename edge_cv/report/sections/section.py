"""The parts of a section of the page, which the template shows in the same way for every section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One plot.

    Attributes:
        title, caption: above and below it.
        alt: its content in words, for readers who cannot see it.
        draw: returns the plot as SVG, in a fraction of a second.
        list: (name, value) lines below the caption, numbered from 1.
    """

    title: str
    caption: str
    alt: str
    draw: Callable[[], str]
    list: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above the table; "" for none.
        columns: (title, small text below it) of each column.
        rows: the cells of each row; text after a line break in a cell is small.
        texts: the number of columns, from the left, that hold text; the others hold figures.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Picture:
    """A JPEG and its caption."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Strip:
    """A row of pictures of one photo: title, a smaller line below it, and whether the prediction is wrong."""

    title: str
    under: str
    wrong: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page under a heading.

    Attributes:
        title: the heading.
        finding: the section's result, in one sentence below the heading.
        sentences: further paragraphs.
        tables, figures, strips: the content, in this order.
        notes: small paragraphs at the end, such as definitions.
    """

    title: str
    finding: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    strips: tuple[Strip, ...] = ()
    notes: tuple[str, ...] = ()
