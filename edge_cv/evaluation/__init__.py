"""Evaluation of models: accuracy (`evaluate`), latency and memory (`measure`, `measure_on`) and the environment.

The names are imported on first use, so that a worker process of `evaluate` loads no more than it needs.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_cv.evaluation.accuracy import Evaluation, evaluate
    from edge_cv.evaluation.benchmark import Performance, measure, measure_in_turns
    from edge_cv.evaluation.environment import describe_environment
    from edge_cv.evaluation.latency import Latency
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.evaluation.predictions import Prediction, Predictions
    from edge_cv.evaluation.remote import measure_on
    from edge_cv.evaluation.scores import Score
    from edge_cv.intervals import wilson_interval

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
    "wilson_interval": ".intervals",
}

__all__ = [
    "Evaluation",
    "Latency",
    "Measurement",
    "Performance",
    "Prediction",
    "Predictions",
    "Score",
    "describe_environment",
    "evaluate",
    "measure",
    "measure_in_turns",
    "measure_on",
    "wilson_interval",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name == "sqnr_db":
        from converters.parity import sqnr_db

        warnings.warn(
            "edge_cv.evaluation.sqnr_db is deprecated: use converters.parity.sqnr_db", DeprecationWarning, stacklevel=2
        )
        return sqnr_db
    raise AttributeError(f"module 'edge_cv.evaluation' has no attribute {name!r}")
