"""Untrusted text (names of files, classes and devices) on a terminal and in files."""

from __future__ import annotations

import unicodedata


def printable(text: str, replacement: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """The text without the control characters that a terminal would execute and XML cannot hold.

    Args:
        text: any text, also with halves of surrogate pairs, as a file name that is not UTF-8 has them.
        replacement: stands for each of these characters.
    """
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else replacement for c in text)


def encodable(text: str) -> str:
    """The text with each half of a surrogate pair as an escape, such as `\\udce9`, so that UTF-8 can encode it."""
    return text.encode(errors="backslashreplace").decode()
