"""Previous methods of `Report`, now functions. They will be removed in the next release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from edge_cv.report import files, page, terminal
from edge_cv.report.values import Report


def _moved(function: Callable[..., Any], method: str, name: str) -> Callable[..., Any]:
    """The function, with a warning that it was called by the name of the previous method."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"Report.{method} is deprecated: use {name}", DeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    return call


def add_methods() -> None:
    """Give `Report` its previous methods."""
    methods: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("save", files.save, "edge_cv.report.save"),
        ("to_dict", files.to_dict, "edge_cv.report.files.to_dict"),
        ("to_html", page.to_html, "edge_cv.report.page.to_html"),
        ("show", terminal.show, "edge_cv.report.terminal.show"),
    )
    readers: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("load", files.load, "edge_cv.report.load"),
        ("from_dict", files.from_dict, "edge_cv.report.files.from_dict"),
    )
    for method, function, name in methods:
        setattr(Report, method, _moved(function, method, name))
    for method, function, name in readers:
        setattr(Report, method, staticmethod(_moved(function, method, name)))
