"""Compression of trained models: channel pruning, weight pruning, weight clustering, quantization-aware training.

Every function takes a Keras 3 model, of this project or any other, and returns one. `compress` runs several stages in
order; the others run one. What requires Keras 2 (tensorflow-model-optimization) runs behind a conversion to tf_keras.
Importing this package loads no TensorFlow.

    from edge_cv import compression
    from edge_cv.recipe import Prune

    pruned = compression.prune(model, Prune(0.75), batches)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_cv.compression.channels import channel_prune, remove_channels
    from edge_cv.compression.clustering import cluster
    from edge_cv.compression.compression_stages import StageResult, compress
    from edge_cv.compression.fine_tuning import fine_tune
    from edge_cv.compression.pruning import prune, sparsity, total_sparsity
    from edge_cv.compression.qat import QuantizationAware, quantization_aware

__all__ = [
    "QuantizationAware",
    "StageResult",
    "channel_prune",
    "cluster",
    "compress",
    "fine_tune",
    "prune",
    "quantization_aware",
    "remove_channels",
    "sparsity",
    "total_sparsity",
]

_MODULES = {
    "QuantizationAware": "qat",
    "StageResult": "compression_stages",
    "channel_prune": "channels",
    "cluster": "clustering",
    "compress": "compression_stages",
    "fine_tune": "fine_tuning",
    "prune": "pruning",
    "quantization_aware": "qat",
    "remove_channels": "channels",
    "sparsity": "pruning",
    "total_sparsity": "pruning",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
