"""Checks that a source of a model is refused."""

from __future__ import annotations

from typing import Any

import pytest

from converters import InputError
from converters.sources import open_source


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def refused(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_source(model)
    one_line(error)
