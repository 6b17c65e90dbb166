"""Training and fine-tuning of any Keras 3 classifier, on whatever backend Keras runs.

`fit(model, batches, Fit(...))` trains; `devices.all_devices` spreads it over GPUs and hosts. Nothing here imports
TensorFlow unless it is Keras's backend, so that a GPU host with JAX alone can train.
"""

from __future__ import annotations

from edge_cv.training.loop import Fitted, fit

__all__ = ["Fitted", "fit"]
