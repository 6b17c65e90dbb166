"""Measuring artifacts: what they answer (`evaluate`), how fast they are (`measure`) and on what (`environment`).

The names are imported when they are first used: a worker process of `evaluate` starts with no more than it needs.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "Evaluation": "accuracy",
    "Latency": "latency",
    "Measurement": "measurement",
    "Performance": "benchmark",
    "Prediction": "accuracy",
    "Predictions": "accuracy",
    "Score": "scores",
    "describe_environment": "environment",
    "evaluate": "accuracy",
    "measure": "benchmark",
    "measure_in_turns": "benchmark",
    "measure_on": "remote",
    "wilson_interval": "scores",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"edge_cv.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edge_cv.evaluation' has no attribute {name!r}")
