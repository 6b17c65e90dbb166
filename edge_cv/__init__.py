"""From a trained image classifier to a verified int8 model for a phone or a board, with a measured report.

    from edge_cv import models
    model = models.build("mobilenet_v2", weights="imagenet")

Importing the package loads neither TensorFlow nor Keras. A sub-package, such as `edge_cv.models`, is imported on first
use.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "compression",
    "data",
    "deploy",
    "evaluation",
    "models",
    "parallel",
    "pipeline",
    "recipe",
    "report",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"edge_cv.{name}")
    raise AttributeError(f"module 'edge_cv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
