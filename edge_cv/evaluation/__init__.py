"""Evaluation of models: accuracy (`evaluate`), latency and memory (`measure`, `measure_on`) and the environment.

The names are imported on first use, so that a worker process of `evaluate` loads no more than it needs.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Evaluation": "accuracy",
    "Latency": "latency",
    "Measurement": "measurement",
    "Performance": "benchmark",
    "Prediction": "predictions",
    "Predictions": "predictions",
    "Score": "scores",
    "describe_environment": "environment",
    "evaluate": "accuracy",
    "measure": "benchmark",
    "measure_in_turns": "benchmark",
    "measure_on": "remote",
    "wilson_interval": "scores",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"edge_cv.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edge_cv.evaluation' has no attribute {name!r}")
