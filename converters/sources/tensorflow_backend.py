"""Keras's TensorFlow backend, which conversion needs."""

from __future__ import annotations

import os
import sys

from converters.errors import InputError
from converters.native_logs import import_tensorflow


def require_tensorflow_backend() -> None:
    """Import Keras; raise InputError where it runs on another backend."""
    if "keras" not in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "conversion needs Keras's TensorFlow backend: save the model and convert the .keras file with "
            f"KERAS_BACKEND=tensorflow. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
