"""From a trained image classifier to a verified int8 model for a phone or a board, with a measured report.

Importing the package loads neither TensorFlow nor Keras; `edge_cv.models`, `edge_cv.pipeline` and the others do so
when they are used.
"""

from __future__ import annotations

import importlib

_MODULES = ("data", "evaluation", "models", "pipeline", "recipe", "report")

__all__ = list(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"edge_cv.{name}")
    raise AttributeError(f"module 'edge_cv' has no attribute {name!r}")
