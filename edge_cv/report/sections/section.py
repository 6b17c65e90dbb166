"""What a section of the page is made of: one function makes a `Section` of a Report, and the template shows any.

To add one, write the function, return None where the report has nothing for it, and add it to `page.SECTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One plot: its title, what it says in words for who cannot see it, and its SVG."""

    title: str
    caption: str
    alt: str
    svg: str
    list: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above it; "" for none.
        columns: (title, what stands small under it) of each column.
        rows: the cells of each row; in a cell what follows a line break stands small under it.
        texts: so many of the first columns are text, the others figures.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Picture:
    """A JPEG, and what stands under it."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, in a row: its title, a smaller line under that, and whether it is of a mistake."""

    title: str
    under: str
    wrong: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page under a heading.

    Attributes:
        title: the heading.
        sentences: paragraphs under it.
        tables, figures, strips: what follows, in this order.
        notes: small paragraphs at its end, such as definitions.
    """

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    strips: tuple[Strip, ...] = ()
    notes: tuple[str, ...] = ()
