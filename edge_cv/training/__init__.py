"""Training and fine-tuning of any Keras 3 classifier, on every backend that Keras supports.

`fit(model, batches, Fit(...))` trains a model; `devices.all_devices` distributes the work over GPUs and hosts.
TensorFlow is imported only when it is Keras's backend, so a GPU host that has JAX alone can train.
"""

from __future__ import annotations

from edge_cv.training.loop import fit
from edge_cv.training.state import Fitted

__all__ = ["Fitted", "fit"]
