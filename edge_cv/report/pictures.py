"""Writing a matplotlib figure into a picture file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from converters.errors import InputError, unknown
from converters.files import write_atomic
from converters.packages import require

FORMATS = ("png", "svg", "pdf")


def check_path(path: Path) -> str:
    """The picture format that a path's ending names.

    Raises:
        InputError: the ending is not .png, .svg or .pdf, the folder does not exist, or matplotlib is not installed.
    """
    require("a picture", "report")
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("format of a picture", path.name, [f"NAME.{name}" for name in FORMATS])
    if not path.parent.is_dir():
        raise InputError(f"the picture's folder must exist. Received: {path.parent}")
    return kind


def write_figure(figure: Any, path: Path, *, dpi: float) -> None:
    """Write a figure in the format that the path's ending names; raises InputError as `check_path` does."""
    content = io.BytesIO()
    figure.savefig(content, format=check_path(path), dpi=dpi)
    write_atomic(path, content.getvalue())
