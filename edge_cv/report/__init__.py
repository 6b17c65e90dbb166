"""The report of a run: its values, `report.json`, the self-contained page `report.html`, and the terminal's table."""

from __future__ import annotations

from edge_cv.report.comparison import merge
from edge_cv.report.deprecated import add_methods
from edge_cv.report.files import load, save
from edge_cv.report.values import PhotoResult, Report, Row

__all__ = ["PhotoResult", "Report", "Row", "load", "merge", "save"]

add_methods()
