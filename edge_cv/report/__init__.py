"""What a run measured: as values, as `report.json`, as one self-contained `report.html`, as a table in the terminal."""

from __future__ import annotations

from edge_cv.report.comparison import merge
from edge_cv.report.values import PhotoResult, Report, Row

__all__ = ["PhotoResult", "Report", "Row", "merge"]
