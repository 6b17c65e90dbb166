"""Compression of trained models: channel pruning, weight pruning, weight clustering, quantization-aware training.

Every function takes a Keras 3 model, of this project or any other, and returns one. `compress` runs several stages in
order; the others run one. Importing this package loads neither Keras nor TensorFlow.

    from edge_cv import compression
    from edge_cv.recipe import Prune

    pruned = compression.prune(model, Prune(0.75), batches)

In your own training, with Keras's `fit`:

    model.fit(images, labels, epochs=5, callbacks=[compression.PruningCallback(Prune(0.75))])
    aware = compression.quantize_aware(model)  # compile and fit it, then:
    conversion = to_tflite(compression.strip(aware), Int8FromQat(compression.learned_ranges(aware)), calibration=images)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_cv.compression.channels import channel_prune, remove_channels
    from edge_cv.compression.clustering import cluster
    from edge_cv.compression.compression_stages import StageResult, compress
    from edge_cv.compression.fine_tuning import fine_tune
    from edge_cv.compression.pruning import PruningCallback, prune, sparsity, total_sparsity
    from edge_cv.compression.qat import QuantizationAware, learned_ranges, quantization_aware, quantize_aware
    from edge_cv.compression.simulated_network import strip

__all__ = [
    "PruningCallback",
    "QuantizationAware",
    "StageResult",
    "channel_prune",
    "cluster",
    "compress",
    "fine_tune",
    "learned_ranges",
    "prune",
    "quantization_aware",
    "quantize_aware",
    "remove_channels",
    "sparsity",
    "strip",
    "total_sparsity",
]

_MODULES = {
    "PruningCallback": "pruning",
    "QuantizationAware": "qat",
    "StageResult": "compression_stages",
    "channel_prune": "channels",
    "cluster": "clustering",
    "compress": "compression_stages",
    "fine_tune": "fine_tuning",
    "learned_ranges": "qat",
    "prune": "pruning",
    "quantization_aware": "qat",
    "quantize_aware": "qat",
    "remove_channels": "channels",
    "sparsity": "pruning",
    "strip": "simulated_network",
    "total_sparsity": "pruning",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
