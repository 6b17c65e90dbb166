"""What a path stands for: the layouts that labelled photos come in, each opened as `Samples`."""

from __future__ import annotations

import os

from converters.errors import InputError
from edge_cv.data.digits import digits
from edge_cv.data.samples import Samples


def open_samples(path_or_name: str | os.PathLike, split: str | None = None) -> Samples:
    """The samples that a name or a path stands for.

    Args:
        path_or_name: `digits`.
        split: one of the source's splits; None is all of it.

    Raises:
        InputError: no such source, or no such split.
    """
    name = os.fspath(path_or_name)
    if name == "digits" and not os.path.exists(name):
        return digits(split)
    raise InputError(f"data must be digits. Received: {name}")
